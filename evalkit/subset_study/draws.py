"""Which prompts count how often: random subsets of a suite, and suites drawn anew. Axes: R draws, U prompts."""

from __future__ import annotations

import numpy as np

from evalkit.stats import FloatArray
from evalkit.subset_study.target import IntArray


def random_subsets(groups_U: IntArray, n: int, n_draws: int, rng: np.random.Generator) -> FloatArray:
    """Weights 0 or 1 of `n_draws` subsets of exactly n prompts, without replacement, in the suite's proportions.

    Prompts are put in random order within their group, and every (U / n)-th is taken from a random start. With a
    single group that is simple random sampling.
    """
    n_prompts = len(groups_U)
    order_RU = np.argsort(groups_U + rng.random((n_draws, n_prompts)), axis=1)
    places_RN = ((np.arange(n) + rng.random((n_draws, 1))) * (n_prompts / n)).astype(np.intp)
    weights_RU = np.zeros((n_draws, n_prompts))
    np.put_along_axis(weights_RU, np.take_along_axis(order_RU, np.minimum(places_RN, n_prompts - 1), axis=1), 1, axis=1)
    return weights_RU


def resampled(strata_U: IntArray, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """How often each prompt counts when the prompts of every stratum are drawn anew, with replacement (bootstrap)."""
    weights_RU = np.empty((n_resamples, len(strata_U)))
    for stratum in np.unique(strata_U):
        (places_K,) = np.nonzero(strata_U == stratum)
        weights_RU[:, places_K] = rng.multinomial(len(places_K), np.full(len(places_K), 1 / len(places_K)), n_resamples)
    return weights_RU
