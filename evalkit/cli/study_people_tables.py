"""How well metrics agree with people, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from evalkit.study.people import AxisAgainstPeople, LeftOut, PeopleResult, ScoreAgainstPeople, caveats
from evalkit.study.types import Estimate

SHOWN = 5
"""Names in a list of what was left out; the JSON has all of them."""


def people_lines(result: PeopleResult) -> Iterator[RenderableType]:
    """A table an axis, what was left out, and what the figures do not show."""
    for axis in result.axes:
        yield _table(axis)
        for note in axis.notes:
            yield f"[dim]- {escape(note)}[/dim]"
    yield from _left_out(result.left_out)
    for caveat in caveats(result):
        yield f"[dim]- {escape(caveat)}[/dim]"


def _table(axis: AxisAgainstPeople) -> Table:
    caption = (
        "pairs: of clips, share in which the metric prefers the one that people prefer; rho: of score difference and"
        " win rate; models: Spearman over at least 4 models; intervals over prompts; p: of pairs, Holm over all scores"
        " and axes"
    )
    table = Table(
        title=f"{escape(axis.axis)} · metrics against people",
        title_justify="left",
        caption=caption,
        caption_justify="left",
    )
    table.add_column("score", overflow="fold")
    for heading in ("pairs %", "p", "rho", "models"):
        table.add_column(heading, justify="right", no_wrap=True)
    for score in axis.scores:
        table.add_row(escape(score.name), *_cells(score))
    return table


def _cells(score: ScoreAgainstPeople) -> list[str]:
    pairs, clips, models = score.pairs, score.clips, score.models
    order = models.spearman if models is not None and models.enough else None
    return [
        "-" if pairs is None else _figure(pairs.share, 100.0, ".0f"),
        "-" if pairs is None or pairs.p_adjusted is None else f"{pairs.p_adjusted:.4f}",
        "-" if clips is None else _figure(clips.rho, 1.0, "+.2f"),
        "-" if order is None else _figure(order, 1.0, "+.2f"),
    ]


def _figure(estimate: Estimate, factor: float, form: str) -> str:
    value = f"{factor * estimate.value:{form}}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [dim]({factor * estimate.low:{form}} to {factor * estimate.high:{form}})[/dim]"


def _left_out(left_out: LeftOut) -> Iterator[str]:
    for what, names in (
        ("models without a run", left_out.models_without_run),
        ("runs of models that the study does not know", left_out.runs_without_model),
        ("scores", tuple(f"{name} ({why})" for name, why in left_out.scores.items())),
    ):
        if names:
            yield f"[yellow]left out:[/yellow] {what}: {_some(names)}"
    for what, clips in (
        ("judged clips that are not in the run", left_out.clips_without_video),
        ("clips of the run that nobody judged", left_out.clips_without_vote),
    ):
        for model, found in clips.items():
            yield f"[yellow]left out:[/yellow] {len(found):,} {what} of {escape(model)}: {_some(tuple(found))}"


def _some(names: tuple[str, ...]) -> str:
    return escape(", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else ""))
