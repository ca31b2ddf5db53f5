"""From votes to conclusions: standings, duels and agreement, with intervals clustered by rater and prompt."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.study.statistics.agreement import chance_concordance, study_alpha, study_concordance
from evalkit.study.statistics.duels import duels
from evalkit.study.statistics.prompt_level import prompt_level_duels, prompt_level_means
from evalkit.study.statistics.rates import with_holm
from evalkit.study.statistics.sample import Sample, draw
from evalkit.study.statistics.standings import standings
from evalkit.study.types import AxisResult, Ballots, Standing, StudyResult, Vote

__all__ = ["FEW_RATERS", "conclude", "prompt_level_duels", "prompt_level_means", "with_holm"]

FEW_RATERS = 6
"""Below this, intervals are valid but rest on a guess of how raters differ; the result says so."""

WORTH_SAYING = 0.05
"""Kendall's W by chance from which the result says so: 20 raters a prompt, or fewer."""


def conclude(ballots: Ballots, *, seed: int = 0, n_resamples: int = 1000) -> StudyResult:
    """All figures of a study of raters' votes; they do not depend on the order of votes and models.

    Args:
        ballots: the votes that count.
        seed: of the resampling.
        n_resamples: bootstrap resamples of raters, of prompts, and of both.
    """
    by_axis: dict[str, list[Vote]] = {axis: [] for axis in ballots.axes}
    for vote in ballots.votes:
        by_axis[vote.axis].append(vote)
    return StudyResult(
        source=ballots.source,
        unit="vote",
        protocol=ballots.protocol,
        models=ballots.models,
        axes=with_holm([_axis(axis, votes, ballots, n_resamples, seed) for axis, votes in by_axis.items()]),
        screening=ballots.screening,
        direction="lower is better" if ballots.protocol == "rank" else "higher is better",
        caveats=_caveats(ballots.votes),
    )


def _axis(axis: str, votes: Sequence[Vote], ballots: Ballots, n_resamples: int, seed: int) -> AxisResult:
    if not votes:
        nothing = tuple(Standing(model, 0, None, None, None, None) for model in ballots.models)
        return AxisResult(axis, 0, 0, 0, nothing, (), notes=("No vote counts on this axis.",))
    models = sorted(ballots.models)  # so that the resamples do not depend on who is named first
    sample = draw(votes, models, ballots.protocol, ballots.ties, n_resamples=n_resamples, seed=seed)
    placed, tie_log_odds, standing_notes = standings(sample)
    fought, duel_notes = duels(sample, [standing.model for standing in placed])
    ranked = ballots.protocol == "rank"
    return AxisResult(
        axis=axis,
        n_votes=sample.tally.n_votes,
        n_raters=sample.tally.n_raters,
        n_prompts=sample.tally.n_prompts,
        standings=placed,
        duels=fought,
        tie_log_odds=tie_log_odds,
        kendall_w=study_concordance(sample.tally, n_resamples=n_resamples, seed=seed) if ranked else None,
        krippendorff_alpha=study_alpha(sample.tally, n_resamples=n_resamples, seed=seed),
        notes=standing_notes + duel_notes + _agreement_notes(sample),
    )


def _agreement_notes(sample: Sample) -> tuple[str, ...]:
    chance = chance_concordance(sample.tally) if sample.protocol == "rank" else None
    if chance is None or chance < WORTH_SAYING:
        return ()
    return (f"Kendall's W would be {chance:.2f} if raters answered at random: a prompt has so few of them.",)


def _caveats(votes: Sequence[Vote]) -> tuple[str, ...]:
    n_raters, n_prompts = len({vote.rater for vote in votes}), len({vote.prompt_id for vote in votes})
    if not votes:
        return ("No vote counts.",)
    if n_raters == 1 and n_prompts == 1:
        return ("One rater and one prompt: how raters or prompts differ cannot be known, so there are no intervals.",)
    if n_raters == 1:
        return ("One rater: the intervals hold for other prompts, not for other raters.",)
    if n_prompts == 1:
        return ("One prompt: the intervals hold for other raters, not for other prompts.",)
    if n_raters < FEW_RATERS:
        return (f"Only {n_raters} raters: so few tell little of how raters differ, and the intervals are wide for it.",)
    return ()
