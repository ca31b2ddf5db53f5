"""A human study as pages show it: measures by name, colours by model, and what the plots and tables hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from markupsafe import Markup

from evalkit.report import format as formats
from evalkit.report import study_plots
from evalkit.report.study_plots import Bout, Dot, Scale
from evalkit.report.view import N_COLOURS
from evalkit.study.people import PeopleResult
from evalkit.study.types import AXES, AxisResult, Duel, Estimate, Standing, StudyResult

ALPHA = 0.05
MANY_DUELS = 15
"""Plots of more duels are folded."""


def signed(value: float) -> str:
    """Two decimals with a sign."""
    return f"{value:+z.2f}".replace("-", "−")


def plain(value: float) -> str:
    """Two decimals."""
    return f"{value:.2f}".replace("-", "−")


def share(value: float) -> str:
    """A fraction in percent without decimals (the column names the unit)."""
    return f"{100 * value:.0f}"


def interval(found: Estimate | None, write: Callable[[float], str]) -> str:
    """`1.92 to 2.31`; a dash without bounds."""
    if found is None or found.low is None or found.high is None:
        return formats.NO_VALUE
    return f"{write(found.low)} to {write(found.high)}"


def scaled(found: Estimate, factor: float) -> Estimate:
    """A figure and its interval in another unit."""
    low, high = (None if x is None else factor * x for x in (found.low, found.high))
    return Estimate(factor * found.value, low, high)


@dataclass(frozen=True, slots=True)
class Measure:
    """One way to place models.

    Args:
        name: of the attribute of `Standing`.
        title: heading.
        axis: name of the plot's axis.
        write: a figure as it is written.
        line: where no model is better than another; None if that depends on how many there are.
        factor: from the figure to the plot's axis.
        least: the least width of the plot's axis.
    """

    name: str
    title: str
    axis: str
    write: Callable[[float], str]
    line: float | None
    factor: float = 1.0
    least: float = 0.5

    def of(self, standing: Standing) -> Estimate | None:
        found: Estimate | None = getattr(standing, self.name)
        return found


MEASURES = (
    Measure("mean_rank", "Mean rank", "mean rank, 1 is best", plain, None),
    Measure("bradley_terry", "Bradley–Terry strength", "log-strength, more is better", signed, 0.0),
    Measure("win_rate", "Win rate", "duels won, %; a tie is half", share, 50.0, 100.0, 10.0),
    Measure("plackett_luce", "Plackett–Luce worth", "log-worth, more is better", signed, 0.0),
)
PLOTTED = ("mean_rank", "bradley_terry", "win_rate")
MOST_PLOTTED = 2


@dataclass(frozen=True)
class ShownStudy:
    """A concluded study, and how its metrics agree with people where runs of its videos were given.

    Args:
        result: the study.
        people: metrics against people.
        prompts: text by prompt id.
        colours: series of the models that have one already on the page.
        level: of the headings within its parts.
    """

    result: StudyResult
    people: PeopleResult | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    colours: Mapping[str, int] = field(default_factory=dict)
    level: int = 3

    def series(self, model: str) -> int:
        """The colour of a model, the same in all plots."""
        return self._series.get(model, 0)

    @cached_property
    def _series(self) -> dict[str, int]:
        free = [colour for colour in range(N_COLOURS) if colour not in self.colours.values()]
        others = [model for model in self.result.models if model not in self.colours]
        spare = {model: (free[n] if n < len(free) else n % N_COLOURS) for n, model in enumerate(others)}
        return {**self.colours, **spare}

    @property
    def voted(self) -> list[AxisResult]:
        """The axes with votes."""
        return [axis for axis in self.result.axes if axis.n_votes]

    @property
    def published(self) -> bool:
        return self.result.unit == "prompt"

    @property
    def measures(self) -> list[Measure]:
        """The measures that any model has, and for the plots the first of them."""
        return [m for m in MEASURES if any(m.of(s) for axis in self.voted for s in axis.standings)]

    @property
    def plotted(self) -> list[Measure]:
        return [m for m in self.measures if m.name in PLOTTED][:MOST_PLOTTED]

    @property
    def decided(self) -> int:
        """Duels told apart from a draw."""
        return sum(is_decided(duel) for axis in self.voted for duel in axis.duels)

    @property
    def n_duels(self) -> int:
        return sum(len(axis.duels) for axis in self.voted)

    @property
    def many_duels(self) -> bool:
        return any(len(axis.duels) > MANY_DUELS for axis in self.voted)


def is_decided(duel: Duel) -> bool:
    """Whether a duel is told apart from a draw, at 5 % for all duels together."""
    return duel.p_adjusted is not None and duel.p_adjusted <= ALPHA


def axis_title(name: str) -> str:
    """What people call an axis."""
    return next((axis.title for axis in AXES if axis.name == name), formats.title(name))


def question(name: str) -> str | None:
    """What raters were asked on an axis; None if the axis is not one of ours."""
    return next((axis.question for axis in AXES if axis.name == name), None)


# ---- plots -----------------------------------------------------------------------------------------------------------


def standing_plots(study: ShownStudy, measure: Measure) -> Iterator[tuple[AxisResult, Markup]]:
    """A dot plot for each axis, on one scale."""
    figures = [
        scaled(found, measure.factor) for axis in study.voted for s in axis.standings if (found := measure.of(s))
    ]
    low, high = study_plots.span(figures, measure.least)
    scale = Scale(measure.axis, low, high, measure.line)
    for axis in study.voted:
        rows = [
            Dot(s.model, study.series(s.model), scaled(found, measure.factor), measure.write(found.value))
            for s in axis.standings
            if (found := measure.of(s))
        ]
        if rows:
            yield axis, study_plots.dots(rows, scale, f"{measure.title}, {axis_title(axis.axis)}")


def duel_plots(study: ShownStudy) -> Iterator[tuple[AxisResult, Markup]]:
    """Bars of each axis' duels."""
    for axis in study.voted:
        rows = [
            Bout(d.a, d.b, study.series(d.a), study.series(d.b), d.win.value, d.tie.value, d.lose.value, d.win_rate)
            for d in axis.duels
        ]
        if rows:
            yield axis, study_plots.bouts(rows, f"Duels, {axis_title(axis.axis)}")


# ---- the matrix of win rates -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """How often the model of the row wins against that of the column.

    Args:
        text: percent.
        tint: 0 to 10, how strongly it is shaded, towards the better or the worse colour by its sign.
        decided: whether it is told apart from a draw.
        note: the interval.
    """

    text: str
    tint: int
    decided: bool
    note: str


def matrix(axis: AxisResult) -> list[tuple[str, list[Cell | None]]]:
    """A row a model, best first; None on the diagonal and where two never met."""
    cells: dict[tuple[str, str], Cell] = {}
    for duel in axis.duels:
        rate = duel.win_rate
        turned = Estimate(
            1 - rate.value, None if rate.high is None else 1 - rate.high, None if rate.low is None else 1 - rate.low
        )
        for pair, found in (((duel.a, duel.b), rate), ((duel.b, duel.a), turned)):
            tint = round(20 * abs(found.value - 0.5)) * (1 if found.value >= 0.5 else -1)
            bounds = interval(found, share).replace(" to ", "–")  # short: there is a column for each model
            cells[pair] = Cell(share(found.value), tint, is_decided(duel), bounds)
    models = [standing.model for standing in axis.standings]
    return [(a, [cells.get((a, b)) for b in models]) for a in models]
