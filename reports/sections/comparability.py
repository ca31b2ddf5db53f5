"""What keeps the numbers from being comparable with the leaderboard's."""

from __future__ import annotations

from markupsafe import Markup

from evalkit.report import Page, Section


def body(page: Page) -> Markup | None:
    """The caveats of every run; left out if there are none."""
    entries = [(run, run.summary.get("comparability", [])) for run in page.runs]
    if not any(caveats for _, caveats in entries):
        return None
    return page.fill("comparability.html", entries=entries)


SECTION = Section("Comparability", 16, body)
