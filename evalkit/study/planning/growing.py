"""A directory that is there when it is whole, and not before."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evalkit.errors import RunFailed
from evalkit.lock import HOLDER, holding
from evalkit.study.plan_file import CLIPS
from evalkit.study.planning.copying import JOURNAL


@contextmanager
def growing(out: Path) -> Iterator[Path]:
    """The directory in which a study grows, hidden beside `out`; it becomes `out` at the end, if there was no error.

    Raises:
        RunFailed: it cannot be written or moved, or another command is at it.
    """
    folder = out.absolute().parent / f".{out.absolute().name}.partial"
    try:
        (folder / CLIPS).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as e:
        raise RunFailed(f"Could not write {folder}: {e.strerror or e}.", "Choose another folder with --out.") from e
    with holding(folder, f"{out} is made", private=True):
        yield folder
        _move(folder, out)


def _move(folder: Path, out: Path) -> None:
    try:
        for file in (JOURNAL, HOLDER):
            (folder / file).unlink(missing_ok=True)
        if out.exists():  # since the request was checked
            raise FileExistsError(errno.EEXIST, "it exists by now")
        folder.rename(out)
    except OSError as e:
        raise RunFailed(
            f"Could not move the finished study to {out}: {e.strerror or e}.", "Choose another --out and run it again."
        ) from e
