"""What was scored, the verdict in a sentence, and what the numbers may be called."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from evalkit.ablation import load_all
from evalkit.report import Page, Section, ShownAblation, ShownCost, ShownRun, count, headline


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


def recorded(cost: ShownCost) -> str:
    """One sentence on a directory without scores: what is known of its cost."""
    parts = [
        f"{what} of {count(len(found.rows), 'variant')}"
        for what, found in (("counted cost", cost.record.flops), ("latency", cost.record.latency))
        if found is not None
    ]
    return f"Cost only: {' and '.join(parts)}; no video was scored."


def asked(shown: ShownAblation) -> dict[str, Any]:
    """What an ablation was to find out, and what all its variants have in common."""
    found, questions = shown.record, dict[str, str]()
    for ablation in load_all().values():
        names = [ablation.name, *(f"{ablation.name}-{level.name}" for level in ablation.variants)]
        questions |= dict.fromkeys(names, ablation.question)
    tested = [(variant, questions.get(variant.name)) for variant in shown.variants if variant.record.against]
    steps = sorted({variant.train.steps for variant in found.variants})
    return {"shown": shown, "tested": tested, "steps": steps}


def body(page: Page) -> Markup:
    """Title, verdicts and banners."""
    reduced = sorted({run.summary["precision"] for run in page.runs if run.reduced})
    foreign = sorted({key for run in page.runs for key in run.summary.get("foreign_weights", [])})
    if page.ablation is not None:
        return page.fill("ablation_header.html", reduced=reduced, foreign=foreign, **asked(page.ablation))
    entries, costs = [_entry(run) for run in page.runs], [(cost, recorded(cost)) for cost in page.cost_only]
    return page.fill("header.html", entries=entries, costs=costs, reduced=reduced, foreign=foreign)


SECTION = Section("Overview", 0, body, reads_scores=False, of_ablation=True)
