"""A new study: from folders of videos to a directory that can be served.

The study grows in a hidden directory beside the place where it will be, and is moved there when it is whole: STUDY
never exists half-made. Whoever runs the same command again after an interruption gets the copies that were finished.
"""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.job import Progress, Silent
from evalkit.study.links import write_links
from evalkit.study.plan_file import SECRET, save_plan, write_private
from evalkit.study.planning.assignment import Item
from evalkit.study.planning.balance import Balance, balance
from evalkit.study.planning.copying import Source, copy_all, inspect
from evalkit.study.planning.draft import ClipKey, Draft, draft
from evalkit.study.planning.growing import growing
from evalkit.study.planning.precision import Layout, Precision, expect, rater_counts
from evalkit.study.planning.request import StudyRequest
from evalkit.study.types import Plan, Screen, StudyClip
from evalkit.types import VideoInfo

WATCHES, SECONDS_PER_CLIP, SECONDS_PER_PAIR = 2, 3.0, 4.0
"""A guess at a rater's time: every screen is watched twice; a question takes so long for each clip ranked, or each
pair."""


@dataclass(frozen=True, slots=True)
class NewStudy:
    """What was planned.

    Args:
        path: the study directory.
        plan: as saved in it.
        balance: of the votes asked for.
        balanced_design: whether pairs of models meet equally often by design.
        precision: to be expected, by number of raters.
        minutes: a rater's time, a guess.
        notes: what was left out or will look different.
    """

    path: Path
    plan: Plan
    balance: Balance
    balanced_design: bool
    precision: tuple[Precision, ...]
    minutes: float
    notes: tuple[str, ...]


def create(request: StudyRequest, progress: Progress | None = None) -> NewStudy:
    """Make a study directory.

    Raises:
        UserError: the request cannot be meant, videos are missing or cannot be decoded, or the directory exists.
        RunFailed: the directory cannot be written, or another command is making it.
    """
    progress = progress or Silent()
    drafted = draft(request)
    sources, remarks = inspect(drafted.sets.samples, progress)
    with growing(request.out) as folder:
        clips = _copies(drafted, sources, folder, progress)
        tokens = [secrets.token_urlsafe(24) for _ in range(request.raters + 1)]
        plan = drafted.plan(clips, tokens)
        save_plan(folder, plan)
        write_links(folder, tokens[0], zip((rater.id for rater in plan.raters), tokens[1:], strict=True))
        write_private(folder / SECRET, secrets.token_bytes(32).hex().encode())
    return NewStudy(
        request.out,
        plan,
        balance(drafted.raters, request.models),
        drafted.balanced,
        expect(_layout(drafted), rater_counts(request.raters), request.spreads),
        _minutes(plan),
        (*drafted.sets.notes, *_telling(sources), *remarks),
    )


def _copies(
    drafted: Draft, sources: Mapping[tuple[str, Item], Source], folder: Path, progress: Progress
) -> dict[ClipKey, StudyClip]:
    """Copy every video, and spoil those that checks ask for."""
    seed = drafted.request.seed
    wanted = [*sources.values(), *(replace(sources[key], spoil_seed=seed) for key in drafted.spoiled)]
    clips = copy_all(wanted, folder, progress)
    return {(source.model, source.item, source.spoil_seed is not None): clips[source.key] for source in wanted}


def _layout(drafted: Draft) -> Layout:
    request = drafted.request
    return Layout(
        n_models=len(request.models),
        block_size=request.on_screen,
        n_prompts=len(drafted.sets.prompts),
        screens=drafted.screens,
        n_axes=len(request.questions),
        ranking=request.protocol == "rank",
    )


def _minutes(plan: Plan) -> float:
    """Mean over the raters of the time that they are likely to take."""

    def seconds(screen: Screen) -> float:
        longest = max(plan.clips[id_].duration_s for id_ in screen.clips)
        question = SECONDS_PER_CLIP * len(screen.clips) if plan.protocol == "rank" else SECONDS_PER_PAIR
        return WATCHES * longest + len(plan.axes) * question

    return statistics.fmean(sum(map(seconds, rater.screens)) for rater in plan.raters) / 60


def _telling(sources: Mapping[tuple[str, Item], Source]) -> Iterator[str]:
    """By what raters could recognise a model, however blind its file is."""
    looks: dict[str, Callable[[VideoInfo], str]] = {
        "picture size": lambda info: f"{info.width}x{info.height}",
        "frame rate": lambda info: f"{info.fps:.4g}",
        "length": lambda info: f"{info.duration_s:.1f} s",
    }
    for what, look in looks.items():
        found: dict[str, set[str]] = {}
        for source in sources.values():
            found.setdefault(source.model, set()).add(look(source.info))
        if len({frozenset(values) for values in found.values()}) > 1:
            each = "; ".join(f"{model} {', '.join(sorted(values)[:3])}" for model, values in found.items())
            yield f"models differ in {what}, by which raters may tell them apart: {each}"
