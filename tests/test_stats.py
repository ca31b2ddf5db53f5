"""Intervals and tests against closed forms, scipy, and simulation."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from evalkit.stats import (
    BCA_MIN_CLUSTERS,
    EXACT_PAIRS,
    bootstrap_mean,
    holm,
    minimum_detectable_difference,
    paired_comparison,
)

reals = st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 3))


def expanded(level: float, k: int) -> float:
    """The normal-theory level at which a plain BCa interval is as wide as ours."""
    z = np.sqrt(k / (k - 1)) * scipy_stats.t.ppf(0.5 + level / 2, k - 1)
    return float(2 * scipy_stats.norm.cdf(z) - 1)


def test_agrees_with_scipy_bca_one_value_a_cluster() -> None:
    """Tolerance: Monte Carlo error of two independent bootstraps, about 1 % of the width each."""
    x = np.random.default_rng(3).gamma(2.0, size=40)
    ours = bootstrap_mean(x, np.arange(40), n_resamples=40_000)
    theirs = scipy_stats.bootstrap(
        (x,), np.mean, confidence_level=expanded(0.95, 40), n_resamples=40_000, method="BCa", rng=1
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.estimate == pytest.approx(x.mean(), rel=1e-12)
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_agrees_with_scipy_bca_for_a_ratio_of_clusters() -> None:
    """Frame-weighted pooling is a ratio of cluster sums; scipy resamples pairs (sum of w x, sum of w)."""
    rng = np.random.default_rng(4)
    clusters, weights = np.repeat(np.arange(30), 3), rng.integers(5, 80, size=90).astype(float)
    x = np.repeat(rng.normal(size=30), 3) + rng.normal(size=90)
    sums, totals = (np.bincount(clusters, v) for v in (weights * x, weights))
    ours = bootstrap_mean(x, clusters, weights, n_resamples=40_000)
    theirs = scipy_stats.bootstrap(
        (sums, totals),
        lambda s, w, axis=-1: s.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        confidence_level=expanded(0.95, 30),
        n_resamples=40_000,
        method="BCa",
        rng=1,
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.estimate == pytest.approx((weights * x).sum() / weights.sum(), rel=1e-12)
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_few_clusters_get_the_textbook_t_interval() -> None:
    x = np.array([0.2, 0.5, 0.4, 0.9])
    found = bootstrap_mean(x, list("abcd"))
    low, high = scipy_stats.t.interval(0.95, 3, loc=x.mean(), scale=x.std(ddof=1) / 2)
    assert (found.low, found.high, found.method) == (pytest.approx(low), pytest.approx(high), "t")


def test_normal_data_give_nearly_the_t_interval() -> None:
    """BCa with a widened level tends to the t interval; 4 % of the width covers skew and Monte Carlo error here."""
    x = scipy_stats.norm.ppf((np.arange(200) + 0.5) / 200)
    found = bootstrap_mean(x, np.arange(200), n_resamples=40_000)
    low, high = scipy_stats.t.interval(0.95, 199, loc=0.0, scale=x.std(ddof=1) / np.sqrt(200))
    assert found.low == pytest.approx(low, abs=0.04 * (high - low))
    assert found.high == pytest.approx(high, abs=0.04 * (high - low))


@pytest.mark.parametrize("distribution", ["normal", "exponential", "bernoulli"])
def test_coverage_of_clustered_values(distribution: str) -> None:
    """Of 800 repetitions at the nominal rate, 92.5 % to 98 % lie within 3.2 standard errors (0.77 %) of 95 %."""
    rng, repetitions, k = np.random.default_rng(11), 800, 30
    hits = 0
    for i in range(repetitions):
        draw = {
            "normal": lambda: rng.normal(size=(k, 1)) + rng.normal(size=(k, 3)),
            "exponential": lambda: rng.exponential(size=(k, 1)) - 1 + rng.normal(size=(k, 3)),
            "bernoulli": lambda: (rng.random((k, 3)) < 0.7) - 0.7,
        }[distribution]()
        found = bootstrap_mean(draw.ravel(), np.repeat(np.arange(k), 3), seed=i, n_resamples=800)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.0 <= found.high
    assert 0.925 <= hits / repetitions <= 0.98


def test_ignoring_clusters_would_be_too_sure() -> None:
    """Copies of a prompt's video add no information: the interval must not shrink."""
    x = np.random.default_rng(5).normal(size=20)
    one = bootstrap_mean(x, np.arange(20))
    copies = bootstrap_mean(np.repeat(x, 9), np.repeat(np.arange(20), 9))
    naive = bootstrap_mean(np.repeat(x, 9), np.arange(180))
    assert copies.low == pytest.approx(one.low)
    assert copies.high == pytest.approx(one.high)
    assert one.low is not None
    assert naive.low is not None
    assert one.low < naive.low


def test_one_cluster_has_an_estimate_and_no_interval() -> None:
    found = bootstrap_mean([0.1, 0.3], ["p", "p"])
    assert (found.estimate, found.low, found.high) == (pytest.approx(0.2), None, None)
    assert (found.n, found.n_clusters, found.method) == (2, 1, "none")


