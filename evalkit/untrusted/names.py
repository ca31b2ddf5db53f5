"""Names that come from outside: as files to read, as files to write, and on a terminal."""

from __future__ import annotations

import re
from pathlib import Path

from evalkit.errors import UserError
from evalkit.untrusted.text import shown

LONGEST = 200
"""Bytes of a name that gets a suffix; file systems take 255."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_REFUSED = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*]')


def inside(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder; None if it lies elsewhere once links are followed, or can be no file."""
    try:
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            return None
        path.lstat()
    except FileNotFoundError:
        return path
    except (OSError, ValueError, RuntimeError):  # too long; a NUL or half a character; links in a circle
        return None
    return path


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that can be none (too long, with a NUL) is no error."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_portable(name: str) -> bool:
    """Whether a name can be a file's on any system, and stays in the folder where it is put."""
    try:
        n_bytes = len(name.encode())
    except UnicodeEncodeError:
        return False
    return (
        0 < n_bytes <= LONGEST
        and not name.startswith(".")
        and not name.endswith((".", " "))
        and _REFUSED.search(name) is None
        and _RESERVED.fullmatch(name) is None
    )


def check_file_name(name: str, what: str) -> None:
    """Refuse a name that is to be written and could lead elsewhere.

    Raises:
        UserError: it is not portable; `what` says whose name it is.
    """
    if not is_portable(name):
        raise UserError(
            f"{what} {shown(name[:80])!r} cannot name a file.",
            'Use letters, digits, spaces, "-", "_" and "."; no slashes, no dot in front, at most 200 bytes.',
        )
