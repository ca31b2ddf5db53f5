"""What was scored, the verdict in a sentence, and what the numbers may be called."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from evalkit.report import Page, Section, ShownRun, count

HEADLINES = (
    ("total", "VBench total score"),
    ("mean7", "Mean of the seven customised dimensions"),
    ("lite/mean7", "Mean of seven stand-ins, not a VBench score"),
    ("quality", "VBench quality score"),
    ("semantic", "VBench semantic score"),
)
"""Aggregates that may head the page, the most telling first."""


def headline(run: ShownRun) -> tuple[float, str] | None:
    """The most telling aggregate that the run has, in percent, and its name."""
    for key, name in HEADLINES:
        if run.summary["aggregate"].get(key) is not None:
            return run.summary["aggregate"][key], name
    return None


def gaps(run: ShownRun) -> list[str]:
    """What stands between the run and completeness, in words; empty if nothing does."""
    videos, n_prompts = run.summary["videos"], run.summary["subset"]["n_prompts"]
    n_missing, n_unmatched = len(run.summary["missing_prompts"]), len(run.summary["unmatched_files"])
    n_unscored = sum(len(video["unscored"]) for video in videos)
    n_pairs = n_unscored + sum(len(video["scores"]) for video in videos)
    return [
        text
        for n, text in (
            (run.summary.get("interrupted", False), "the run was interrupted"),
            (n_missing, f"{n_missing:,} of {count(n_prompts, 'prompt')} without a video"),
            (n_unmatched, f"{count(n_unmatched, 'file')} matched no prompt"),
            (n_unscored, f"{n_unscored:,} of {n_pairs:,} video–dimension pairs unscored"),
        )
        if n
    ]


def verdict(run: ShownRun) -> str:
    """One sentence: is the run complete, and if not, what is missing."""
    found = gaps(run)
    if found:
        return f"Incomplete: {'; '.join(found)}."
    n_videos = count(len(run.summary["videos"]), "video")
    return f"Complete: {n_videos}, each scored in {count(len(run.dimensions), 'dimension')}; nothing is missing."


def _entry(run: ShownRun) -> dict[str, Any]:
    return {"run": run, "headline": headline(run), "verdict": verdict(run), "complete": not gaps(run)}


def body(page: Page) -> Markup:
    """Title, verdicts and banners."""
    reduced = sorted({run.summary["precision"] for run in page.runs if run.reduced})
    foreign = sorted({key for run in page.runs for key in run.summary.get("foreign_weights", [])})
    return page.fill("header.html", entries=[_entry(run) for run in page.runs], reduced=reduced, foreign=foreign)


SECTION = Section("Overview", 0, body)
