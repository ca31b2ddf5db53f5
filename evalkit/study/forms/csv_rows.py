"""Rows of CSV files: read cell by cell, every fault kept with its line; written so that a spreadsheet runs nothing."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import UserError
from evalkit.untrusted import read_text

if TYPE_CHECKING:
    from _csv import Reader

SHOWN_FAULTS = 10
MAX_NAME, MAX_TEXT = 200, 10_000
"""Characters in a cell: of a name or number, and of free text."""
TEXTS = ("prompt", "note", "source")
"""Columns of free text: their runs of white space count as one space."""
MAY_BE_EMPTY = (*TEXTS, "seed", "screen")

_FORMULA = "=+-@"
_LEADS = _FORMULA + "'"


@dataclass(frozen=True, slots=True)
class Row:
    """One row, cells stripped and by column, with the line of the file on which it begins."""

    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def get(self, column: str) -> str:
        """The cell; empty if the file has no such column."""
        return self.cells.get(column, "")


class Faults:
    """What is wrong with the rows of one or several files: all of it is found before anything is refused."""

    def __init__(self) -> None:
        self._found: list[tuple[str, int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, file: str, line: int, text: str) -> None:
        self._found.append((file, line, text))

    def refuse(self) -> None:
        """Say what was found, if anything was.

        Raises:
            UserError: the first faults and how many there are.
        """
        if not self._found:
            return
        found = sorted(self._found)
        n = len(found)
        listed = "\n".join(f"  {file}, line {line}: {text}" for file, line, text in found[:SHOWN_FAULTS])
        more = f"\n  ... and {n - SHOWN_FAULTS} more" if n > SHOWN_FAULTS else ""
        raise UserError(
            f"{n} fault{'s' * (n > 1)} in {', '.join(dict.fromkeys(file for file, _, _ in found))}:\n{listed}{more}\n",
            "Correct the rows and give the file again; nothing was taken from it.",
        )


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file whose rows can be read.

    Args:
        file: its path as given.
        columns: its header, in lower case.
        rows: those with a cell for every column.
        complete: whether no row had to be set aside as unreadable.
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    complete: bool


def read_sheet(path: Path, faults: Faults) -> Sheet:
    """Read a file; rows that cannot be read go to `faults`.

    UTF-8 with or without a byte order mark; lines end as they like; blank lines and rows of empty cells are skipped.

    Args:
        path: the file.
        faults: collects what is wrong.

    Raises:
        UserError: no such file, not UTF-8, no CSV, or a header with a column twice.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        columns = tuple(cell.strip().lower() for cell in next(reader, []))
        twice = sorted(column for column, count in Counter(columns).items() if count > 1)
        if twice:
            raise UserError(
                f"{path}, line 1: the column {_shown(twice[0])} stands twice in the header.", "Name each column once."
            )
        rows, complete = [], True
        for line, cells in _numbered(reader):
            row = _row(str(path), line, columns, cells, faults)
            complete &= row is not None
            rows += [row] if row else []
    except csv.Error as e:
        raise UserError(
            f"{path}, line {reader.line_num}: this is no CSV ({e}).", "Save the table as comma-separated values, UTF-8."
        ) from None
    return Sheet(str(path), columns, tuple(rows), complete)


def _text(path: Path) -> str:
    return read_text(path, "Give a study directory or a CSV file.")


def _numbered(reader: Reader) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold anything, with the line on which each begins (a quoted cell may span several)."""
    while True:
        line = reader.line_num + 1
        cells = next(reader, None)
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _row(file: str, line: int, columns: Sequence[str], cells: Sequence[str], faults: Faults) -> Row | None:
    if len(cells) != len(columns):
        many = "more" if len(cells) > len(columns) else "fewer"
        faults.add(file, line, f"{len(cells)} cells, {many} than the {len(columns)} columns")
        return None
    clean = {c: _clean(c, cell) for c, cell in zip(columns, cells, strict=True)}
    wrong = [reason for c, cell in clean.items() if (reason := _wrong(c, cell))]
    for reason in wrong:
        faults.add(file, line, reason)
    return None if wrong else Row(line, clean)


def _clean(column: str, cell: str) -> str:
    return unguarded(" ".join(cell.split()) if column in TEXTS else cell.strip())


def _wrong(column: str, cell: str) -> str | None:
    limit = MAX_TEXT if column in TEXTS else MAX_NAME
    if not cell:
        return None if column in MAY_BE_EMPTY else f"the cell of {column} is empty"
    if len(cell) > limit:
        return f"the cell of {column} has {len(cell):,} characters; {limit:,} are allowed"
    if not cell.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in cell):
        return f"the cell of {column} holds a control character: {_shown(cell)}"
    return None


def _shown(text: str) -> str:
    short = text if len(text) <= 60 else text[:57] + "..."
    return ascii(short)


def whole(cell: str) -> int | None:
    """A whole number, as spreadsheets and data frames write it (`3`, `-1`, `3.0`); None if it is none."""
    match = re.fullmatch(r"([+-]?[0-9]{1,9})(\.0*)?", cell)
    return int(match[1]) if match else None


# ---- formulas --------------------------------------------------------------------------------------------------------


def guarded(cell: str) -> str:
    """A text cell that no spreadsheet takes for a formula.

    What begins with `=`, `+`, `-` or `@` gets an apostrophe in front, and so does what begins with an apostrophe, so
    that `unguarded` gives back every text.
    """
    return f"'{cell}" if cell[:1] and cell[0] in _LEADS else cell


def unguarded(cell: str) -> str:
    """Undo `guarded`: an apostrophe before `=`, `+`, `-`, `@` or another apostrophe goes; any other one stays."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] and cell[1] in _LEADS else cell
