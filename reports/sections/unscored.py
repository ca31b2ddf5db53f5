"""What was not scored, and why: nothing is dropped in silence."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from evalkit.report import Page, Section, ShownRun

MOST = 100
"""Longest list that is printed; the rest is in the run's vbench.json."""


def by_reason(run: ShownRun) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Unscored pairs grouped by reason, the commonest first; under each, the files with their dimensions."""
    groups: dict[str, dict[str, list[str]]] = {}
    for video in run.summary["videos"]:
        for dimension, reason in video["unscored"].items():
            groups.setdefault(reason, {}).setdefault(video["file"], []).append(dimension)
    ordered = sorted(groups.items(), key=lambda group: -sum(map(len, group[1].values())))
    return [(reason, list(files.items())) for reason, files in ordered]


def _entry(run: ShownRun) -> dict[str, Any]:
    found = {
        "missing": run.summary["missing_prompts"],
        "unmatched": run.summary["unmatched_files"],
        "reasons": by_reason(run),
    }
    return {"run": run, "complete": not any(found.values()), **found}


def body(page: Page) -> Markup:
    """Missing prompts, unmatched files and unscored pairs of every run; says so if there are none."""
    entries = [_entry(run) for run in page.runs]
    # The runs of an ablation are many and mostly complete: those stand in one sentence.
    merge = page.ablation is not None
    together = [entry["run"] for entry in entries if merge and entry["complete"]]
    apart = [entry for entry in entries if not (merge and entry["complete"])]
    return page.fill("unscored.html", entries=apart, together=together, most=MOST)


SECTION = Section("Not scored", 70, body, of_ablation=True)
