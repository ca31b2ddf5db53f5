"""The table of mean ranks: `prompt_id,axis,model,mean_rank`, without raters, as publications print it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evalkit.study.forms.csv_rows import Faults, Row, Sheet

COLUMNS: tuple[str, ...] = ("prompt_id", "axis", "model", "mean_rank")
OPTIONAL: tuple[str, ...] = ("source", "note")
MAX_DIGITS = 30
RESERVED = ("axis", "model", "question", "source")
"""Names that the check of the sums keeps for itself."""

Question = tuple[str, str]
"""Prompt and axis."""


@dataclass(frozen=True, slots=True)
class MeanRanks:
    """A table of mean ranks, cells as printed: how a number is printed says how precisely it is known.

    Args:
        source: name of the file.
        models: in order of appearance.
        axes: likewise.
        cells: figure as printed, by prompt, axis and model.
        sources: where each prompt and axis was printed; empty if the table does not say.
        notes: what the table's own notes say of each prompt and axis.
    """

    source: str
    models: tuple[str, ...]
    axes: tuple[str, ...]
    cells: Mapping[Question, Mapping[str, str]]
    sources: Mapping[Question, str]
    notes: Mapping[Question, tuple[str, ...]]


def read_mean_ranks(sheet: Sheet, faults: Faults) -> MeanRanks:
    """Such a table; what is wrong goes to `faults`."""
    cells: dict[Question, dict[str, str]] = {}
    sources: dict[Question, str] = {}
    notes: dict[Question, list[str]] = {}
    lines: dict[tuple[str, str, str], int] = {}
    for row in sheet.rows:
        question = (row["prompt_id"], row["axis"])
        first = lines.setdefault((*question, row["model"]), row.line)
        if first != row.line:
            said = f"{row['model']} stands twice on {row['axis']} of prompt {row['prompt_id']} (first in line {first})"
            faults.add(sheet.file, row.line, said)
        elif row["model"] in RESERVED:
            faults.add(sheet.file, row.line, f"a model of a table of mean ranks cannot be called {row['model']}")
        elif _is_figure(row, sheet.file, faults):
            cells.setdefault(question, {})[row["model"]] = row["mean_rank"]
            sources.setdefault(question, row.get("source"))
            if row.get("note"):
                notes.setdefault(question, []).append(row["note"])
    return MeanRanks(
        Path(sheet.file).name,
        tuple(dict.fromkeys(row["model"] for row in sheet.rows)),
        tuple(dict.fromkeys(row["axis"] for row in sheet.rows)),
        cells,
        sources,
        {question: tuple(dict.fromkeys(said)) for question, said in notes.items()},
    )


def _is_figure(row: Row, file: str, faults: Faults) -> bool:
    figure = re.fullmatch(r"[0-9]+(\.[0-9]*)?", row["mean_rank"]) is not None and len(row["mean_rank"]) <= MAX_DIGITS
    if not figure:
        faults.add(file, row.line, f"the mean rank {row['mean_rank']!r} is no number such as 1.25")
    return figure
