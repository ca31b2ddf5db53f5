"""Writing files so that a crash never leaves half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from evalkit.errors import RunFailed


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: write beside it, flush to disk, rename.

    Raises:
        RunFailed: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as e:
        raise RunFailed(
            f"Could not write {path}: {e.strerror or e}.",
            "Free space or choose another folder, then run the same command again: finished results are kept.",
        ) from e
