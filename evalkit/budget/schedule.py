"""How workers share videos that cannot be divided: the last one to finish decides.

Within a host every worker takes the next video as it gets free. Hosts share nothing but a folder, so a run is cut for
them beforehand, by whole prompts (`evalkit.shards`): a host whose prompts take longer is waited for.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evalkit.job import Shard
from evalkit.shards import part
from evalkit.types import Prompt, Sample

MARGIN = 0.1
"""Doubling the workers is worth while as long as it saves more than this share of the time."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What came of sharing tasks: when the last worker ends, and how long all of them were at it."""

    makespan: float
    busy: float
    workers: int


def share(phases: Iterable[Sequence[float]], workers: int, head: float = 0.0) -> Shared:
    """Give tasks in their order to whoever is free; a phase begins when the one before has ended.

    Args:
        phases: seconds of each task.
        workers: how many there are; those that get nothing to do are not started.
        head: seconds that each worker takes before its first task.
    """
    phases = [phase for phase in phases if phase]
    used = min(workers, max(map(len, phases), default=0))
    if not used:
        return Shared(0.0, 0.0, 0)
    end = head
    busy = head * used
    for phase in phases:
        end = _last(phase, used, end)
        busy += sum(phase)
    return Shared(end, busy, used)


def _last(tasks: Sequence[float], workers: int, begin: float) -> float:
    free = [begin] * min(workers, len(tasks))
    for seconds in tasks:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


@cache
def shards(sizes: tuple[int, ...], count: int) -> list[list[int]]:
    """Which of the prompts, with so many videos each, are in which of `count` shards: just as a run is cut."""
    if count == 1:
        return [list(range(len(sizes)))]
    samples = [
        Sample(Path(), "", prompt, seed)
        for prompt, size in ((Prompt(str(index), ""), size) for index, size in enumerate(sizes))
        for seed in range(size)
    ]
    shared = (part(samples, Shard(index, count)) for index in range(count))
    return [[int(name) for name in dict.fromkeys(sample.prompt.id for sample in found)] for found in shared]


def spread(workers: int, most: int) -> list[int]:
    """Workers of each host, as even as can be, with at most `most` on one."""
    hosts = -(-workers // most)
    each, more = divmod(workers, hosts)
    return [each + (host < more) for host in range(hosts)]


def queue(tasks: Sequence[float], workers: int) -> float:
    """When the last of several whole runs ends, if each takes one worker."""
    return share([tasks], workers).makespan


def amdahl(serial_fraction: float, workers: int) -> float:
    """The speed-up of `workers` where a fraction of the time on one is serial."""
    return 1 / (serial_fraction + (1 - serial_fraction) / workers)


def worth_doubling_to(serial_fraction: float, units: int) -> int:
    """The number of workers from which twice as many save less than `MARGIN`, by Amdahl's law; no more than `units`.

    1 - T(2n) / T(n) < m is the same as n > (1 - f) (1 - 2 m) / (2 m f), which is 4 (1 - f) / f for a tenth.
    """
    f = serial_fraction
    bound = (1 - f) * (1 - 2 * MARGIN) / (2 * MARGIN * f) if f > 0 else float("inf")
    return max(1, int(min(bound, units)))
