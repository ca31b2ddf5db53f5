"""How the videos of a run spread in each dimension: histogram, every video as a dot, mean and interval."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evalkit.report import Page, Section, ShownRun, percent, svg, title
from evalkit.types import Array

WIDTH, ROW = 330, 62
N_BINS = 24
MOST_DOTS = 300
"""With more videos than this the histogram stands alone: dots would only blacken the strip."""


def values(page: Page, run: ShownRun, dimension: str) -> Array:
    """The scores of a run's videos in one dimension, in percent, `(N,)`."""
    found = [v.scores[dimension] for v in page.videos if v.run == run.index and dimension in v.scores]
    return 100 * np.array(found, dtype=np.float64)


def _span(samples: list[Array]) -> tuple[float, float]:
    pooled = np.concatenate(samples)
    margin = max(0.04 * float(np.ptp(pooled)), 0.05)
    return float(pooled.min()) - margin, float(pooled.max()) + margin


def _row(ax: Axes, run: ShownRun, place: int, sample_N: Array, span: tuple[float, float]) -> None:
    """One run: the histogram stands on the line `place`, the dots hang below it."""
    colour = svg.series(run.series)
    counts, edges = np.histogram(sample_N, bins=N_BINS, range=span)
    ax.stairs(place - 0.6 * counts / max(counts.max(), 1), edges, baseline=place, fill=True, color=colour, alpha=0.55)
    if len(sample_N) <= MOST_DOTS:
        heights = place + 0.1 + 0.2 * (np.arange(len(sample_N)) * 0.618034 % 1)
        ax.plot(sample_N, heights, ".", color=colour, markersize=4, alpha=0.7, markeredgewidth=0)


def _mean(ax: Axes, place: int, found: dict[str, Any]) -> None:
    if found["score"] is None:
        return
    ax.plot(100 * found["score"], place, "o", color=svg.INK, markersize=5)
    if found["ci95"] is not None:
        ax.plot([100 * bound for bound in found["ci95"]], [place, place], color=svg.INK, linewidth=2)


def draw(page: Page, dimension: str) -> Markup | None:
    """The plot of one dimension; None if no video was scored in it."""
    samples = {run.index: values(page, run, dimension) for run in page.runs if dimension in run.dimensions}
    shown = [run for run in page.runs if len(samples.get(run.index, ()))]
    if not shown:
        return None
    span = _span([samples[run.index] for run in shown])
    left = 26 if len(page.runs) > 1 else 8
    figure, ax = svg.axes(WIDTH, ROW * len(shown) + 26, left=left, right=14, bottom=24)
    for place, run in enumerate(shown):
        _row(ax, run, place, samples[run.index], span)
        _mean(ax, place, run.dimensions[dimension])
    ax.set_xlim(span)
    ax.set_ylim(len(shown) - 0.62, -0.66)
    ax.set_yticks(range(len(shown)), [run.label for run in shown] if len(page.runs) > 1 else [""] * len(shown))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.tick_params(axis="x", colors=svg.MUTED)
    means = ", ".join(f"run {run.label} mean {percent(run.dimensions[dimension]['score'])} %" for run in shown)
    return svg.markup(figure, f"Distribution of {title(dimension)}: {means}")


def body(page: Page) -> Markup | None:
    """Small multiples, one for each dimension."""
    plots = [(name, plot) for name in page.dimensions if (plot := draw(page, name)) is not None]
    return page.fill("distributions.html", plots=plots, most_dots=MOST_DOTS) if plots else None


SECTION = Section("Distributions", 30, body)
