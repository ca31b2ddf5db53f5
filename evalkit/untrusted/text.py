"""Text and JSON from files: one place for sizes, encodings, and numbers and nesting that nobody writes by hand."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evalkit.errors import UserError

LARGEST = 64 * 2**20
"""Bytes of a text file; a full run's largest, its summary, has a few megabytes."""
DEEPEST = 64
"""Objects and lists inside each other in JSON."""
LARGEST_INTEGER = 2**63 - 1

_PIPES = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def read_bytes(path: Path, remedy: str, largest: int = LARGEST) -> bytes:
    """Read a file whole, if it is an ordinary one (or a pipe that the shell made) and not larger than `largest`.

    Raises:
        UserError: it is not there, cannot be read, is a folder or a device, or is too large.
    """
    try:
        # A pipe among the files of a run would keep `open` waiting for whoever writes to it.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if _is_pipe(path) else os.O_NONBLOCK))
        with os.fdopen(handle, "rb") as file:
            if not (stat.S_ISREG(os.fstat(handle).st_mode) or _is_pipe(path)):
                raise UserError(f"{shown(path)} is no ordinary file.", remedy)
            data = file.read(largest + 1)
    except FileNotFoundError:
        raise UserError(f"{shown(path)} does not exist.", remedy) from None
    except (OSError, ValueError) as e:  # a NUL in the name is a ValueError
        raise UserError(f"{shown(path)} cannot be read: {getattr(e, 'strerror', None) or e}.", remedy) from None
    if len(data) > largest:
        raise UserError(f"{shown(path)} is larger than {_size(largest)}.", remedy)
    return data


def read_text(path: Path, remedy: str, largest: int = LARGEST) -> str:
    """Read UTF-8 text; a byte-order mark, as spreadsheets write it, is left out.

    Raises:
        UserError: as `read_bytes`, or it is not UTF-8; names the line.
    """
    return decode(read_bytes(path, remedy, largest), str(path))


def decode(data: bytes, where: str) -> str:
    """Text from UTF-8 bytes, without a byte-order mark.

    Raises:
        UserError: not UTF-8; names the line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise UserError(
            f"{shown(where)} cannot be read, line {line}: this is not UTF-8 text.", "Save it as UTF-8."
        ) from None


def parse_json(text: str, where: str, remedy: str, *, finite: bool = True) -> Any:
    """A JSON value without surprises.

    Refused besides what is no JSON: a key twice in one object, whole numbers beyond 64 bits, more than 64 levels,
    halves of characters (which cannot be written again), and NaN and Infinity unless `finite` is false.

    Args:
        text: of the value.
        where: its file, and its line where that has one value a line.
        remedy: what to do about it.
        finite: whether every number must be one.

    Raises:
        UserError: naming what is wrong.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_finite if finite else None,
            parse_constant=_no_number if finite else None,
        )
        if _is_deep(value):
            raise RecursionError
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise UserError(f"{shown(where)} cannot be read: it is not JSON of at most {DEEPEST} levels.", remedy) from None
    except UnicodeEncodeError:
        raise UserError(
            f"{shown(where)} cannot be read: it holds half a character (a lone surrogate).", remedy
        ) from None
    except json.JSONDecodeError as e:
        raise UserError(f"{shown(where)} cannot be read: it is not JSON ({e}).", remedy) from None
    except ValueError as e:
        raise UserError(f"{shown(where)} cannot be read: {e}.", remedy) from None
    return value


def read_json_lines(path: Path, remedy: str) -> Iterator[tuple[str, Any]]:
    """The values of a file with one JSON value a line, each with its place; empty lines are skipped.

    Raises:
        UserError: as `read_text` and `parse_json`.
    """
    for n, line in enumerate(read_text(path, remedy).split("\n"), 1):  # not splitlines: a text may hold U+2028
        if line.strip():
            where = f"{path}, line {n}"
            yield where, parse_json(line, where, remedy)


def shown(text: str | Path) -> str:
    """A name or a place for an error message: on one line, and without what cannot be printed."""
    text = str(text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def _is_pipe(path: Path) -> bool:
    """`m4v-eval score <(...)`; only what was typed so, not a link among somebody's files."""
    return str(path).startswith(_PIPES)


def _size(n_bytes: int) -> str:
    return f"{n_bytes // 2**20} MiB" if n_bytes >= 2**20 else f"{n_bytes:,} bytes"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has {key[:80]!r} twice in one object")
        found[key] = value
    return found


def _integer(digits: str) -> int:
    number = int(digits) if len(digits) < 25 else LARGEST_INTEGER + 1  # int() takes long over very many digits
    if abs(number) > LARGEST_INTEGER:
        raise ValueError(f"the whole number {digits[:25]}{'...' * (len(digits) > 25)} has more than 64 bits")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    return number if abs(number) < float("inf") else _no_number(digits[:25])


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _is_deep(value: Any) -> bool:
    layer = [value]
    for _ in range(DEEPEST + 1):
        layer = [
            child
            for parent in layer
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not layer:
            return False
    return True
