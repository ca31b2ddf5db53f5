"""The log of a run: what went wrong in detail, with tracebacks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOG = "run.log"


class _LogFile(logging.FileHandler):
    """A log that cannot be written, on a full disk say, must not stop what it is about."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: what matters is reported elsewhere."""


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append this package's log to a file, which is made when there is something to say."""
    logger = logging.getLogger("evalkit")
    handler = _LogFile(path, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()
