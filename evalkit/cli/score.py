"""`m4v-eval score`: headline scores from a table of dimension scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.cli import err, out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from evalkit.score_table import ScoreTable


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score")(score)


def score(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV or JSON: a row a model, official dimension names as columns.")
    ],
    unit: Annotated[
        str | None,
        typer.Option(metavar="percent|fraction", help="What the cells are.", show_default="decided from the values"),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the machine-readable result here.")] = None,
) -> None:
    """Compute VBench's quality, semantic and total from dimension scores.

    Quality needs its 7 dimensions, semantic its 9 and a total all 16; where one is missing the score is left out,
    never counted as zero. The columns are [bold]model[/bold] and official dimension names: model,subject_consistency,
    background_consistency,... The official package's eval_results.json works as it is.

    Examples:

      m4v-eval score scores.csv

      m4v-eval score scores.json --unit fraction --json totals.json
    """
    import json as json_format

    from evalkit.errors import unknown
    from evalkit.files import write_atomically
    from evalkit.score_table import read_table

    if unit not in (None, "percent", "fraction"):
        raise unknown("unit", str(unit), ("percent", "fraction"))
    table = read_table(file, unit)  # type: ignore[arg-type]  # narrowed to the literals above
    err.print(f"read as {table.unit}: {table.unit_reason}", highlight=False, markup=False)
    if table.ignored_columns:
        err.print(f"not dimensions, not used: {', '.join(table.ignored_columns)}", highlight=False, markup=False)
    if table.repeated_names:
        names = ", ".join(table.repeated_names)
        err.print(f"on several rows, each scored by itself: {names}", highlight=False, markup=False)
    out.print(_table(table))
    for line in _missing(table):
        out.print(line, highlight=False, markup=False)
    if json:
        write_atomically(json, (json_format.dumps(table.to_json(), indent=2, ensure_ascii=False) + "\n").encode())


def _table(scores: ScoreTable) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="VBench headline scores, percent", title_justify="left")
    table.add_column("model", overflow="fold")
    if scores.repeated_names:
        table.add_column("source", overflow="fold", style="dim")
    for heading in ("quality", "semantic", "total", "missing"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=7)
    for row in scores.rows:
        headline = (row.totals.quality, row.totals.semantic, row.totals.total)
        label = [escape(row.name)] + [escape(row.source)] * bool(scores.repeated_names)
        cells = ["-" if x is None else f"{x:.2f}" for x in headline]
        table.add_row(*label, *cells, f"{len(row.totals.missing)} of 16")
    return table


def _missing(scores: ScoreTable) -> Iterator[str]:
    """Which dimensions the incomplete rows lack: one line for each set of them."""
    by_missing: dict[tuple[str, ...], list[str]] = {}
    for row in scores.rows:
        by_missing.setdefault(row.totals.missing, []).append(row.name)
    for missing, names in by_missing.items():
        if missing:
            yield f"not scored for {', '.join(names)}: {', '.join(missing)}"
