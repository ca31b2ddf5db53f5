"""What everybody who watches a long run knows of it: its stage, its workers, and what failed."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from evalkit.cli.live.stage import Stage
from evalkit.events import Doing, Event, Failed
from evalkit.untrusted import shown

NAMED = 10
log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # a run's log takes the failures; without one, nothing is printed twice


class Watch:
    """Keeps the state of a run, as `evalkit.job.Progress`; all failures go to the run's log.

    Subclasses show what changed: `_began` after a stage begins, `_advanced` after steps, `_told` after an event,
    `_ends` before a stage is over; and say in `safe` what has to be done to names before they are kept.

    Args:
        clock: seconds that never go back.
    """

    safe: Callable[[str], str] = staticmethod(shown)

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.RLock()  # the view is painted by a thread of its own
        self.stage: Stage | None = None
        self.files: Stage | None = None  # that workers have put down again
        self.doing: dict[str, str] = {}
        self.failed = 0
        self.latest: deque[Failed] = deque(maxlen=NAMED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self.lock:
            self._ends()

    def start(self, what: str, total: int) -> None:
        """A stage begins; workers of the one before are forgotten."""
        with self.lock:
            self._ends()
            now = self.clock()
            self.stage, self.files = Stage(self.safe(what), total, now), Stage("files", 0, now)
            self.doing.clear()
            self._began(self.stage)

    def advance(self, steps: int = 1) -> None:
        """Steps of the stage are done."""
        with self.lock:
            if self.stage is not None:
                self.stage.advance(steps, self.clock())
                self._advanced(self.stage)

    def tell(self, event: Event) -> None:
        """A worker took something up, or something failed."""
        if isinstance(event, Failed):  # outside the lock: others' handlers of logs may print
            log.warning("%s: %s", shown(event.what), shown(event.why))
        with self.lock:
            if isinstance(event, Doing):
                event = Doing(self.safe(event.worker), self.safe(event.what))
                if self.files is not None and self.doing.get(event.worker):
                    self.files.advance(1, self.clock())
                self.doing[event.worker] = event.what
            else:
                event = Failed(self.safe(event.what), self.safe(event.why))
                self.failed += 1
                self.latest.append(event)
            self._told(event)

    def _began(self, stage: Stage) -> None: ...

    def _advanced(self, stage: Stage) -> None: ...

    def _told(self, event: Event) -> None: ...

    def _ends(self) -> None: ...
