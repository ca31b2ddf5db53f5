"""A long run where there is no terminal: a line for each stage and each failure, and now and then how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from evalkit.cli.live.stage import Stage
from evalkit.cli.live.text import duration, pace
from evalkit.cli.live.watch import Watch
from evalkit.events import Event, Failed

EVERY = 300.0
"""Seconds between two lines of one stage."""


class PlainLines(Watch):
    """Plain text that ends in log files: nothing is painted over, no colours, no markup."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.console = console
        self._said = 0.0

    def _began(self, stage: Stage) -> None:
        self._said = stage.began
        if stage.total:
            self._say(f"{stage.what} ({stage.total})")

    def _advanced(self, stage: Stage) -> None:
        now = self.clock()
        if now - self._said >= EVERY:
            self._said = now
            far = f"{stage.done}/{stage.total}" if stage.total else str(stage.done)
            rate, left = pace(stage.rate(now)), duration(stage.left(now))
            self._say(f"{stage.what}: {far}, {rate}, {left} left" + (f", {self.failed} failed" if self.failed else ""))

    def _told(self, event: Event) -> None:
        if isinstance(event, Failed):
            self._say(f"failed: {event.what}: {event.why}")

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
