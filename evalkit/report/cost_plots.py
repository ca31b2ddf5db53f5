"""Plots of cost: parts of a model as stacked bars, cost against size, quality against cost."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

from evalkit.cost_record import Crossing, Sweep, SweepRow
from evalkit.report import svg
from evalkit.report.format import significant
from evalkit.report.labels import CHARACTER, LINE, Box, around, fold, place_labels, spread, text_size
from evalkit.report.view import N_COLOURS

BAR, GAP = 18, 14
MARKERS = "os^Dv*"
PALE = 0.45
"""Opacity of the parts that start the colours again."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One stacked bar: a name, and what it is made of in TFLOPs."""

    name: str
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Point:
    """A run in the plane of cost (TFLOPs) and quality (percent, with its interval)."""

    label: str
    series: int
    cost: float
    quality: float
    ci95: tuple[float, float] | None
    undominated: bool


def part_order(bars: Sequence[Bar]) -> list[str]:
    """Parts of all bars, those that cost most over all bars first."""
    sums: dict[str, float] = {}
    for bar in bars:
        for part, tflops in bar.parts.items():
            sums[part] = sums.get(part, 0.0) + tflops
    return sorted(sums, key=lambda part: (-sums[part], part))


def segments(bar: Bar, order: Sequence[str]) -> list[tuple[str, float, float]]:
    """Name, start and width of each part of a bar, end to end from 0."""
    found, start = [], 0.0
    for part in order:
        if bar.parts.get(part, 0.0) > 0:
            found.append((part, start, bar.parts[part]))
            start += bar.parts[part]
    return found


def stacked(bars: Sequence[Bar], width: int, left: int, wrap: int) -> Markup:
    """Bars of TFLOPs with the parts that have room for it named above them, and totals at the right."""
    order, right = part_order(bars), 64
    labels = [fold(bar.name, wrap) for bar in bars]
    row = LINE + max(BAR, LINE * max(label.count("\n") for label in labels)) + GAP
    figure, ax = svg.axes(width, int(row * len(bars)) + 40, left=left, right=right, bottom=36)
    totals = [math.fsum(bar.parts.values()) for bar in bars]
    longest = max(totals) or 1.0
    pixels = (width - left - right) / longest
    for place, bar in enumerate(bars):
        _stack(ax, place * row, segments(bar, order), order, pixels)
        ax.text(
            totals[place] + 6 / pixels,
            place * row,
            significant(totals[place], 3),
            va="center",
            fontsize=12,
            clip_on=False,
        )
    ax.set_xlim(0, longest)
    ax.set_ylim((len(bars) - 0.5) * row, -0.5 * row - 4)
    ax.set_yticks([place * row for place in range(len(bars))], labels)
    _quiet_x(ax, "TFLOPs")
    return svg.markup(figure, f"TFLOPs by part of the model, {width} pixels wide")


def _stack(ax: Axes, y: float, stack: Sequence[tuple[str, float, float]], order: Sequence[str], pixels: float) -> None:
    for part, start, length in stack:
        place = order.index(part)
        ax.barh(
            y,
            length,
            left=start,
            height=BAR,
            color=svg.series(place % N_COLOURS),
            alpha=None if place < N_COLOURS else PALE,
            edgecolor=svg.PAPER,
            linewidth=1,
        )
        text = f"{part} {significant(length, 3)}"
        if text_size(text)[0] < length * pixels:
            ax.text(start, y - BAR / 2 - 3, text, va="bottom", fontsize=11, color=svg.MUTED)


def _quiet_x(ax: Axes, label: str) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_axisbelow(True)
    ax.grid(axis="x", color=svg.RULE, linewidth=0.8)
    ax.set_xlabel(label, color=svg.MUTED)


