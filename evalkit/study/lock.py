"""One writer a study: who holds it says so, and the lock vanishes with the process, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from evalkit.errors import RunFailed
from evalkit.study.plan_file import LOCK, PRIVATE

HOLDER = ".lock.json"


@contextlib.contextmanager
def holding(study: Path, what: str = "It is written to") -> Iterator[None]:
    """Hold a study for this process.

    Args:
        study: its directory.
        what: what the holder does, for the error another process gets.

    Raises:
        RunFailed: another process holds it (says which), or the directory cannot be written.
    """
    who = study / HOLDER
    lock = FileLock(study / LOCK, mode=PRIVATE)
    try:
        lock.acquire(timeout=0)
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        who.write_text(json.dumps({"what": what, **me}), encoding="utf-8")
    except Timeout:
        raise RunFailed(
            f"{study} is in use. {_holder(who)}", "End that process, or wait for it; then run the command again."
        ) from None
    except OSError as e:
        raise RunFailed(f"{study} cannot be written ({e.strerror or e}).", "Check the folder's owner and disk.") from e
    try:
        yield
    finally:
        who.unlink(missing_ok=True)
        lock.release()


def _holder(who: Path) -> str:
    try:
        holder = json.loads(who.read_text(encoding="utf-8"))
        return f"{holder['what']} by process {holder['pid']} on {holder['host']} since {holder['since']}."
    except (OSError, ValueError, KeyError, TypeError):
        return "By whom is not known."
