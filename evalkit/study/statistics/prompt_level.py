"""Standings and duels from prompt means alone, as publications print them: the unit is the prompt, not the vote.

A model wins a prompt if its mean over the raters is lower, by however little. Such win rates say how many prompts a
model is better on, not how many raters prefer it, and what raters differ in cannot be seen in them.

Axes: P prompts, M models.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from evalkit.stats import FloatArray, bootstrap_mean, paired_comparison
from evalkit.study.statistics.intervals import bounded
from evalkit.study.statistics.resampling import Spread
from evalkit.study.types import Duel, Estimate


def prompt_level_means(values_PM: npt.ArrayLike, *, seed: int = 0) -> tuple[Estimate, ...]:
    """Each model's mean over prompts, with the interval of a bootstrap over prompts.

    Args:
        values_PM: a figure for each prompt and model; NaN is missing.
        seed: of the resampling.

    Raises:
        ValueError: a model without any value.
    """
    return tuple(_mean(values_P, seed) for values_P in np.asarray(values_PM, dtype=np.float64).T)


def prompt_level_duels(values_PM: npt.ArrayLike, models: Sequence[str], *, seed: int = 0) -> tuple[Duel, ...]:
    """Every pair of models over the prompts that have both, the one with the lower mean as `a`.

    The p-value is that of sign flips of the paired differences (`evalkit.stats.paired_comparison`). Pairs without a
    common prompt are left out.

    Args:
        values_PM: a figure for each prompt and model, lower is better; NaN is missing.
        models: their labels.
        seed: of the resampling.
    """
    values = np.asarray(values_PM, dtype=np.float64)
    order = np.argsort(np.nanmean(values, axis=0), kind="stable")
    pairs = ((a, b, np.isfinite(values[:, a] + values[:, b])) for a, b in combinations(order.tolist(), 2))
    return tuple(
        _duel(models[a], models[b], values[both_P, a], values[both_P, b], seed)
        for a, b, both_P in pairs
        if both_P.any()
    )


def _duel(a: str, b: str, a_P: FloatArray, b_P: FloatArray, seed: int) -> Duel:
    win_P, tie_P, lose_P = a_P < b_P, a_P == b_P, a_P > b_P
    win, tie, lose, rate = (_share(x, seed) for x in (win_P, tie_P, lose_P, win_P + tie_P / 2))
    test = paired_comparison(a_P, b_P, seed=seed)
    return Duel(a, b, len(a_P), win, tie, lose, rate, None, test.p_value)


def _mean(values_P: FloatArray, seed: int) -> Estimate:
    found = bootstrap_mean(values_P, np.arange(len(values_P)), seed=seed)
    if found.estimate is None:
        raise ValueError("a model without any value has no mean")
    return Estimate(found.estimate, found.low, found.high)


def _share(values_P: npt.NDArray[np.generic], seed: int) -> Estimate:
    """A share of the prompts; where all are alike a bootstrap sees no spread, but each prompt still is one draw."""
    shares_P = values_P.astype(np.float64)
    if np.ptp(shares_P) > 0 or len(shares_P) < 2:
        return _mean(shares_P, seed)
    n = len(shares_P)
    still = Spread(shares_P[:1], np.zeros(1), np.array([n - 1.0]), np.array([float(n)]), np.ones(1))
    found = bounded(still, 0.0, 1.0)[0]
    assert found is not None
    return found
