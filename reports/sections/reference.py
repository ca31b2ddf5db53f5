"""Published rows beside the run, where the prompts and the dimensions are the same."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from evalkit.reference import TABLES, Row
from evalkit.report import Page, Section, percent, points

TABLE_OF_SUITE = {"full": "vbench_t2v", "custom50": "vbench_custom"}
"""Scores on other prompts than the published ones do not compare, so other suites have no table."""
HEADLINES = {"quality_score": "quality", "semantic_score": "semantic", "total_score": "total"}
"""Published column of each aggregate that means the same."""


@dataclass(frozen=True, slots=True)
class Line:
    """A published row: figures as printed, in the order of the columns."""

    model: str
    cells: tuple[str, ...]
    source: str
    note: str


def _line(row: Row, columns: tuple[str, ...]) -> Line:
    return Line(row["model"], tuple(row[column] or "–" for column in columns), row["source"], row["note"])


def body(page: Page) -> Markup | None:
    """One table; nothing for lite runs, and nothing for prompts without published scores."""
    suites = {run.summary["subset"]["name"] for run in page.runs}
    names = {TABLE_OF_SUITE.get(suite) for suite in suites}
    name = names.pop() if len(names) == 1 else None
    if name is None or any(run.summary["profile"] != "official" for run in page.runs):
        return None
    rows, published = TABLES[name].rows(), TABLES[name].columns
    headlines = tuple(
        column
        for column, key in HEADLINES.items()
        if column in published and any(run.summary["aggregate"].get(key) is not None for run in page.runs)
    )
    columns = (*(dimension for dimension in page.dimensions if dimension in published), *headlines)
    lines = [_line(row, columns) for row in rows if any(row[column] for column in columns)]
    ours = [
        (
            run,
            [
                points(run.summary["aggregate"].get(HEADLINES[column]))
                if column in HEADLINES
                else percent(run.dimensions.get(column, {}).get("score"))
                for column in columns
            ],
        )
        for run in page.runs
    ]
    if not (columns and lines):
        return None
    return page.fill("reference.html", columns=columns, ours=ours, lines=lines, customised=name == "vbench_custom")


SECTION = Section("Published rows", 60, body)