def decades(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers in [low, high] for a logarithmic axis: 1, 2, 5, else evenly spaced."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if 3 <= len(found) <= most:
            return found
    if len(found) > most:
        return found[:: math.ceil(len(found) / most)]
    return [float(tick) for tick in MaxNLocator(most - 1).tick_values(low, high) if low <= tick <= high]


def log_axis(ax: Axes, axis: str, low: float, high: float, most: int) -> None:
    """A logarithmic axis with plain numbers on it."""
    ticks = decades(low, high, most)
    (ax.set_xscale if axis == "x" else ax.set_yscale)("log")
    (ax.set_xlim if axis == "x" else ax.set_ylim)(low, high)
    found = ax.xaxis if axis == "x" else ax.yaxis
    names = [f"{tick:,.0f}" if tick >= 1000 else f"{tick:.4g}" for tick in ticks]
    if axis == "x":
        ticks, names = _with_room(ax, ticks, names)
    found.set_major_locator(FixedLocator(ticks))
    found.set_minor_locator(NullLocator())
    found.set_minor_formatter(NullFormatter())
    found.set_ticklabels(names)


def _with_room(ax: Axes, ticks: Sequence[float], names: Sequence[str]) -> tuple[list[float], list[str]]:
    """The ticks whose names do not run into the name before them, pixels apart."""
    kept: list[tuple[float, str]] = []
    taken = -math.inf
    for tick, name in zip(ticks, names, strict=True):
        middle, half = to_pixels(ax, tick, 1)[0], text_size(name)[0] / 2
        if middle - half > taken:
            kept.append((tick, name))
            taken = middle + half + 4
    return [tick for tick, _ in kept], [name for _, name in kept]


def sweep(found: Sweep, width: int, height: int) -> Markup:
    """The mixers' TFLOPs of each variant: against tokens on logarithmic axes, or against the number of blocks."""
    logarithmic = found.parameter == "frames"
    lines = curves(found)
    right = int(min(0.4 * width, 22 + CHARACTER * max(map(len, lines))))
    figure, ax = svg.axes(width, height, left=62, right=right, top=14, bottom=40)
    for place, line in enumerate(lines.values()):
        style: dict[str, Any] = {"color": svg.series(place % N_COLOURS), "marker": MARKERS[place % len(MARKERS)]}
        ax.plot(*zip(*line, strict=True), linewidth=2, markersize=6, **style)
    for variant, line in traces(found).items():
        place = list(lines).index(variant) if variant in lines else 0
        ax.plot(*zip(*line, strict=True), color=svg.series(place % N_COLOURS), linewidth=1.2, linestyle=(0, (4, 3)))
    crossing = meeting(found)
    drawn = [*lines.values(), *traces(found).values()]
    _sweep_axes(ax, [*(point for line in drawn for point in line), *([crossing] if crossing else [])], found)
    name_lines(ax, lines, right)
    if crossing is not None and found.crossing is not None:
        _mark_crossing(ax, found.crossing, crossing, drawn)
    kind = "tokens, logarithmic" if logarithmic else "dual-stream blocks"
    return svg.markup(figure, f"Mixer TFLOPs against {kind}, {width} pixels wide")


def curves(found: Sweep) -> dict[str, list[tuple[float, float]]]:
    """Of each variant the (x, mixer TFLOPs) points, x ascending; a zero has no place on logarithmic axes."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in found.rows:
        x = _x(row, found.parameter)
        if found.parameter != "frames" or (x > 0 and row.mixer_tflops > 0):
            lines.setdefault(row.variant, []).append((x, row.mixer_tflops))
    return {variant: sorted(line) for variant, line in lines.items()}


def traces(found: Sweep) -> dict[str, list[tuple[float, float]]]:
    """Of the two variants that cross, the (tokens, mixer TFLOPs) points about the crossing, no longer than the sweep.

    Empty without any.
    """
    longest = max((row.tokens for row in found.rows), default=0)
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in found.crossing.curve if found.crossing is not None and found.parameter == "frames" else ():
        for variant, tflops in point.mixer_tflops.items():
            if 0 < point.tokens <= longest and tflops > 0:
                lines.setdefault(variant, []).append((float(point.tokens), tflops))
    return {variant: sorted(line) for variant, line in lines.items()}


def _x(row: SweepRow, parameter: str) -> float:
    return float(row.tokens) if parameter == "frames" else float(row.value)


def meeting(found: Sweep) -> tuple[float, float] | None:
    """Where the crossing stands in the plot; None without one, or if its height is neither recorded nor on a curve."""
    crossing = found.crossing
    if crossing is None or found.parameter != "frames" or crossing.tokens <= 0:
        return None
    line = traces(found).get(crossing.a) or curves(found).get(crossing.a, [])
    tflops = crossing.tflops or interpolate(line, crossing.tokens)
    return None if tflops is None else (crossing.tokens, tflops)


def interpolate(line: Sequence[tuple[float, float]], x: float) -> float | None:
    """The height of a curve at x by a power law between neighbours; None outside of it."""
    for (x0, y0), (x1, y1) in pairwise(line):
        if x0 <= x <= x1 and x0 < x1:
            share = math.log(x / x0) / math.log(x1 / x0)
            return float(y0 ** (1 - share) * y1**share)
    return None


def _sweep_axes(ax: Axes, points: Sequence[tuple[float, float]], found: Sweep) -> None:
    xs, ys = zip(*points, strict=True)
    if found.parameter == "frames":
        log_axis(ax, "x", min(xs) / 1.06, max(xs) * 1.06, 6)
        log_axis(ax, "y", min(ys) / 1.15, max(ys) * 1.15, 7)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.set_ylim(0, 1.08 * max(ys) or 1)
    ax.tick_params(axis="y", labelcolor=svg.MUTED)
    ax.set_axisbelow(True)
    ax.grid(color=svg.RULE, linewidth=0.8)
    ax.set_xlabel("tokens" if found.parameter == "frames" else "dual-stream blocks L", color=svg.MUTED)
    ax.set_ylabel("mixers, TFLOPs", color=svg.MUTED)


def to_pixels(ax: Axes, x: float, y: float) -> tuple[float, float]:
    """From data to pixels from the top left of the figure."""
    across, up = ax.transData.transform((x, y))
    return float(across), float(_height(ax) - up)


def _height(ax: Axes) -> float:
    return float(ax.figure.bbox.height)


def _bounds(ax: Axes) -> Box:
    box = ax.get_window_extent()
    return Box(box.x0 + 2, _height(ax) - box.y1 + 2, box.x1 - 2, _height(ax) - box.y0 - 2)


def _write(ax: Axes, text: str, box: Box) -> None:
    """Set a text into a box given in pixels."""
    ax.annotate(
        text,
        (box.left, _height(ax) - (box.top + box.bottom) / 2),
        xycoords="figure pixels",
        va="center",
        fontsize=12,
        annotation_clip=False,
    )


def name_lines(ax: Axes, lines: Mapping[str, Sequence[tuple[float, float]]], right: int) -> None:
    """Names at the right ends of the lines, moved apart where lines end together."""
    bounds = _bounds(ax)
    ends = [to_pixels(ax, *line[-1])[1] for line in lines.values()]
    wrapped = [fold(name, max(6, int((right - 20) / CHARACTER))) for name in lines]
    gap = max(text_size(text)[1] for text in wrapped)
    for text, end, y in zip(
        wrapped, lines.values(), spread(ends, gap, bounds.top + gap / 2, bounds.bottom - gap / 2), strict=True
    ):
        x = to_pixels(ax, *end[-1])[0] + 9
        _write(ax, text, Box(x, y - LINE / 2, x, y + LINE / 2))


def _mark_crossing(
    ax: Axes, crossing: Crossing, point: tuple[float, float], lines: Sequence[Sequence[tuple[float, float]]]
) -> None:
    ax.plot(*point, "o", markersize=12, markerfacecolor="none", markeredgecolor=svg.INK, markeredgewidth=1.6)
    frames = "" if crossing.frames is None else f"\n({crossing.frames:,.0f} frames)"
    text = f"{crossing.a} = {crossing.b}\nat {crossing.tokens:,.0f} tokens{frames}"
    obstacles = [around(*to_pixels(ax, *point), 8), *(box for line in lines for box in _covered(ax, line))]
    place = to_pixels(ax, *point)
    _write_beside(ax, text, place_labels([place], [text], obstacles, _bounds(ax))[0], place)


def _covered(ax: Axes, line: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes along a line."""
    pixels = [to_pixels(ax, *point) for point in line]
    return [
        around(x0 + (x1 - x0) * k / 24, y0 + (y1 - y0) * k / 24, 5)
        for (x0, y0), (x1, y1) in pairwise(pixels)
        for k in range(25)
    ]


def tradeoff(points: Sequence[Point], quality: str, width: int, height: int) -> Markup:
    """Quality with intervals against the cost of a clip; rings mark points that none beats in both."""
    figure, ax = svg.axes(width, height, left=62, right=16, top=14, bottom=40)
    for point in points:
        colour = svg.series(point.series)
        if point.ci95 is not None:
            ax.plot([point.cost] * 2, point.ci95, color=colour, linewidth=1.8, solid_capstyle="butt")
            ax.plot([point.cost] * 2, point.ci95, "_", color=colour, markersize=9, markeredgewidth=1.8)
        ax.plot(point.cost, point.quality, "o", color=colour, markersize=8)
        if point.undominated:
            ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": svg.INK, "markeredgewidth": 1.4}
            ax.plot(point.cost, point.quality, "o", markersize=15, **ring)
    _tradeoff_axes(ax, points, quality)
    _name_points(ax, points)
    return svg.markup(figure, f"{quality} against TFLOPs of a clip, {width} pixels wide")


def _tradeoff_axes(ax: Axes, points: Sequence[Point], quality: str) -> None:
    costs = [point.cost for point in points]
    ends = [end for point in points for end in (point.ci95 or (point.quality,))] + [point.quality for point in points]
    stretch = max((max(costs) / min(costs)) ** 0.15, 1.25)
    log_axis(ax, "x", min(costs) / stretch, max(costs) * stretch, 6)
    margin = max(0.12 * (max(ends) - min(ends)), 0.5)
    ax.set_ylim(min(ends) - margin, max(ends) + margin)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.tick_params(axis="y", labelcolor=svg.MUTED)
    ax.set_axisbelow(True)
    ax.grid(color=svg.RULE, linewidth=0.8)
    ax.set_xlabel("one clip, TFLOPs", color=svg.MUTED)
    ax.set_ylabel("quality, %", color=svg.MUTED)


def _name_points(ax: Axes, points: Sequence[Point]) -> None:
    """Names beside the points, with a thin line where there was no room next to one."""
    at = [to_pixels(ax, point.cost, point.quality) for point in points]
    obstacles = [around(x, y, 10) for x, y in at]
    for point in points:
        if point.ci95 is not None:
            (x, low), (_, high) = (to_pixels(ax, point.cost, end) for end in point.ci95)
            obstacles.append(Box(x - 6, high - 2, x + 6, low + 2))
    write_names(ax, at, [textwrap.shorten(point.label, 36, placeholder="…") for point in points], obstacles)


def write_names(ax: Axes, at: Sequence[tuple[float, float]], names: Sequence[str], obstacles: Sequence[Box]) -> None:
    """Names of points beside them, in pixels; see `place_labels`."""
    for point, name, box in zip(at, names, place_labels(at, names, obstacles, _bounds(ax)), strict=True):
        _write_beside(ax, name, box, point)


def _write_beside(ax: Axes, text: str, box: Box, point: tuple[float, float]) -> None:
    """Set a text, with a thin line to its point if there was no room next to that."""
    _write(ax, text, box)
    end = box.nearest(*point)
    if math.dist(end, point) > 16:
        arrow = {"arrowstyle": "-", "color": svg.MUTED, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 8}
        near, far = ((x, _height(ax) - y) for x, y in (end, point))
        ax.annotate("", far, near, "figure pixels", "figure pixels", arrowprops=arrow)
