"""How much a figure would vary with other raters and other prompts: a two-way cluster bootstrap.

Answers of one rater resemble each other, and so do answers about one prompt. The variance of a figure is therefore

    V = V_raters + V_prompts - V_cells

(Cameron, Gelbach and Miller 2011, "Robust inference with multiway clustering"; a cell is what one rater said of one
prompt), each term from a bootstrap that draws whole clusters with replacement and refits, times G / (G - 1) for G
clusters, which a bootstrap lacks. Drawing raters and prompts in one resample instead (the pigeonhole bootstrap, Owen
2007) would count three times the noise that is neither the rater's nor the prompt's. Sampling error can make the sum
too small, even negative; either of its first two terms alone is never more than what both amount to, so V is at least
the larger one.

Few clusters tell their variance badly, so intervals use Student's t with the degrees of freedom of Satterthwaite
(1946), V^2 / (V_raters^2 / (R - 1) + V_prompts^2 / (P - 1)), at least min(R, P) - 1. In simulations (R and P from 3 to
200; variance from raters, prompts, the rest, and mixtures) such intervals cover the truth in 93 to 99 % of cases, where
min(R, P) - 1 alone reaches 100 % and the normal quantile 81 %; `tests/test_study_statistics.py` repeats some of it.

With one rater the figure holds for that rater and only prompts are drawn, and the other way round.

Axes: C cells, K counts of a row, G clusters, B resamples, E figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evalkit.stats import FloatArray
from evalkit.study.statistics.counts import IntArray

Statistic = Callable[[FloatArray], FloatArray]
"""From rows of counts (B, K) to figures (B, E); NaN where a figure does not exist."""

_CHUNK = 1 << 21  # numbers drawn at once


@dataclass(frozen=True)
class Clusters:
    """One way to cut the votes.

    Args:
        counts_GK: counts of each cluster.
        drawn_BK: their sums in resamples of the clusters.
    """

    counts_GK: FloatArray
    drawn_BK: FloatArray


@dataclass(frozen=True)
class Resamples:
    """The votes cut and resampled by rater, by prompt, and by both."""

    raters: Clusters
    prompts: Clusters
    cells: Clusters


@dataclass(frozen=True)
class Spread:
    """Figures with their variance.

    Args:
        value_E: the figures.
        variance_E: NaN where it cannot be known, as with one rater and one prompt.
        freedom_E: degrees of freedom of that variance.
        clusters_E: raters or prompts behind a figure, whichever are fewer but more than one.
        defined_E: share of the resamples in which the figure exists, the least of the three ways to cut.
    """

    value_E: FloatArray
    variance_E: FloatArray
    freedom_E: FloatArray
    clusters_E: FloatArray
    defined_E: FloatArray


def resample(
    cells_CK: FloatArray, rater_C: IntArray, prompt_C: IntArray, *, n_resamples: int = 1000, seed: int = 0
) -> Resamples:
    """Draw raters, prompts and cells with replacement and sum their counts.

    Args:
        cells_CK: counts of each rater and prompt that met.
        rater_C: the rater of a cell, from 0.
        prompt_C: the prompt of a cell, from 0.
        n_resamples: B.
        seed: of the draws.
    """
    ways = (_sums_by(rater_C, cells_CK), _sums_by(prompt_C, cells_CK), cells_CK)
    return Resamples(
        *(
            Clusters(way_GK, _drawn_sums(way_GK, n_resamples, np.random.default_rng([seed, stream])))
            for stream, way_GK in enumerate(ways)
        )
    )


def _sums_by(group_C: IntArray, cells_CK: FloatArray) -> FloatArray:
    sums_GK = np.zeros((int(group_C.max()) + 1, cells_CK.shape[1]))
    np.add.at(sums_GK, group_C, cells_CK)
    return sums_GK


def _drawn_sums(clusters_GK: FloatArray, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """Sums over as many clusters as there are, drawn with replacement.

    Clusters of equal counts are drawn as one kind, so neither names nor order of the clusters matter, and many
    clusters of few kinds cost little.
    """
    kinds_UK, times_U = np.unique(clusters_GK, axis=0, return_counts=True)
    chance_U = times_U / times_U.sum()
    rows = max(1, _CHUNK // len(kinds_UK))
    sums = [
        rng.multinomial(len(clusters_GK), chance_U, size=min(rows, n_resamples - start)) @ kinds_UK
        for start in range(0, n_resamples, rows)
    ]
    sums_BK: FloatArray = np.concatenate(sums)
    return sums_BK


def spread(resamples: Resamples, statistic: Statistic, behind: Statistic | None = None) -> Spread:
    """A statistic's figures with their two-way variance.

    Args:
        resamples: the votes.
        statistic: of summed counts.
        behind: votes behind each figure in a row of counts, so that clusters which have none are not counted as
            evidence; by default every cluster stands behind every figure.
    """
    value_E = statistic(resamples.cells.counts_GK.sum(axis=0, keepdims=True))[0]
    ways = (resamples.raters, resamples.prompts, resamples.cells)
    n_3E = np.stack([_behind(way, behind, value_E) for way in ways])
    variance_3E, defined_3E = np.stack([_variance(way, statistic, value_E) for way in ways], axis=1)
    raters_E, prompts_E, cells_E = variance_3E * n_3E / np.maximum(n_3E - 1, 1)
    variance_E = np.maximum(raters_E + prompts_E - cells_E, np.maximum(raters_E, prompts_E))
    clusters_E = np.where(n_3E[:2] > 1, n_3E[:2], np.inf).min(axis=0)
    clusters_E[~np.isfinite(clusters_E)] = 1
    doubt_E = raters_E**2 / np.maximum(n_3E[0] - 1, 1) + prompts_E**2 / np.maximum(n_3E[1] - 1, 1)
    least_E = np.maximum(clusters_E - 1, 1)
    freedom_E = np.divide(variance_E**2, doubt_E, out=least_E.copy(), where=doubt_E > 0)
    return Spread(
        value_E,
        np.where(clusters_E > 1, variance_E, np.nan),
        np.maximum(freedom_E, least_E),
        clusters_E,
        defined_3E.min(axis=0),
    )


def _behind(way: Clusters, behind: Statistic | None, value_E: FloatArray) -> FloatArray:
    """How many clusters stand behind each figure."""
    if behind is None:
        return np.full(len(value_E), float(len(way.counts_GK)))
    return np.asarray(np.sum(behind(way.counts_GK) > 0, axis=0, dtype=np.float64))


def _variance(way: Clusters, statistic: Statistic, value_E: FloatArray) -> FloatArray:
    """Variance (2, E) of each figure over the resamples in which it exists, and the share of those."""
    if len(way.counts_GK) < 2:
        return np.stack([np.zeros_like(value_E), np.ones_like(value_E)])
    offset_BE = statistic(way.drawn_BK) - value_E  # near 0, so that equal figures leave no rounding
    exists_BE = np.isfinite(offset_BE)
    n_E = exists_BE.sum(axis=0)
    mean_E = np.where(exists_BE, offset_BE, 0.0).sum(axis=0) / np.maximum(n_E, 1)
    squares_E = np.sum(np.where(exists_BE, offset_BE - mean_E, 0.0) ** 2, axis=0)
    return np.stack([np.where(n_E > 1, squares_E / np.maximum(n_E - 1, 1), np.nan), n_E / len(offset_BE)])
