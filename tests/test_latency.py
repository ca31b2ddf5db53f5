"""Latency: the arithmetic around the clock, with a clock that tests set. No test depends on how fast anything is."""

from __future__ import annotations

import gc
import inspect
import json
import statistics
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from torch import Tensor, nn

from benchmarks import latency_table
from evalkit.errors import UserError
from evalkit.latency import hardware, memory, record, session
from evalkit.latency.against import pairs, refuse_unless_alike
from evalkit.latency.clock import CpuClock, CudaClock, clock_for, time_call
from evalkit.latency.measure import Bench, Row, Settings
from evalkit.latency.modules import OTHER, breakdown, flops_by_label, timed_modules
from evalkit.latency.peaks import TERA, Peak, peak_of, published
from evalkit.latency.roofline import Position
from evalkit.latency.spread import MIN_REPEATS, ratio_of_medians, spread
from evalkit.latency.subjects import Clip, Network, Subject, Work, named_subjects
from evalkit.latency.timing import orders, out_of_memory, round_robin

CPU = torch.device("cpu")
PEAK = Peak(flops=100 * TERA, bandwidth=1e12, source="a test")
positive = st.floats(1e-6, 1e6)


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full collection takes longer than everything else here; the test that is about releasing asks for it."""
    monkeypatch.setattr("evalkit.latency.measure.gc", SimpleNamespace(collect=lambda: 0))


class Silent:
    def start(self, what: str, total: int) -> None: ...

    def advance(self, steps: int = 1) -> None: ...


class Hand:
    """A clock whose hand is moved by what is timed."""

    name = "hand"

    def __init__(self) -> None:
        self.now, self.waits = 0.0, 0

    def start(self) -> Callable[[], SimpleNamespace]:
        begun = self.now

        def stop() -> SimpleNamespace:
            elapsed = self.now - begun
            return SimpleNamespace(seconds=lambda: elapsed)

        return stop

    def idle(self) -> None:
        self.waits += 1


class Costs(nn.Module):
    """Takes a scripted time; remembers nothing else."""

    def __init__(self, clock: Hand, seconds: Callable[[], float]) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.clock.now += self.seconds()
        return x * self.weight


class Full(nn.Module):
    """Never fits."""

    def forward(self, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation.")


def subject(variant: str, make: Callable[[], nn.Module], clip: Clip | None = None, flops: float = 1e6) -> Subject:
    return Subject(
        model="fake",
        variant=variant,
        clip=clip,
        tokens=8,
        config_hash=None,
        build=lambda device, dtype: Network(make().requires_grad_(False), (torch.ones(8),), {}),
        count=lambda: Work({"": flops}, 8),
    )


def bench(clock: Hand, **changes: Any) -> Bench:
    return Bench(replace(Settings("fake", CPU, "fp32", warmup=1, repeats=6), **changes), clock, PEAK, Silent())


# Statistics


@given(st.lists(positive, min_size=1, max_size=40))
def test_spread_agrees_with_the_standard_library(seconds: list[float]) -> None:
    found = spread(seconds)
    assert found.median == pytest.approx(statistics.median(seconds), rel=1e-12)
    if len(seconds) > 1:
        q1, _, q3 = statistics.quantiles(seconds, n=4, method="inclusive")
        assert (found.q1, found.q3) == pytest.approx((q1, q3), rel=1e-9)
    assert (found.minimum, found.repeats) == (min(seconds), len(seconds))


def test_nothing_has_no_spread_and_no_ratio() -> None:
    with pytest.raises(ValueError, match="no repeats"):
        spread([])
    with pytest.raises(ValueError, match="as many"):
        ratio_of_medians([1.0, 2.0], [1.0], "base", paired=True)
    with pytest.raises(ValueError, match="both sides"):
        ratio_of_medians([], [1.0], "base", paired=False)


@settings(max_examples=20, deadline=None)
@given(st.lists(positive, min_size=MIN_REPEATS, max_size=20), st.floats(0.1, 10))
def test_drift_that_meets_both_sides_alike_leaves_the_paired_ratio_exact(drift: list[float], times: float) -> None:
    found = ratio_of_medians([times * d for d in drift], drift, "base", paired=True)
    assert found.ci95 is not None
    assert (found.value, *found.ci95) == pytest.approx((times, times, times), rel=1e-9)


def test_interval_agrees_with_scipy() -> None:
    """Another implementation with other random numbers: the bounds agree within 1 % of the ratio."""
    rng = np.random.default_rng(3)
    x, y = rng.lognormal(0.2, 0.1, 25), rng.lognormal(0, 0.1, 25)
    theirs = scipy_stats.bootstrap(
        (x, y),
        lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        method="percentile",
        n_resamples=9999,
        rng=np.random.default_rng(4),
    ).confidence_interval
    found = ratio_of_medians(list(x), list(y), "y", paired=False, seed=5)
    assert found.ci95 == pytest.approx((theirs.low, theirs.high), rel=0.01)
    assert found == ratio_of_medians(list(x), list(y), "y", paired=False, seed=5)


def test_interval_covers_the_true_ratio() -> None:
    """Medians 2 and 1: of 100 experiments with 20 rounds each the interval covers 2 in 90 % or more."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        x, y = 2 * rng.lognormal(0, 0.2, 20), rng.lognormal(0, 0.2, 20)
        interval = ratio_of_medians(list(x), list(y), "y", paired=True).ci95
        assert interval is not None
        hits += interval[0] <= 2 <= interval[1]
    assert hits >= 90


