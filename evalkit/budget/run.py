"""One run of a suite on so many GPUs, and all that is asked for: seconds to the end, and seconds of all workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evalkit.budget.models import Gpu, sampling_seconds, training_seconds
from evalkit.budget.order import Order
from evalkit.budget.rates import STATIC, Level
from evalkit.budget.schedule import Shared, queue, shards, share, spread
from evalkit.budget.work import Asked
from evalkit.flops.work import ModelWork
from evalkit.protocol import FLICKERING_SAMPLES
from evalkit.static_filter import KEPT


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the suite on so many GPUs: seconds by the clock, seconds of all workers, how many there were."""

    wall: float
    busy: float
    used: int
    imbalance: float


def whole(order: Order, gpus: int, level: Level) -> Run:
    """Everything: what is shared first, then runs side by side, or one after the other where GPUs are too few."""
    first = [model for model in order.models if not model.seeds]
    before = sum(training_seconds(model, _gpu(order), gpus) for model in first)
    before_busy = sum(training_seconds(model, _gpu(order), 1) for model in first)
    each = max(1, gpus // order.runs)
    scoring = score_run(order, each, level)
    models = [model for model in order.models if model.seeds]
    made = [_making(order, model, each) for model in models] or [0.0] * order.variants
    walls = [(seconds + scoring.wall) for seconds in made for _ in range(order.seeds)]
    busy = sum(_making(order, model, 1) for model in models) * order.seeds + scoring.busy * order.runs
    wall = queue(walls, gpus) if gpus < order.runs else max(walls)
    making = max(each, scoring.used) if models else scoring.used
    used = min(gpus, order.runs) if gpus < order.runs else making * order.runs
    return Run(before + wall, before_busy + busy, used, scoring.imbalance)


def _making(order: Order, model: ModelWork, gpus: int) -> float:
    """Seconds to train a model and to sample its videos."""
    gpu = _gpu(order)
    return training_seconds(model, gpu, gpus) + sampling_seconds(model, order.work.files, gpu, gpus)


def _gpu(order: Order) -> Gpu:
    assert order.gpu is not None, "checked when the order was made"
    return order.gpu


def score_run(order: Order, gpus: int, level: Level = "mean") -> Run:
    """One run of the suite: hosts score their shards, and one process does the serial stages."""
    machine, work = order.machine, order.work
    hosts = spread(gpus, machine.per_host)
    parts = shards(tuple(prompt.files for prompt in work.asked), len(hosts))
    ends: list[float] = []
    busy, used, works = 0.0, 0, 0.0
    for workers, indices in zip(hosts, parts, strict=True):
        done = _host(order, [work.asked[i] for i in indices], workers, level)
        if done.workers:
            ends.append(machine.startup + done.makespan)
            busy += done.busy + machine.startup * done.workers
            used += done.workers
            works += done.busy
    serial = sum(stage(work.videos) for stage in order.rates.serial.values())
    longest = max(ends, default=machine.startup)
    mean = works / used if used else 0.0
    imbalance = (longest - machine.startup) / mean if mean else 1.0
    return Run(serial + longest, serial + busy, used, imbalance)


def _host(order: Order, prompts: Sequence[Asked], workers: int, level: Level) -> Shared:
    """The workers of a host share its prompts' videos, after the static filter has looked at its candidates.

    The filter takes a prompt's candidates one after the other, and its workers are started for it alone.
    """
    cores = order.machine.cores_each(workers)
    most = KEPT if level == "low" else FLICKERING_SAMPLES
    looked = [min(prompt.candidates, most) for prompt in prompts if prompt.candidates]
    filtering = [count * _video(order, (STATIC,), cores, level) for count in looked]
    videos = {video for prompt in prompts for video in prompt.videos}
    seconds = {video: _video(order, video, cores, level) for video in videos}
    scoring = [seconds[video] for prompt in prompts for video in prompt.videos]
    start = order.rates.start.at(level) if order.rates.start else order.machine.startup
    spawned = start * (1 + bool(filtering)) if workers > 1 else 0.0  # a single worker is the command itself
    return share([filtering, scoring], workers, spawned + order.rates.setup.at(level))


def _video(order: Order, dimensions: tuple[str, ...], cores: float | None, level: Level) -> float:
    """Seconds a worker takes for a video.

    A worker is two processes, one for the networks and one that decodes ahead, each of which fills a core at most: the
    slower one decides, or, with fewer than two cores, their sum over the cores.
    """
    rates = order.rates
    networks, decode = rates.networks(dimensions, order.work, level), rates.decode.at(level)
    bound = 0.0 if cores is None else (networks + decode) / cores
    return max(networks, decode, bound)


def constant_seconds(order: Order) -> dict[str, float]:
    stages = {name: stage(order.work.videos) for name, stage in order.rates.serial.items()}
    return {"startup": order.machine.startup, "loading networks": order.rates.setup.mean, **stages}


def stages_on_one(order: Order) -> dict[str, float]:
    """Seconds on one GPU, all runs together; they add up to the time on one GPU."""
    scoring = score_run(replace(order, variants=1, seeds=1), 1).wall
    found = {}
    models = [(model, order.seeds if model.seeds else 1) for model in order.models]
    if models:
        gpu = _gpu(order)
        found["train"] = sum(training_seconds(model, gpu, 1) * times for model, times in models)
        found["generate"] = sum(
            sampling_seconds(model, order.work.files, gpu, 1) * times for model, times in models if model.seeds
        )
    serial = constant_seconds(order)
    found["score"] = (scoring - sum(serial.values())) * order.runs
    return found | {name: seconds * order.runs for name, seconds in serial.items()}
