"""Files: written so that a crash never leaves half of one, and known by their content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from evalkit.errors import RunFailed

PART = ".part"
"""How the name of a file ends that is still being written; such files begin with a dot as well."""


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data` in one step: write beside it, flush to disk, rename.

    Raises:
        RunFailed: the disk is full or the folder cannot be written.
    """
    with replacing(path, mode) as temporary, temporary.open("wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield an empty file to fill; without an error it is flushed to disk and takes the place of `path` in one step.

    Raises:
        RunFailed: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=PART)
        temporary = Path(name)
        try:
            try:
                yield temporary
                os.fsync(handle)  # one inode, whoever wrote to it
            finally:
                os.close(handle)
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


def remove_unfinished(*folders: Path) -> None:
    """Remove what a killed process left half written; for whoever holds these folders."""
    for folder in folders:
        for path in folder.glob(f".*{PART}"):
            with contextlib.suppress(OSError):
                path.unlink()
