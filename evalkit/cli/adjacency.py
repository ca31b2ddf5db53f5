"""`m4v-eval adjacency`: how far apart a scan leaves neighbouring tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("adjacency")(adjacency)


def adjacency(
    frames: Annotated[int, typer.Option(min=1, help="Token grid: frames.")] = 32,
    rows: Annotated[int, typer.Option(min=1, help="Token grid: rows.")] = 32,
    cols: Annotated[int, typer.Option(min=1, help="Token grid: columns.")] = 32,
    layers: Annotated[int, typer.Option(min=1, help="Largest k.")] = 8,
    diagonals: Annotated[
        bool,
        typer.Option("--diagonals", help="Neighbours are all pairs in a 2x2x2 cube, not only those along an axis."),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw d_k over k here (.svg, .png or .pdf).", show_default=False)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Also write the machine-readable result here.", show_default=False)
    ] = None,
) -> None:
    """Compare scan orders by LinGen's d_k: the mean distance of neighbours, in the best of k layers.

    A state-space model forgets with distance: tokens that are neighbours in the video should be close in the scan of at
    least one layer. 1 is the best there is.

    Examples:

      m4v-eval adjacency --plot adjacency.svg

      m4v-eval adjacency --frames 31 --rows 12 --cols 20
    """
    from evalkit.adjacency import findings, measure, write_plot
    from evalkit.cli import out
    from evalkit.figure import check_suffix

    if plot:
        check_suffix(plot)
    record = measure((frames, rows, cols), layers, diagonals=diagonals)
    out.print(_table(record))
    for line in findings(record):
        out.print(f"  {line}", highlight=False, soft_wrap=True)
    if plot:
        write_plot(record, plot)
        out.print(f"plot: {plot}", highlight=False, soft_wrap=True)
    if json:
        _save(record, json)


def _table(record: dict[str, Any]) -> Any:
    from rich.table import Table

    from evalkit.adjacency import SCHEDULES

    grid = " x ".join(map(str, record["grid"].values()))
    table = Table(title=f"d_k over {grid} tokens", title_justify="left")
    for column in ("k", *SCHEDULES):
        table.add_column(column, justify="right", no_wrap=True)
    for row in record["rows"]:
        table.add_row(str(row["k"]), *(f"{row[name]:,.2f}" for name in SCHEDULES))
    return table


def _save(record: dict[str, Any], path: Path) -> None:
    import json

    from evalkit.files import write_atomically

    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())
