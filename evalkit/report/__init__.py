"""One self-contained HTML page from finished runs: no network, nothing but run directories read.

`render` writes the page. Its sections are found by looking: every file of `reports/sections/` holds one in a constant
`SECTION`, so adding a section touches one file.
"""

from evalkit.report.format import count, moment, percent, points, title
from evalkit.report.page import Page, Section, compose, render, sections
from evalkit.report.view import ShownRun, Video, extremes

__all__ = [
    "Page",
    "Section",
    "ShownRun",
    "Video",
    "compose",
    "count",
    "extremes",
    "moment",
    "percent",
    "points",
    "render",
    "sections",
    "title",
]
