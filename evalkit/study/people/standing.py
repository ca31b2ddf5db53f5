"""Where people place the models: Bradley-Terry strengths, else win rates, else mean ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.stats import FloatArray
from evalkit.study.people.measures import LOST_DRAWS, with_interval
from evalkit.study.people.record import StandingKind
from evalkit.study.statistics import bradley_terry
from evalkit.study.types import AxisResult, Estimate

DECIMALS = 8
"""Strengths are known up to the tolerance of their fit; what differs by less is a tie."""


@dataclass(frozen=True, slots=True)
class Standings:
    """How models stand with people, better ones higher.

    Args:
        kind: what it is measured by.
        value_M: of each model; NaN where it is unknown.
        drawn_RM: the same for resamples of the prompts; None where these cannot be had.
        published: intervals that came with the figures, by model.
    """

    kind: StandingKind
    value_M: FloatArray
    drawn_RM: FloatArray | None
    published: Mapping[str, Estimate]

    def of(self, places: Sequence[int]) -> Standings:
        """The standings of some of the models."""
        drawn_RM = None if self.drawn_RM is None else self.drawn_RM[:, places]
        return Standings(self.kind, self.value_M[places], drawn_RM, self.published)

    def estimate(self, place: int, model: str, n_prompts: int) -> Estimate:
        """One model's standing with its interval, where it has one."""
        if model in self.published:
            return self.published[model]
        value = float(self.value_M[place])
        return Estimate(value) if self.drawn_RM is None else with_interval(value, self.drawn_RM[:, place], n_prompts)


def voted_standings(wins_PMM: FloatArray, ties_PMM: FloatArray, counts_RP: FloatArray) -> Standings:
    """Standings from votes by prompt, and from resamples of the prompts.

    Strengths where they are finite for the votes and for nearly all resamples; else win rates.
    """
    weights_RP = np.concatenate([np.ones((1, counts_RP.shape[1])), counts_RP])
    wins_RMM, ties_RMM = (np.tensordot(weights_RP, votes, axes=1) for votes in (wins_PMM, ties_PMM))
    strengths_RM = np.round(bradley_terry.fit(wins_RMM, ties_RMM).log_strengths_BM, DECIMALS)
    known_R = np.asarray(np.isfinite(strengths_RM).all(axis=1))
    if bool(known_R[0]) and float(np.mean(known_R[1:])) >= 1 - LOST_DRAWS:
        return Standings("bradley_terry", strengths_RM[0], strengths_RM[1:], {})
    rates_RM = win_rates(wins_RMM, ties_RMM)
    return Standings("win_rate", rates_RM[0], rates_RM[1:], {})


def win_rates(wins_RMM: FloatArray, ties_RMM: FloatArray) -> FloatArray:
    """Share of its meetings that a model wins (R, M), a tie being half, each opponent weighing alike.

    NaN for a model that met nobody.
    """
    met_RMM = wins_RMM + np.swapaxes(wins_RMM, 1, 2) + ties_RMM
    share_RMM = np.divide(wins_RMM + ties_RMM / 2, met_RMM, out=np.zeros_like(met_RMM), where=met_RMM > 0)
    opponents_RM = (met_RMM > 0).sum(axis=2)
    rates_RM = np.full(opponents_RM.shape, np.nan)
    np.divide(share_RMM.sum(axis=2), opponents_RM, out=rates_RM, where=opponents_RM > 0)
    return rates_RM


def concluded_standings(axis: AxisResult, models: tuple[str, ...], *, published: bool) -> Standings:
    """Standings of a concluded or published study; its prompts cannot be resampled.

    Of published mean ranks these themselves are taken: win rates made of them count prompts, not raters.
    """
    by_model = {standing.model: standing for standing in axis.standings}
    kinds: tuple[StandingKind, ...] = ("bradley_terry", "win_rate", "mean_rank")
    for kind in kinds if not published else kinds[::-1]:
        found = {model: getattr(by_model[model], kind) for model in models if model in by_model}
        if found and all(estimate is not None for estimate in found.values()):
            better = {model: _better_is_higher(kind, estimate) for model, estimate in found.items()}
            values = [better[model].value if model in better else np.nan for model in models]
            return Standings(kind, np.array(values), None, better)
    return Standings("win_rate", np.full(len(models), np.nan), None, {})


def _better_is_higher(kind: StandingKind, found: Estimate) -> Estimate:
    if kind != "mean_rank":
        return found
    return Estimate(-found.value, *(None if bound is None else -bound for bound in (found.high, found.low)))
