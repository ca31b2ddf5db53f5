"""Results on disk: an append-only journal keyed by content.

A result's key is the hash of all it depends on, so a second run finds it, a changed input misses it, and nothing is
ever invalidated by hand. Each line carries a checksum: a line torn by a crash or damaged on disk is dropped on opening
and its result computed again. The checksum (CRC-32) is against accidents: whoever may write to the run directory is
trusted, for he could write any line with its checksum.

One process appends to a journal, and whoever opens it for that holds its folder (`evalkit.lock`). Where locks do not
reach from host to host, a second writer is noticed when the file has grown by itself.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from evalkit.errors import RunFailed

_ENCODING = "utf-8", "surrogatepass"  # names of files that are no text hold lone surrogates; json reads them back


def content_key(**parts: Any) -> str:
    """Hash JSON-able parts into a key; equal parts give equal keys in any order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode(*_ENCODING)).hexdigest()


class Journal:
    """A dictionary of JSON records that survives kill -9 at any byte.

    Use as a context manager. `put` is durable once it returns (the operating system has the line).

    Args:
        path: the journal; made if it is not there.
        below: another journal, only read, whose records count where this one has none.
    """

    def __init__(self, path: Path, below: Path | None = None) -> None:
        self.path = path
        self.dropped = 0
        self._records: dict[str, dict[str, Any]] = dict(read_journal(below)) if below else {}

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
            RunFailed: the disk is full, the folder cannot be written, or somebody else writes to the journal.
        """
        body = json.dumps({"key": key, **record}, ensure_ascii=False).encode(*_ENCODING)
        line = f"{zlib.crc32(body):08x} ".encode() + body + b"\n"
        try:
            self._refuse_company()
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as e:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)  # half a line would spoil the next one
            raise _unwritable(self.path, e) from e
        self._end += len(line)
        self._records[key] = record

    def _refuse_company(self) -> None:
        if self._file.seek(0, os.SEEK_END) != self._end:
            raise RunFailed(
                f"Another process writes to {self.path}, although this one holds its folder.",
                "End one of the two. On a network share that is mounted without locks, keep a run to one host.",
            )

    def _read(self) -> None:
        self._end = 0
        with self.path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):  # the writer died in the middle of it
                    self.dropped += 1
                    self._file.truncate(self._end)
                    break
                self._end += len(line)
                if found := _checked(line):
                    self._records[found[0]] = found[1]
                else:
                    self.dropped += 1


def read_journal(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The whole records of a journal that somebody else may be writing, oldest first; none if there is no such file.

    Raises:
        RunFailed: it cannot be read.
    """
    try:
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n") and (found := _checked(line)):
                    yield found
    except FileNotFoundError:
        return
    except OSError as e:
        raise RunFailed(f"Could not read {path}: {e.strerror or e}.", "Check the folder's owner and disk.") from e


def _checked(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """Key and record of a line; None if it is damaged."""
    checksum, _, body = line[:-1].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        record = json.loads(body)
        return str(record.pop("key")), record
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def _unwritable(path: Path, error: OSError) -> RunFailed:
    return RunFailed(
        f"Could not write {path}: {error.strerror or error}.",
        "Free space or choose another --out, then run the same command again: finished results are kept.",
    )
