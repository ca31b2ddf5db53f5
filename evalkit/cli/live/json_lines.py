"""A long run told to machines: JSON lines, schema `m4v-eval/log/1`.

What libraries write to stderr by themselves, warnings say, stands between the lines as it is.

Every line is one object with `schema`, `time` (UTC, ISO 8601), `elapsed_s` (seconds since the command began, by a clock
that never goes back) and `event`, and besides these, by event:

    stage     what, total                          a stage of so many steps begins (0: nothing to do)
    progress  what, done, total, rate_per_s, eta_s at most one a second, and one at the end of each stage; the last two
                                                   are null while nobody knows
    doing     worker, what                         a worker took something up; `what` is empty when it has nothing to do
    failed    what, why, failed                    something could not be done; how many that makes
    done      exit_code                            0, or 3 if something could not be scored; the last line
    error     what, remedy, exit_code              the last line of a run that failed; `remedy` may be empty
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from evalkit.cli.live.stage import Stage
from evalkit.cli.live.watch import Watch
from evalkit.events import Doing, Event

LOG_SCHEMA = "m4v-eval/log/1"
EVERY = 1.0
"""Seconds between two lines of progress."""


def whole(text: str) -> str:
    """The text as any JSON reader takes it: bytes of a name that are no text are written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class JsonLines(Watch):
    """Writes to a stream; a reader that has gone away does not stop the run.

    Args:
        stream: gives what takes the lines (the standard error of the moment).
        clock: seconds that never go back.
        date: the time of day.
    """

    safe = staticmethod(whole)

    def __init__(
        self,
        stream: Callable[[], TextIO],
        clock: Callable[[], float] = time.monotonic,
        date: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(clock)
        self.stream = stream
        self.date = date
        self._first = clock()
        self._wrote: float | None = None
        self._written = 0

    def done(self, exit_code: int) -> None:
        """The command did what it was asked for."""
        self._write("done", exit_code=exit_code)

    def error(self, what: str, remedy: str, exit_code: int) -> None:
        """The command failed."""
        self._write("error", what=whole(what), remedy=whole(remedy), exit_code=exit_code)

    def _began(self, stage: Stage) -> None:
        self._wrote, self._written = None, 0
        self._write("stage", what=stage.what, total=stage.total)

    def _advanced(self, stage: Stage) -> None:
        if self._wrote is None or self.clock() - self._wrote >= EVERY:
            self._progress(stage)

    def _ends(self) -> None:
        if self.stage is not None and self.stage.done != self._written:
            self._progress(self.stage)

    def _progress(self, stage: Stage) -> None:
        now = self.clock()
        self._wrote, self._written = now, stage.done
        rate, left = _rounded(stage.rate(now)), _rounded(stage.left(now))
        self._write("progress", what=stage.what, done=stage.done, total=stage.total, rate_per_s=rate, eta_s=left)

    def _told(self, event: Event) -> None:
        if isinstance(event, Doing):
            self._write("doing", worker=event.worker, what=event.what)
        else:
            self._write("failed", what=event.what, why=event.why, failed=self.failed)

    def _write(self, event: str, **facts: Any) -> None:
        time_, elapsed = self.date().isoformat("T", "milliseconds"), round(max(0.0, self.clock() - self._first), 3)
        record = {"schema": LOG_SCHEMA, "time": time_, "elapsed_s": elapsed, "event": event, **facts}
        with self.lock, contextlib.suppress(OSError):
            self.stream().write(json.dumps(record, allow_nan=False) + "\n")
            self.stream().flush()


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.6g}")
