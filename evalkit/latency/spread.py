"""Median, quartiles, and the ratio of two medians with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MIN_REPEATS = 6
"""With fewer, even the whole range of the repeats covers a median with less than 95 %: 1 - 2^(1 - 5) = 0.9375."""

RESAMPLES = 9999


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds of repeated runs; quartiles interpolate linearly between order statistics."""

    median: float
    q1: float
    q3: float
    minimum: float
    repeats: int


def spread(seconds: Sequence[float]) -> Spread:
    """Describe repeats.

    Raises:
        ValueError: there are none.
    """
    if not seconds:
        raise ValueError("no repeats: nothing to describe")
    q1, median, q3 = np.quantile(np.asarray(seconds, dtype=np.float64), (0.25, 0.5, 0.75))
    return Spread(float(median), float(q1), float(q3), float(min(seconds)), len(seconds))


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long as `to`; the interval is None with fewer than `MIN_REPEATS` repeats."""

    to: str
    value: float
    ci95: tuple[float, float] | None


def ratio_of_medians(seconds: Sequence[float], base: Sequence[float], to: str, *, paired: bool, seed: int = 0) -> Ratio:
    """Median of `seconds` over median of `base`, with the 2.5 and 97.5 percentiles of seeded bootstrap resamples.

    `paired`: the n-th repeats of both sides were of one round. Rounds are resampled then, so that what slowed a whole
    round down cancels; otherwise the two sides are resampled on their own.

    Raises:
        ValueError: a side is empty, or paired sides differ in length.
    """
    x_N, y_M = np.asarray(seconds, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if not len(x_N) or not len(y_M) or (paired and len(x_N) != len(y_M)):
        raise ValueError("a ratio needs repeats on both sides, and as many where they are paired")
    value = float(np.median(x_N) / np.median(y_M))
    if min(len(x_N), len(y_M)) < MIN_REPEATS:
        return Ratio(to, value, None)
    rng = np.random.default_rng(seed)
    picks_RN = rng.integers(len(x_N), size=(RESAMPLES, len(x_N)))
    picks_RM = picks_RN if paired else rng.integers(len(y_M), size=(RESAMPLES, len(y_M)))
    ratios_R: npt.NDArray[np.float64] = np.median(x_N[picks_RN], axis=1) / np.median(y_M[picks_RM], axis=1)
    low, high = np.quantile(ratios_R, (0.025, 0.975))
    return Ratio(to, value, (float(low), float(high)))
