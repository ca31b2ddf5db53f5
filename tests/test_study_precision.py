"""Expected precision against simulated studies whose spreads are known."""

from __future__ import annotations

from math import comb

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats as distributions

from evalkit.errors import UserError
from evalkit.study.planning.precision import PROMPT_SPREAD, RATER_SPREAD, Layout, Spreads, expect, rater_counts

Array = npt.NDArray[np.float64]
DUEL = {"n_models": 2, "block_size": 2, "n_axes": 1, "ranking": False}
N_STUDIES = 3000


def duel_votes(n_raters: int, n_prompts: int, spreads: Spreads, win_rate: float, seed: int = 0) -> Array:
    """Studies (B, R, P) in which every rater judges one pair of models on every prompt: 1 where the first one wins.

    Effects shrink near 0 and 1 as the variance of a share does.
    """
    rng = np.random.default_rng(seed)
    scale = 2 * np.sqrt(win_rate * (1 - win_rate))
    raters_BR1 = scale * spreads.rater * rng.standard_normal((N_STUDIES, n_raters, 1))
    prompts_B1P = scale * spreads.prompt * rng.standard_normal((N_STUDIES, 1, n_prompts))
    chance_BRP = np.clip(win_rate + raters_BR1 + prompts_B1P, 0, 1)
    return (rng.random(chance_BRP.shape) < chance_BRP).astype(np.float64)


def analysed(votes_BRP: Array) -> tuple[Array, Array, Array]:
    """Means (B,), their two-way variances and degrees of freedom, from the votes alone (analysis of variance)."""
    _, n_raters, n_prompts = votes_BRP.shape
    mean_B = votes_BRP.mean(axis=(1, 2))
    raters_B = votes_BRP.mean(axis=2).var(axis=1, ddof=1) / n_raters
    prompts_B = votes_BRP.mean(axis=1).var(axis=1, ddof=1) / n_prompts
    cells_B = votes_BRP.var(axis=(1, 2), ddof=1) / (n_raters * n_prompts)
    variance_B = np.maximum(raters_B + prompts_B - cells_B, np.maximum(raters_B, prompts_B))
    doubt_B = raters_B**2 / (n_raters - 1) + prompts_B**2 / (n_prompts - 1)
    return mean_B, variance_B, np.maximum(variance_B**2 / doubt_B, min(n_raters, n_prompts) - 1)


def wilson(mean_B: Array, variance_B: Array, freedom_B: Array) -> tuple[Array, Array]:
    """Bounds (B,) of Wilson's interval of a share, with t and the effective number of votes."""
    squared_B = distributions.t.ppf(0.975, freedom_B) ** 2
    n_B = mean_B * (1 - mean_B) / variance_B
    centre_B = (mean_B + squared_B / (2 * n_B)) / (1 + squared_B / n_B)
    half_B = np.sqrt(squared_B * (mean_B * (1 - mean_B) / n_B + squared_B / (4 * n_B**2))) / (1 + squared_B / n_B)
    return centre_B - half_B, centre_B + half_B


STUDIES = [
    (10, 30, Spreads(0.10, 0.10)),
    (20, 20, Spreads(0.0, 0.0)),
    (8, 40, Spreads(0.20, 0.05)),
    (30, 10, Spreads(0.05, 0.20)),
]


@pytest.mark.parametrize(("n_raters", "n_prompts", "spreads"), STUDIES)
def test_intervals_come_out_as_wide_as_expected(n_raters: int, n_prompts: int, spreads: Spreads) -> None:
    """Within 8 %: the estimated variance is a random number, the expected width that of its expectation."""
    (expected,) = expect(Layout(n_prompts=n_prompts, screens=n_prompts, **DUEL), [n_raters], spreads)
    low_B, high_B = wilson(*analysed(duel_votes(n_raters, n_prompts, spreads, 0.5)))
    assert expected.votes_per_pair == n_raters * n_prompts
    assert expected.half_width == pytest.approx(np.mean(high_B - low_B) / 2, rel=0.08)
    assert 0.93 <= np.mean((low_B <= 0.5) & (high_B >= 0.5)) <= 0.98


@pytest.mark.parametrize(("n_raters", "n_prompts", "spreads"), STUDIES)
def test_eighty_percent_of_studies_find_the_detectable_win_rate(
    n_raters: int, n_prompts: int, spreads: Spreads
) -> None:
    """Within 6 points: where nothing but the rest varies, the larger of two estimates of the same spread overstates it.

    1.5 points are noise of the simulation (two standard errors).
    """
    (expected,) = expect(Layout(n_prompts=n_prompts, screens=n_prompts, **DUEL), [n_raters], spreads)
    assert expected.detectable is not None
    low_B, _ = wilson(*analysed(duel_votes(n_raters, n_prompts, spreads, expected.detectable)))
    assert np.mean(low_B > 0.5) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("n_models", [3, 5])
