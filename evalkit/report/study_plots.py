"""Plots of a human study: standings, duels, and metrics against people."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evalkit.report import svg
from evalkit.report.cost_plots import to_pixels, write_names
from evalkit.report.labels import CHARACTER, LINE, Box, around, fold, text_size
from evalkit.study.types import Estimate

WIDTH, GAP, WRAP = 350, 12, 16
"""Pixels across a plot and between two rows, and characters of a line of a name."""
BAR = 20
MARK = 2
"""Series of the mark across a row of a dot plot."""
SMALL = 240
"""Pixels across a plot of models; it is square but for its margins."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A row of a dot plot: a figure with its interval.

    Args:
        name: of the row.
        series: its colour.
        figure: in the units of the axis.
        text: the figure as written beside it.
        filled: whether it is told apart from what the plot compares with.
        mark: a figure of its own to compare with, drawn as a bar across the row.
    """

    name: str
    series: int
    figure: Estimate
    text: str
    filled: bool = True
    mark: float | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """The axis of a dot plot.

    Args:
        name: what it shows.
        low: left end.
        high: right end.
        line: where to draw a line to compare with, such as chance; None for none.
    """

    name: str
    low: float
    high: float
    line: float | None = None


def span(figures: Sequence[Estimate], least: float) -> tuple[float, float]:
    """What an axis must hold, with a margin; at least `least` wide."""
    ends = [x for figure in figures for x in (figure.value, figure.low, figure.high) if x is not None]
    low, high = min(ends), max(ends)
    margin = max(0.06 * (high - low), (least - (high - low)) / 2)
    return low - margin, high + margin


def dots(rows: Sequence[Dot], scale: Scale, label: str) -> Markup:
    """Figures with intervals, a row each; hollow where a row is not told apart."""
    names = [fold(row.name, WRAP) for row in rows]
    left = int(max(text_size(name)[0] for name in names)) + 10
    right = int(max(text_size(row.text)[0] for row in rows)) + 14
    heights = [LINE * (name.count("\n") + 1) + GAP for name in names]
    tops = [sum(heights[:place]) for place in range(len(rows))]
    middles = [top + height / 2 for top, height in zip(tops, heights, strict=True)]
    figure, ax = svg.axes(WIDTH, int(sum(heights)) + 40, left=left, right=right, bottom=36)
    if scale.line is not None:
        ax.axvline(scale.line, color=svg.MUTED, linewidth=1.2)
    for row, y, height in zip(rows, middles, heights, strict=True):
        _dot(ax, row, y, height)
    ax.set_xlim(scale.low, scale.high)
    ax.set_ylim(sum(heights), 0)
    ax.set_yticks(middles, names)
    _quiet(ax, "x", scale.name)
    return svg.markup(figure, f"{label}: {', '.join(f'{row.name} {row.text}' for row in rows)}")


def _dot(ax: Axes, row: Dot, y: float, height: float) -> None:
    colour, found = svg.series(row.series), row.figure
    if row.mark is not None:
        ax.plot([row.mark, row.mark], [y - height / 2, y + height / 2], color=svg.series(MARK), linewidth=2.4)
    if found.low is not None and found.high is not None:
        ax.plot([found.low, found.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        ax.plot([found.low, found.high], [y, y], "|", color=colour, markersize=9, markeredgewidth=1.6)
    inside = colour if row.filled else svg.PAPER
    ax.plot(found.value, y, "o", color=colour, markersize=8, markerfacecolor=inside, markeredgewidth=1.8)
    svg.write_beside(ax, y, row.text)


def _quiet(ax: Axes, axis: str, name: str) -> None:
    """Few ticks, a pale grid behind the figures, and the name of the axis."""
    found = ax.xaxis if axis == "x" else ax.yaxis
    found.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    found.set_label_text(name, color=svg.MUTED)
    ax.tick_params(axis="x" if axis == "x" else "y", labelcolor=svg.MUTED)
    ax.set_axisbelow(True)
    ax.grid(axis="x" if axis == "x" else "y", color=svg.RULE, linewidth=0.8)


# ---- duels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bout:
    """One duel: names and colours of both models, shares of wins, ties and losses of the first, and its win rate."""

    a: str
    b: str
    series_a: int
    series_b: int
    win: float
    tie: float
    lose: float
    win_rate: Estimate


def bouts(rows: Sequence[Bout], label: str) -> Markup:
    """A bar a duel, full width: who wins on the left and on the right, ties between; a whisker is the win rate."""
    names = [_side_by_side(row.a, row.b) for row in rows]
    lines = [max(a.count("\n"), b.count("\n")) + 1 for a, b in names]
    heights = [LINE * n + 4 + BAR + GAP for n in lines]
    figure, ax = svg.axes(WIDTH, int(sum(heights)) + 34, left=14, right=14, top=0, bottom=34)
    pixels = (WIDTH - 28) / 100
    y = 0.0
    for row, (a, b), n, height in zip(rows, names, lines, heights, strict=True):
        base = y + LINE * n + 2
        ax.text(0, base, a, ha="left", va="bottom", fontsize=12, clip_on=False)
        ax.text(100, base, b, ha="right", va="bottom", fontsize=12, clip_on=False, multialignment="right")
        _bout(ax, row, base + 2 + BAR / 2, pixels)
        y += height
    ax.set_xlim(0, 100)
    ax.set_ylim(sum(heights), 0)
    ax.set_yticks([])
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.axvline(50, color=svg.MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="x", labelcolor=svg.MUTED)
    ax.set_xlabel("share, %", color=svg.MUTED)
    words = "; ".join(
        f"{row.a} {100 * row.win:.0f} % to {row.b} {100 * row.lose:.0f} %, tied {100 * row.tie:.0f} %" for row in rows
    )
    return svg.markup(figure, f"{label}: {words}")


def _side_by_side(a: str, b: str) -> tuple[str, str]:
    """Two names that do not meet above their bar."""
    room = int((WIDTH - 28) / CHARACTER) - 2
    return (a, b) if len(a) + len(b) <= room else (fold(a, room // 2), fold(b, room // 2))


def _bout(ax: Axes, row: Bout, y: float, pixels: float) -> None:
    start = 0.0
    parts = (
        (row.win, svg.series(row.series_a), 1.0),
        (row.tie, svg.MUTED, 0.35),
        (row.lose, svg.series(row.series_b), 1.0),
    )
    for share, colour, alpha in parts:
        if share > 0:
            ax.barh(y, 100 * share, left=start, height=BAR, color=colour, alpha=alpha, edgecolor=svg.PAPER, linewidth=1)
        start += 100 * share
    found = row.win_rate
    if found.low is not None and found.high is not None:
        for colour, width in ((svg.PAPER, 5.0), (svg.INK, 1.8)):
            ax.plot([100 * found.low, 100 * found.high], [y, y], color=colour, linewidth=width, solid_capstyle="butt")
    ax.plot(
        100 * found.value,
        y,
        "o",
        color=svg.INK,
        markersize=8,
        markeredgecolor=svg.PAPER,
        markeredgewidth=1.6,
        clip_on=False,
    )


# ---- models by score and by people -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Model:
    """A point: a model's score and its standing with people."""

    name: str
    series: int
    score: Estimate
    standing: Estimate


