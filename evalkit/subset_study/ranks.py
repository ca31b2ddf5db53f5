"""How far two score lists order the same models alike. Axes: R repetitions, M models, L pairs of models."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evalkit.stats import FloatArray

TIE = 1e-12
"""Scores that differ by less than this share of the largest are equal on paper; sums in another order round so."""

SignArray = npt.NDArray[np.int8]


def pair_signs(scores_RM: FloatArray) -> SignArray:
    """The order of each pair of models (R, L): 1 if the first scores higher, -1 if it scores lower, 0 for a tie."""
    first_L, second_L = np.triu_indices(scores_RM.shape[1], 1)
    gaps_RL = scores_RM[:, first_L] - scores_RM[:, second_L]
    gaps_RL[np.abs(gaps_RL) <= TIE * np.abs(scores_RM).max(initial=0.0)] = 0.0
    return np.sign(gaps_RL).astype(np.int8)


def tau_b(a_RL: SignArray, b_RL: SignArray) -> FloatArray:
    """Kendall's tau-b (Kendall 1945) from the signs of all pairs (R,); NaN where one side ties all models."""
    concordance_R = (a_RL * b_RL).sum(axis=1, dtype=np.float64)
    untied_R = (a_RL != 0).sum(axis=1, dtype=np.float64) * (b_RL != 0).sum(axis=1, dtype=np.float64)
    return _ratio(concordance_R, np.sqrt(untied_R))


def pairs_kept(subset_RL: SignArray, full_RL: SignArray) -> FloatArray:
    """Share of the pairs with an order in the full suite that the subset orders alike (R,); a tie in it counts half.

    NaN where the full suite ties all models: there is no order to keep.
    """
    ordered_RL = full_RL != 0
    credit_RL = np.where(subset_RL == full_RL, 1.0, np.where(subset_RL == 0, 0.5, 0.0))
    kept_R, ordered_R = (credit_RL * ordered_RL).sum(axis=1), ordered_RL.sum(axis=1, dtype=np.float64)
    return _ratio(kept_R, ordered_R)


def best_kept(subset_RM: FloatArray, full_RM: FloatArray) -> FloatArray:
    """Chance that a model picked as best by the subset is best by the full suite (R,); ties are picked at random."""
    top_subset_RM, top_full_RM = is_best(subset_RM), is_best(full_RM)
    both_R = (top_subset_RM & top_full_RM).sum(axis=1, dtype=np.float64)
    return _ratio(both_R, top_subset_RM.sum(axis=1, dtype=np.float64))


def is_best(scores_RM: FloatArray) -> npt.NDArray[np.bool_]:
    """Which models have the highest score; several where they tie."""
    floor_R1 = scores_RM.max(axis=1, keepdims=True) - TIE * np.abs(scores_RM).max(initial=0.0)
    return np.asarray(scores_RM >= floor_R1, dtype=bool)


def _ratio(counts_R: FloatArray, totals_R: FloatArray) -> FloatArray:
    """NaN where there is nothing to count."""
    found_R = np.full(len(totals_R), np.nan)
    np.divide(counts_R, totals_R, out=found_R, where=totals_R > 0)
    return found_R
