"""Anonymous files that both processes see; this side reads them like files.

Mapping them here would let a child that truncates one kill this process (SIGBUS).
"""

from __future__ import annotations

import os
import tempfile
from typing import IO

import numpy as np

from evalkit.types import Frames

COUNT = 3
"""Chunks that wait or are being filled."""


class Slot:
    """Shared memory for one chunk."""

    def __init__(self) -> None:
        self._file: IO[bytes] = _anonymous_file()
        self.bytes = 0

    def fileno(self) -> int:
        return self._file.fileno()

    def grow(self, size: int) -> None:
        """Have room for `size` bytes at least; what is there stays."""
        if size > self.bytes:
            self._file.truncate(size)
            self.bytes = size

    def copy(self, offset: int, shape_THWC: tuple[int, int, int, int]) -> Frames:
        """An array of its own with what the slot holds from `offset` on.

        Raises:
            EOFError: the file has been cut.
        """
        frames_THWC = np.empty(shape_THWC, np.uint8)
        rest = memoryview(frames_THWC.data).cast("B")
        self._file.seek(offset)
        while rest:
            n: int = self._file.readinto(rest)  # type: ignore[attr-defined]
            if not n:
                raise EOFError
            rest = rest[n:]
        return frames_THWC

    def empty(self) -> None:
        """Give the memory back; nobody may be using the slot."""
        self._file.truncate(0)
        self.bytes = 0

    def close(self) -> None:
        self._file.close()


def _anonymous_file() -> IO[bytes]:
    """In memory where the system can; neither has a name, and both go with the last process that has them open."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("frames"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