def test_too_few_repeats_have_a_ratio_without_an_interval() -> None:
    assert ratio_of_medians([2.0] * 5, [1.0] * 5, "y", paired=True).ci95 is None
    assert ratio_of_medians([2.0] * 6, [1.0] * 6, "y", paired=True).ci95 == (2.0, 2.0)


# Order and clocks


def test_every_round_has_every_variant_once_in_a_seeded_order() -> None:
    names = ["a", "b", "c"]
    found = list(orders(names, 60, seed=1))
    assert all(sorted(order) == names for order in found)
    assert {order[0] for order in found} == set(names)
    assert found == list(orders(names, 60, seed=1)) != list(orders(names, 60, seed=2))


def test_warm_up_rounds_are_discarded_and_the_others_kept_in_order() -> None:
    clock, calls = Hand(), []

    def run(name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            calls.append(name)
            clock.now += seconds * (100 if len(calls) <= 4 else len(calls))

        return call

    runs = {"a": run("a", 1.0), "b": run("b", 2.0)}
    found = round_robin(runs, clock, warmup=2, repeats=3, seed=0, progress=Silent())
    assert [sorted(calls[n : n + 2]) for n in range(0, 10, 2)] == [["a", "b"]] * 5
    for name, scale in (("a", 1.0), ("b", 2.0)):
        kept = [scale * (n + 1) for n, call in enumerate(calls) if call == name and n >= 4]
        assert found.seconds[name] == pytest.approx(kept, rel=1e-12)
    assert clock.waits == 2 * len(calls)  # idle before and after every call


class FakeCuda:
    """The part of `torch.cuda` that is used, on a device that does what it is told some time later."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.device_time_ms, self.allocated, self.peak = 0.0, 0, 0

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cuda = self

        class Event:
            def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
                assert enable_timing
                self.at: float | None = None

            def record(self, stream: object = None) -> None:
                assert stream == "stream of cuda:0"
                cuda.log.append("record")
                self.at = cuda.device_time_ms

            def synchronize(self) -> None:
                cuda.log.append("event")

            def elapsed_time(self, end: Event) -> float:
                assert self.at is not None
                assert end.at is not None
                return end.at - self.at

        fakes: dict[str, Any] = {
            "synchronize": lambda device: cuda.log.append("synchronize"),
            "current_stream": lambda device: f"stream of {device}",
            "memory_allocated": lambda device: cuda.allocated,
            "max_memory_allocated": lambda device: cuda.peak,
            "reset_peak_memory_stats": lambda device: setattr(cuda, "peak", cuda.allocated),
            "get_device_name": lambda device: "NVIDIA A100-SXM4-80GB",
        }
        for name, fake in fakes.items():
            real = inspect.signature(getattr(torch.cuda, name))
            assert list(inspect.signature(fake).parameters) == list(real.parameters)[:1] == ["device"]
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(torch.cuda, "Event", Event)


def test_gpu_times_come_from_events_between_two_idle_states(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    cuda.patch(monkeypatch)

    def run() -> None:
        cuda.log.append("run")
        cuda.device_time_ms += 12.5

    assert time_call(CudaClock(torch.device("cuda:0")), run) == 0.0125  # milliseconds to seconds
    assert cuda.log == ["synchronize", "record", "run", "record", "synchronize", "event"]


def test_gpu_memory_is_a_variants_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others hold 100, this one 50, and a pass rises by 30 and falls again; an older peak of 900 is forgotten."""
    cuda = FakeCuda()
    cuda.patch(monkeypatch)
    cuda.allocated, cuda.peak = 150, 900

    def run() -> None:
        cuda.peak = max(cuda.peak, cuda.allocated + 30)

    device = torch.device("cuda:0")
    assert memory.occupied(device) == 150
    found = memory.peak_memory(run, device, resident=50, before=100)
    assert (found.peak_bytes, found.method) == (80, memory.CUDA_METHOD)


def test_a_cpu_is_timed_by_the_monotonic_clock() -> None:
    assert isinstance(clock_for(CPU), CpuClock)
    assert isinstance(clock_for(torch.device("cuda:0")), CudaClock)
    assert time_call(CpuClock(), lambda: None) >= 0


# Memory


class Twice(nn.Module):
    """Holds two intermediate tensors of the size of its input at once, then one."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        z = y.neg()
        del y
        return z.neg_()


def test_cpu_memory_of_a_pass_is_what_it_holds_at_once() -> None:
    x = torch.ones(1000, 1000)
    module = Twice()
    found = memory.peak_memory(lambda: module(x), CPU, resident=4_000_000, before=0)
    assert found.peak_bytes == 4_000_000 + 2 * 4_000_000  # exact: the allocator is asked for nothing else
    assert memory.occupied(CPU) == 0


@given(st.lists(st.integers(-1000, 1000), max_size=30))
def test_highest_running_sum(changes: list[int]) -> None:
    assert memory.highest(changes) == max(sum(changes[:n]) for n in range(len(changes) + 1))


def test_room_is_what_the_control_group_leaves(tmp_path: Path) -> None:
    assert memory._group_available(tmp_path) is None
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._group_available(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._group_available(tmp_path) == 700


# Measuring


def test_rows_have_the_scripted_medians_and_ratios() -> None:
    clock = Hand()
    drift = iter(np.linspace(1, 3, 100))
    slow = iter(np.linspace(1, 3, 100))
    rows = bench(clock).clip(
        [
            subject("attention", lambda: Costs(clock, lambda: 1.0 * next(drift))),
            subject("mamba", lambda: Costs(clock, lambda: 0.5 * next(slow))),
        ]
    )
    first, second = rows
    assert first.ratio is None
    assert first.taken is not None
    assert first.taken.parameters == 8
    step = 2 / 99  # two runs for memory and one warm-up round come before the six that count: steps 3 to 8
    assert first.taken.spread.median == pytest.approx(1 + 5.5 * step, rel=1e-9)
    assert second.ratio is not None
    assert (second.ratio.to, second.ratio.value) == ("attention", pytest.approx(0.5, rel=1e-9))
    assert second.ratio.ci95 == pytest.approx((0.5, 0.5), rel=1e-9)  # the drift met both alike


def test_a_batch_does_as_many_times_the_work() -> None:
    clock = Hand()
    (row,) = bench(clock, batch=3, breakdown=True).clip([subject("a", lambda: Costs(clock, lambda: 2.0), flops=10.0)])
    assert row.flops == 30.0
    assert row.position is not None
    assert row.position.achieved == 15.0
    assert row.taken is not None
    assert sum(share.flops or 0.0 for share in row.taken.modules) == 30.0


def test_a_variant_out_of_memory_is_said_and_the_others_go_on() -> None:
    clock = Hand()
    rows = bench(clock).clip(
        [
            subject("attention", Full),
            subject("mamba", lambda: Costs(clock, lambda: 1.0)),
        ]
    )
    assert rows[0].failed == "out of memory: CUDA out of memory. Tried to allocate 20.00 GiB."
    assert rows[0].taken is None
    assert rows[0].position is None
    assert (rows[1].failed, rows[1].ratio) == (None, None)  # nothing to compare with
    assert rows[1].taken is not None
    assert rows[1].taken.seconds == (1.0,) * 6
    written = record._row(rows[0], PEAK)
    assert written["median_s"] is written["peak_memory_bytes"] is written["seconds"] is None


def test_a_variant_that_fits_only_alone_is_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.latency.measure.gc", gc)
    clock, alive = Hand(), []

    def crowded() -> nn.Module:
        if any(reference() is not None for reference in alive):
            raise torch.OutOfMemoryError("no room")
        return Costs(clock, lambda: 2.0)

    def tenant() -> nn.Module:
        module = Costs(clock, lambda: 1.0)
        alive.append(weakref.ref(module))
        return module

    rows = bench(clock).clip([subject("first", tenant), subject("second", crowded)])
    assert rows[1].taken is not None
    assert rows[0].taken is not None
    assert (rows[0].taken.order, rows[1].taken.order) == ("round-robin", "alone")
    assert rows[1].ratio is not None
    assert rows[1].ratio.value == 2.0
    gc.collect()
    assert all(reference() is None for reference in alive)  # nothing is kept


def test_a_compiled_variant_says_into_how_many_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One unavoidable break makes two graphs. The compiler's front end runs; nothing is generated."""
    whole = torch.compile

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.relu()
            torch._dynamo.graph_break()
            return x + 1

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: whole(module, dynamic=dynamic, backend="eager"))
    monkeypatch.setattr("evalkit.latency.timing.time_call", lambda clock, run: (run(), 1.0)[1])
    rows = bench(Hand(), compile=True).clip([subject("whole", nn.ReLU), subject("broken", Broken)])
    assert [row.taken and row.taken.graphs for row in rows] == [1, 2]
    assert [row.taken and row.taken.graphs for row in rows_of({"a": 1.0})] == [None]


