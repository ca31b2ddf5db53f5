"""Repeats in turn: every variant runs once a round, so that whatever drifts meets all of them alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import torch

from evalkit.latency.clock import Clock, time_call

T = TypeVar("T")
Run = Callable[[], object]


class Progress(Protocol):
    """Who watches."""

    def start(self, what: str, total: int) -> None: ...

    def advance(self, steps: int = 1) -> None: ...


@dataclass
class Samples:
    """Seconds of each variant, one a round in the order of the rounds, and why a variant has none."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def orders(names: list[str], rounds: int, seed: int) -> Iterator[list[str]]:
    """The order of each round: all names once, shuffled anew every time, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(rounds):
        yield rng.sample(names, len(names))


def round_robin(
    runs: Mapping[str, Run], clock: Clock, *, warmup: int, repeats: int, seed: int, progress: Progress
) -> Samples:
    """Time all variants in turn; the first `warmup` rounds are discarded.

    A variant that runs out of memory is left out from then on with its reason, and has no samples at all.
    """
    samples = Samples({name: [] for name in runs})
    for n, order in enumerate(orders(list(runs), warmup + repeats, seed)):
        for name in order:
            if name in samples.failed:
                continue
            seconds = attempt(partial(time_call, clock, runs[name]))
            if isinstance(seconds, str):
                samples.failed[name] = seconds
                samples.seconds[name] = []
            elif n >= warmup:
                samples.seconds[name].append(seconds)
        progress.advance()
    return samples


def attempt(run: Callable[[], T]) -> T | str:
    """What `run` returns, or the reason in one line if there is not enough memory for it; other errors pass."""
    try:
        return run()
    except (MemoryError, RuntimeError) as e:
        if not out_of_memory(e):
            raise
        reason = str(e).strip().splitlines()
        return reason[0] if reason else type(e).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; PyTorch's CPU allocator has no exception type of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        phrase in str(error) for phrase in ("can't allocate memory", "not enough memory", "Cannot allocate memory")
    )
