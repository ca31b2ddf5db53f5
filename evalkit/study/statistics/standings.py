"""Where each model stands on one axis: mean rank, win rate, Bradley-Terry and Plackett-Luce strengths.

Rankings count in Bradley-Terry as the pairs they order; that these are not independent does not bias the strengths,
and their intervals draw whole raters and prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from evalkit.stats import FloatArray
from evalkit.study.statistics import bradley_terry, dominance, plackett_luce, rates
from evalkit.study.statistics.counts import Counts
from evalkit.study.statistics.intervals import bounded, unbounded
from evalkit.study.statistics.sample import Sample
from evalkit.study.types import Estimate, Standing

Estimates = Sequence[Estimate | None]

LEAST_DEFINED = 0.95
"""Share of the resamples in which strengths must be finite for their spread to be believed."""


def standings(sample: Sample) -> tuple[tuple[Standing, ...], float | None, tuple[str, ...]]:
    """The models best first, the log of Davidson's tie parameter, and notes on figures that are missing."""
    total = sample.tally.total
    ranks, ranks_note = _mean_ranks(sample, total)
    wins = bounded(sample.spread(rates.win_rates, _shown), 0.0, 1.0)
    strengths, strengths_note = _strengths(sample, total)
    worths, worths_note = _worths(sample, total)
    found = [
        Standing(model, int(total.shown_BM[0, m]), ranks[m], wins[m], strengths[m], worths[m])
        for m, model in enumerate(sample.models)
    ]
    notes = tuple(note for note in (ranks_note, strengths_note, worths_note) if note)
    return tuple(sorted(found, key=_merit, reverse=True)), _tie_log_odds(total), notes


def _merit(standing: Standing) -> tuple[float, float]:
    """Bradley-Terry orders the models where it exists, else the win rate; equal ones stay in the order given."""
    strength, rate = (
        -np.inf if figure is None else figure.value for figure in (standing.bradley_terry, standing.win_rate)
    )
    return strength, rate


def _shown(counts: Counts) -> FloatArray:
    return counts.shown_BM


def _mean_ranks(sample: Sample, total: Counts) -> tuple[Estimates, str | None]:
    nothing = [None] * len(sample.models)
    if sample.protocol != "rank":
        return nothing, None
    if total.full_B[0] < sample.tally.n_votes:
        return (
            nothing,
            "No mean ranks: screens show only some of the models, and ranks in other company do not compare.",
        )
    return bounded(sample.spread(rates.mean_ranks, _shown), 1.0, float(len(sample.models))), None


def _strengths(sample: Sample, total: Counts) -> tuple[Estimates, str | None]:
    def statistic(counts: Counts) -> FloatArray:
        return bradley_terry.fit(counts.wins_BMM, counts.ties_BMM).log_strengths_BM

    why = bradley_terry.obstacle(total.wins_BMM[0], total.ties_BMM[0], sample.models)
    return _fitted(sample, statistic, why, "Bradley-Terry strengths")


def _tie_log_odds(total: Counts) -> float | None:
    value = float(bradley_terry.fit(total.wins_BMM, total.ties_BMM).tie_log_odds_B[0])
    return value if np.isfinite(value) else None


def _worths(sample: Sample, total: Counts) -> tuple[Estimates, str | None]:
    members_SM = sample.tally.layout.members_SM
    if sample.protocol != "rank":
        return [None] * len(sample.models), None
    if sample.tally.tied:
        return [None] * len(sample.models), "Some rankings have ties, which Plackett-Luce does not know."

    def statistic(counts: Counts) -> FloatArray:
        return plackett_luce.fit_choices(counts.chosen_BM, counts.faced_BS, members_SM, counts.wins_BMM)

    why = dominance.obstacle(total.wins_BMM[0] > 0, sample.models)
    return _fitted(sample, statistic, why, "Plackett-Luce worths")


def _fitted(
    sample: Sample, statistic: Callable[[Counts], FloatArray], why: str | None, name: str
) -> tuple[Estimates, str | None]:
    """Estimates of a model's parameters; where there are none, or no intervals, with a note why."""
    if why:
        return [None] * len(sample.models), f"{name} have no finite maximum: {why}."
    found = sample.spread(statistic, _shown)
    defined = float(found.defined_E.min())
    if defined >= LEAST_DEFINED:
        return unbounded(found), None
    return [Estimate(value) for value in found.value_E.tolist()], (
        f"{name} have no intervals: {1 - defined:.0%} of the resamples have no finite maximum, being few or one-sided."
    )
