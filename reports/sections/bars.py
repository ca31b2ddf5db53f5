"""All dimensions at a glance: bars with 95 % intervals, grouped by run."""

from __future__ import annotations

import textwrap

from markupsafe import Markup

from evalkit.report import Page, Section, percent, svg, title

BAR, LINE, GAP = 16, 15, 14
"""Heights of a bar and of a line of text, and the space between two dimensions, in pixels."""


def draw(page: Page, width: int, left: int, wrap: int) -> Markup:
    """The plot at `width` pixels, with names in a margin of `left` pixels, broken after `wrap` characters."""
    n_runs, dimensions = len(page.runs), page.dimensions
    labels = [textwrap.wrap(title(name), wrap) for name in dimensions]
    row = max(BAR * n_runs, LINE * max(map(len, labels))) + GAP
    figure, ax = svg.axes(width, row * len(dimensions) + 40, left=left, right=56, bottom=36)
    for run in page.runs:
        for place, name in enumerate(dimensions):
            found = run.dimensions.get(name)
            if found is None or found["score"] is None:
                continue
            y, score = place * row + (run.index - (n_runs - 1) / 2) * BAR, 100 * found["score"]
            ax.barh(y, score, height=BAR - 3, color=svg.series(run.series))
            ax.text(103, y, percent(found["score"]), va="center", fontsize=12, clip_on=False)
            if found["ci95"] is not None:
                low, high = (100 * bound for bound in found["ci95"])
                ax.plot([low, high], [y, y], color=svg.INK, linewidth=1.2, solid_capstyle="butt")
                ax.plot([low, high], [y, y], color=svg.INK, linestyle="none", marker="|", markersize=7)
    ax.set_xlim(0, 100)
    ax.set_ylim((len(dimensions) - 0.5) * row, -0.5 * row)
    ax.set_yticks([place * row for place in range(len(dimensions))], ["\n".join(lines) for lines in labels])
    ax.set_xticks(range(0, 101, 25))
    ax.set_axisbelow(True)
    ax.grid(axis="x", color=svg.RULE, linewidth=0.8)
    ax.set_xlabel("score, %", color=svg.MUTED)
    return svg.markup(figure, f"Scores with 95 % intervals, {width} pixels wide")


def body(page: Page) -> Markup:
    """Two drawings of the same plot; the style sheet shows the one that fits the screen."""
    return page.fill("bars.html", wide=draw(page, 860, 230, 40), narrow=draw(page, 350, 118, 15))


SECTION = Section("Scores", 20, body)
