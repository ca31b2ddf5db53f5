"""Mean ranks, shares of wins and ties, win rates and mean levels, from summed counts; tests of no preference.

Axes: B rows of counts (the votes as they are, or resamples), M models, L pairs of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.stats import FloatArray, holm
from evalkit.study.statistics.counts import Counts
from evalkit.study.types import AxisResult


def _ratio(sums: FloatArray, n: npt.NDArray[Any]) -> FloatArray:
    """Means; NaN of nothing."""
    n = np.broadcast_to(n, sums.shape)
    return np.asarray(np.divide(sums, n, out=np.full_like(sums, np.nan), where=n > 0))


def mean_ranks(counts: Counts) -> FloatArray:
    """Mean rank (B, M) in full rankings, tied models having the mean of their places."""
    return _ratio(counts.ranks_BM, counts.full_B[:, None])


def shares(counts: Counts) -> FloatArray:
    """Shares (B, L, 3) of wins, ties and losses of the first model of each pair."""
    shares_BL3 = counts.shares_BL3
    return _ratio(shares_BL3, shares_BL3.sum(axis=2, keepdims=True))


def votes(counts: Counts) -> FloatArray:
    """Votes (B, L) in which both models of a pair were shown."""
    return np.asarray(counts.outcomes_BLO.sum(axis=2))


def pair_win_rates(counts: Counts) -> FloatArray:
    """Win rate (B, L) of the first model of each pair: its share of wins plus half the share of ties."""
    return np.asarray(shares(counts) @ np.array([1.0, 0.5, 0.0]))


def win_rates(counts: Counts) -> FloatArray:
    """Each model's mean win rate (B, M) over the opponents it met, each weighing alike."""
    won_BMM, tied_BMM = counts.wins_BMM, counts.ties_BMM
    rate_BMM = _ratio(won_BMM + tied_BMM / 2, won_BMM + won_BMM.transpose(0, 2, 1) + tied_BMM)
    met_BMM = np.isfinite(rate_BMM)
    return _ratio(np.where(met_BMM, rate_BMM, 0.0).sum(axis=2), met_BMM.sum(axis=2))


def levels(counts: Counts) -> FloatArray:
    """Mean level (B, L) of the preference for the first model of each pair."""
    outcomes_BLO = counts.outcomes_BLO
    return _ratio(outcomes_BLO @ counts.layout.scores_O, votes(counts))


def with_holm(axes: Sequence[AxisResult]) -> tuple[AxisResult, ...]:
    """The same results with p-values adjusted over all duels of all axes (Holm 1979)."""
    known = [duel.p_value for axis in axes for duel in axis.duels if duel.p_value is not None]
    adjusted = iter(holm(known))
    return tuple(
        replace(
            axis,
            duels=tuple(
                duel if duel.p_value is None else replace(duel, p_adjusted=next(adjusted)) for duel in axis.duels
            ),
        )
        for axis in axes
    )