def scatter(points: Sequence[Model], score: str, standing: str, label: str) -> Markup:
    """Standing with people (up is better) against score, with both intervals and the models' names."""
    left, right, top, bottom = 44, 12, 12, 42
    height = SMALL - left - right + top + bottom
    figure, ax = svg.axes(SMALL, height, left=left, right=right, top=top, bottom=bottom)
    for point in points:
        colour, (x, y) = svg.series(point.series), (point.score.value, point.standing.value)
        ax.plot(_ends(point.score), [y, y], color=colour, linewidth=1.2, alpha=0.6)
        ax.plot([x, x], _ends(point.standing), color=colour, linewidth=1.2, alpha=0.6)
        ax.plot(x, y, "o", color=colour, markersize=8, clip_on=False)
    ax.set_xlim(span([point.score for point in points], 1e-3))
    ax.set_ylim(span([point.standing for point in points], 1e-3))
    _quiet(ax, "x", score)
    _quiet(ax, "y", standing)
    _name_points(ax, points)
    words = ", ".join(f"{p.name} {p.score.value:.4g} and {p.standing.value:.3g}" for p in points)
    return svg.markup(figure, f"{label}: {words}")


def _name_points(ax: Axes, points: Sequence[Model]) -> None:
    """Names clear of points and intervals, as far as there is room."""
    at = [to_pixels(ax, point.score.value, point.standing.value) for point in points]
    obstacles = [around(x, y, 7) for x, y in at]
    for point, (x, y) in zip(points, at, strict=True):
        (left, top), (right, bottom) = (
            to_pixels(ax, *corner) for corner in zip(_ends(point.score), reversed(_ends(point.standing)), strict=True)
        )
        obstacles += [Box(left, y - 1, right, y + 1), Box(x - 1, top, x + 1, bottom)]
    names = [fold(textwrap.shorten(point.name, 24, placeholder="…"), 13) for point in points]
    write_names(ax, at, names, obstacles)


def _ends(found: Estimate) -> tuple[float, float]:
    """An interval; without one, the figure twice."""
    return (found.value if found.low is None else found.low, found.value if found.high is None else found.high)
