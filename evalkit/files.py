"""Files: written so that a crash never leaves half of one, and known by their content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from evalkit.errors import RunFailed


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
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
            temporary.chmod(mode)
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
