"""Plackett-Luce worths from rankings without ties, full or of some models (Luce 1959; Plackett 1975).

A ranking is a row of choices: the best of those shown, then the best of the rest, each with probability proportional to
its worth. The likelihood therefore knows the rankings only through how often each set of models was chosen from and how
often each model was chosen (Hunter 2004); both are sums, so resamples are cheap. In log-worths it is a logit model and
concave.

Axes: B resamples, N distinct rankings, M models, S sets that were chosen from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evalkit.stats import FloatArray
from evalkit.study.statistics.dominance import strongly_connected
from evalkit.study.statistics.newton import maximise

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Choices:
    """Rankings as choices.

    Args:
        members_SM: which models each set holds.
        faced_NS: how often each ranking chose from a set.
        chosen_NM: how often each ranking chose a model (1, or 0 for the last one and those not shown).
        above_NMM: whether a ranking has the model of the row above that of the column.
    """

    members_SM: BoolArray
    faced_NS: FloatArray
    chosen_NM: FloatArray
    above_NMM: FloatArray


def choices(rankings: Sequence[Sequence[int]], n_models: int) -> Choices:
    """Take rankings apart.

    Args:
        rankings: places of models in the list of models, best first; each at least one, none twice.
        n_models: how many models there are.
    """
    sets: dict[frozenset[int], int] = {}
    for ranking in rankings:
        for place in range(len(ranking) - 1):
            sets.setdefault(frozenset(ranking[place:]), len(sets))
    members_SM = np.array([[m in members for m in range(n_models)] for members in sets], dtype=bool)
    faced_NS = np.zeros((len(rankings), len(sets)))
    chosen_NM = np.zeros((len(rankings), n_models))
    above_NMM = np.zeros((len(rankings), n_models, n_models))
    for n, ranking in enumerate(rankings):
        for place, model in enumerate(ranking[:-1]):
            faced_NS[n, sets[frozenset(ranking[place:])]] += 1
            chosen_NM[n, model] += 1
            above_NMM[n, model, list(ranking[place + 1 :])] = 1
    return Choices(members_SM.reshape(-1, n_models), faced_NS, chosen_NM, above_NMM)


def fit(made: Choices, weights_BN: npt.ArrayLike) -> FloatArray:
    """Log-worths (B, M) of weighted rankings, of sum 0; NaN where there is no finite maximum."""
    weights = np.asarray(weights_BN, dtype=np.float64)
    n_rankings, n_models = made.chosen_NM.shape
    above_BMM = (weights @ made.above_NMM.reshape(n_rankings, -1)).reshape(-1, n_models, n_models)
    return fit_choices(weights @ made.chosen_NM, weights @ made.faced_NS, made.members_SM, above_BMM)


def fit_choices(
    chosen_BM: FloatArray, faced_BS: FloatArray, members_SM: BoolArray, above_BMM: FloatArray
) -> FloatArray:
    """Log-worths (B, M) from summed choices, of sum 0.

    Args:
        chosen_BM: how often each model was chosen.
        faced_BS: how often each set was chosen from.
        members_SM: which models each set holds.
        above_BMM: how often the model of the row was ranked above that of the column; only whether it is 0 matters.

    Returns:
        NaN where there is no finite maximum: where the graph of `above` is not strongly connected (Hunter 2004,
        assumption 1).
    """
    worths_BM = np.full_like(chosen_BM, np.nan)
    bounded_B = strongly_connected(above_BMM > 0)
    if bounded_B.any():
        worths_BM[bounded_B] = _maximum(chosen_BM[bounded_B], faced_BS[bounded_B], members_SM)
    return worths_BM


def _maximum(chosen_BM: FloatArray, faced_BS: FloatArray, members_SM: BoolArray) -> FloatArray:
    total_B1 = chosen_BM.sum(axis=1, keepdims=True)
    wins_BM, n_BS = chosen_BM / total_B1, faced_BS / total_B1
    n_models = members_SM.shape[1]
    members = members_SM.astype(np.float64)
    centre_MM = np.full((n_models, n_models), 1 / n_models)  # fixes the sum of the worths, which nothing else does
    places = np.arange(n_models)

    def log_likelihood(x_BM: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        top_B1 = x_BM.max(axis=1, keepdims=True)
        worths_BM = np.exp(x_BM - top_B1)
        sums_BS = np.maximum(worths_BM @ members.T, np.finfo(np.float64).tiny)
        value_B = (wins_BM * x_BM).sum(axis=1) - (n_BS * (np.log(sums_BS) + top_B1)).sum(axis=1)
        expected_BM = worths_BM * ((n_BS / sums_BS) @ members)
        # Within one set the chances p have covariance diag(p) - p p'; the worths factor out of the sum over sets.
        pairs_BSM = (n_BS / sums_BS**2)[..., None] * members
        curvature_BMM = (
            centre_MM - (pairs_BSM.transpose(0, 2, 1) @ members) * worths_BM[:, :, None] * worths_BM[:, None]
        )
        curvature_BMM[:, places, places] += expected_BM
        return value_B, wins_BM - expected_BM, curvature_BMM

    x_BM, found_B = maximise(log_likelihood, np.zeros_like(wins_BM))
    x_BM[~found_B] = np.nan
    return np.asarray(x_BM - x_BM.mean(axis=1, keepdims=True))
