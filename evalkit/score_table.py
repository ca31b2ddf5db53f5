"""Tables of dimension scores as people have them: CSV or JSON, a row a model, percent or fractions.

The unit is decided once for the whole table; a table whose unit cannot be told is refused rather than guessed.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit.errors import UserError
from evalkit.scoring import BOUNDS, Totals, totals
from evalkit.untrusted import parse_json, read_text

Unit = Literal["percent", "fraction"]

SCORE_SCHEMA = "m4v-eval/score/1"
NAME_COLUMNS = ("model", "name")
MISSING_CELLS = {"", "-", "–", "—", "/", "n/a", "na", "nan", "none", "null"}

# No model scores below 1 % here, so a value up to 1 in one of these columns can only be a fraction.
NEVER_TINY = {name for name, bounds in BOUNDS.items() if bounds.low > 0.1} | {"aesthetic_quality", "imaging_quality"}


MOST_COLUMNS = 1000


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One row: raw fractions by dimension (those that were given), and the headline scores they allow."""

    name: str
    source: str
    scores: Mapping[str, float]
    totals: Totals


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """A table with its unit decided.

    Args:
        rows: in the order of the file.
        unit: what the cells were read as.
        unit_reason: what decided it.
        ignored_columns: columns that are not dimensions.
        repeated_names: model names on several rows; every row is scored by itself.
    """

    rows: tuple[ModelScores, ...]
    unit: Unit
    unit_reason: str
    ignored_columns: tuple[str, ...]
    repeated_names: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCORE_SCHEMA,
            "unit": self.unit,
            "unit_reason": self.unit_reason,
            "ignored_columns": list(self.ignored_columns),
            "rows": [
                {
                    "name": row.name,
                    "source": row.source or None,
                    "quality": row.totals.quality,
                    "semantic": row.totals.semantic,
                    "total": row.totals.total,
                    "coverage": row.totals.coverage,
                }
                for row in self.rows
            ],
        }


@dataclass(frozen=True, slots=True)
class _Row:
    """One row as read: where it stands, its name, and its numbers by dimension."""

    where: str
    name: str
    source: str
    cells: dict[str, float]


def read_table(path: Path, unit: Unit | None = None) -> ScoreTable:
    """Read a score table.

    CSV: one row a model, a column `model` (or `name`), official dimension names as columns. JSON: a list of such rows,
    a mapping from model to row, or one mapping from dimension to score; a score may be `[score, ...]`, as in the
    official `*_eval_results.json`. Empty cells are missing, never zero.

    Args:
        path: a `.csv` or `.json` file.
        unit: of the cells; None decides it from the values.

    Raises:
        UserError: unreadable, empty, a misspelt or repeated column, a cell that is no number or out of range, or a
            unit that cannot be told.
    """
    text = _read_text(path)
    records = _json_records(path, text) if path.suffix.lower() == ".json" else _csv_records(path, text)
    columns = list(dict.fromkeys(column for _, record in records for column in record))
    if len(columns) > MOST_COLUMNS:
        raise UserError(f"{path} has {len(columns):,} columns, more than {MOST_COLUMNS:,}.", _expected())
    dimensions = _dimension_columns(path, columns)
    rows = [_row(where, record, dimensions) for where, record in records]
    decided, reason = (unit, "as given by --unit") if unit else _decide_unit(path, rows)
    ignored = tuple(c for c in columns if c not in dimensions and _key(c) not in (*NAME_COLUMNS, "source"))
    names = Counter(row.name for row in rows)
    return ScoreTable(
        tuple(_scored(row, decided) for row in rows),
        decided,
        reason,
        ignored,
        tuple(name for name, count in names.items() if count > 1),
    )


def _read_text(path: Path) -> str:
    text = read_text(path, "Give a .csv or .json file of scores.")
    if not text.strip():
        raise UserError(f"{path} is empty.", _expected())
    return text


def _expected() -> str:
    return f"Give a row a model and columns such as model, {', '.join(list(BOUNDS)[:3])}, ... (all 16 for a total)."


