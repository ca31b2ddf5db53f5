"""Results on disk: an append-only journal keyed by content, and one writer a run directory.

A result's key is the hash of all it depends on, so a second run finds it, a changed input misses it, and nothing is
ever invalidated by hand. Each line carries a checksum: a line torn by a crash or damaged on disk is dropped on opening
and its result computed again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from evalkit.errors import RunFailed


def content_key(**parts: Any) -> str:
    """Hash JSON-able parts into a key; equal parts give equal keys in any order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Journal:
    """A dictionary of JSON records that survives kill -9 at any byte.

    Use as a context manager. `put` is durable once it returns (the operating system has the line).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dropped = 0
        self._records: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Journal:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b", buffering=0)  # one record, one system call
            self._read()
        except OSError as e:
            raise _unwritable(self.path, e) from e
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def get(self, key: str) -> dict[str, Any] | None:
        return self._records.get(key)

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Append a record; a later record with the same key replaces it.

        Raises:
            RunFailed: the disk is full or the folder cannot be written.
        """
        body = json.dumps({"key": key, **record}, ensure_ascii=False).encode()
        line = f"{zlib.crc32(body):08x} ".encode() + body + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as e:
            with contextlib.suppress(OSError):
                self._file.truncate(end)  # half a line would spoil the next one
            raise _unwritable(self.path, e) from e
        self._records[key] = record

    def _read(self) -> None:
        self._file.seek(0)
        data = self._file.read()
        lines = data.split(b"\n")
        for line in lines[:-1]:
            record = _checked(line)
            if record is None:
                self.dropped += 1
            else:
                self._records[record.pop("key")] = record
        torn = len(lines[-1])
        if torn:  # the writer died in the middle of a line
            self.dropped += 1
            self._file.truncate(len(data) - torn)
        self._file.seek(0, os.SEEK_END)


def _checked(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.partition(b" ")
    if checksum != f"{zlib.crc32(body):08x}".encode():
        return None
    record = json.loads(body)
    return record if isinstance(record, dict) and "key" in record else None


def _unwritable(path: Path, error: OSError) -> RunFailed:
    return RunFailed(
        f"Could not write {path}: {error.strerror or error}.",
        "Free space or choose another --out, then run the same command again: finished results are kept.",
    )


@contextlib.contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """Hold the run directory for this process; the lock vanishes with the process, however it ends.

    Raises:
        RunFailed: another process holds it (says which), or the directory cannot be made.
    """
    who = run / "lock.json"
    lock = FileLock(run / ".lock")
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        who.write_text(json.dumps(me))
    except Timeout:
        holder = who.read_text() if who.is_file() else "unknown"
        raise RunFailed(
            f"Another process is writing to {run} ({holder}).", "Wait for it to finish, or choose another --out."
        ) from None
    except OSError as e:
        raise _unwritable(run, e) from e
    try:
        yield
    finally:
        who.unlink(missing_ok=True)
        lock.release()
