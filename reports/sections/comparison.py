"""Paired comparison of every further run with the first: which dimensions really changed."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from markupsafe import Markup

from evalkit.compare import RunComparison, compare_runs
from evalkit.errors import UserError
from evalkit.report import Page, Section, ShownRun, svg, title

LINE, GAP = 15, 13


@dataclass(frozen=True, slots=True)
class Pair:
    """Run `b` against run `a`: the comparison with its plots, or why there is none."""

    a: ShownRun
    b: ShownRun
    found: RunComparison | None
    wide: Markup | None = None
    narrow: Markup | None = None
    refusal: str = ""


def draw(found: RunComparison, a: ShownRun, b: ShownRun, width: int, left: int, wrap: int) -> Markup | None:
    """Differences with intervals around the line of no change; None if nothing could be compared."""
    shown = [d for d in found.dimensions if d.result.delta is not None]
    if not shown:
        return None
    labels = [textwrap.wrap(title(d.metric), wrap) for d in shown]
    row = LINE * max(map(len, labels)) + GAP
    figure, ax = svg.axes(width, row * len(shown) + 40, left=left, right=16, bottom=36)
    ax.axvline(0, color=svg.MUTED, linewidth=1)
    for place, dimension in enumerate(shown):
        result = dimension.result
        if result.delta is None:
            continue
        ax.plot(100 * result.delta, place, "o", color=svg.series(b.series), markersize=7)
        if result.low is not None and result.high is not None:
            ax.plot([100 * result.low, 100 * result.high], [place, place], color=svg.series(b.series), linewidth=2)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_yticks(range(len(shown)), ["\n".join(lines) for lines in labels])
    ax.set_axisbelow(True)
    ax.grid(axis="x", color=svg.RULE, linewidth=0.8)
    ax.set_xlabel(f"{b.label} − {a.label}, percentage points", color=svg.MUTED)
    return svg.markup(figure, f"Differences {b.label} minus {a.label} with 95 % intervals, {width} pixels wide")


def compare(a: ShownRun, b: ShownRun) -> Pair:
    """Compare two runs, or keep the reason why they do not compare."""
    try:
        found = compare_runs(a.record, b.record, seed=a.manifest["seed"])
    except UserError as e:
        return Pair(a, b, None, refusal=e.what)
    return Pair(a, b, found, draw(found, a, b, 860, 230, 40), draw(found, a, b, 350, 118, 15))


def body(page: Page) -> Markup | None:
    """A table and a plot for each pair; nothing for a single run."""
    first, *others = page.runs
    return page.fill("comparison.html", pairs=[compare(first, other) for other in others]) if others else None


SECTION = Section("Paired comparison", 15, body)
