"""`m4v-eval status`: how far a run is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit import cli

if TYPE_CHECKING:
    from rich.table import Table

    from evalkit.cluster import Overview

COLUMNS = ("done", "running", "pending", "requeued", "failed")
RARE = ("cancelled", "waiting")
"""Columns that are shown where they hold something."""
EXIT_CODES = {"done": 0, "failed": 1, "incomplete": cli.INCOMPLETE}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory (the --out of the command).")],
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say how far a run is: jobs by stage, videos, failures with the end of their logs, and who writes to it.

    Exit codes: 0 done; 1 a job failed; 3 not done yet, or something is unscored.

    Examples:

      m4v-eval status runs/samples-full-official
    """
    report(run, json)


def report(run: Path, json: bool = False) -> None:
    """Print how far a run is and end with the exit code that says so.

    Raises:
        typer.Exit: it is not done.
        UserError: there is no run.
    """
    from json import dumps

    from evalkit.cluster import overview

    seen = overview(run)
    if json:
        typer.echo(dumps(seen.to_json(), indent=1, ensure_ascii=False))
    else:
        _print(seen)
    if code := EXIT_CODES[seen.verdict]:
        raise typer.Exit(code)


def _print(seen: Overview) -> None:
    if seen.stages:
        cli.out.print(_table(seen))
    whole = f" of {seen.videos}" if seen.videos is not None else ""
    made = "made" if seen.kind == "generate" else "scored"
    lines = [f"{seen.verdict}: {seen.videos_done}{whole} videos {made}"]
    if seen.unscored:
        lines.append(f"The last report lists {seen.unscored} scores as missing.")
    if seen.writer:
        lines.append(seen.writer)
    for failure in seen.failures:
        lines.append(f"{failure.stage} {failure.name} (job {failure.job}) failed: {failure.why}")
        lines += [f"    {line}" for line in failure.lines]
        lines += [f"    log: {failure.log}"] if failure.log else []
    for line in lines:
        cli.out.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(seen: Overview) -> Table:
    from rich.table import Table

    table = Table(title=f"{seen.kind} on {seen.executor}", title_justify="left")
    table.add_column("stage", no_wrap=True)
    columns = [*COLUMNS, *(state for state in RARE if any(s.counts.get(state) for s in seen.stages))]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("elapsed / limit", justify="right", no_wrap=True)
    for stage in seen.stages:
        limit = f"{stage.limit_minutes // 60}:{stage.limit_minutes % 60:02}:00"
        shown = {**stage.counts, "pending": stage.pending, "requeued": stage.restarts}
        counts = [str(shown.get(column) or "") for column in columns]
        table.add_row(stage.stage, *counts, f"{stage.elapsed or '-'} / {limit}" if stage.limit_minutes else "-")
    return table