def test_missing_is_counted_and_never_zero() -> None:
    found = bootstrap_mean([0.5, np.nan, 0.7, np.nan], ["p", "p", "q", "r"])
    assert found.estimate == pytest.approx(0.6)
    assert (found.n, found.n_clusters, found.n_missing) == (2, 2, 2)
    nothing = bootstrap_mean([np.nan], ["p"])
    assert (nothing.estimate, nothing.low, nothing.n, nothing.n_missing) == (None, None, 0, 1)


def test_a_value_without_weight_counts_as_missing() -> None:
    found = bootstrap_mean([0.5, 0.9], ["p", "q"], weights=[3.0, 0.0])
    assert (found.estimate, found.n, found.n_clusters, found.n_missing) == (0.5, 1, 1, 1)


def test_equal_clusters_have_an_interval_of_no_width() -> None:
    found = bootstrap_mean([0.1 + 0.2] * 12, np.arange(12))
    assert found.low == found.high == pytest.approx(0.3)


def test_one_dominant_cluster_still_has_finite_bounds() -> None:
    found = bootstrap_mean([0.0] * 9 + [1.0], np.arange(10), weights=[1.0] * 9 + [1e9])
    assert found.low is not None
    assert found.high is not None
    assert np.isfinite([found.low, found.high]).all()
    assert found.low <= found.high


