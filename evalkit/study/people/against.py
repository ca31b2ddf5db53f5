"""All scores of several runs against the votes of one study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evalkit.compare import refuse_unlike
from evalkit.errors import UserError, nearest
from evalkit.records import RunRecord
from evalkit.stats import holm
from evalkit.study.people.axis import JudgedAxis
from evalkit.study.people.means import Counted, model_means
from evalkit.study.people.models import ModelScores, model_correlation
from evalkit.study.people.recipes import Recipe, recipes
from evalkit.study.people.record import AxisAgainstPeople, LeftOut, PeopleResult, ScoreAgainstPeople
from evalkit.study.people.scored import Clip, ScoredClips, clip_name, scored_clips
from evalkit.study.people.standing import concluded_standings
from evalkit.study.types import AxisResult, Ballots, StudyResult

N_RESAMPLES = 1000


def metrics_against_people(
    ballots: Ballots | StudyResult,
    runs: Mapping[str, RunRecord],
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> PeopleResult:
    """Compare every dimension and headline score of the runs with human preference, on every axis.

    Args:
        ballots: the votes of a study; or its conclusions, which hold no votes: then models are compared, clips are not.
        runs: one finished run of the study's videos a model, by the model's label.
        seed: of the resampling.
        n_resamples: bootstrap resamples of the prompts.

    Raises:
        UserError: fewer than two models have a run, the runs do not compare, or they scored other prompts.
    """
    models = _models_with_run(ballots.models, runs)
    chosen = {model: runs[model] for model in models}
    first, *others = chosen.values()
    for other in others:
        refuse_unlike(first, other)
    clips = {model: scored_clips(run) for model, run in chosen.items()}
    found, refused = recipes(chosen)
    left_out = LeftOut(
        tuple(model for model in ballots.models if model not in runs),
        tuple(label for label in runs if label not in ballots.models),
        scores=refused,
    )
    if isinstance(ballots, Ballots):
        _refuse_other_prompts(ballots, chosen)
        judged = [
            JudgedAxis(
                axis, tuple(v for v in ballots.votes if v.axis == axis), ballots.models, clips, seed, n_resamples
            )
            for axis in ballots.axes
        ]
        left_out = _clips_left_out(left_out, ballots, clips)
        if not any(axis.compares_clips for axis in judged):
            raise UserError(
                f"No two clips that people compared are both in the runs of {', '.join(models)}.",
                "Give runs of the videos that the study showed: the same prompts, ids and seeds.",
            )
        axes = [axis.conclude(found) for axis in judged if axis.votes]
    else:
        axes = [_concluded(axis, clips, found, ballots.unit == "prompt", seed) for axis in ballots.axes]
    return PeopleResult(
        study=ballots.source,
        unit="vote" if isinstance(ballots, Ballots) else ballots.unit,
        clips_compared=isinstance(ballots, Ballots),
        profile=first.manifest["profile"],
        precision=first.manifest["precision"],
        suite=first.manifest["suite"],
        runs={model: str(run.path) for model, run in chosen.items()},
        axes=_adjusted(axes),
        left_out=left_out,
        n_resamples=n_resamples,
    )


def _models_with_run(models: Sequence[str], runs: Mapping[str, RunRecord]) -> tuple[str, ...]:
    found = tuple(model for model in models if model in runs)
    if len(found) >= 2:
        return found
    unknown = [label for label in runs if label not in models]
    likely = dict.fromkeys(model for label in unknown for model in nearest(label, models))
    hint = f" Did you mean {', '.join(likely)}?" if likely else ""
    raise UserError(
        f"{len(found)} of the study's models ({', '.join(models)}) has a run; two are needed."
        + (f" The study knows no {', '.join(unknown)}." if unknown else ""),
        f"Name each run as the study names its model.{hint}",
    )


def _refuse_other_prompts(ballots: Ballots, runs: Mapping[str, RunRecord]) -> None:
    """One id with two texts: the runs are of another suite than the study."""
    for model, run in runs.items():
        texts = run.results[["prompt_id", "prompt"]].drop_duplicates()
        for prompt, text in zip(texts["prompt_id"].astype(str), texts["prompt"].astype(str), strict=True):
            asked = ballots.prompts.get(prompt)
            if asked and asked.split() != text.split():
                raise UserError(
                    f"Prompt {prompt} is {asked!r} in the study and {text!r} in the run of {model}.",
                    "Give runs that were scored with the prompts of the study.",
                )


def _clips_left_out(left_out: LeftOut, ballots: Ballots, clips: Mapping[str, ScoredClips]) -> LeftOut:
    shown: dict[str, dict[Clip, None]] = {model: {} for model in clips}
    for vote in ballots.votes:
        for model in vote.models:
            if model in shown:
                shown[model][vote.prompt_id, vote.seed] = None
    without_video: dict[str, dict[str, str]] = {}
    without_vote: dict[str, tuple[str, ...]] = {}
    for model, videos in clips.items():
        files = {clip: videos.file(clip) for clip in shown[model]}
        lacking = {clip_name(clip): videos.lack(clip) for clip, file in files.items() if file is None}
        judged = set(files.values())
        unjudged = tuple(clip_name(clip) for file, clip in sorted(videos.videos.items()) if file not in judged)
        without_video |= {model: dict(sorted(lacking.items()))} if lacking else {}
        without_vote |= {model: unjudged} if unjudged else {}
    return replace(left_out, clips_without_video=without_video, clips_without_vote=without_vote)


def _concluded(
    axis: AxisResult, clips: Mapping[str, ScoredClips], found: Sequence[Recipe], published: bool, seed: int
) -> AxisAgainstPeople:
    """Models only: there is no vote to say which clip of a prompt people prefer."""
    standings = concluded_standings(axis, tuple(clips), published=published)
    everything = [Counted(videos, dict.fromkeys(videos.videos, 0)) for videos in clips.values()]
    scores = []
    for recipe in found:
        means_M = model_means(recipe, everything, np.ones((1, 1)))[0]
        values = ModelScores(means_M, None, 0, recipe.higher_is_better)
        models = model_correlation(tuple(clips), values, standings, seed=seed)
        notes = () if models is not None else ("Fewer than two models have both this score and a standing.",)
        scores.append(
            ScoreAgainstPeople(recipe.name, recipe.is_total, recipe.higher_is_better, None, None, models, notes=notes)
        )
    return AxisAgainstPeople(axis.axis, standings.kind, None, tuple(scores))


# ---- several tests at once -------------------------------------------------------------------------------------------

_TESTS: Mapping[str, str] = {"pairs": "p_value", "clips": "p_value", "models": "p_spearman"}


def _adjusted(axes: Sequence[AxisAgainstPeople]) -> tuple[AxisAgainstPeople, ...]:
    """Correct the p-values of each kind of test over all scores and axes."""
    found = list(axes)
    for part, name in _TESTS.items():
        found = _adjust(found, part, name)
    return tuple(found)


def _adjust(axes: Sequence[AxisAgainstPeople], part: str, name: str) -> list[AxisAgainstPeople]:
    p_values = {
        (axis.axis, score.name): p
        for axis in axes
        for score in axis.scores
        if (p := getattr(getattr(score, part), name, None)) is not None
    }
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))

    def correct(axis: str, score: ScoreAgainstPeople) -> ScoreAgainstPeople:
        if (axis, score.name) not in adjusted:
            return score
        changed: dict[str, Any] = {part: replace(getattr(score, part), p_adjusted=adjusted[axis, score.name])}
        return replace(score, **changed)

    return [replace(axis, scores=tuple(correct(axis.axis, score) for score in axis.scores)) for axis in axes]
