"""What keeps the numbers from being comparable with the leaderboard's."""

from __future__ import annotations

from markupsafe import Markup

from evalkit.report import Page, Section


def body(page: Page) -> Markup | None:
    """The caveats of every run; left out if there are none."""
    return page.fill("comparability.html") if any(run.caveats for run in page.runs) else None


SECTION = Section("Comparability", 16, body)
