"""One self-contained HTML page from finished runs: no network, nothing but run directories read.

`render` writes the page of runs, `render_ablation` that of an ablation, `write_page` whichever some directories hold.
Sections are found by looking: every file of `reports/sections/` holds one in a constant `SECTION`, so adding a section
touches one file.
"""

from evalkit.report.ablation_view import Row, ShownAblation, ShownVariant
from evalkit.report.format import count, moment, percent, points, title
from evalkit.report.page import Page, Section, compose, compose_ablation, render, render_ablation, sections
from evalkit.report.quality import Quality, headline, quality_of, undominated
from evalkit.report.sources import HumanStudy, load, write_page
from evalkit.report.view import ShownCost, ShownRun, Video, extremes

__all__ = [
    "HumanStudy",
    "Page",
    "Quality",
    "Row",
    "Section",
    "ShownAblation",
    "ShownCost",
    "ShownRun",
    "ShownVariant",
    "Video",
    "compose",
    "compose_ablation",
    "count",
    "extremes",
    "headline",
    "load",
    "moment",
    "percent",
    "points",
    "quality_of",
    "render",
    "render_ablation",
    "sections",
    "title",
    "undominated",
    "write_page",
]
