"""Where the variance of a score comes from, how wide intervals are, and how many prompts a difference takes.

A video's score is model mean + prompt effect + deviation of the video (one-way random effects; Searle, Casella and
McCulloch 1992, chapter 3), so the mean of n prompts with k videos each has variance (between + within / k) / n. The
paired difference of two models has no prompt effect that both share: what is left of it is their interaction.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from scipy import special
from scipy import stats as distributions

from evalkit.stats import minimum_detectable_difference
from evalkit.subset_study.target import Target

LEVEL = 0.95
APPROXIMATE_FROM = 2000
"""Prompts from which the normal approximation of the number needed is within one prompt of the exact one."""


@dataclass(frozen=True, slots=True)
class Components:
    """Variance components of a target's scores (fractions squared), means over the models or over pairs of them.

    Args:
        videos: videos a prompt, harmonic mean.
        observed: variance between prompt means, as observed: between + within / videos.
        between: variance between prompts once the videos' noise is taken off; None with one video a prompt.
        within: variance between the videos of one prompt; None with one video a prompt.
        pair_observed: variance over prompts of the paired difference of two models, as observed.
        pair_between: the same once the videos' noise is taken off; None with one video a prompt.
        pair_low: the least `pair_observed` of a pair.
        pair_high: the greatest.
    """

    videos: float
    observed: float
    between: float | None
    within: float | None
    pair_observed: float
    pair_between: float | None
    pair_low: float
    pair_high: float

    def score_variance(self, videos: float | None = None) -> float | None:
        """Variance of one prompt's mean with so many videos; as observed without a number, None if it is unknown."""
        return _at(self.observed, self.between, self.within, self.videos, videos)

    def difference_variance(self, videos: float | None = None) -> float | None:
        """The same of one prompt's paired difference between two models."""
        within = None if self.within is None else 2 * self.within
        return _at(self.pair_observed, self.pair_between, within, self.videos, videos)


def _at(
    observed: float, between: float | None, within: float | None, recorded: float, videos: float | None
) -> float | None:
    if videos is None or videos == recorded:
        return observed
    return None if between is None or within is None else between + within / videos


def components(target: Target) -> Components:
    """Estimate the components by moments; a negative difference of variances counts as 0."""
    covariance_MM = np.cov(target.values_MU)
    variances_M = covariance_MM.diagonal()
    first_L, second_L = np.triu_indices(len(target.models), 1)
    pairs_L = np.maximum(variances_M[first_L] + variances_M[second_L] - 2 * covariance_MM[first_L, second_L], 0.0)
    shrink = float(np.mean(1 / target.videos_MU))
    known = np.isfinite(target.within_MU)
    within = float(target.within_MU[known].mean()) if known.any() else None
    observed, pair_observed = float(variances_M.mean()), float(pairs_L.mean())
    return Components(
        1 / shrink,
        observed,
        None if within is None else max(observed - within * shrink, 0.0),
        within,
        pair_observed,
        None if within is None else max(pair_observed - 2 * within * shrink, 0.0),
        float(pairs_L.min()),
        float(pairs_L.max()),
    )


def expected_width(variance: float, n: int, level: float = LEVEL) -> float | None:
    """Expected width of a t interval of the mean of n normal values; None for fewer than two.

    The expectation of a sample's standard deviation is c4(n) times the true one.
    """
    if n < 2:
        return None
    c4 = sqrt(2 / (n - 1)) * np.exp(special.gammaln(n / 2) - special.gammaln((n - 1) / 2))
    return float(2 * distributions.t.ppf(0.5 + level / 2, n - 1) * c4 * sqrt(variance / n))


def detectable_effect(n: int, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest true difference found on n prompts, in standard deviations of the paired differences."""
    if n < 2:
        return None
    ruler_P = np.linspace(-1, 1, n)
    return minimum_detectable_difference(ruler_P / ruler_P.std(ddof=1), alpha=alpha, power=power)


def prompts_needed(variance: float, difference: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """The fewest prompts on which a two-sided paired t test finds a difference with this power.

    Exact (noncentral t) up to `APPROXIMATE_FROM` prompts, then the normal approximation with Guenther's correction
    (1981).

    Args:
        variance: of the paired differences, one a prompt.
        difference: the true mean difference, in the same unit as the variance's root.
        alpha: level of the test.
        power: chance that it is found.
    """
    fewest = ceil(1 - np.log2(alpha))  # with fewer, no sign-flip test can reach alpha
    z_alpha, z_power = distributions.norm.ppf(1 - alpha / 2), distributions.norm.ppf(power)
    about = variance * ((z_alpha + z_power) / difference) ** 2 + z_alpha**2 / 2
    if about > APPROXIMATE_FROM:
        return ceil(about)

    def enough(n: int) -> bool:
        effect = detectable_effect(n, alpha=alpha, power=power)
        return effect is not None and effect * sqrt(variance) <= difference

    return bisect_left(range(2 * ceil(about) + 10), True, lo=fewest, key=enough)
