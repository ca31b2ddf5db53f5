"""The figures of a study as tables for the terminal, and what was left out of them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from evalkit.study.types import AxisResult, Duel, Estimate, Screening, Standing, StudyResult

WIDE = 120
"""Columns from which intervals stand beside their figures, not below."""
SHOWN_RATERS = 5
"""Names in a list of excluded raters; the JSON has all of them."""

_COLUMNS = (  # attribute, heading, factor, form
    ("mean_rank", "mean rank", 1.0, ".2f"),
    ("win_rate", "win rate %", 100.0, ".1f"),
    ("bradley_terry", "Bradley-Terry", 1.0, "+z.2f"),
    ("plackett_luce", "Plackett-Luce", 1.0, "+z.2f"),
)


def result_lines(result: StudyResult, width: int) -> Iterator[RenderableType]:
    """The tables of each axis, then what was screened out, what is wrong with the input, and what to know."""
    for axis in result.axes:
        if not axis.n_votes:
            yield f"[yellow]{escape(axis.axis)}: no vote counts[/yellow]"
            continue
        yield _standings(axis, result, width >= WIDE)
        yield _duels(axis, width >= WIDE)
        agreement = _agreement(axis)
        if agreement:
            yield agreement
        for note in axis.notes:
            yield f"[dim]- {escape(note)}[/dim]"
        yield ""
    if result.screening is not None:
        yield from _screening(result.screening)
    for fault in result.faults:
        yield f"[yellow]{escape(fault.where)}:[/yellow] {escape(fault.text)}"
        if fault.repair:
            yield f"[green]  {escape(fault.repair)}[/green]"
    for caveat in result.caveats:
        yield f"[dim]- {escape(caveat)}[/dim]"


def _title(axis: AxisResult, what: str) -> str:
    counts = [] if axis.n_raters is None else [f"{axis.n_votes:,} votes", f"{axis.n_raters:,} raters"]
    return " · ".join([escape(axis.axis), what, *counts, f"{axis.n_prompts:,} prompts"])


def _standings(axis: AxisResult, result: StudyResult, wide: bool) -> Table:
    """A row a model, the best first, with the figures that any of them has."""
    table = Table(title=_title(axis, "standings"), title_justify="left")
    table.add_column("model", overflow="fold")
    columns = [column for column in _COLUMNS if any(getattr(s, column[0]) for s in axis.standings)]
    for _, heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    printed = result.unit == "prompt" and result.scale != 1.0
    if printed:
        table.add_column("as printed", justify="right", no_wrap=True)
    for standing in axis.standings:
        cells = [_figure(getattr(standing, name), factor, form, wide) for name, _, factor, form in columns]
        table.add_row(escape(standing.model), *cells, *([_printed(standing, result.scale)] if printed else []))
    return table


def _printed(standing: Standing, scale: float) -> str:
    return "-" if standing.mean_rank is None else f"{standing.mean_rank.value / scale:.4f}"


def _duels(axis: AxisResult, wide: bool) -> Table:
    """A row a pair of models; the better-placed one is the first."""
    levels = any(duel.level for duel in axis.duels)
    counts = len({duel.n for duel in axis.duels}) > 1  # else the title has them
    table = Table(title=_title(axis, "duels"), title_justify="left")
    table.add_column("model", overflow="fold")
    table.add_column("against", overflow="fold")
    levels_heading, counts_heading = ["level"] if levels else [], ["n"] if counts else []
    for heading in (*counts_heading, "win/tie/lose %", "win rate %", *levels_heading, "p (Holm)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for duel in axis.duels:
        table.add_row(
            escape(duel.a),
            escape(duel.b),
            *([f"{duel.n:,}"] if counts else []),
            "/".join(f"{100 * share.value:.0f}" for share in (duel.win, duel.tie, duel.lose)),
            _figure(duel.win_rate, 100.0, ".0f", wide=True),
            *([_figure(duel.level, 1.0, "+z.2f", wide)] if levels else []),
            _p(duel),
        )
    return table


def _figure(estimate: Estimate | None, factor: float, form: str, wide: bool) -> str:
    """A figure and its interval, beside it or below."""
    if estimate is None:
        return "-"
    value = f"{factor * estimate.value:{form}}"
    if estimate.low is None or estimate.high is None:
        return value
    bounds = f"{factor * estimate.low:{form}} to {factor * estimate.high:{form}}"
    return f"{value} [dim]({bounds})[/dim]" if wide else f"{value}\n[dim]{bounds}[/dim]"


def _p(duel: Duel) -> str:
    if duel.p_adjusted is None:
        return "-"
    text = "< 0.0001" if duel.p_adjusted < 0.0001 else f"{duel.p_adjusted:.4f}"
    return f"[bold]{text}[/bold]" if duel.p_adjusted <= 0.05 else text


def _agreement(axis: AxisResult) -> str:
    found = (("Kendall's W", axis.kendall_w), ("Krippendorff's alpha", axis.krippendorff_alpha))
    said = [f"{name} {_figure(figure, 1.0, '.2f', True)}" for name, figure in found if figure is not None]
    return f"agreement of raters: {', '.join(said)}" if said else ""


def _screening(screening: Screening) -> Iterator[str]:
    if screening.n_planned is None:
        yield f"raters: {screening.n_raters:,}; imported, so attention checks and unfinished screens are unknown"
        return
    yield (
        f"raters: {screening.n_raters:,} of {screening.n_planned:,} planned; attention checks met by"
        f" {len(screening.checks):,}; excluded: {len(screening.excluded):,}"
    )
    names = [f"{escape(rater)} ({escape(why)})" for rater, why in screening.excluded.items()]
    if names:
        more = f" and {len(names) - SHOWN_RATERS} more" if len(names) > SHOWN_RATERS else ""
        yield f"[yellow]excluded:[/yellow] {', '.join(names[:SHOWN_RATERS])}{more}"
    hasty = "unknown" if screening.n_hasty is None else f"{screening.n_hasty:,}"
    yield f"screens not finished: {screening.n_unfinished:,}; answered before a clip could end (counted): {hasty}"
