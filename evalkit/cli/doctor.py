"""`m4v-eval doctor`: what works on this machine and what is missing."""

from __future__ import annotations

import typer

from evalkit import cli


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor() -> None:
    """Say what works on this machine, what is missing, and what to do about it.

    Exit code 0: the lite profile works at least; 1: something essential is broken.
    """
    from rich.table import Table

    from evalkit.doctor import checks

    marks = {"ok": "[green]ok[/green]", "missing": "[yellow]missing[/yellow]", "broken": "[red]broken[/red]"}
    table = Table(title="m4v-eval on this machine", title_justify="left")
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    results = list(checks())
    for check in results:
        table.add_row(marks[check.state], check.what, check.found, check.remedy)
    cli.out.print(table)
    if any(check.state == "broken" for check in results):
        raise typer.Exit(1)
