"""From what is asked for to a row for each number of GPUs."""

from __future__ import annotations

from dataclasses import dataclass, field

from evalkit.budget.order import Order
from evalkit.budget.rates import LEVELS, STATIC, Level
from evalkit.budget.run import constant_seconds, stages_on_one, whole
from evalkit.budget.schedule import worth_doubling_to
from evalkit.budget.storage import Item, storage


@dataclass(frozen=True, slots=True)
class Span:
    """A mean with the least and the greatest that the range of the rates gives."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """The whole plan on a number of GPUs.

    Args:
        gpus: how many.
        used: how many have something to do.
        wall: seconds to the end.
        gpu_hours: that GPUs are at work, loading networks included.
        held_hours: that they are held if none is given back before the end.
        efficiency: time on one GPU over GPUs times time.
        imbalance: the busiest worker's time over that of all on average.
    """

    gpus: int
    used: int
    wall: Span
    gpu_hours: Span
    held_hours: Span
    efficiency: float
    imbalance: float


@dataclass(frozen=True)
class Plan:
    """What it costs.

    Args:
        order: what was asked for.
        rows: one for each number of GPUs.
        one_gpu: seconds on one GPU, by stage.
        serial: seconds that no further GPU shortens: start, loading networks, and the serial stages.
        serial_fraction: their share of the time on one GPU.
        worth_doubling_to: the GPUs beyond which twice as many save less than a tenth.
        storage: files.
        unknown: networks that were neither measured nor stated: the plan is a lower bound.
        stated: dimensions that are reckoned at the stated rate although others were measured.
        decode_cores: cores that each GPU needs for frames to be ready in time; None if decoding is not apart.
    """

    order: Order
    rows: tuple[Row, ...]
    one_gpu: dict[str, float]
    serial: dict[str, float]
    serial_fraction: float
    worth_doubling_to: int
    storage: tuple[Item, ...]
    unknown: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stated: dict[str, tuple[str, ...]] = field(default_factory=dict)
    decode_cores: float | None = None


def make_plan(order: Order) -> Plan:
    """Plan it for each number of GPUs."""
    lacking = order.rates.unmeasured(order.work)
    known = order.rates.per_result is not None
    shown = {d: names for d, names in lacking.items() if order.rates.measured}
    serial = constant_seconds(order)
    one = whole(order, 1, "mean")
    fraction = min(1.0, sum(serial.values()) / one.wall) if one.wall else 1.0
    units = order.runs * max([order.work.videos, *(model.batch for model in order.models)])
    return Plan(
        order=order,
        rows=tuple(_row(order, gpus, one.wall) for gpus in sorted(set(order.gpus))),
        one_gpu=stages_on_one(order),
        serial=serial,
        serial_fraction=fraction,
        worth_doubling_to=worth_doubling_to(fraction, units),
        storage=storage(order.work, order.runs, order.clip, order.sizes, order.models, order.seeds),
        unknown={d: names for d, names in shown.items() if not known or d == STATIC},
        stated={d: names for d, names in shown.items() if known and d != STATIC},
        decode_cores=_decode_cores(order),
    )


def _row(order: Order, gpus: int, one: float) -> Row:
    found = {level: whole(order, gpus, level) for level in LEVELS}
    mean = found["mean"]

    def span(read: dict[Level, float]) -> Span:
        return Span(read["mean"], read["low"], read["high"])

    return Row(
        gpus=gpus,
        used=mean.used,
        wall=span({level: run.wall for level, run in found.items()}),
        gpu_hours=span({level: run.busy / 3600 for level, run in found.items()}),
        held_hours=span({level: run.wall * gpus / 3600 for level, run in found.items()}),
        efficiency=one / (gpus * mean.wall) if mean.wall else 1.0,
        imbalance=mean.imbalance,
    )


def _decode_cores(order: Order) -> float | None:
    """Cores of a GPU that keep decoding ahead: one drives the networks, the others decode."""
    rates, results = order.rates, order.work.results
    if not rates.decode.mean or not results:
        return None
    videos = [video for prompt in order.work.asked for video in prompt.videos]
    networks = sum(rates.networks(video, order.work, "mean") for video in videos) / len(videos)
    return 1 + rates.decode.mean / networks if networks else None
