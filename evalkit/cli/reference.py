"""`m4v-eval reference`: the published tables, and where they contradict themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.cli import out

if TYPE_CHECKING:
    from rich.table import Table

    from evalkit.audit import Audit, Check
    from evalkit.reference import Row


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True)
    group.command("list")(list_tables)
    group.command("show")(show)
    group.command("audit")(audit)
    app.add_typer(group, name="reference", help="The published tables, and where they contradict themselves.")


def list_tables() -> None:
    """List the published tables: what they hold, in what unit, and where they were printed.

    Example:

      m4v-eval reference list
    """
    from rich.markup import escape
    from rich.table import Table

    from evalkit.reference import TABLES

    table = Table()
    table.add_column("table", no_wrap=True, min_width=max(map(len, TABLES)))
    table.add_column("holds")
    table.add_column("unit")
    table.add_column("rows", justify="right")
    table.add_column("source", style="dim")
    for entry in TABLES.values():
        first, *more = entry.sources
        source = first + (f", and {len(more)} more" if more else "")
        table.add_row(entry.name, escape(entry.title), escape(entry.unit), str(len(entry.rows())), escape(source))
    out.print(table)


def show(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A name from `reference list`.")],
    model: Annotated[
        str | None, typer.Option(metavar="X", help="Only rows whose name contains this.", show_default="all rows")
    ] = None,
) -> None:
    """Show a published table as it was printed, with its sources and notes.

    Examples:

      m4v-eval reference show m4v_table6

      m4v-eval reference show vbench_t2v --model M4V
    """
    from evalkit.errors import unknown
    from evalkit.reference import find_table

    found = find_table(table)
    rows = [row for row in found.rows() if model is None or model.lower() in row[found.key].lower()]
    if not rows:
        raise unknown(f"row in {table}", str(model), {row[found.key] for row in found.rows()})
    out.print(f"[bold]{found.title}[/bold] ({found.unit}; empty: not published)", highlight=False)
    columns = [c for c in found.columns if c != found.key and any(row[c] for row in rows)]
    for block in _blocks(rows, found.key, columns, out.width):
        out.print(_block(rows, found.key, block))
    for source in dict.fromkeys(row["source"] for row in rows):
        out.print(f"source: {source}", highlight=False, markup=False)
    for note in dict.fromkeys(row["note"] for row in rows if row["note"]):
        names = dict.fromkeys(row[found.key] for row in rows if row["note"] == note)
        out.print(f"note on {', '.join(names)}: {note}", highlight=False, markup=False, style="dim")


def _blocks(rows: Sequence[Row], key: str, columns: Sequence[str], width: int) -> Iterator[list[str]]:
    """Split wide tables into blocks of columns that fit the terminal; each repeats the rows' names."""

    def wide(column: str) -> int:
        return min(40, max(len(column), *(len(row[column]) for row in rows))) + 3

    room = width - wide(key) - 1
    block: list[str] = []
    for column in columns:
        if block and sum(map(wide, [*block, column])) > room:
            yield block
            block = []
        block.append(column)
    yield block


def _block(rows: Sequence[Row], key: str, columns: Sequence[str]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column(key)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(escape(row[key]), *(escape(row[column]) for column in columns))
    return table


def audit(json: Annotated[Path | None, typer.Option(help="Also write every check here.")] = None) -> None:
    """Recompute every published headline figure, and report the rows that contradict themselves.

    A figure contradicts its parts when rounding cannot explain the difference; the diagnosis names the single misprint
    that would explain it, if there is one. The tables themselves stay as printed.

    Example:

      m4v-eval reference audit --json audit.json
    """
    import json as json_format

    from rich.padding import Padding

    from evalkit.audit import TOLERANCE_RULE
    from evalkit.audit import audit as run_audit
    from evalkit.files import write_atomically

    result = run_audit()
    for indent, line in _findings(result):
        out.print(Padding(line, (0, 0, 0, indent)), highlight=False)
    out.print(_counts(result))
    out.print(TOLERANCE_RULE, style="dim", highlight=False)
    if json:
        write_atomically(json, (json_format.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n").encode())


def _findings(result: Audit) -> Iterator[tuple[int, str]]:
    """Lines with their indentation; rows with the same diagnosis share it."""
    from rich.markup import escape

    for (table, source, diagnosis), group in groupby(
        result.contradictions, key=lambda check: (check.table, check.source, check.diagnosis)
    ):
        yield 0, f"[bold]{table}[/bold] [dim]{escape(source)}[/dim]"
        yield from ((2, _contradiction(check)) for check in group)
        yield from ((4, f"- {escape(line)}") for line in diagnosis)
    for observation in result.observations:
        yield 0, f"[bold]{observation.table}[/bold]"
        yield 2, escape(observation.text)


def _contradiction(check: Check) -> str:
    from rich.markup import escape

    return (
        f"{escape(check.row)}: {check.quantity} printed [bold]{check.printed:g}[/bold], recomputed"
        f" [bold]{check.recomputed:.2f}[/bold] ([red]{check.difference:+.2f}[/red]; rounding explains"
        f" {check.tolerance:.2g})"
    )


def _counts(result: Audit) -> Table:
    from rich.table import Table

    verdicts = ("agrees", "contradicts", "not recomputable")
    table = Table(title="figures recomputed", title_justify="left", show_footer=True)
    table.add_column("table", footer="all")
    for verdict in verdicts:
        total = sum(check.verdict == verdict for check in result.checks)
        table.add_column(verdict, footer=str(total), justify="right")
    for name in dict.fromkeys(check.table for check in result.checks):
        found = [check.verdict for check in result.checks if check.table == name]
        table.add_row(name, *(str(found.count(verdict)) for verdict in verdicts))
    return table
