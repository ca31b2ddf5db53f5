"""Plots of a subset study: order kept, and interval widths, against the number of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evalkit.report import svg
from evalkit.report.cost_plots import log_axis
from evalkit.subset_study.findings import TargetStudy
from evalkit.subset_study.words import label

WIDTH, HEIGHT = 350, 210
SCORE, DIFFERENCE = 0, 1
"""Series of the two kinds of width."""


def order_kept(target: TargetStudy) -> Markup | None:
    """Share of pairs that random subsets keep, with the middle 90 % of draws; a diamond is the given subset.

    None with fewer than two sizes, or where there is no order to keep.
    """
    points = [p for p in target.curve if p.pairs_kept is not None and p.pairs_range is not None]
    if len(points) < 2:
        return None
    figure, ax = svg.axes(WIDTH, HEIGHT, left=42, right=12, top=12, bottom=40)
    sizes = [point.n for point in points]
    low, high = (
        [100 * bound for bound in bounds] for bounds in zip(*(p.pairs_range or () for p in points), strict=True)
    )
    ax.fill_between(sizes, low, high, color=svg.series(SCORE), alpha=0.16, linewidth=0)
    line: dict[str, Any] = {"color": svg.series(SCORE), "linewidth": 2, "marker": "o", "markersize": 4}
    ax.plot(sizes, [100 * (point.pairs_kept or 0.0) for point in points], **line)
    floor = min(low)
    found = target.subset
    if found is not None and found.pairs:
        kept = 100 * found.pairs_kept / found.pairs
        floor = min(floor, kept)
        hollow: dict[str, Any] = {"markerfacecolor": svg.PAPER, "markeredgecolor": svg.INK, "markeredgewidth": 1.6}
        ax.plot(found.n_prompts, kept, "D", markersize=8, clip_on=False, zorder=4, **hollow)
        sizes.append(found.n_prompts)
    ax.set_ylim(max(0, floor - 6), 103)
    _axes(ax, sizes, "pairs kept, %")
    words = ", ".join(f"{100 * (point.pairs_kept or 0.0):.0f} % at {point.n}" for point in points)
    return svg.markup(figure, f"Pairs of models kept in order by random prompts, {label(target.name)}: {words}")


def widths(target: TargetStudy) -> Markup | None:
    """Half widths of 95 % intervals; solid with the planned number of videos, dashed with one, where that is another.

    None with fewer than two sizes.
    """
    planned = target.power.videos
    if len({width.n for width in target.widths}) < 2:
        return None
    figure, ax = svg.axes(WIDTH, HEIGHT, left=42, right=12, top=12, bottom=40)
    top = 0.0
    for videos in dict.fromkeys((1.0, planned)):
        rows = [width for width in target.widths if width.videos == videos]
        solid = videos == planned
        style: dict[str, Any] = {"marker": "o", "markersize": 4} if solid else {"linestyle": (0, (4, 3))}
        for series, halves in ((SCORE, [50 * w.score for w in rows]), (DIFFERENCE, [50 * w.difference for w in rows])):
            ax.plot([width.n for width in rows], halves, color=svg.series(series), linewidth=1.8, **style)
            top = max([top, *halves])
    ax.set_ylim(0, 1.06 * top or 1)
    _axes(ax, [width.n for width in target.widths], "± points")
    shown = ", ".join(f"{50 * w.score:.2f} at {w.n}" for w in target.widths if w.videos == planned)
    return svg.markup(figure, f"Half width of the interval of a score, points, {label(target.name)}: {shown}")


def _axes(ax: Axes, sizes: Sequence[int], name: str) -> None:
    """Prompts on a logarithmic axis; limits are set before its labels find their room."""
    log_axis(ax, "x", min(sizes) / 1.1, max(sizes) * 1.1, 5)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.tick_params(axis="both", labelcolor=svg.MUTED)
    ax.set_axisbelow(True)
    ax.grid(color=svg.RULE, linewidth=0.8)
    ax.set_xlabel("prompts", color=svg.MUTED)
    ax.set_ylabel(name, color=svg.MUTED)