def test_running_out_in_the_middle_leaves_no_half_of_a_row() -> None:
    clock, calls = Hand(), []

    class Leaks(Costs):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            if len(calls) > 5:
                raise torch.OutOfMemoryError("leaked")
            return super().forward(x)

    rows = bench(clock).clip([subject("leaks", lambda: Leaks(clock, lambda: 1.0))])
    assert rows[0].failed == "out of memory: leaked"
    assert rows[0].taken is None


def test_only_memory_errors_become_rows() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("x"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)  # more than any machine has
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not out_of_memory(KeyError("can't allocate memory"))

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        bench(Hand()).clip([subject("broken", Broken, Clip(1, 8, 8))])
    with pytest.raises(UserError, match="forward pass of mine fails: RuntimeError: shapes"):
        bench(Hand()).clip([subject("mine", Broken)])


def test_weights_that_cannot_fit_are_not_even_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 31)  # eight float32 weights need 32

    def make() -> nn.Module:
        raise AssertionError("must not be built")

    rows = bench(Hand()).clip([subject("large", make)])
    assert rows[0].failed is not None
    assert rows[0].failed.startswith("out of memory: the weights alone take")


# Breakdown


class Block(nn.Module):
    def __init__(self, clock: Hand, mixer: float, mlp: float) -> None:
        super().__init__()
        self.clock = clock
        self.mixer = nn.Sequential(Costs(clock, lambda: mixer / 2), Costs(clock, lambda: mixer / 2))
        self.mlp = nn.ModuleList([Costs(clock, lambda: mlp)])

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += 0.25  # outside every module: other
        return self.mlp[0](self.mixer(x))


