"""Do raters agree? Kendall's W of full rankings, Krippendorff's alpha of anything that several raters judged.

Both compare raters on the same thing: W their rankings of the videos of one prompt and seed (Kendall and Babington
Smith 1939, with the correction for ties of Kendall 1945), alpha any values with any of them missing (Krippendorff 2011,
"Computing Krippendorff's Alpha-Reliability"). Their intervals draw prompts anew and take the raters as they are: a
rater drawn twice would count as two who agree.

Axes: R raters, I items that are ranked, M models, U units that are judged, V values, P prompts.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from evalkit.stats import FloatArray
from evalkit.study.statistics.counts import Counts, IntArray
from evalkit.study.statistics.intervals import bounded
from evalkit.study.statistics.resampling import Resamples, resample, spread
from evalkit.study.statistics.tally import Tally
from evalkit.study.types import Estimate

Metric = Literal["nominal", "ordinal", "interval"]


def kendall_w(ranks_RM: npt.ArrayLike) -> float:
    """Kendall's W of rankings of the same things, a row a rater; tied things have the mean of their places.

    NaN with one rater, or where every rater ties everything.
    """
    ranks = np.asarray(ranks_RM, dtype=np.float64)
    tied = sum(float(times**3 - times) for row in ranks for times in np.unique(row, return_counts=True)[1])
    return float(_concordance(ranks.sum(axis=0)[None], np.array([len(ranks)]), np.array([tied]))[0])


def item_concordance(counts: Counts) -> FloatArray:
    """Kendall's W (I,) of each row of counts; NaN where fewer than two raters ranked all models."""
    return _concordance(counts.ranks_BM, counts.full_B, counts.tied_B)


