"""Comparisons over several training seeds: prompts and seeds both vary, and the interval must hold for both.

Every model of a comparison is trained with each of S seeds and scored on each of P prompts. The difference of two
variants, paired by seed and prompt, is a table d_SP with random effects of the seed, of the prompt, and a rest
(two-way crossed random effects; Searle, Casella and McCulloch 1992, chapter 5). With one seed the spread between
seeds cannot be known: the interval then holds for these trained models, not for training again, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evalkit.stats import Comparison, FloatArray, paired_comparison


@dataclass(frozen=True, slots=True)
class CrossedComparison:
    """A comparison over seeds and prompts.

    Args:
        result: difference, interval and p-value; `n` counts prompts.
        n_seeds: training seeds it rests on.
        seed_spread: standard deviation of the seeds' mean differences; None with one seed.
        covers_training: whether the interval includes the spread between training seeds.
    """

    result: Comparison
    n_seeds: int
    seed_spread: float | None
    covers_training: bool


def crossed_comparison(
    a_SP: npt.ArrayLike, b_SP: npt.ArrayLike, *, seed: int = 0, level: float = 0.95
) -> CrossedComparison:
    """Compare variant b with variant a over seeds and prompts.

    The variance of the mean is (MS_seed + MS_prompt - MS_rest) / (S P), unbiased for crossed random effects. Few seeds
    tell their mean square badly, so the interval and the p-value come from its generalised pivot (Weerahandi 1993),
    drawn from a seed; where all but one mean square is negligible that is Student's t. With one seed this is
    `paired_comparison` over prompts.

    Args:
        a_SP: a score for each seed and prompt; NaN where unscored. A prompt counts if all seeds scored it.
        b_SP: the same seeds and prompts for the other variant.
        seed: of the resampling that one seed needs.
        level: confidence level.

    Raises:
        ValueError: the shapes differ or are not two-dimensional.
    """
    a, b = np.asarray(a_SP, dtype=np.float64), np.asarray(b_SP, dtype=np.float64)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"scores of shapes {a.shape} and {b.shape}: both must be (seeds, prompts)")
    complete_P = np.isfinite(b - a).all(axis=0)
    unpaired = int((~complete_P).sum())
    d_SP = (b - a)[:, complete_P]
    n_seeds, n_prompts = d_SP.shape
    if n_seeds < 2 or n_prompts < 2:
        one_P = np.where(complete_P, (b - a).mean(axis=0), np.nan)
        return CrossedComparison(
            paired_comparison(np.zeros_like(one_P), one_P, seed=seed, level=level), n_seeds, None, False
        )
    low, high, p_value = _pivotal_interval(d_SP, level, np.random.default_rng([seed, 2]))
    result = Comparison(float(d_SP.mean()), low, high, p_value, n_prompts, unpaired, exact=False, detectable=None)
    return CrossedComparison(result, n_seeds, float(d_SP.mean(axis=1).std(ddof=1)), True)


def mean_squares(d_SP: FloatArray) -> tuple[float, float, float]:
    """Mean squares of seeds, prompts and rest in a two-way table without replication."""
    n_seeds, n_prompts = d_SP.shape
    mean = d_SP.mean()
    seeds_S, prompts_P = d_SP.mean(axis=1), d_SP.mean(axis=0)
    rest_SP = d_SP - seeds_S[:, None] - prompts_P[None, :] + mean
    return (
        float(n_prompts * ((seeds_S - mean) ** 2).sum() / (n_seeds - 1)),
        float(n_seeds * ((prompts_P - mean) ** 2).sum() / (n_prompts - 1)),
        float((rest_SP**2).sum() / ((n_seeds - 1) * (n_prompts - 1))),
    )


N_DRAWS = 20_000


def _pivotal_interval(d_SP: FloatArray, level: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Interval of the mean and two-sided p-value against no difference.

    Each mean square is its expectation times chi-squared over its degrees of freedom; dividing by draws of that gives
    plausible expectations, and with a standard normal draw a plausible error of the mean.
    """
    mean, (n_seeds, n_prompts) = float(d_SP.mean()), d_SP.shape
    freedoms = (n_seeds - 1, n_prompts - 1, (n_seeds - 1) * (n_prompts - 1))
    seeds_R, prompts_R, rest_R = (
        square * freedom / rng.chisquare(freedom, N_DRAWS)
        for square, freedom in zip(mean_squares(d_SP), freedoms, strict=True)
    )
    # The subtraction can come out too small; either main effect alone is never more than what both amount to.
    variances_R = np.maximum(seeds_R + prompts_R - rest_R, np.maximum(seeds_R, prompts_R)) / d_SP.size
    errors_R = np.abs(rng.standard_normal(N_DRAWS)) * np.sqrt(variances_R)
    half = float(np.quantile(errors_R, level))
    p_value = (1 + int(np.sum(errors_R >= abs(mean)))) / (1 + N_DRAWS)
    return mean - half, mean + half, p_value
