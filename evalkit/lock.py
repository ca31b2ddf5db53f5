"""One writer a directory: who holds it says so, and the lock vanishes with the process, however it ends.

The lock is the operating system's (flock on `.lock`), so that nothing that a dead process leaves behind can block.
`lock.json` only tells who the holder is. On a network share the lock holds between hosts if the share has locks (NFS 4,
or NFS 3 with its lock daemon); where it is mounted without them, it holds between the processes of one host only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from evalkit.errors import RunFailed

LOCK, HOLDER = ".lock", "lock.json"

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextlib.contextmanager
def holding(folder: Path, what: str = "It is written to", *, private: bool = False) -> Iterator[None]:
    """Hold a directory for this process; it is made if it is not there.

    Args:
        folder: the directory, under any of its names: symbolic links to it are held as well.
        what: what is done to it, in words that "by process 7 on host" can follow, for whoever is refused.
        private: whether the lock is the owner's alone.

    Raises:
        RunFailed: another process holds it (says which), or it cannot be made or locked.
    """
    who = folder / HOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, mode=0o600) if private else FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFailed(
            f"{folder} is in use. {_holder(who)}",
            "Wait for that process or end it, then run the same command again; or choose another directory.",
        ) from None
    except (OSError, NotImplementedError) as e:
        raise _unlockable(folder, e) from e
    try:
        with contextlib.suppress(OSError):  # a full disk: then the holder has no name, and is the holder all the same
            who.write_text(json.dumps({"what": what, **_me()}), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            who.unlink(missing_ok=True)
        lock.release()


def _me() -> dict[str, object]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _holder(who: Path) -> str:
    try:
        holder = json.loads(who.read_text(encoding="utf-8"))
        return f"{holder['what']} by process {holder['pid']} on {holder['host']} since {holder['since']}."
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "By whom is not known."


def _unlockable(folder: Path, error: OSError | NotImplementedError) -> RunFailed:
    number = error.errno if isinstance(error, OSError) else errno.ENOSYS
    why = os.strerror(number) if number else str(error)
    if number in _NO_LOCKS:
        return RunFailed(
            f"{folder} cannot be locked: its file system has no locks ({why}).",
            "Choose a directory on a local disk, or on a share that is mounted with locks.",
        )
    return RunFailed(
        f"Could not write in {folder}: {why}.",
        "Choose another directory, or give this user the right to write in it, then run the same command again.",
    )