def _concordance(sums_IM: FloatArray, raters_I: npt.NDArray[np.float64], tied_I: FloatArray) -> FloatArray:
    """W = 12 S / (m^2 (n^3 - n) - m T), S being the squared deviations of the n rank sums of m raters."""
    n = sums_IM.shape[1]
    squares_I = ((sums_IM - sums_IM.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    most_I = raters_I**2 * (n**3 - n) - raters_I * tied_I
    known_I = (raters_I > 1) & (most_I > 0)
    w_I: FloatArray = np.divide(12 * squares_I, most_I, out=np.full(len(sums_IM), np.nan), where=known_I)
    return w_I


def krippendorff_alpha(values_RU: npt.ArrayLike, metric: Metric = "ordinal") -> float:
    """Krippendorff's alpha of values that raters (rows) gave units (columns); NaN is missing.

    Returns:
        1 is perfect agreement, 0 that of chance; NaN where no two values can be compared, or all are equal.
    """
    values = np.asarray(values_RU, dtype=np.float64)
    known_V = np.unique(values[np.isfinite(values)])
    counts_UV = (values[:, :, None] == known_V).sum(axis=0).astype(np.float64)
    coincidences_VV = coincidences(counts_UV).sum(axis=0)
    return float(alpha(coincidences_VV[None], known_V, metric)[0])


def coincidences(counts_UV: FloatArray) -> FloatArray:
    """Coincidence matrix (U, V, V) of each unit: its pairs of values by different raters, over its raters less one."""
    pairs_UVV = counts_UV[:, :, None] * counts_UV[:, None, :]
    places = np.arange(counts_UV.shape[1])
    pairs_UVV[:, places, places] -= counts_UV
    others_U11 = counts_UV.sum(axis=1)[:, None, None] - 1
    shared_UVV: FloatArray = np.divide(pairs_UVV, others_U11, out=np.zeros_like(pairs_UVV), where=others_U11 > 0)
    return shared_UVV


def alpha(coincidences_BVV: FloatArray, values_V: FloatArray, metric: Metric) -> FloatArray:
    """Alpha (B,) of summed coincidence matrices: 1 - (n - 1) sum(o_ck d_ck) / sum(n_c n_k d_ck)."""
    n_BV = coincidences_BVV.sum(axis=2)
    n_B = n_BV.sum(axis=1)
    distance_BVV = _distances(n_BV, values_V, metric)
    observed_B = (coincidences_BVV * distance_BVV).sum(axis=(1, 2))
    expected_B = (n_BV[:, :, None] * n_BV[:, None, :] * distance_BVV).sum(axis=(1, 2))
    ratio_B = np.divide((n_B - 1) * observed_B, expected_B, out=np.full_like(n_B, np.nan), where=expected_B > 0)
    return np.asarray(1 - ratio_B)


def _distances(n_BV: FloatArray, values_V: FloatArray, metric: Metric) -> FloatArray:
    """Squared difference of two values; ordinal ones differ by the number of values from one to the other."""
    if metric == "nominal":
        return np.broadcast_to((values_V[:, None] != values_V).astype(np.float64), (*n_BV.shape, len(values_V)))
    if metric == "interval":
        return np.broadcast_to((values_V[:, None] - values_V) ** 2, (*n_BV.shape, len(values_V)))
    middle_BV = np.cumsum(n_BV, axis=1) - n_BV / 2
    return (middle_BV[:, :, None] - middle_BV[:, None, :]) ** 2


# ---- of a study ------------------------------------------------------------------------------------------------------


def study_concordance(tally: Tally, *, n_resamples: int, seed: int) -> Estimate | None:
    """Mean over prompts of Kendall's W with its interval; None if no two raters ranked all models of one item."""
    w_I = item_concordance(tally.items)
    known_I = np.isfinite(w_I)
    if not known_I.any():
        return None
    sums_P2 = _sums_by(tally.prompt_I[known_I], np.stack([w_I, np.ones_like(w_I)], axis=1)[known_I])
    mean_P2 = np.stack([sums_P2[:, 0] / sums_P2[:, 1], np.ones(len(sums_P2))], axis=1)
    drawn = _over_prompts(mean_P2, n_resamples, seed)
    return bounded(spread(drawn, lambda rows_B2: rows_B2[:, :1] / rows_B2[:, 1:]), 0.0, 1.0)[0]


def chance_concordance(tally: Tally) -> float | None:
    """Kendall's W of raters who answer at random: 1 / m of m raters, the mean over items; None without a W."""
    raters_I = tally.items.full_B
    return float(np.mean(1 / raters_I[raters_I > 1])) if (raters_I > 1).any() else None


def study_alpha(tally: Tally, *, n_resamples: int, seed: int) -> Estimate | None:
    """Ordinal alpha of the outcomes of pairs of models with its interval; None if no two raters judged the same pair.

    A unit is a pair of models on one prompt and seed; its values are the outcomes (win, tie, loss, or levels), so that
    all protocols are measured alike. Each pair is entered in both orders: then chance is a fair coin, and alpha does
    not depend on which model is named first.
    """
    outcomes_ILO = tally.items.outcomes_BLO
    both_IUO = np.concatenate([outcomes_ILO, outcomes_ILO[..., ::-1]], axis=1)
    n_items, n_units, n_values = both_IUO.shape
    by_item_IVV = coincidences(both_IUO.reshape(-1, n_values)).reshape(n_items, n_units, -1).sum(axis=1)
    compared_I = by_item_IVV.any(axis=1)
    if not compared_I.any():
        return None
    sums_PK, scores_O = _sums_by(tally.prompt_I[compared_I], by_item_IVV[compared_I]), tally.layout.scores_O

    def figure(rows_BK: FloatArray) -> FloatArray:
        return alpha(rows_BK.reshape(-1, n_values, n_values), scores_O, "ordinal")[:, None]

    # Values are symmetric about their middle, so even constant disagreement gives no less than -1.
    return bounded(spread(_over_prompts(sums_PK, n_resamples, seed), figure), -1.0, 1.0)[0]


def _sums_by(prompt_I: IntArray, rows_IK: FloatArray) -> FloatArray:
    """Sums of the rows of each prompt that has any."""
    prompts, place_I = np.unique(prompt_I, return_inverse=True)
    sums_PK = np.zeros((len(prompts), rows_IK.shape[1]))
    np.add.at(sums_PK, place_I, rows_IK)
    return sums_PK


def _over_prompts(rows_PK: FloatArray, n_resamples: int, seed: int) -> Resamples:
    prompts = np.arange(len(rows_PK))
    sorted_PK = rows_PK[np.lexsort(rows_PK.T)]  # so that rounding does not depend on the prompts' names
    return resample(sorted_PK, np.zeros_like(prompts), prompts, n_resamples=n_resamples, seed=seed)