def test_mean_ranks_vary_as_expected(n_models: int) -> None:
    """Utilities with normal effects of rater, prompt and rest; the standard deviation over studies within 6 %.

    Two models' effects of standard deviation d and rests of standard deviation 1 make win rates of standard deviation
    d phi(0), with phi(0) the normal density at 0, as long as d is small.
    """
    n_raters, n_prompts, spreads = 10, 15, Spreads(0.06, 0.06)
    rng = np.random.default_rng(1)
    size = spreads.rater / distributions.norm.pdf(0)

    def effects(*shape: int) -> Array:
        return size * rng.standard_normal((1500, *shape, n_models))

    utility_BRPM = effects(n_raters, 1) + effects(1, n_prompts) + effects(n_raters, n_prompts) / size
    ranks_BRPM = n_models - utility_BRPM.argsort(axis=-1).argsort(axis=-1)
    layout = Layout(n_models, n_models, n_prompts, n_prompts, 1, ranking=True)
    (expected,) = expect(layout, [n_raters], spreads)
    spread = ranks_BRPM.mean(axis=(1, 2)).std(axis=0).mean()
    scale = n_models * (n_models - 1) / 2
    components = scale * (spreads.rater**2 / n_raters + spreads.prompt**2 / n_prompts)
    rest = ((n_models**2 - 1) / 12 - scale * (spreads.rater**2 + spreads.prompt**2)) / (n_raters * n_prompts)
    assert np.sqrt(components + rest) == pytest.approx(spread, rel=0.06)
    assert expected.rank_half_width is not None
    assert 1.96 * spread < expected.rank_half_width < 2.4 * spread  # Student's t of 9 to 14 degrees of freedom or more


def test_without_spreads_it_is_wilson_interval_of_independent_votes() -> None:
    """10,000 raters leave nothing of Student's t: closed form, to 1e-3 of its value."""
    (expected,) = expect(Layout(n_prompts=10_000, screens=1, **DUEL), [10_000], Spreads(0, 0))
    z = distributions.norm.ppf(0.975)
    assert expected.half_width == pytest.approx(z * 0.5 / np.sqrt(10_000 + z**2), rel=1e-3)


def test_two_models_in_ranks_are_twice_a_duel() -> None:
    """A mean rank of two models is 2 - win rate: the same interval."""
    (expected,) = expect(Layout(2, 2, 20, 20, 1, ranking=True), [10], Spreads())
    assert expected.rank_half_width == pytest.approx(expected.half_width, rel=1e-12)


def test_blocks_share_their_votes_among_the_pairs() -> None:
    for k in (2, 3, 4, 5):
        (expected,) = expect(Layout(5, k, 30, 30, 3, ranking=True), [20], Spreads())
        assert expected.votes_per_pair == pytest.approx(20 * 30 * comb(k, 2) / comb(5, 2))
        assert (expected.rank_half_width is None) == (k < 5)


def test_more_raters_tell_more_and_correction_costs() -> None:
    rows = expect(Layout(5, 5, 50, 30, 3, ranking=True), rater_counts(15), Spreads())
    assert [row.n_raters for row in rows] == [5, 10, 15, 20, 50, 100]
    for column in ("half_width", "rank_half_width", "detectable", "detectable_holm"):
        values = [getattr(row, column) for row in rows]
        assert values == sorted(values, reverse=True)
    assert all(row.detectable < row.detectable_holm for row in rows if row.detectable and row.detectable_holm)


def test_what_a_tiny_study_cannot_tell() -> None:
    (one,) = expect(Layout(n_prompts=1, screens=1, **DUEL), [1], Spreads())
    assert (one.half_width, one.detectable) == (None, None)
    (alone,) = expect(Layout(n_prompts=10, screens=10, **DUEL), [1], Spreads())
    assert alone.half_width is not None  # of this rater, over prompts
    (few,) = expect(Layout(5, 2, 3, 3, 3, ranking=False), [3], Spreads())
    assert few.detectable_holm is None


def test_spreads_that_cannot_be() -> None:
    assert Spreads() == Spreads(RATER_SPREAD, PROMPT_SPREAD)
    for rater, prompt in (-0.1, 0.1), (0.1, float("nan")), (0.3, 0.3):
        with pytest.raises(UserError, match="cannot be"):
            Spreads(rater, prompt)
