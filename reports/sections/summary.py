"""Every dimension with its interval and counts, and the aggregates with what they need."""

from __future__ import annotations

from markupsafe import Markup

from evalkit.report import Page, Section

AGGREGATES = {
    "total": ("Total score", "(4 × quality + semantic) / 5; needs all 16 dimensions"),
    "quality": ("Quality score", "weighted mean of 7 normalised dimensions, dynamic degree counting half"),
    "semantic": ("Semantic score", "mean of 9 normalised dimensions"),
    "mean7": ("Mean of seven", "plain mean of the seven customised dimensions"),
    "m4v_avg4": ("M4V average of four", "subject consistency, aesthetic quality, imaging quality, overall consistency"),
    "lingen_quality6": ("LinGen quality of six", "quality without temporal flickering; needs dynamic degree"),
    "lite/mean7": ("Mean of seven (lite)", "plain mean of the stand-ins; comparable with lite runs only"),
}


def body(page: Page) -> Markup:
    """Dimensions, then headline scores (those that exist first), then what the dimensions measure."""
    keys = dict.fromkeys(key for run in page.runs for key in run.summary["aggregate"] if key != "coverage")
    ordered = [key for key in AGGREGATES if key in keys] + [key for key in keys if key not in AGGREGATES]
    ordered.sort(key=lambda key: all(run.summary["aggregate"].get(key) is None for run in page.runs))
    rows = [(key, *AGGREGATES.get(key, (key, ""))) for key in ordered]
    found = {name: run.dimensions[name] for name in page.dimensions for run in page.runs if name in run.dimensions}
    explained = [(name, entry) for name, entry in found.items() if entry.get("summary")]
    lacking: dict[tuple[str, ...], list[str]] = {}
    for run in page.runs:
        lacking.setdefault(tuple(run.summary["aggregate"]["coverage"]["missing"]), []).append(run.label)
    lacking.pop((), None)
    return page.fill("summary.html", aggregates=rows, explained=explained, lacking=lacking)


SECTION = Section("Summary", 10, body)
