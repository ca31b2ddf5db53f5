"""The per-prompt table: sortable, filterable, with stills and playable clips."""

from __future__ import annotations

from markupsafe import Markup

from evalkit.report import Page, Section


def body(page: Page) -> Markup | None:
    """Heads and controls; page.js fills in the rows, a page of them at a time."""
    several_seeds = len({video.seed for video in page.videos}) > 1
    return page.fill("videos.html", several_seeds=several_seeds) if page.videos else None


SECTION = Section("Videos", 40, body, of_ablation=True)
