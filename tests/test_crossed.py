"""Comparisons over training seeds: coverage by simulation, closed forms, and what one seed can say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.crossed import crossed_comparison, mean_squares
from evalkit.stats import paired_comparison


def table(rng: np.random.Generator, seeds: int, prompts: int, sd: tuple[float, float, float]) -> np.ndarray:
    return (
        rng.normal(0, sd[0], (seeds, 1)) + rng.normal(0, sd[1], (1, prompts)) + rng.normal(0, sd[2], (seeds, prompts))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "sd"),
    [(2, (1.0, 1.0, 1.0)), (3, (1.0, 1.0, 1.0)), (3, (0.0, 1.0, 1.0)), (3, (1.0, 0.1, 0.1)), (5, (0.3, 1.0, 2.0))],
)
def test_intervals_cover_and_tests_do_not_reject_too_often(seeds: int, sd: tuple[float, float, float]) -> None:
    """1,000 simulated comparisons without a difference: at least 93 % of intervals cover it (2 % is 3 sigma)."""
    rng = np.random.default_rng(3)
    rejected = covered = 0
    for _ in range(1000):
        d = table(rng, seeds, 50, sd)
        result = crossed_comparison(np.zeros_like(d), d).result
        assert result.low is not None
        assert result.high is not None
        assert result.p_value is not None
        covered += result.low <= 0.0 <= result.high
        rejected += result.p_value < 0.05
        if abs(result.p_value - 0.05) > 1e-3:
            assert (result.p_value < 0.05) == (not result.low <= 0.0 <= result.high)
    assert covered >= 0.93 * 1000
    assert rejected <= 0.07 * 1000


def test_one_seed_would_reject_too_often_where_seeds_differ() -> None:
    """Why seeds matter: over prompts alone, a difference between two trainings of one recipe looks significant."""
    rng = np.random.default_rng(4)
    tables = [table(rng, 1, 50, (1.0, 0.3, 0.3)) for _ in range(300)]
    results = [crossed_comparison(np.zeros_like(d), d) for d in tables]
    assert not any(result.covers_training for result in results)
    assert np.mean([(result.result.p_value or 0.0) < 0.05 for result in results]) > 0.5


def test_a_large_difference_is_found() -> None:
    d = 3.0 + table(np.random.default_rng(5), 3, 50, (0.3, 1.0, 1.0))
    result = crossed_comparison(np.zeros_like(d), d)
    assert result.result.p_value is not None
    assert result.result.p_value < 0.05
    assert result.covers_training
    assert result.seed_spread == pytest.approx(np.std(d.mean(axis=1), ddof=1))


def test_variance_is_unbiased() -> None:
    """The mean squares estimate the variance of the mean: 4,000 tables, within 5 %."""
    rng, sd, shape = np.random.default_rng(6), (0.7, 1.1, 0.9), (4, 20)
    estimates, means = [], []
    for _ in range(4000):
        d = table(rng, *shape, sd)
        seeds, prompts, rest = mean_squares(d)
        estimates.append((seeds + prompts - rest) / d.size)
        means.append(d.mean())
    assert np.mean(estimates) == pytest.approx(sd[0] ** 2 / 4 + sd[1] ** 2 / 20 + sd[2] ** 2 / 80, rel=0.05)
    assert np.var(means) == pytest.approx(np.mean(estimates), rel=0.07)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_order_and_units_do_not_matter(seeds: int, prompts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, seeds, prompts))
    one = crossed_comparison(a, b).result
    other = crossed_comparison(10 * a[::-1, ::-1], 10 * b[::-1, ::-1]).result
    assert other.delta == pytest.approx(10 * (one.delta or 0.0), rel=1e-9, abs=1e-12)
    assert other.p_value == pytest.approx(one.p_value, rel=1e-6)
    swapped = crossed_comparison(b, a).result
    assert swapped.delta == pytest.approx(-(one.delta or 0.0), rel=1e-12, abs=1e-15)


def test_one_seed_is_the_paired_comparison() -> None:
    a, b = np.random.default_rng(7).normal(size=(2, 1, 12))
    result = crossed_comparison(a, b, seed=5)
    paired = paired_comparison(np.zeros(12), (b - a)[0], seed=5)
    assert result.result == paired
    assert result.seed_spread is None


def test_missing_prompts_are_counted_not_zero() -> None:
    a, b = np.zeros((2, 6)), np.ones((2, 6)) + np.arange(6) / 10
    b[1, 2] = np.nan
    result = crossed_comparison(a, b).result
    assert result.n == 5
    assert result.n_unpaired == 1
    assert result.delta == pytest.approx(1 + (0 + 1 + 3 + 4 + 5) / 50)


def test_equal_variants_differ_by_nothing() -> None:
    same = np.random.default_rng(8).normal(size=(3, 10))
    result = crossed_comparison(same, same).result
    assert (result.delta, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="seeds, prompts"):
        crossed_comparison(np.zeros((2, 3)), np.zeros((3, 2)))
