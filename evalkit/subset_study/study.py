"""A whole study: every dimension and headline score, with and without a given subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evalkit.errors import UserError
from evalkit.records import RunRecord
from evalkit.subset_study.agreement import Agreement, curve_point, nested, separate
from evalkit.subset_study.components import (
    Components,
    components,
    detectable_effect,
    expected_width,
    prompts_needed,
)
from evalkit.subset_study.findings import SIZES, Power, Settings, Study, TargetStudy, Width
from evalkit.subset_study.select import Models, Subset, choose, scored_videos, sort_runs
from evalkit.subset_study.target import Target, build_targets

if TYPE_CHECKING:
    from evalkit.job import Progress

PREDICTORS = {"total": "mean7"}
"""Headline that stands in for one that the subset's suite cannot have."""


def study_runs(runs: Sequence[RunRecord], settings: Settings, progress: Progress | None = None) -> Study:
    """Study how a subset, and random subsets, predict the scores of the full suite.

    Raises:
        UserError: fewer than two models, runs that do not compare, an unknown subset, or no common prompts.
    """
    models = sort_runs(runs, settings.subset)
    targets, refused = _targets(models.full)
    refused |= {model: f"a run of {suite} only" for model, suite in models.unpaired.items()}
    if not targets:
        raise UserError(
            f"There is nothing to study: {'; '.join(f'{name}: {reason}' for name, reason in refused.items())}.",
            "Score the same prompts and dimensions for at least two models.",
        )
    own, subset = _other_suite(models, refused) if models.subset else (None, _subset(runs, targets, settings))
    manifest = next(iter(models.full.values())).manifest
    suites = _Suites(manifest["suite"]["name"], subset, own)
    found = []
    if progress is not None:
        progress.start("drawing random subsets", len(targets))
    for target in targets:
        found.append(_study(target, suites, settings))
        if progress is not None:
            progress.advance()
    other = next(iter(models.subset.values())).manifest["suite"] if models.subset else None
    return Study(
        settings,
        manifest["profile"],
        manifest["precision"],
        manifest["suite"],
        {name: str(run.path) for name, run in models.full.items()},
        subset,
        other,
        tuple(found),
        refused,
    )


def _targets(runs: Mapping[str, RunRecord]) -> tuple[list[Target], dict[str, str]]:
    directions = {
        name: bool(found.get("higher_is_better", True))
        for run in runs.values()
        for name, found in run.summary.get("dimensions", {}).items()
    }
    lite = any(run.manifest["profile"] == "lite" for run in runs.values())
    return build_targets(scored_videos(runs), list(runs), directions, lite)


def _subset(runs: Sequence[RunRecord], targets: Sequence[Target], settings: Settings) -> Subset | None:
    if settings.subset is None:
        return None
    scored = sorted({prompt for target in targets for prompt in target.prompts})
    return choose(settings.subset, runs, scored, settings.seed)


def _other_suite(models: Models, refused: dict[str, str]) -> tuple[dict[str, Target], Subset]:
    """The targets of the subset's own suite, and what it is called."""
    targets, reasons = _targets(models.subset)
    manifest = next(iter(models.subset.values())).manifest
    suite = manifest["suite"]
    refused |= {f"{name} of {suite['name']}": reason for name, reason in reasons.items()}
    return {target.name: target for target in targets}, Subset(suite["name"], frozenset(), (), suite["n_prompts"])


@dataclass(frozen=True, slots=True)
class _Suites:
    """What a target is compared with: a subset of the full suite's prompts, or the targets of a suite of its own."""

    full: str
    subset: Subset | None
    own: Mapping[str, Target] | None


def _study(target: Target, suites: _Suites, settings: Settings) -> TargetStudy:
    """One target; its random draws depend on the seed and its name, not on what else is studied."""
    seed = [settings.seed, *target.name.encode()]
    agreement = _agreement(target, suites, settings.draws, [*seed, 1])
    own = None if suites.own is None or suites.subset is None else suites.own.get(target.name)
    planned = target if own is None else own
    size = None if agreement is None or (suites.own is not None and own is None) else agreement.n_prompts
    sizes = _sizes(target, settings, None if agreement is None else agreement.n_prompts)
    points = (
        curve_point(target, n, settings.draws, np.random.default_rng([*seed, 2])) for n in sizes if n >= target.fewest
    )
    found = components(planned)
    return TargetStudy(
        target.name,
        target.higher_is_better,
        target.models,
        len(target.prompts),
        target.left_out,
        tuple(point for point in points if point is not None),
        suites.full if own is None or suites.subset is None else suites.subset.name,
        len(planned.prompts),
        found,
        tuple(_widths(found, _sizes(planned, settings, size), len(planned.prompts), settings)),
        _power(found, len(planned.prompts), size, settings),
        agreement,
    )


def _agreement(target: Target, suites: _Suites, n_draws: int, seed: list[int]) -> Agreement | None:
    if suites.own is not None:
        other = suites.own.get(target.name) or suites.own.get(PREDICTORS.get(target.name, ""))
        comparable = other is not None and other.models == target.models
        return separate(other, target, n_draws, seed) if other is not None and comparable else None
    if suites.subset is None:
        return None
    member_U = np.array([prompt in suites.subset.prompts for prompt in target.prompts])
    return nested(target, member_U, n_draws, seed)


def _sizes(target: Target, settings: Settings, size: int | None) -> list[int]:
    """Sizes below that of the suite, with the subset's own and the whole."""
    n_prompts = len(target.prompts)
    asked = {*(settings.sizes or SIZES), *(() if size is None or size < 2 else (size,))}
    return sorted({n for n in asked if n < n_prompts} | {n_prompts})


def _widths(found: Components, sizes: Sequence[int], n_prompts: int, settings: Settings) -> list[Width]:
    """Widths at every size, with the recorded number of videos, the asked one, and one; unknown ones are left out."""
    widths = []
    for videos in dict.fromkeys((settings.videos or found.videos, found.videos, 1.0)):
        score, difference = found.score_variance(videos), found.difference_variance(videos)
        if score is None or difference is None:
            continue
        for n in sizes:
            wide, apart = expected_width(score, n), expected_width(difference, n)
            assert wide is not None
            assert apart is not None
            # The suite's score is known for these videos: only as many as it has can be said to be part of it.
            of_suite = wide * np.sqrt(1 - n / n_prompts) if videos == found.videos else None
            widths.append(Width(n, videos, wide, apart, None if of_suite is None else float(of_suite)))
    return widths


def _power(found: Components, n_prompts: int, size: int | None, settings: Settings) -> Power:
    """Planning for prompts like those of the planned suite."""
    test = {"alpha": settings.alpha, "power": settings.power}
    variance = found.difference_variance(settings.videos)
    bounds = [prompts_needed(pair, settings.difference, **test) for pair in (found.pair_low, found.pair_high)]
    return Power(
        settings.videos or found.videos,
        None if variance is None else prompts_needed(variance, settings.difference, **test),
        (bounds[0], bounds[1]) if settings.videos in (None, found.videos) else None,
        _detectable(variance, n_prompts, test),
        None if size is None else _detectable(variance, size, test),
    )


def _detectable(variance: float | None, n: int, test: Mapping[str, float]) -> float | None:
    effect = detectable_effect(n, alpha=test["alpha"], power=test["power"])
    return None if variance is None or effect is None else effect * float(np.sqrt(variance))
