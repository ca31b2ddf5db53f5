"""Intervals, paired tests and power for scores that come in clusters: several videos of one prompt are not independent.

Every random number comes from an explicit seed. A missing value is left out and counted, never taken for zero.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special
from scipy import stats as distributions

FloatArray = npt.NDArray[np.float64]

BCA_MIN_CLUSTERS = 6
"""With fewer, even the whole range of the clusters covers a centre with less than 95 %: 1 - 2^(1 - 5) = 0.9375."""

EXACT_PAIRS = 16
"""Sign flips are enumerated up to this many non-zero differences (2^16 of them)."""

_CHUNK = 1 << 21  # numbers drawn at once, so that memory does not grow with the number of prompts


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval.

    Args:
        estimate: the (weighted) mean; None if nothing was scored.
        low: lower bound; None if it is unknown.
        high: upper bound; None if it is unknown.
        n: values that were scored.
        n_clusters: clusters (prompts) they came from.
        n_missing: values that were not scored.
        method: "bca", "t", or "none" where one cluster cannot tell how clusters vary.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    n_clusters: int
    n_missing: int = 0
    method: str = "none"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed from run A to run B, over the prompts that both scored.

    Args:
        delta: mean of b - a; None without pairs.
        low: lower bound of its interval; None if unknown.
        high: upper bound of its interval; None if unknown.
        p_value: two-sided, by sign flips; None without pairs.
        n: pairs compared.
        n_unpaired: pairs in which at least one side is missing.
        exact: whether all sign flips were enumerated.
        detectable: smallest true difference found in 80 % of repetitions; None if it cannot be told.
    """

    delta: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    n_unpaired: int
    exact: bool
    detectable: float | None


def bootstrap_mean(
    values: npt.ArrayLike,
    clusters: Sequence[Hashable] | npt.NDArray[Any],
    weights: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    level: float = 0.95,
    n_resamples: int = 9999,
) -> Interval:
    """Mean of clustered values, sum(w x) / sum(w), with an interval that resamples whole clusters.

    The interval is the bias-corrected and accelerated bootstrap (BCa; Efron 1987, eq. 2.3), because scores are
    bounded and skewed near their bounds: BCa is second-order accurate and never leaves the range of the clusters, as a
    normal or studentised interval does. Resampling n clusters understates the spread as a plug-in variance does, so
    the nominal level is widened to that of a t interval (Hesterberg 2015, Section 5.4). Below `BCA_MIN_CLUSTERS`
    resampling cannot reach the level at all; there the interval is the cluster-robust t interval.

    Args:
        values: one number a video; NaN where unscored.
        clusters: the prompt of each.
        weights: the weight of each, such as its number of frame pairs; None weighs all alike.
        seed: of the resampling.
        level: confidence level.
        n_resamples: bootstrap resamples.

    Raises:
        ValueError: lengths differ, a weight is negative, or the level is not between 0 and 1.
    """
    x_N = np.asarray(values, dtype=np.float64)
    w_N = np.ones_like(x_N) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (x_N.ndim == 1 and x_N.shape == w_N.shape and len(clusters) == len(x_N)):
        raise ValueError("values, clusters and weights must be one-dimensional and of one length")
    if not 0.0 < level < 1.0 or n_resamples < 1:
        raise ValueError("level must lie between 0 and 1, and there must be at least one resample")
    scored_N = np.isfinite(x_N)
    if not (w_N[scored_N] >= 0.0).all():
        raise ValueError("weights must not be negative")
    used_N = scored_N & (w_N > 0.0)
    sums_K, weights_K = _cluster_sums(x_N[used_N], w_N[used_N], [c for c, u in zip(clusters, used_N, strict=True) if u])
    n, k, missing = int(used_N.sum()), len(sums_K), int((~used_N).sum())
    if k == 0:
        return Interval(None, None, None, 0, 0, missing)
    estimate = float(sums_K.sum() / weights_K.sum())
    if k == 1:
        return Interval(estimate, None, None, n, 1, missing)
    if k < BCA_MIN_CLUSTERS:
        low, high = _t_interval(sums_K, weights_K, level)
        return Interval(estimate, low, high, n, k, missing, "t")
    low, high = _bca_interval(sums_K, weights_K, level, n_resamples, np.random.default_rng(seed))
    return Interval(estimate, low, high, n, k, missing, "bca")