def _csv_records(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as e:
        raise UserError(f"{path}, line {reader.line_num}: {e}.", "Save the table as plain CSV with commas.") from None
    repeated = [name for name, count in Counter(header).items() if name and count > 1]
    if repeated:
        raise UserError(f"{path} has the column {repeated[0]!r} twice.", "Keep one of them.")
    for number, line in lines:
        if len(line) > len(header):
            raise UserError(
                f"{path}, line {number} has {len(line)} cells under {len(header)} headings.",
                'Put cells that contain a comma in "quotes".',
            )
    if not lines:
        raise UserError(f"{path} has headings but no rows.", _expected())
    return [(f"{path}, line {number}", dict(zip(header, line, strict=False))) for number, line in lines]


def _json_records(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    data = parse_json(text, str(path), "Give a .csv file, or a list of objects, one a model.", finite=False)
    if isinstance(data, dict) and data and all(isinstance(row, dict) for row in data.values()):
        data = [{"model": name} | row for name, row in data.items()]
    elif isinstance(data, dict):
        data = [{"model": path.stem} | data]
    if not (isinstance(data, list) and data and all(isinstance(row, dict) for row in data)):
        raise UserError(f"{path} holds no rows.", "Give a list of objects, one a model, with official dimension names.")
    return [(f"{path}, row {i}", row) for i, row in enumerate(data, start=1)]


def _key(column: str) -> str:
    """`Subject Consistency` and `subject-consistency` name the dimension subject_consistency."""
    return "_".join(column.strip().lower().replace("-", " ").replace("_", " ").split())


def _dimension_columns(path: Path, columns: Iterable[str]) -> dict[str, str]:
    """The dimension that each column holds; columns of other things are left out.

    Raises:
        UserError: no column is a dimension, or one is nearly one (a misspelt dimension must not pass as missing).
    """
    found = {column: _key(column) for column in columns if _key(column) in BOUNDS}
    twice = [name for name, count in Counter(found.values()).items() if count > 1]
    if twice:
        raise UserError(f"{path} has two columns that mean {twice[0]}.", "Keep one of them.")
    absent = [name for name in BOUNDS if name not in found.values()]
    for column in columns:
        near = difflib.get_close_matches(_key(column), absent, n=1, cutoff=0.85)
        if column not in found and near:
            raise UserError(f"{path} has a column {column!r}.", f"If it means {near[0]}, call it that; else rename it.")
        if column.startswith("lite/"):
            raise UserError(
                f"{path} has a column {column!r}: a stand-in, which is not VBench and has no headline score.",
                "Score with --profile official, or leave the column out.",
            )
    if not found:
        raise UserError(f"{path} has no column that is a VBench dimension.", f"Choose from: {', '.join(BOUNDS)}.")
    return found


def _row(where: str, record: Mapping[str, Any], dimensions: Mapping[str, str]) -> _Row:
    texts = {_key(column): str(cell).strip() for column, cell in record.items() if isinstance(cell, str)}
    cells = {}
    for column, dimension in dimensions.items():
        number = _number(f"{where}, {dimension}", record.get(column))
        if number is not None:
            cells[dimension] = number
    name = next((texts[key] for key in NAME_COLUMNS if texts.get(key)), where.rsplit(", ", 1)[-1])
    return _Row(where, name, texts.get("source", ""), cells)


def _number(where: str, cell: Any) -> float | None:
    """A cell's number; None if it is empty. Official result files give `[score, per-video results]`."""
    if isinstance(cell, list) and cell:
        cell = cell[0]
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING_CELLS):
        return None
    try:
        number = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if not math.isfinite(number):
        raise UserError(f"{where}: {cell!r} is not a number.", "Write 97.61 or 0.9761, or leave the cell empty.")
    return number


def _decide_unit(path: Path, rows: Iterable[_Row]) -> tuple[Unit, str]:
    cells = [(row, dimension, x) for row in rows for dimension, x in row.cells.items() if x != 0.0]
    large = [cell for cell in cells if abs(cell[2]) > 1.0]
    small = [cell for cell in cells if abs(cell[2]) <= 1.0]
    if large and small:
        raise UserError(
            f"{path} seems to mix percent and fractions: {_cite(large[0])}, but {_cite(small[0])}.",
            "Correct it, or say what all cells are with --unit percent or --unit fraction.",
        )
    if large:
        return "percent", f"every value other than 0 exceeds 1, e.g. {_cite(large[0])}"
    telling = [cell for cell in small if cell[1] in NEVER_TINY]
    if telling:
        return "fraction", f"no value exceeds 1, e.g. {_cite(telling[0])}"
    if small:
        raise UserError(
            f"{path}: the unit cannot be told, {_cite(small[0])} could be a fraction or a small percentage.",
            "Say which with --unit fraction or --unit percent.",
        )
    return "fraction", "no value other than 0, so the unit does not matter"


def _cite(cell: tuple[_Row, str, float]) -> str:
    row, dimension, x = cell
    return f"{dimension} of {row.name} is {x:g}"


def _scored(row: _Row, unit: Unit) -> ModelScores:
    scale = 100.0 if unit == "percent" else 1.0
    scores = {dimension: x / scale for dimension, x in row.cells.items()}
    for dimension, raw in scores.items():
        floor = BOUNDS[dimension].floor
        if not floor <= raw <= 1.0:
            raise UserError(
                f"{row.where}, {dimension}: {row.cells[dimension]:g} is outside {floor * scale:g} to {scale:g}"
                f" (the table was read as {unit}).",
                "Correct the cell, or give the right --unit.",
            )
    return ModelScores(row.name, row.source, scores, totals(scores))
