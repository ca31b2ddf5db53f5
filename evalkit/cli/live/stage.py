"""A stage of a long run: how far it is, how fast, and when it will be done. All times are the monotonic clock's."""

from __future__ import annotations

import math
from dataclasses import dataclass

SETTLING = 0.5
"""Steps of the first half second say nothing of the rate: a resumed run counts there what was done before."""
MEMORY = 60.0
"""Seconds over which a rate is at least averaged; half of the elapsed time where that is more."""


@dataclass(slots=True)
class _First:
    """The first step: how long it took and when it came; its share of the averages, and the longest step since."""

    took: float
    came: float
    steps: float
    seconds: float
    longest: float = 0.0


class Stage:
    """Counts steps and averages their rate, later ones counting more.

    The first step often waits for networks to load. It counts like any other until it has proved an exception: until
    as much time again has passed with steps that took less than half as long.

    Args:
        what: the stage.
        total: its steps; 0 where there is nothing to do, or nobody knows.
        now: when it begins.
    """

    def __init__(self, what: str, total: int, now: float) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self.began = self._last = now
        self._steps = self._seconds = self._longest = 0.0
        self._first: _First | None = None

    def advance(self, steps: int, now: float) -> None:
        """Steps are done."""
        self.done += steps
        gap, self._last = max(0.0, now - self._last), max(now, self._last)
        if now - self.began < SETTLING:
            return
        is_first = self._seconds == 0
        kept = math.exp(-gap / (MEMORY + self.elapsed(now) / 2))
        self._steps = self._steps * kept + steps
        self._seconds = self._seconds * kept + gap
        self._longest = max(self._longest, gap)
        if is_first:
            self._first = _First(gap, now, steps, gap)
        elif self._first is not None:
            self._judge(self._first, gap, kept)

    def _judge(self, first: _First, gap: float, kept: float) -> None:
        """Whether the first step was one like the others, or is to be forgotten."""
        first.steps, first.seconds, first.longest = first.steps * kept, first.seconds * kept, max(first.longest, gap)
        if first.longest >= first.took / 2:
            self._first = None
        elif self._last - first.came >= first.took:
            self._steps, self._seconds = self._steps - first.steps, self._seconds - first.seconds
            self._longest, self._first = first.longest, None

    def elapsed(self, now: float) -> float:
        """Seconds since the stage began."""
        return max(0.0, now - self.began)

    def rate(self, now: float) -> float | None:
        """Steps a second, or None while nothing is known; it sinks while a step takes longer than any before."""
        seconds = self._seconds + max(0.0, now - self._last - self._longest)
        return self._steps / seconds if self._steps > 0 and seconds > 0 else None

    def left(self, now: float) -> float | None:
        """Seconds until it is done, or None where nobody can tell (no rate yet, or more steps than were expected)."""
        rate = self.rate(now)
        if self.done == self.total:
            return 0.0
        if rate is None or self.done > self.total:
            return None
        return max(0.0, (self.total - self.done) / rate - min(max(0.0, now - self._last), self._longest))
