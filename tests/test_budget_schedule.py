"""Sharing tasks: closed forms, and what must hold for any tasks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.budget.schedule import MARGIN, amdahl, queue, shards, share, spread, worth_doubling_to
from evalkit.job import Shard
from evalkit.shards import part
from evalkit.types import Prompt, Sample

seconds = st.floats(0.01, 100.0)
tasks = st.lists(seconds, min_size=1, max_size=60)
workers = st.integers(1, 40)


@given(st.integers(1, 500), workers, seconds, st.floats(0, 50))
def test_equal_tasks_take_the_ceiling(count: int, n: int, each: float, head: float) -> None:
    done = share([[each] * count], n, head)
    assert done.makespan == pytest.approx(head + math.ceil(count / n) * each, rel=1e-9)
    assert done.workers == min(n, count)
    assert done.busy == pytest.approx(count * each + head * min(n, count), rel=1e-9)


@given(tasks, st.floats(0, 50))
def test_one_worker_takes_the_sum(each: list[float], head: float) -> None:
    done = share([each], 1, head)
    assert done.makespan == pytest.approx(head + sum(each), rel=1e-9)
    assert done.busy == pytest.approx(done.makespan, rel=1e-9)


@given(tasks, workers)
def test_the_bounds_of_greedy_sharing(each: list[float], n: int) -> None:
    """Graham 1966: no better than the work over the workers or the longest task, no worse than both together."""
    found = queue(each, n)
    least = max(sum(each) / n, max(each))
    assert least * (1 - 1e-9) <= found <= (sum(each) / n + (1 - 1 / n) * max(each)) * (1 + 1e-9)


@given(st.lists(tasks, min_size=1, max_size=3), workers, st.floats(0, 50))
def test_another_worker_never_takes_longer_and_never_costs_less(phases: list[list[float]], n: int, head: float) -> None:
    fewer, more = share(phases, n, head), share(phases, n + 1, head)
    assert more.makespan <= fewer.makespan * (1 + 1e-9)
    assert more.busy >= fewer.busy * (1 - 1e-9)


@given(st.lists(tasks, min_size=2, max_size=3), workers)
def test_a_phase_waits_for_the_one_before(phases: list[list[float]], n: int) -> None:
    assert share(phases, n).makespan == pytest.approx(sum(queue(phase, n) for phase in phases), rel=1e-9)


def test_nothing_to_do_takes_no_worker() -> None:
    assert share([[], []], 8, head=5.0).workers == 0
    assert share([[], []], 8, head=5.0).makespan == 0


@given(workers, st.integers(1, 12))
def test_hosts_are_filled_evenly(n: int, most: int) -> None:
    found = spread(n, most)
    assert sum(found) == n
    assert max(found) <= most
    assert max(found) - min(found) <= 1
    assert len(found) == math.ceil(n / most)


@given(st.lists(st.integers(1, 25), min_size=1, max_size=40), st.integers(1, 12))
def test_prompts_are_cut_as_a_run_is(sizes: list[int], count: int) -> None:
    samples = [
        Sample(Path(), f"{i}-{k}", Prompt(f"p{i}", f"p{i}"), k) for i, size in enumerate(sizes) for k in range(size)
    ]
    cut = [{sample.prompt.id for sample in part(samples, Shard(index, count))} for index in range(count)]
    assert [{f"p{i}" for i in found} for found in shards(tuple(sizes), count)] == cut
    assert sorted(i for found in shards(tuple(sizes), count) for i in found) == list(range(len(sizes)))


def test_amdahl() -> None:
    assert amdahl(0.0, 64) == 64
    assert amdahl(1.0, 64) == 1
    assert amdahl(0.05, 20) == pytest.approx(10.256410256410257, rel=1e-12)  # 1 / (0.05 + 0.95 / 20)
    assert amdahl(0.05, 10**9) == pytest.approx(20, rel=1e-6)


@given(st.floats(1e-4, 0.9))
def test_doubling_pays_up_to_the_bound_and_not_beyond(fraction: float) -> None:
    bound = worth_doubling_to(fraction, 10**9)
    saved = {n: 1 - amdahl(fraction, n) / amdahl(fraction, 2 * n) for n in (bound, bound + 1)}
    assert saved[bound + 1] < MARGIN + 1e-9
    assert bound == 1 or saved[bound] >= MARGIN - 1e-9
    assert worth_doubling_to(fraction, 3) <= 3
    assert worth_doubling_to(0.0, 77) == 77
