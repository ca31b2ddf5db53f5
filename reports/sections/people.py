"""What people say of the runs' videos: the human study, and how the metrics agree with it."""

from __future__ import annotations

from dataclasses import replace

from markupsafe import Markup

from evalkit.report import Page, Section
from evalkit.report.study_parts import overview, parts

BELOW = 4
"""Level of the headings within a part, which has a heading itself."""


def body(page: Page) -> Markup | None:
    """Every part of the study under a heading of its own; nothing without a study."""
    if page.study is None:
        return None
    study = replace(page.study, level=BELOW)
    filled = [(title, page.fill(template, **values)) for title, template, values in parts(study)]
    return page.fill("study_section.html", parts=filled, **overview(study))


SECTION = Section("Human preference", 18, body)