def _cluster_sums(x_N: FloatArray, w_N: FloatArray, clusters: list[Hashable]) -> tuple[FloatArray, FloatArray]:
    """Sum of w x and of w in each cluster; order and rounding do not depend on the order of the values."""
    index = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    labels_N = np.array([index[cluster] for cluster in clusters], dtype=np.intp)
    order_N = np.lexsort((w_N, x_N))
    sums_K, weights_K = np.zeros(len(index)), np.zeros(len(index))
    np.add.at(sums_K, labels_N[order_N], (w_N * x_N)[order_N])
    np.add.at(weights_K, labels_N[order_N], w_N[order_N])
    # A seeded resample picks clusters by position: sorting makes it depend on what the clusters are, not on file order.
    order_K = np.lexsort((weights_K, sums_K / weights_K))
    return sums_K[order_K], weights_K[order_K]


def _t_interval(sums_K: FloatArray, weights_K: FloatArray, level: float) -> tuple[float, float]:
    """Interval of a ratio from its linearisation: the residuals w_k (mean_k - ratio) vary between clusters."""
    k = len(sums_K)
    ratio = sums_K.sum() / weights_K.sum()
    residuals_K = (sums_K - ratio * weights_K) / weights_K.sum()
    standard_error = np.sqrt(k / (k - 1) * np.sum(residuals_K**2))
    half = distributions.t.ppf(0.5 + level / 2, k - 1) * standard_error
    return float(ratio - half), float(ratio + half)


