"""A plan as tables for the terminal, and what to know about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from evalkit.budget.plan import Plan, Span

MINUTE, HOUR, DAY = 60, 3600, 86400
UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def plan_lines(plan: Plan, left_out: Sequence[str] = ()) -> Iterator[RenderableType]:
    """The rows, the time on one GPU by stage, storage, and notes."""
    from evalkit.budget import notes

    yield _work(plan)
    yield _rows(plan)
    yield _stages(plan)
    yield _storage(plan)
    for reason in left_out:
        yield f"[yellow]left out:[/yellow] {escape(reason)}"
    if plan.unknown:
        yield "[bold yellow]Some networks are unknown: all times are lower bounds.[/bold yellow]"
    for note in notes(plan):
        yield f"[dim]- {escape(note)}[/dim]"


def _work(plan: Plan) -> str:
    order, work = plan.order, plan.order.work
    runs = f"{order.variants} variants x {order.seeds} seeds: " if order.runs > 1 else ""
    filtered = f", and up to {work.candidates:,} for the static filter to look at" if work.candidates else ""
    return (
        f"{escape(work.suite)}, {work.profile}: {runs}{work.entries:,} prompts x {work.per_prompt} ="
        f" {work.listed:,} videos, {sum(work.results.values()):,} scores in {len(work.results)} dimensions{filtered};"
        f" {work.files * order.runs:,} video files"
    )


def _rows(plan: Plan) -> Table:
    kind = "workers" if plan.order.rates.device == "cpu" else "GPUs"
    how = "measured rates" if plan.order.rates.measured else "stated rates, not measured"
    ranged = any(row.wall.low < row.wall.high for row in plan.rows)
    bound = "at least " if plan.unknown else ""
    table = Table(title=f"Plan, {bound}by {how}", title_justify="left")
    hours = "GPU-h" if kind == "GPUs" else "hours"
    columns = [kind, "wall", *(["range"] if ranged else []), "effic.", hours]
    columns += [f"{hours} held"] if plan.order.price is None else ["cost", "cost held"]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in plan.rows:
        cells = [f"{row.gpus:,}", duration(row.wall.mean), *([_range(row.wall)] if ranged else [])]
        cells += [f"{100 * row.efficiency:.0f} %", _hours(row.gpu_hours.mean)]
        if plan.order.price is None:
            cells += [_hours(row.held_hours.mean)]
        else:
            cells += [f"{plan.order.price * span.mean:,.2f}" for span in (row.gpu_hours, row.held_hours)]
        table.add_row(*cells)
    return table


def _range(span: Span) -> str:
    return f"{duration(span.low)} to {duration(span.high)}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2g}"


def _stages(plan: Plan) -> Table:
    table = Table(title="On one, by stage", title_justify="left")
    table.add_column("stage", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("serial", no_wrap=True)
    for stage, seconds in plan.one_gpu.items():
        if seconds:
            table.add_row(stage, duration(seconds), "yes" if stage in plan.serial else "")
    return table


def _storage(plan: Plan) -> Table:
    table = Table(title="Storage", title_justify="left")
    table.add_column("kind", no_wrap=True)
    for column in ("files", "size"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("each", overflow="fold")
    for item in plan.storage:
        size = "[yellow]unknown[/yellow]" if item.bytes is None else volume(item.bytes)
        table.add_row(item.name, f"{item.files:,}" if item.files else "-", size, escape(item.source))
    return table


def duration(seconds: float) -> str:
    """In the unit that people would use."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.3g} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.1f} min"
    if seconds < 3 * DAY:
        return f"{seconds / HOUR:.1f} h"
    return f"{seconds / DAY:,.1f} days"


def volume(size: float) -> str:
    """Bytes in the unit that fits."""
    for unit, name in UNITS:
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:.0f} B"
