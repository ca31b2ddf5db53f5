"""From a figure and its variance to a 95 % interval and a p-value.

Axes: E figures.
"""

from __future__ import annotations

import numpy as np
from scipy import stats as distributions

from evalkit.stats import FloatArray
from evalkit.study.statistics.resampling import Spread
from evalkit.study.types import Estimate

LEVEL = 0.95

_NOTHING = 1e-20
"""Variance below which nothing varies, rounding aside."""


def unbounded(spread: Spread) -> tuple[Estimate | None, ...]:
    """Student's t intervals of figures that may be any number; None for a figure that does not exist."""
    half_E = _quantile(spread) * np.sqrt(spread.variance_E)
    return _estimates(spread.value_E, spread.value_E - half_E, spread.value_E + half_E)


def bounded(spread: Spread, low: float, high: float) -> tuple[Estimate | None, ...]:
    """Intervals of means between two bounds, such as shares between 0 and 1; None where a figure does not exist.

    Wilson's (1927) interval with the effective sample size p (1 - p) / V and t in place of the normal quantile, as for
    shares from surveys (Dean and Pagano 2015): it stays within the bounds, and covers near them as well. Where no
    cluster differs from another there is no telling how much clusters differ: each then counts as one answer, raters or
    prompts, whichever are fewer.
    """
    share_E, size_E = _effective(spread, low, high)
    squared_E = _quantile(spread) ** 2
    centre_E = (share_E + squared_E / (2 * size_E)) / (1 + squared_E / size_E)
    spread_E = share_E * (1 - share_E) / size_E + squared_E / (4 * size_E**2)
    half_E = np.sqrt(squared_E * spread_E) / (1 + squared_E / size_E)
    low_E, high_E = np.clip(centre_E - half_E, 0, share_E), np.clip(centre_E + half_E, share_E, 1)
    return _estimates(spread.value_E, low + (high - low) * low_E, low + (high - low) * high_E)


def p_values(spread: Spread, low: float, high: float) -> tuple[float | None, ...]:
    """Two-sided p-values of a mean halfway between its bounds, such as a win rate of 1/2.

    The test of which `bounded` is the inversion: p is below 0.05 where the 95 % interval excludes the middle.
    """
    share_E, size_E = _effective(spread, low, high)
    p_E = np.asarray(2 * distributions.t.sf(np.abs(share_E - 0.5) * 2 * np.sqrt(size_E), spread.freedom_E))
    return tuple(float(p) if np.isfinite(p) else None for p in p_E)


def _effective(spread: Spread, low: float, high: float) -> tuple[FloatArray, FloatArray]:
    """Figures as shares of their range, and independent answers that would tell them as well."""
    share_E = np.clip((spread.value_E - low) / (high - low), 0, 1)
    variance_E = spread.variance_E / (high - low) ** 2
    own_E = share_E * (1 - share_E)
    still_E = (variance_E <= _NOTHING) | ((own_E == 0) & np.isfinite(variance_E))
    size_E = np.divide(own_E, variance_E, out=spread.clusters_E.copy(), where=~still_E)
    return share_E, size_E


def _quantile(spread: Spread) -> FloatArray:
    return np.asarray(distributions.t.ppf(0.5 + LEVEL / 2, spread.freedom_E), dtype=np.float64)


def _estimates(value_E: FloatArray, low_E: FloatArray, high_E: FloatArray) -> tuple[Estimate | None, ...]:
    def number(x: float) -> float | None:
        return float(x) if np.isfinite(x) else None

    return tuple(
        Estimate(float(value), number(low), number(high)) if np.isfinite(value) else None
        for value, low, high in zip(value_E, low_E, high_E, strict=True)
    )
