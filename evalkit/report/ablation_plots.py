"""Plots of an ablation: differences with intervals, and loss curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evalkit.report import svg
from evalkit.report.cost_plots import log_axis, name_lines
from evalkit.report.format import change
from evalkit.report.labels import CHARACTER, LINE, fold, text_size

WIDTH, WRAP, GAP = 350, 15, 12
"""Pixels across a forest plot, characters of a name's line, and pixels between two rows."""
LOGARITHMIC = 4.0
"""Loss curves whose greatest value is so many times the least are drawn on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row of a forest plot, in percentage points; `theirs` is a published difference of the same metric."""

    name: str
    series: int
    delta: float
    ci95: tuple[float, float] | None
    distinguishable: bool
    theirs: float | None = None


def span(rows: Sequence[Difference]) -> tuple[float, float]:
    """What an axis must hold: all rows, and zero."""
    ends = [0.0, *(x for row in rows for x in (row.delta, row.theirs, *(row.ci95 or ())) if x is not None)]
    margin = max(0.06 * (max(ends) - min(ends)), 0.05)
    return min(ends) - margin, max(ends) + margin


def forest(rows: Sequence[Difference], metric: str, extent: tuple[float, float]) -> Markup:
    """Differences around the line of no change, a row a variant; a hollow diamond marks a published one."""
    labels = [fold(row.name, WRAP) for row in rows]
    left, right = int(max(text_size(label)[0] for label in labels)) + 10, 62
    row = LINE * max(label.count("\n") + 1 for label in labels) + GAP
    figure, ax = svg.axes(WIDTH, int(row * len(rows)) + 40, left=left, right=right, bottom=36)
    ax.axvline(0, color=svg.MUTED, linewidth=1.2)
    for place, found in enumerate(rows):
        _difference(ax, place, found)
        svg.write_beside(ax, place, change(found.delta / 100))
    ax.set_xlim(extent)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(range(len(rows)), labels)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_axisbelow(True)
    ax.grid(axis="x", color=svg.RULE, linewidth=0.8)
    ax.tick_params(axis="x", labelcolor=svg.MUTED)
    ax.set_xlabel("difference, points", color=svg.MUTED)
    words = ", ".join(f"{found.name} {change(found.delta / 100)}" for found in rows)
    return svg.markup(figure, f"Differences in {metric}, percentage points: {words}")


def _difference(ax: Axes, place: int, found: Difference) -> None:
    """Filled where it is distinguishable from none, hollow where not."""
    colour = svg.series(found.series)
    if found.ci95 is not None:
        ax.plot(found.ci95, [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        ax.plot(found.ci95, [place, place], "|", color=colour, markersize=9, markeredgewidth=1.6)
    inside = colour if found.distinguishable else svg.PAPER
    ax.plot(found.delta, place, "o", color=colour, markersize=8, markerfacecolor=inside, markeredgewidth=1.8)
    if found.theirs is not None:
        hollow: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": svg.INK, "markeredgewidth": 1.4}
        ax.plot(found.theirs, place, "D", markersize=8, **hollow)


@dataclass(frozen=True, slots=True)
class LossCurve:
    """A smoothed loss curve of one variant and seed: steps and losses."""

    name: str
    series: int
    points: Sequence[tuple[float, float]]


def is_logarithmic(lines: Sequence[LossCurve]) -> bool:
    """Whether the losses are positive and spread far enough that a logarithmic axis shows them better."""
    losses = [loss for line in lines for _, loss in line.points]
    return min(losses) > 0 and max(losses) / min(losses) >= LOGARITHMIC


def losses(lines: Sequence[LossCurve], width: int, height: int) -> Markup:
    """Loss against step, a line a variant and seed; variants are named where their (first) line ends."""
    named = {line.name: line.points for line in reversed(lines)}
    named = {name: named[name] for name in dict.fromkeys(line.name for line in lines)}
    right = int(min(0.36 * width, 24 + max(text_size(name)[0] for name in named)))
    tallest = max(text_size(fold(name, max(6, int((right - 20) / CHARACTER))))[1] for name in named)
    figure, ax = svg.axes(width, int(max(height, 58 + tallest * len(named))), left=54, right=right, top=14, bottom=40)
    for place, line in enumerate(lines):
        first = named[line.name] is line.points
        style = "-" if first else (0, (4, 2 + place % 3))
        ax.plot(*zip(*line.points, strict=True), color=svg.series(line.series), linewidth=1.6, linestyle=style)
    _loss_axes(ax, lines)
    name_lines(ax, named, right)
    return svg.markup(figure, f"Training loss by step, {width} pixels wide")


def _loss_axes(ax: Axes, lines: Sequence[LossCurve]) -> None:
    """Limits are set, not left to the drawing: names are placed by them."""
    steps, found = zip(*(point for line in lines for point in line.points), strict=True)
    ax.set_xlim(0, max(*steps, 1) * 1.02)
    if is_logarithmic(lines):
        log_axis(ax, "y", min(found) / 1.08, max(found) * 1.08, 7)
    else:
        margin = max(0.06 * (max(found) - min(found)), 1e-3)
        ax.set_ylim(min(found) - margin, max(found) + margin)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.tick_params(axis="both", labelcolor=svg.MUTED)
    ax.set_axisbelow(True)
    ax.grid(color=svg.RULE, linewidth=0.8)
    ax.set_xlabel("training step", color=svg.MUTED)
    ax.set_ylabel("loss, logarithmic" if is_logarithmic(lines) else "loss", color=svg.MUTED)