class Stack(nn.Module):
    def __init__(self, clock: Hand) -> None:
        super().__init__()
        self.embed = Costs(clock, lambda: 1.0)
        self.blocks = nn.ModuleList([Block(clock, 2.0, 0.5), Block(clock, 4.0, 0.5)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x


def test_breakdown_adds_up_and_names_the_rest() -> None:
    clock = Hand()
    stack = Stack(clock)
    flops = {
        "": 1.0,
        "embed": 2.0,
        "blocks.0.mixer": 3.0,
        "blocks.1.mixer.1": 4.0,
        "blocks.1": 5.0,
        "blocks.0.mlp.0": 6.0,
    }
    with torch.no_grad():
        shares = breakdown(stack, lambda: stack(torch.ones(8)), clock, passes=3, flops=flops)
    assert {s.name: s.seconds for s in shares} == pytest.approx(
        {"blocks.mixer": 6.0, "embed": 1.0, "blocks.mlp": 1.0, OTHER: 0.5}, rel=1e-9
    )
    assert sum(s.share for s in shares) == pytest.approx(1.0, rel=1e-12)
    assert {s.name: s.flops for s in shares} == {"blocks.mixer": 7.0, "embed": 2.0, "blocks.mlp": 6.0, OTHER: 6.0}
    assert shares[-1].name == OTHER
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in stack.modules())


@pytest.mark.parametrize("model", ["m4v-tiny", "pyramidflow-tiny"])
def test_timed_modules_are_disjoint_and_hold_all_flops_but_a_few(model: str) -> None:
    for one in named_subjects(model, None, batch=1, seed=0)[0]:
        network, count = one.build(CPU, torch.float32), one.count()
        chosen = dict(timed_modules(network.module))
        for path in chosen:
            assert not any(other.startswith(f"{path}.") for other in chosen)
        assert count is not None
        sums = flops_by_label(count.by_module, chosen)
        assert sum(sums.values()) == pytest.approx(count.total, rel=1e-12)
        assert sums.get(OTHER, 0.0) == 0.0
        assert {"blocks.mixer", "blocks.mlp"} <= sums.keys()


def test_no_weight_of_a_timed_model_is_all_zeros() -> None:
    for one in named_subjects("m4v-tiny", None, batch=2, seed=0)[0]:
        network = one.build(CPU, torch.bfloat16)
        assert all(p.any() and p.dtype == torch.bfloat16 for p in network.module.parameters())
        units = network.arguments[0]
        assert all(len(unit) == 2 and unit.dtype == torch.bfloat16 for unit in units)


# Roofline


@given(positive, positive, st.integers(1, 10**9), positive, positive)
def test_roofline(flops: float, seconds: float, size: int, peak: float, bandwidth: float) -> None:
    at = Position(flops, seconds, size, Peak(peak, bandwidth, "a test"))
    arithmetic, traffic = flops / peak, size / bandwidth
    assert at.utilisation == pytest.approx(arithmetic / seconds, rel=1e-9)
    assert at.fastest == max(arithmetic, traffic)
    if arithmetic != pytest.approx(traffic, rel=1e-9):
        assert at.bound == ("compute" if arithmetic > traffic else "memory")


@pytest.mark.parametrize(
    ("gpu", "dtype", "tf32", "tflops", "gigabytes"),
    [
        ("NVIDIA A100-SXM4-80GB", torch.bfloat16, False, 312, 2039),
        ("NVIDIA A100-SXM4-40GB", torch.float32, False, 19.5, 1555),
        ("A100-PCIE-40GB", torch.float32, True, 156, 1555),
        ("NVIDIA H100 80GB HBM3", torch.float16, False, 989, 3350),
        ("NVIDIA H200", torch.bfloat16, False, 989, 4800),
        ("NVIDIA L40S", torch.bfloat16, True, 362, 864),
    ],
)
def test_published_peaks(gpu: str, dtype: torch.dtype, tf32: bool, tflops: float, gigabytes: float) -> None:
    found = published(gpu, dtype, tf32=tf32)
    assert found is not None
    assert (found.flops / 1e12, found.bandwidth / 1e9) == pytest.approx((tflops, gigabytes), rel=1e-12)
    assert found.source.startswith("published: NVIDIA")


@pytest.mark.parametrize("gpu", ["NVIDIA A100-SXM4-80GB MIG 3g.40gb", "NVIDIA A10G", "NVIDIA L40", "NVIDIA GB300"])
def test_unknown_gpus_have_no_published_peak(gpu: str) -> None:
    assert published(gpu, torch.bfloat16) is None


def test_a_measured_peak_is_counted_work_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock says 2 s for everything: 2 x 1024^3 FLOPs and twice 256 MiB in it."""
    monkeypatch.setattr("evalkit.latency.peaks.time_call", lambda clock, run: 2.0)
    found = peak_of(CPU, torch.float32, Hand())
    assert (found.flops, found.bandwidth) == (1024**3, 2**28)
    assert found.source.startswith("measured")


def test_a_known_gpu_needs_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda().patch(monkeypatch)
    assert peak_of(torch.device("cuda:0"), torch.bfloat16, Hand()).flops == 312e12


# Records and comparisons

XEON = {"kind": "cpu", "cpu": "Xeon", "cores": 2, "memory_gib": 8.0, "gpu": None, "gpu_memory_bytes": None}
A100 = XEON | {"kind": "cuda", "gpu": "NVIDIA A100-SXM4-80GB", "gpu_memory_bytes": 80 * 2**30}


def rows_of(seconds: dict[str, float], clip: Clip | None = None, **changes: Any) -> list[Row]:
    clock = Hand()
    subjects = [subject(name, lambda s=s: Costs(clock, lambda: s), clip) for name, s in seconds.items()]  # type: ignore[misc]
    return bench(clock, **changes).clip(subjects)


def written(rows: list[Row], path: Path, machine: dict[str, Any] = XEON, **changes: Any) -> dict[str, Any]:
    how = replace(Settings("fake", CPU, "fp32", warmup=1, repeats=6), **changes)
    path.write_text(json.dumps(record.to_json(rows, how, machine, PEAK, {"packages": {"torch": "2"}})))
    return record.load(path)


def test_a_record_reads_back_as_it_was(tmp_path: Path) -> None:
    rows = rows_of({"a": 1.0, "b": 3.0}, Clip(17, 32, 32), breakdown=True)
    found = written(rows, tmp_path / "r.json")
    assert set(found) == {"schema", "hardware", "settings", "rows", "provenance"}
    second = found["rows"][1]
    assert (second["frames"], second["height"], second["width"]) == (17, 32, 32)
    assert (second["median_s"], second["repeats"], second["seconds"]) == (3.0, 6, [3.0] * 6)
    assert second["ratio"] == {"to": "a", "value": 3.0, "ci95": [3.0, 3.0]}
    assert second["tflops"] == pytest.approx(1e-6)
    assert second["achieved_tflops_per_s"] == pytest.approx(1e-6 / 3)
    assert second["utilisation"] == pytest.approx(1e6 / 3 / PEAK.flops)
    assert second["modules"][-1]["name"] == OTHER
    assert second["failed"] is None
    assert second["parameters"] == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "schema is None"),
        ('{"schema": "m4v-eval/flops/1"}', "m4v-eval/flops/1"),
        ('{"schema": "m4v-eval/latency/1", "hardware": {}, "rows": [{"variant": "a"}]}', "lacks frames, height"),
    ],
)
def test_other_files_are_no_records(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=says):
        record.load(tmp_path / "r.json")
    with pytest.raises(UserError, match="does not exist"):
        record.load(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("machine", "changes", "clip", "names"),
    [
        (A100, {}, Clip(17, 32, 32), ["gpu (None there, NVIDIA A100-SXM4-80GB here)", "gpu_memory_bytes"]),
        (XEON | {"cpu": "EPYC", "cores": 4}, {}, Clip(17, 32, 32), ["cpu (Xeon there, EPYC here)", "cores"]),
        (XEON, {"dtype": "bf16"}, Clip(17, 32, 32), ["dtype (fp32 there, bf16 here)"]),
        (XEON, {"compile": True, "batch": 2, "threads": 4}, Clip(17, 32, 32), ["compile", "batch", "threads"]),
        (XEON, {}, Clip(25, 32, 32), ["clip (25 frames 32x32 is not there)"]),
    ],
)
def test_what_differs_is_named_and_not_compared(
    tmp_path: Path, machine: dict[str, Any], changes: dict[str, Any], clip: Clip, names: list[str]
) -> None:
    path = tmp_path / "before.json"
    before = written(rows_of({"a": 1.0}, Clip(17, 32, 32)), path)
    same = replace(Settings("fake", CPU, "fp32", warmup=1, repeats=6))
    refuse_unless_alike(XEON, replace(same, warmup=9, repeats=9), [Clip(17, 32, 32)], before, path)  # free to differ
    with pytest.raises(UserError) as caught:
        refuse_unless_alike(machine, replace(same, **changes), [clip], before, path)
    for name in names:
        assert name in caught.value.what


def test_rows_are_paired_by_variant_and_clip(tmp_path: Path) -> None:
    clips = Clip(17, 32, 32), Clip(25, 32, 32)
    path = tmp_path / "before.json"
    before = written([row for c in clips for row in rows_of({"a": 1.0, "b": 2.0}, c)], path)
    now = [row for c in clips for row in rows_of({"a": 2.0, "b": 1.0, "new": 5.0}, c)]
    found = pairs(now, before, path)
    assert [(p.row.subject.variant, p.row.subject.clip) for p in found] == [(n, c) for c in clips for n in "ab"]
    assert [p.ratio and p.ratio.value for p in found] == [2.0, 0.5, 2.0, 0.5]
    assert all(p.ratio and p.ratio.ci95 == (p.ratio.value,) * 2 for p in found)
    with pytest.raises(UserError, match="no variant"):
        pairs([row for row in now if row.subject.variant == "new"] * 2, before, path)


def test_two_single_rows_are_compared_whatever_they_are_called(tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    before = written(rows_of({"v1.py:make": 1.0}), path)
    (pair,) = pairs(rows_of({"v2.py:make": 0.5}), before, path)
    assert pair.ratio is not None
    assert pair.ratio.value == 0.5
    before["rows"][0]["inputs"] = [[9]]
    with pytest.raises(UserError, match="differ in inputs"):
        pairs(rows_of({"v2.py:make": 0.5}), before, path)


def test_an_out_of_memory_row_has_no_ratio(tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    before = written(bench(Hand()).clip([subject("a", Full)]), path)
    (pair,) = pairs(rows_of({"a": 1.0}), before, path)
    assert pair.ratio is None


@pytest.mark.parametrize(
    ("gpu", "whole"),
    [
        ("NVIDIA A100-SXM4-80GB", True),
        ("NVIDIA A100 80GB PCIe", True),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", False),
        ("NVIDIA H200", False),
        ("NVIDIA RTX A1000", False),
        (None, False),
    ],
)
def test_which_hardware_is_an_a100(gpu: str | None, whole: bool) -> None:
    assert hardware.is_a100({"gpu": gpu}) is whole


def test_a_gpu_is_described_with_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda().patch(monkeypatch)
    properties = SimpleNamespace(total_memory=80 * 2**30, major=8, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    device = session.settings_of(session.Request(device="cuda", dtype="bf16")).device
    assert chosen == [device] == [torch.device("cuda:0")]
    found = hardware.describe(device)
    assert (found["gpu"], found["compute_capability"]) == ("NVIDIA A100-SXM4-80GB", "8.0")
    assert hardware.name(found).startswith("NVIDIA A100-SXM4-80GB (80 GiB), host ")
    assert session.Request(device="cuda").model_name == "m4v"


def test_this_machine_is_named() -> None:
    found = hardware.describe(CPU)
    assert hardware.differences(found, json.loads(json.dumps(found))) == []
    assert found["cpu"] in hardware.name(found)
    assert "80 GiB" in hardware.name(A100)


# The command


USER = """
import torch
from torch import nn
def make(): return nn.Linear(4, 3), (torch.ones(2, 4),)
def half():
    class Inverse(nn.Module):
        def forward(self, x): return torch.linalg.inv(x)
    return Inverse(), (torch.eye(4),)
def wrong(): return nn.Linear(4, 3), (torch.ones(2, 5),)
def full():
    class Full(nn.Module):
        def forward(self, x): raise torch.OutOfMemoryError("CUDA out of memory.")
    return Full(), (torch.ones(1),)
"""


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """`m4v-eval latency` in this process: exit code, stdout, stderr."""
    from evalkit.cli import main

    threads = torch.get_num_threads()
    (tmp_path / "user.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(session, "peak_of", lambda device, dtype, clock: PEAK)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["m4v-eval", "latency", "--device", "cpu", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), " ".join(printed.out.split()), " ".join(printed.err.split())

    yield call
    torch.set_num_threads(threads)


def test_the_whole_command_and_a_second_one_against_it(command: Callable[..., tuple[int, str, str]]) -> None:
    how = ["--threads", "1", "--warmup", "1", "--repeats", "6"]
    code, out, err = command(*how, "--model", "m4v-tiny", "--frames", "9,17", "--breakdown", "--json", "a.json")
    assert code == 0, err
    found = json.loads(Path("a.json").read_text())
    assert found["schema"] == "m4v-eval/latency/1"
    assert [(r["frames"], r["variant"]) for r in found["rows"]] == [
        (frames, name) for frames in (9, 17) for name in ("attention", "mamba", "mamba+temporal")
    ]
    for row in found["rows"]:
        assert len(row["seconds"]) == 6
        assert row["q1_s"] <= row["median_s"] <= row["q3_s"]
        assert row["peak_memory_bytes"] > 4 * row["parameters"]
        assert sum(m["share"] for m in row["modules"]) == pytest.approx(1, rel=1e-9)
        assert sum(m["tflops"] for m in row["modules"]) == pytest.approx(row["tflops"], rel=1e-9)
    assert found["rows"][0]["tokens"] < found["rows"][3]["tokens"]
    assert torch.__version__.startswith(found["provenance"]["packages"]["torch"])
    for says in (found["hardware"]["cpu"], "Not an A100", "blocks.mixer", "not a clip", "bound by"):
        assert says in out
    code, out, err = command(*how, "--model", "m4v-tiny", "--frames", "9", "--against", "a.json")
    assert code == 0, err
    assert "median here / median there" in out
    code, out, err = command(*how, "--model", "m4v-tiny", "--frames", "25", "--against", "a.json")
    assert (code, out) == (2, "")
    assert "clip (25 frames 32x32 is not there)" in err
    found["hardware"]["gpu"] = "NVIDIA A100-SXM4-80GB"
    Path("a.json").write_text(json.dumps(found))
    code, out, err = command(*how, "--model", "m4v-tiny", "--frames", "9", "--against", "a.json")
    assert code == 2
    assert "differ in gpu (NVIDIA A100-SXM4-80GB there, None here)" in err
    assert out == ""  # refused before anything was measured


def test_a_users_network(command: Callable[..., tuple[int, str, str]]) -> None:
    how = ["--threads", "1", "--warmup", "1", "--repeats", "3"]
    code, out, err = command(*how, "--model", "user.py:make", "--json", "u.json")
    assert code == 0, err
    (row,) = json.loads(Path("u.json").read_text())["rows"]
    assert row["tflops"] == pytest.approx(2 * 2 * 4 * 3 / 1e12, rel=1e-12)  # 2 x 4 times 4 x 3, two FLOPs each
    assert row["bytes_moved_at_least"] == 4 * (4 * 3 + 3 + 2 * 4 + 2 * 3)
    assert (row["frames"], row["inputs"]) == (None, [[2, 4]])
    code, out, _ = command(*how, "--model", "user.py:full")
    assert code == 3
    assert "not measured: user.py:full: out of memory: CUDA out of memory." in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--repeats", "2"], "--repeats 2"),
        (["--warmup", "0"], "--warmup 0"),
        (["--dtype", "fp8"], "Choose from: bf16, fp16, fp32"),
        (["--frames", "16"], "say 9 or 17"),
        (["--frames", "9,x"], "--frames '9,x'"),
        (["--frames", "9,9"], "twice"),
        (["--model", "m4v-tinny"], "Did you mean m4v-tiny"),
        (["--compile", "--breakdown"], "Leave one of the two out"),
        (["--device", "meta"], "only CPUs and CUDA GPUs"),
        (["--against", "nowhere.json"], "does not exist"),
        (["--model", "user.py:make", "--frames", "9"], "--frames is of no use"),
        (["--model", "user.py:wrong"], "shapes cannot be multiplied"),
        (["--model", "user.py:half", "--dtype", "fp16"], "does not run in fp16"),
        (["--model", "nofile.py:make"], "nofile.py is no file"),
        (["--model", "pyramidflow-tiny", "--dual-blocks", "2"], "--dual-blocks"),
    ],
)
def test_bad_usage(command: Callable[..., tuple[int, str, str]], arguments: list[str], says: str) -> None:
    code, out, err = command("--threads", "1", *arguments)
    assert code == 2
    assert says in err
    assert "Traceback" not in err
    assert out == ""


def test_without_a_gpu_there_is_no_gpu_time(
    command: Callable[..., tuple[int, str, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert command("--device", "cuda:99")[0] == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert latency_table.main(["--out", str(tmp_path / "out")]) == 2
    assert "There is no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_compiling_without_a_compiler_is_one_line(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function: object) -> Callable[[Tensor], Tensor]:
        raise RuntimeError("No working C++ compiler found.\nmore")

    monkeypatch.setattr(torch, "compile", broken)
    code, _, err = command("--threads", "1", "--compile")
    assert code == 2
    assert "--compile does not work here: RuntimeError: No working C++ compiler found. Install" in err


# The GPU table


def test_the_gpu_table_is_written_from_its_record(tmp_path: Path) -> None:
    clip = Clip(57, 768, 1280)
    rows = rows_of({"attention": 0.2, "mamba": 0.1}, clip) + bench(Hand()).clip([subject("mamba+temporal", Full, clip)])
    found = written(rows, tmp_path / "r.json", A100 | {"gpu": "NVIDIA H200"}, dtype="bf16")
    table = latency_table.write(found, tmp_path / "results")
    assert table.name == "latency_nvidia-h200.md"
    text = table.read_text()
    assert "| 57 | 8 | mamba | 100.00 ms | 100.00 to 100.00 ms | 0.500 (0.500 to 0.500) |" in text
    assert "mamba+temporal | out of memory: CUDA out of memory." in text
    assert "Not an A100" in text
    assert json.loads(table.with_suffix(".json").read_text()) == found
    assert "whole clips" in latency_table.markdown(found | {"hardware": A100})