def _bca_interval(
    sums_K: FloatArray, weights_K: FloatArray, level: float, n_resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    k = len(sums_K)
    ratio = sums_K.sum() / weights_K.sum()
    ratios_R = _resampled_ratios(sums_K, weights_K, n_resamples, rng)
    leave_one_out_K = (sums_K.sum() - sums_K) / (weights_K.sum() - weights_K)
    if np.ptp(leave_one_out_K) <= 1e-12 * abs(ratio):  # all clusters alike: nothing varies, rounding aside
        return float(ratio), float(ratio)
    tie = 1e-12 * np.abs(ratios_R).max()  # equal on paper; half of the ties count as below
    z0 = special.ndtri(((ratios_R < ratio - tie).sum() + (ratios_R <= ratio + tie).sum()) / (2 * n_resamples))
    pull_K = leave_one_out_K.mean() - leave_one_out_K
    pull_K /= np.abs(pull_K).max()  # the acceleration has no scale; cubes of tiny numbers would vanish
    acceleration = np.sum(pull_K**3) / (6 * np.sum(pull_K**2) ** 1.5)
    z = np.sqrt(k / (k - 1)) * distributions.t.ppf(0.5 + level / 2, k - 1)
    shifted = z0 + np.array([-z, z])
    stretch = 1 - acceleration * shifted
    if not (np.isfinite(z0) and (stretch > 0).all()):  # one dominant cluster: resamples fall on one side
        return _t_interval(sums_K, weights_K, level)
    low, high = np.quantile(ratios_R, special.ndtr(z0 + shifted / stretch))
    return float(low), float(high)


def _resampled_ratios(
    sums_K: FloatArray, weights_K: FloatArray, n_resamples: int, rng: np.random.Generator
) -> FloatArray:
    k = len(sums_K)
    rows = max(1, _CHUNK // k)
    ratios = []
    for start in range(0, n_resamples, rows):
        picks_RK = rng.integers(k, size=(min(rows, n_resamples - start), k))
        ratios.append(sums_K[picks_RK].sum(axis=1) / weights_K[picks_RK].sum(axis=1))
    return np.concatenate(ratios)


def paired_comparison(
    a: npt.ArrayLike, b: npt.ArrayLike, *, seed: int = 0, level: float = 0.95, n_resamples: int = 9999
) -> Comparison:
    """Compare two runs prompt by prompt: mean of b - a, its interval, and a sign-flip permutation test.

    Under the null hypothesis that the two runs are exchangeable within a prompt, every sign of every difference is
    equally likely. All sign patterns are enumerated for few prompts; otherwise they are drawn, and the observed one is
    counted with them, (1 + hits) / (1 + draws), so that p is never 0 and the test never rejects too often.

    Args:
        a: one number a prompt for run A; NaN where unscored.
        b: the same prompts for run B.
        seed: of the resampling.
        level: confidence level of the interval.
        n_resamples: bootstrap resamples, and sign patterns drawn.

    Raises:
        ValueError: lengths differ.
    """
    differences_N = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    if differences_N.ndim != 1:
        raise ValueError("a and b must be one-dimensional")
    paired_P = np.sort(differences_N[np.isfinite(differences_N)])
    n, unpaired = len(paired_P), int(len(differences_N) - len(paired_P))
    interval = bootstrap_mean(paired_P, np.arange(n), seed=seed, level=level, n_resamples=n_resamples)
    if n == 0:
        return Comparison(None, None, None, None, 0, unpaired, exact=False, detectable=None)
    p_value, exact = _sign_flip_test(paired_P, n_resamples, np.random.default_rng([seed, 1]))
    detectable = minimum_detectable_difference(paired_P, alpha=1 - level)
    return Comparison(interval.estimate, interval.low, interval.high, p_value, n, unpaired, exact, detectable)


def _sign_flip_test(differences_P: FloatArray, n_draws: int, rng: np.random.Generator) -> tuple[float, bool]:
    """Two-sided p-value of the sum under random signs, and whether it is exact."""
    moving_P = differences_P[differences_P != 0.0]  # a zero is the same with either sign
    observed = abs(moving_P.sum())
    # Sums that are equal on paper differ by rounding; such ties count as hits.
    threshold = observed - 1e-12 * np.abs(moving_P).sum()
    k = len(moving_P)
    if k <= EXACT_PAIRS:
        signs_SK = 1 - 2 * ((np.arange(2**k)[:, None] >> np.arange(k)) & 1)
        return float(np.mean(np.abs(signs_SK @ moving_P) >= threshold)), True
    hits, rows = 0, max(1, _CHUNK // k)
    for start in range(0, n_draws, rows):
        signs_RK = rng.integers(2, size=(min(rows, n_draws - start), k), dtype=np.int8) * 2 - 1
        hits += int(np.sum(np.abs(signs_RK @ moving_P) >= threshold))
    return (1 + hits) / (1 + n_draws), False


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for testing several hypotheses at once (Holm 1979): the family-wise error rate is kept.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    p_M = np.asarray(p_values, dtype=np.float64)
    if not ((p_M >= 0.0) & (p_M <= 1.0)).all():
        raise ValueError("p-values lie between 0 and 1")
    order_M = np.argsort(p_M, kind="stable")
    stepped_M = p_M[order_M] * np.arange(len(p_M), 0, -1)
    adjusted_M = np.empty_like(p_M)
    adjusted_M[order_M] = np.minimum(1.0, np.maximum.accumulate(stepped_M))
    return [float(p) for p in adjusted_M]


def minimum_detectable_difference(
    differences: npt.ArrayLike, *, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """The true mean difference that a two-sided paired test finds with probability `power`.

    Uses the noncentral t distribution with the spread of the given differences (one a prompt); the sign-flip test has
    asymptotically the same power. Finding it with the wrong sign is left out: its probability is negligible.

    Returns:
        None if there are so few differences that the sign-flip test cannot reach `alpha` whatever they are.
    """
    d_P = np.asarray(differences, dtype=np.float64)
    n = len(d_P)
    if n < 2 or 2.0 ** (1 - n) > alpha:
        return None
    critical = distributions.t.ppf(1 - alpha / 2, n - 1)
    noncentrality = optimize.brentq(lambda nc: distributions.nct.sf(critical, n - 1, nc) - power, 0.0, 10.0 * critical)
    return float(noncentrality * np.std(d_P, ddof=1) / np.sqrt(n))
