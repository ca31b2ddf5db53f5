"""Plans from stated and measured rates: published totals, closed forms, and what holds for any rates."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit import timings
from evalkit.budget import Machine, Order, Plan, make_plan, notes, to_json
from evalkit.budget.models import Gpu, checkpoint_bytes, find_gpu
from evalkit.budget.rates import Affine, Clip, Rate, Rates
from evalkit.budget.resolve import count_variants, resolve
from evalkit.budget.work import Asked, Work, work_of
from evalkit.errors import UserError
from evalkit.flops.work import ModelWork
from evalkit.timings import Spent, Timings

HOUR = 3600.0
SIXTEEN = {"cpu": "Example CPU", "cores": 16, "gpu": "Example GPU"}


def plain(count: int, dimensions: tuple[str, ...] = ("d",), per_prompt: int = 1) -> Work:
    """A work of `count` prompts, all asked for the same dimensions, each of which reads a network of its own."""
    asked = tuple(Asked((dimensions,) * per_prompt) for _ in range(count))
    return Work("mine", count, per_prompt, asked, {d: (f"net_{d}",) for d in dimensions}, "lite", False)


def rates(serial: float = 0.0, setup: float = 0.0, decode: float = 0.0, **features: float) -> Rates:
    return Rates(
        source="made up",
        serial={"identify": Affine(serial, 0.0)},
        device="cuda",
        hardware="Example GPU",
        features={f"net_{name}": Rate.exactly(seconds) for name, seconds in features.items()},
        setup=Rate.exactly(setup),
        decode=Rate.exactly(decode),
        commands=1,
    )


def order(work: Work, found: Rates, *gpus: int, **more: Any) -> Order:
    machine = more.pop("machine", Machine(per_host=10_000, startup=0.0))
    return Order(work, found, found.clip, gpus or (1,), machine=machine, **more)


def wall(plan: Plan) -> dict[int, float]:
    return {row.gpus: row.wall.mean for row in plan.rows}


def test_the_papers_160_hours() -> None:
    work = work_of("full", "official")
    found = resolve(work, (), Clip())
    plan = make_plan(Order(work, found.rates, found.clip, (1,), machine=Machine(startup=0.0)))
    assert plan.one_gpu["score"] / HOUR == pytest.approx(160.0, rel=1e-9)
    assert plan.rows[0].gpu_hours.mean == pytest.approx(160.0 + sum(plan.serial.values()) / HOUR, rel=1e-9)
    assert any("stated, not measured" in note and "over 160 hours" in note for note in notes(plan))


def test_the_papers_4_hours_for_50_prompts() -> None:
    work = work_of("custom50", "official")
    plan = make_plan(Order(work, resolve(work, (), Clip()).rates, Clip(), (1,), machine=Machine(startup=0.0)))
    assert plan.one_gpu["score"] / HOUR == pytest.approx(4.0, rel=1e-9)


@given(st.integers(1, 300), st.integers(1, 64), st.floats(0.1, 100), st.floats(0, 50), st.floats(0, 50))
@settings(max_examples=60)
def test_equal_videos_in_closed_form(count: int, n: int, each: float, serial: float, setup: float) -> None:
    plan = make_plan(order(plain(count), rates(serial, setup, d=each), 1, n))
    assert wall(plan)[n] == pytest.approx(serial + setup + math.ceil(count / n) * each, rel=1e-9)
    assert wall(plan)[1] == pytest.approx(sum(plan.one_gpu.values()), rel=1e-9)
    assert plan.rows[0].gpu_hours.mean * HOUR == pytest.approx(wall(plan)[1], rel=1e-9)
    assert plan.serial_fraction == pytest.approx((serial + setup) / wall(plan)[1], rel=1e-9)
    if count % n == 0:  # nothing is lost to granularity: Amdahl's law itself
        f = plan.serial_fraction
        assert wall(plan)[1] / wall(plan)[n] == pytest.approx(1 / (f + (1 - f) / n), rel=1e-6)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=4), st.integers(2, 30), st.integers(1, 6), st.data())
@settings(max_examples=60)
def test_more_gpus_never_take_longer_and_never_cost_less(
    each: list[float], count: int, runs: int, data: st.DataObject
) -> None:
    names = [f"d{i}" for i in range(len(each))]
    asked = tuple(
        Asked((tuple(data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))),)) for _ in range(count)
    )
    work = Work("mine", count, 1, asked, {d: (f"net_{d}",) for d in names}, "lite", False)
    found = rates(1.0, 2.0, **dict(zip(names, each, strict=True)))
    plan = make_plan(order(work, found, *range(1, 40), variants=runs))
    for fewer, more in zip(plan.rows, plan.rows[1:], strict=False):
        assert more.wall.mean <= fewer.wall.mean * (1 + 1e-9)
        assert more.gpu_hours.mean >= fewer.gpu_hours.mean * (1 - 1e-9)
        assert more.efficiency <= 1 + 1e-9
        assert more.held_hours.mean >= more.gpu_hours.mean * (1 - 1e-9)


def test_hosts_wait_for_the_one_with_the_longest_prompts() -> None:
    """Two hosts of one GPU: three quick prompts and a slow one; whole prompts go to one host or the other."""
    work = plain(4, ("a", "b"))
    quick, slow = Asked((("a",),)), Asked((("b",),))
    work = replace(work, asked=(quick, quick, quick, slow))
    plan = make_plan(order(work, rates(a=1.0, b=10.0), 1, 2, machine=Machine(per_host=1, startup=3.0)))
    assert wall(plan) == {1: 3 + 13.0, 2: 3 + 11.0}
    assert plan.rows[1].imbalance == pytest.approx(11 / 6.5)
    assert plan.rows[1].gpu_hours.mean * HOUR == pytest.approx(13 + 2 * 3)


def test_a_prompts_videos_stay_on_a_host() -> None:
    plan = make_plan(order(plain(3, per_prompt=5), rates(d=2.0), 1, 16, machine=Machine(per_host=1, startup=0.0)))
    assert wall(plan) == {1: 30.0, 16: 10.0}
    assert (plan.rows[1].gpus, plan.rows[1].used) == (16, 3)


def test_too_few_cores_hold_the_networks_up() -> None:
    """Decoding takes 3 s of a core, the networks 2 s: the slower decides; on one core they take turns."""
    work, found = plain(10), rates(d=2.0, decode=3.0)

    def seconds(cores: int | None) -> float:
        return wall(make_plan(order(work, found, machine=Machine(8, cores, 0.0))))[1]

    assert (seconds(None), seconds(2), seconds(1)) == (30.0, 30.0, 50.0)
    eight = make_plan(order(work, found, 8, machine=Machine(8, 4, 0.0)))
    assert wall(eight)[8] == 2 * (2.0 + 3.0) / 0.5
    assert eight.decode_cores == 1 + 3.0 / 2.0


def test_runs_go_side_by_side_or_in_turns() -> None:
    made = make_plan(order(plain(6), rates(5.0, d=1.0), 1, 2, 4, 12, 24, variants=2, seeds=2))
    # four runs of 6 + 5 s: all after another, two by two, one GPU each, three GPUs each, six each
    assert wall(made) == {1: 44.0, 2: 22.0, 4: 11.0, 12: 7.0, 24: 6.0}
    assert made.one_gpu == {"score": 24.0, "startup": 0.0, "loading networks": 0.0, "identify": 20.0}


def test_the_static_filter_comes_first() -> None:
    work = Work(
        "full", 1, 5, (Asked((("f",),) * 5, 25),), {"f": ("net_f",), "static_filter": ("net_s",)}, "official", True
    )
    found = rates(f=1.0, s=2.0)
    plan = make_plan(order(work, found, 1, 10))
    assert wall(plan) == {1: 25 * 2 + 5, 10: 25 * 2 + 1}  # a prompt's candidates are looked at one after the other
    assert plan.rows[0].wall.low == 5 * 2 + 5  # each of the first five may stand still
    assert any("up to 25 videos" in note for note in notes(plan))


# --- measured ---------------------------------------------------------------------------------------------------------


def command(seconds: float = 30.0, videos: int = 10, frames: int = 20, **changes: Any) -> Timings:
    """A command in which networks `a` and `viclip` took 60 and 30 % of the time, and the rest went elsewhere."""
    total = frames * videos
    fields: dict[str, Any] = {
        "device": "cuda:0",
        "hardware": SIXTEEN,
        "workers": 2,
        "wall": {"identify": 1.0, "score": seconds, "summarise": 0.5, "report": 2.0},
        "score": Spent(seconds, videos, total),
        "setup": Spent(12.0, 2, 0),
        "features": {
            "net_a": Spent(0.6 * seconds, videos, total),
            "viclip": Spent(0.3 * seconds, videos, total),
        },
    }
    return Timings(**fields | changes)


def measured(tmp_path: Path, *commands: Timings) -> Path:
    tmp_path.mkdir(exist_ok=True)
    for found in commands:
        timings.keep(tmp_path, found)
    return tmp_path


def two(count: int = 40) -> Work:
    features = {"a": ("net_a",), "overall": ("viclip",)}
    return replace(plain(count, ("a", "overall")), features=features)


def test_measured_rates_are_seconds_over_videos(tmp_path: Path) -> None:
    found = resolve(two(), (measured(tmp_path, command()),), Clip())
    assert found.rates.features["net_a"].mean == pytest.approx(1.8)
    assert found.rates.overhead.mean == pytest.approx(0.3)
    assert found.rates.setup.mean == 6.0
    assert found.clip.frames == 20
    plan = make_plan(Order(two(), found.rates, found.clip, (1, 40), machine=Machine(40, startup=0.0)))
    serial = sum(plan.serial.values())
    assert wall(plan) == pytest.approx(
        {1: serial + 40 * 3.0, 40: serial + 1.0 + 3.0}, rel=1e-9
    )  # a further worker starts
    assert plan.serial["identify"] == pytest.approx(4.0)  # 10 videos took 1 s
    assert 2.0 < plan.serial["report"] < 4 * 2.0  # a page has a fixed part


def test_longer_videos_cost_more_only_where_every_frame_is_read(tmp_path: Path) -> None:
    found = resolve(two(), (measured(tmp_path, command()),), Clip(frames=60))
    assert found.rates.features["net_a"].mean == pytest.approx(3 * 1.8)
    assert found.rates.features["viclip"].mean == pytest.approx(0.9)
    wide = Clip(frames=60, width=64, height=48)
    plan = make_plan(Order(two(), replace(found.rates, clip=Clip(frames=20)), wide))
    assert any("Extrapolated from the videos measured: frames 20 to 60" in note for note in notes(plan))
    assert any("width and height is not known" in note for note in notes(plan))


@given(st.floats(0.2, 5), st.floats(0.2, 5))
def test_networks_grow_with_what_they_read(frames: float, pixels: float) -> None:
    names = ("dino", "amt", "viclip", "raft_moving")
    here = Clip(frames=100, width=100, height=100, fps=24)
    known = Rates("made up", {}, features={name: Rate.exactly(1.0) for name in names}, clip=here)
    there = known.scaled(Clip(frames=100 * frames, width=100, height=round(100 * pixels), fps=8))
    area = round(100 * pixels) / 100
    expected = {"dino": frames, "amt": frames * area, "viclip": 1.0, "raft_moving": 3 * frames * area}
    assert {name: rate.mean for name, rate in there.features.items()} == pytest.approx(expected)
    assert known.scaled(here).features == known.features


def test_the_range_is_that_of_the_commands(tmp_path: Path) -> None:
    run = measured(tmp_path, command(20.0), command(40.0))
    found = resolve(two(), (run,), Clip())
    rate = found.rates.features["net_a"]
    assert (rate.mean, rate.low, rate.high) == pytest.approx((1.8, 1.2, 2.4))
    row = make_plan(Order(two(), found.rates, found.clip, (1,))).rows[0]
    assert row.wall.low < row.wall.mean < row.wall.high


def test_other_hardware_is_left_out_and_named(tmp_path: Path) -> None:
    other = command(300.0, hardware=SIXTEEN | {"gpu": "Slow GPU"})
    found = resolve(two(), (measured(tmp_path, other, command()),), Clip())
    assert found.rates.features["net_a"].mean == pytest.approx(1.8)
    assert found.left_out == ("commands on Slow GPU: the plan is for Example GPU",)


def test_waiting_networks_mean_that_decoding_is_the_slower(tmp_path: Path) -> None:
    waiting = command(
        30.0, features={"net_a": Spent(10.0, 10, 200), "viclip": Spent(5, 10, 200)}, waiting=Spent(15.0, 10, 200)
    )
    found = resolve(two(), (measured(tmp_path, waiting),), Clip())
    assert found.rates.decode.mean == pytest.approx(3.0)
    assert found.rates.networks(("a", "overall"), two(), "mean") == pytest.approx(1.5)
    given_rate = resolve(two(), (tmp_path,), Clip(), decode_fps=40.0)
    assert given_rate.rates.decode.mean == pytest.approx(0.5)


def test_what_was_not_measured_is_named_and_not_counted_as_nothing(tmp_path: Path) -> None:
    work = replace(two(), features={"a": ("net_a",), "overall": ("elsewhere",)})
    found = resolve(work, (measured(tmp_path, command()),), Clip())
    lite = make_plan(Order(work, found.rates, found.clip))
    assert lite.unknown == {"overall": ("elsewhere",)}
    assert to_json(lite)["lower_bound"]
    assert any("overall (elsewhere)" in note and "lower bounds" in note for note in notes(lite))
    official = replace(work, profile="official")
    stated = make_plan(Order(official, resolve(official, (tmp_path,), Clip()).rates, found.clip))
    assert stated.unknown == {}
    assert stated.stated == {"overall": ("elsewhere",)}
    assert stated.rows[0].wall.mean > lite.rows[0].wall.mean + 40 * 40  # 40 videos at more than 40 A100-seconds


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run directory.*--from"):
        resolve(two(), (tmp_path / "none",), Clip())
    with pytest.raises(UserError, match=r"no timings.*vbench"):
        resolve(two(), (tmp_path,), Clip())
    with pytest.raises(UserError, match=r"Nothing is published.*lite.*--from RUN"):
        resolve(two(), (), Clip())
    (tmp_path / timings.TIMINGS).write_text("{")
    with pytest.raises(UserError, match=r"timings.jsonl.*cannot be read"):
        resolve(two(), (tmp_path,), Clip())
    with pytest.raises(UserError, match="--decode-fps 0"):
        resolve(two(), (), Clip(), decode_fps=0.0)
    for wrong in ({"gpus": ()}, {"gpus": (0,)}, {"variants": 0}, {"machine": Machine(0)}):
        with pytest.raises(UserError, match="--"):
            Order(**{"work": two(), "rates": rates(), "clip": Clip()} | wrong)


# --- training, sampling, storage --------------------------------------------------------------------------------------

GPU = Gpu("made up", peak=100.0, source="made up", utilisation=0.5)
MODEL = ModelWork("m", training=50.0 * 40 * 8, steps=40, batch=8, sampling=100.0, parameters=1000, clip=(16, 32, 48))


def test_training_and_sampling_in_closed_form() -> None:
    """40 steps of 8 clips, a second each; then 10 videos of 2 s; then scoring, a second a video."""
    made = make_plan(order(plain(10), rates(d=1.0), 1, 3, 8, 100, models=(MODEL,), gpu=GPU))
    assert wall(made) == {
        1: 40 * 8 + 10 * 2 + 10,
        3: 40 * math.ceil(8 / 3) + 4 * 2 + 4,
        8: 40 * 1 + 2 * 2 + 2,
        100: 40 * 1 + 2 + 1,
    }
    assert made.one_gpu | {"startup": 0, "identify": 0, "loading networks": 0} == {
        "train": 320.0,
        "generate": 20.0,
        "score": 10.0,
        "startup": 0,
        "identify": 0,
        "loading networks": 0,
    }


def test_shared_pretraining_counts_once() -> None:
    before = replace(MODEL, name="pre", seeds=False)
    models = (before, MODEL, replace(MODEL, name="n", training=2 * MODEL.training))
    assert count_variants(None, models) == 2
    made = make_plan(order(plain(10), rates(d=1.0), 1, variants=2, seeds=3, models=models, gpu=GPU))
    assert made.one_gpu["train"] == 320 + 3 * (320 + 640)
    assert wall(made)[1] == 320 + 3 * (320 + 640 + 2 * (20 + 10))
    with pytest.raises(UserError, match=r"--variants 5.*have 2"):
        count_variants(5, models)


def test_storage() -> None:
    clip = Clip(frames=10, width=32, height=48)
    made = make_plan(replace(order(plain(10), rates(d=1.0), seeds=3, models=(MODEL,), gpu=GPU), clip=clip))
    items = {item.name: item for item in made.storage}
    assert items["videos"].files == 30
    assert items["videos"].bytes == pytest.approx(30 * 10 * 32 * 48 * 0.11, rel=0.01)
    assert items["checkpoints"].bytes == 3 * checkpoint_bytes(MODEL) == 3 * 2 * 16 * 1000
    assert items["latents"].bytes is None
    nowhere = make_plan(order(plain(10), rates(d=1.0)))
    assert {item.name: item.bytes for item in nowhere.storage}["videos"] is None
    assert any("Storage of videos is unknown" in note for note in notes(nowhere))


def test_gpus_come_from_data_sheets() -> None:
    assert find_gpu("A100-SXM4-80GB", 0.4).seconds(312e12 * 0.4) == pytest.approx(1.0)
    with pytest.raises(UserError, match="A100-SXM4-80GB"):
        find_gpu("A100", 0.4)
    with pytest.raises(UserError, match=r"--utilisation 1\.5"):
        find_gpu("H200", 1.5)
