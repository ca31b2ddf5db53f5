"""Best and worst videos of each dimension."""

from __future__ import annotations

from markupsafe import Markup

from evalkit.report import Page, Section, extremes
from evalkit.report.page import N_EXTREMES


def body(page: Page) -> Markup | None:
    """One fold for each dimension that has at least two scored videos."""
    folds = []
    for name in page.dimensions:
        ends = [(run, *extremes(page.videos, run, name, N_EXTREMES)) for run in page.runs if name in run.dimensions]
        shown = [(run, best, worst) for run, best, worst in ends if worst]
        if shown:
            folds.append((name, shown))
    return page.fill("extremes.html", folds=folds) if folds else None


SECTION = Section("Best and worst", 50, body)
