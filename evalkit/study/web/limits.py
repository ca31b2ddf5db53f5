"""How often one may ask: token buckets, in memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from evalkit.study.web.options import Rate

_CAPACITY = 10_000  # buckets; the one that was asked least recently makes room, and begins full again


class Buckets:
    """One token bucket a key: it fills at `rate.per_s` up to `rate.burst`, and each request takes one token."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at what time

    def take(self, key: str) -> float:
        """Take a token; returns 0, or in how many seconds there will be one."""
        now = self._clock()
        tokens, then = self._buckets.get(key, (self._rate.burst, now))
        tokens = min(self._rate.burst, tokens + (now - then) * self._rate.per_s)
        granted = tokens >= 1
        self._buckets[key] = (tokens - granted, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _CAPACITY:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1 - tokens) / self._rate.per_s