@pytest.mark.parametrize(
    "arguments",
    [
        ([1.0, 2.0], ["p"], None),
        ([1.0], ["p"], [1.0, 2.0]),
        ([1.0, 2.0], ["p", "q"], [1.0, -1.0]),
        ([[1.0]], ["p"], None),
    ],
)
def test_ill_formed_input_raises(arguments: tuple[list[float], list[str], list[float] | None]) -> None:
    with pytest.raises(ValueError, match="weights"):
        bootstrap_mean(*arguments)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_are_fractions(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean([1.0, 2.0], ["p", "q"], level=level)


@given(st.lists(st.tuples(reals, st.integers(0, 8)), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_interval_ignores_the_order_of_the_rows(rows: list[tuple[float, int]], shuffler: object) -> None:
    shuffled = list(rows)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    a, b = (bootstrap_mean([x for x, _ in r], [c for _, c in r], n_resamples=200) for r in (rows, shuffled))
    assert a == b


@given(
    st.lists(st.integers(-50, 50), min_size=BCA_MIN_CLUSTERS, max_size=30),
    st.integers(-64, 64),
    st.sampled_from([2, 8]),
)
def test_interval_moves_with_the_data(values: list[int], shift: int, scale: int) -> None:
    """Whole numbers and powers of two: no rounding can change which resamples lie below the estimate."""
    x, clusters = np.array(values, dtype=float), np.arange(len(values))
    before = bootstrap_mean(x, clusters, n_resamples=300)
    after = bootstrap_mean(scale * x + shift, clusters, n_resamples=300)
    assert before.low is not None
    assert before.high is not None
    assert before.low <= before.high
    assert after.low == pytest.approx(scale * before.low + shift, abs=1e-2 * scale)
    assert after.high == pytest.approx(scale * before.high + shift, abs=1e-2 * scale)


@given(st.lists(st.floats(0, 1), min_size=BCA_MIN_CLUSTERS, max_size=25))
def test_bca_stays_in_the_range_of_the_clusters(values: list[float]) -> None:
    found = bootstrap_mean(values, np.arange(len(values)), n_resamples=200)
    if found.method == "bca" and found.low is not None and found.high is not None:
        assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12


def test_same_seed_same_numbers_other_seed_nearly_the_same() -> None:
    x = np.random.default_rng(6).normal(size=60)
    first, again, other = (bootstrap_mean(x, np.arange(60), seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.low != other.low
    assert first.low == pytest.approx(other.low, abs=0.02)


# ---- paired comparison -----------------------------------------------------------------------------------------------


def exact_p(differences: list[float]) -> float:
    """All sign patterns, one by one."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(s >= observed - 1e-9 for s in sums) / len(sums)


@given(st.lists(reals, min_size=1, max_size=8))
def test_few_prompts_are_tested_exactly(differences: list[float]) -> None:
    found = paired_comparison(np.zeros(len(differences)), differences, n_resamples=50)
    assert found.exact
    assert found.p_value == pytest.approx(exact_p(differences))


def test_exact_test_agrees_with_scipy() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=10), rng.normal(0.6, size=10)
    theirs = scipy_stats.permutation_test(
        (b - a,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert paired_comparison(a, b).p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_differences_of_one_size_give_the_sign_test() -> None:
    """12 of 15 up: the two-sided binomial tail."""
    found = paired_comparison(np.zeros(15), [0.1] * 12 + [-0.1] * 3)
    assert found.p_value == pytest.approx(2 * sum(comb(15, i) for i in range(4)) / 2**15)


def test_ranks_give_the_wilcoxon_test() -> None:
    """Signed ranks as differences: the exact distribution of Wilcoxon's statistic."""
    ranks = np.array([1, 2, -3, 4, 5, -6, 7, 8, 9, 10, 11, 12], dtype=float)
    theirs = scipy_stats.wilcoxon(ranks, method="exact").pvalue
    assert paired_comparison(np.zeros(12), ranks).p_value == pytest.approx(theirs)


def test_drawn_signs_agree_with_the_normal_limit() -> None:
    """Under random signs the sum has variance sum(d^2); 0.01 is three standard errors of 9,999 draws at p = 0.1."""
    d = np.random.default_rng(8).normal(0.2, 1, size=200)
    found = paired_comparison(np.zeros(200), d)
    assert not found.exact
    assert found.p_value == pytest.approx(2 * scipy_stats.norm.sf(abs(d.sum()) / np.sqrt((d**2).sum())), abs=0.01)


def test_drawn_p_is_never_zero() -> None:
    found = paired_comparison(np.zeros(50), np.full(50, 0.1), n_resamples=999)
    assert found.p_value == 1 / 1000


def test_p_values_are_uniform_without_a_difference() -> None:
    """2000 exact tests: the rejection rate at 5 % may not exceed it by more than three standard errors (1.5 %)."""
    rng = np.random.default_rng(9)
    p = np.array([paired_comparison(np.zeros(8), rng.normal(size=8), n_resamples=10).p_value for _ in range(2000)])
    assert 0.035 <= (p <= 0.05).mean() <= 0.065


@given(st.lists(st.tuples(reals, reals), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_comparison_ignores_the_order_of_the_prompts(pairs: list[tuple[float, float]], shuffler: object) -> None:
    shuffled = list(pairs)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (paired_comparison([a for a, _ in p], [b for _, b in p], n_resamples=99) for p in (pairs, shuffled))
    assert first == second


@given(st.lists(st.tuples(reals, reals), min_size=1, max_size=40))
def test_swapping_the_runs_flips_the_sign(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    forth, back = paired_comparison(a, b, n_resamples=99), paired_comparison(b, a, n_resamples=99)
    assert forth.delta == pytest.approx(-(back.delta or 0.0), abs=1e-9)
    if forth.exact:
        assert forth.p_value == back.p_value


def test_unpaired_prompts_are_counted_and_left_out() -> None:
    found = paired_comparison([0.1, np.nan, 0.3, 0.4], [0.2, 0.5, np.nan, 0.6])
    assert (found.n, found.n_unpaired) == (2, 2)
    assert found.delta == pytest.approx(0.15)
    nothing = paired_comparison([np.nan], [1.0])
    assert (nothing.delta, nothing.p_value, nothing.n, nothing.n_unpaired) == (None, None, 0, 1)


def test_no_difference_at_all() -> None:
    found = paired_comparison(np.full(30, 0.5), np.full(30, 0.5))
    assert (found.delta, found.low, found.high, found.p_value, found.detectable) == (0.0, 0.0, 0.0, 1.0, 0.0)


def test_enumeration_ends_where_it_says() -> None:
    d = np.linspace(0.1, 1, EXACT_PAIRS + 1)
    assert paired_comparison(np.zeros(EXACT_PAIRS), d[:-1]).exact
    assert not paired_comparison(np.zeros(EXACT_PAIRS + 1), d).exact
    assert paired_comparison(np.zeros(EXACT_PAIRS + 5), [*d[:-1], *[0.0] * 5]).exact  # zeros have no sign to flip


# ---- several tests, power --------------------------------------------------------------------------------------------


def test_holm_worked_example() -> None:
    """0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, made monotone."""
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_is_monotone_and_between_raw_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p)
    by_raw = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
    assert by_raw == sorted(by_raw)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_p_value(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, p])


def test_detectable_difference_has_the_power_it_says() -> None:
    """4000 simulated paired t tests at the returned difference; 0.02 is three standard errors."""
    rng, n = np.random.default_rng(10), 20
    spread = np.tile([-1.0, 1.0], n // 2)
    effect = minimum_detectable_difference(spread)
    assert effect is not None
    draws = rng.normal(effect, spread.std(ddof=1), size=(4000, n))
    rejected = scipy_stats.ttest_1samp(draws, 0.0, axis=1).pvalue <= 0.05
    assert rejected.mean() == pytest.approx(0.8, abs=0.02)


def test_detectable_difference_shrinks_with_more_prompts_and_needs_six() -> None:
    spread = np.tile([-1.0, 1.0], 100)
    few, many = minimum_detectable_difference(spread[:20]), minimum_detectable_difference(spread)
    assert few is not None
    assert many is not None
    assert few / many == pytest.approx(np.sqrt(10), rel=0.1)
    assert minimum_detectable_difference(spread[:5]) is None  # 2 / 2^5 exceeds 5 %: no such test can reject
    assert minimum_detectable_difference(spread[:6]) is not None
