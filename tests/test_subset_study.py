"""Subset science against closed forms, scipy, simulation, and planted effects."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats
from typer.testing import CliRunner

from evalkit.cli import INCOMPLETE, build_app
from evalkit.errors import UserError
from evalkit.records import RunRecord, load_run
from evalkit.scoring import BOUNDS, CUSTOM7, mean7, totals
from evalkit.stats import minimum_detectable_difference
from evalkit.subset_study import Settings, Study, Target, study_published, study_runs, to_json
from evalkit.subset_study.agreement import Agreement, curve_point, decided_pairs, nested
from evalkit.subset_study.components import (
    APPROXIMATE_FROM,
    components,
    detectable_effect,
    expected_width,
    prompts_needed,
)
from evalkit.subset_study.draws import random_subsets, resampled
from evalkit.subset_study.ranks import best_kept, pair_signs, pairs_kept, tau_b
from evalkit.subset_study.target import build_targets
from tests.test_compare import fabricate

DRAWS = 1000
MODELS = ("a", "b", "c", "d")


def as_videos(scores: Mapping[str, np.ndarray], prompts: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
    """A row a video from arrays (M, P, K) by dimension; NaN is unscored."""
    rows = [
        {"model": MODELS[m], "prompt_id": ids[p], "file": f"{ids[p]}-{k}.mp4", "dimension": dimension, "value": value}
        for dimension, x_MPK in scores.items()
        for ids in [(prompts or {}).get(dimension) or [f"p{p:04d}" for p in range(x_MPK.shape[1])]]
        for (m, p, k), value in np.ndenumerate(x_MPK)
    ]
    return pd.DataFrame(rows).dropna(subset=["value"])


def targets_of(scores: Mapping[str, np.ndarray], **more: Any) -> dict[str, Target]:
    n_models = len(next(iter(scores.values())))
    found, _ = build_targets(as_videos(scores, **more), MODELS[:n_models], {}, lite=False)
    return {target.name: target for target in found}


def target_of(x_MPK: np.ndarray) -> Target:
    return targets_of({"color": x_MPK})["color"]


def population(n_models: int, n_prompts: int, k: int, *, seed: int = 0, shared: float = 2.0) -> np.ndarray:
    """Videos (M, P, K): shared prompt effects, interaction of SD 1.5, and SD 1 between the videos of a prompt."""
    rng = np.random.default_rng(seed)
    prompts = shared * rng.normal(size=(1, n_prompts, 1)) + 1.5 * rng.normal(size=(n_models, n_prompts, 1))
    return prompts + rng.normal(size=(n_models, n_prompts, k)) + np.arange(n_models)[:, None, None] * 0.3


def runs_of(root: Path, x_MPK: np.ndarray, dimension: str = "color", **changes: Any) -> list[RunRecord]:
    """Run directories with these scores."""
    return [
        load_run(fabricate(root / MODELS[m], {dimension: {f"p{p:02d}": list(v) for p, v in enumerate(x)}}, **changes))
        for m, x in enumerate(x_MPK.tolist())
    ]


# ---- order -----------------------------------------------------------------------------------------------------------

score_lists = st.integers(2, 7).flatmap(
    lambda n: arrays(np.int64, (2, n), elements=st.integers(-4, 4)).map(lambda x: x.astype(np.float64))
)


@given(score_lists)
def test_tau_agrees_with_scipy(x_2M: np.ndarray) -> None:
    signs = pair_signs(x_2M[:1]), pair_signs(x_2M[1:])
    ours, theirs = tau_b(*signs)[0], scipy_stats.kendalltau(*x_2M, variant="b").statistic
    assert ours == pytest.approx(theirs, abs=1e-12, nan_ok=True)


@given(score_lists, st.randoms(use_true_random=False))
def test_order_measures_know_only_order(x_2M: np.ndarray, random: Any) -> None:
    """Neither another order of the models nor a monotone transform of either list changes them."""
    places = list(range(x_2M.shape[1]))
    random.shuffle(places)
    changed = x_2M[:, places] ** 3 + 2 * x_2M[:, places] + 7
    for measure in (tau_b, pairs_kept):
        before, after = (measure(pair_signs(x[:1]), pair_signs(x[1:]))[0] for x in (x_2M, changed))
        assert before == pytest.approx(after, abs=1e-12, nan_ok=True)
    assert best_kept(x_2M[:1], x_2M[1:]) == pytest.approx(best_kept(changed[:1], changed[1:]))


@given(score_lists)
def test_a_list_agrees_with_itself_and_not_with_its_reverse(x_2M: np.ndarray) -> None:
    signs = pair_signs(x_2M[:1])
    assert best_kept(x_2M[:1], x_2M[:1])[0] == 1
    if signs.any():
        assert tau_b(signs, signs)[0] == pytest.approx(1)
        assert tau_b(signs, -signs)[0] == pytest.approx(-1)
        assert (pairs_kept(signs, signs)[0], pairs_kept(-signs, signs)[0]) == (1, 0)


def test_ties_worked_example() -> None:
    """Full 3 > 2 > 1 = 1; the subset ties the first two: of five ordered pairs one tie, four kept."""
    full, subset = np.array([[3.0, 2.0, 1.0, 1.0]]), np.array([[2.0, 2.0, 1.0, 0.0]])
    assert pairs_kept(pair_signs(subset), pair_signs(full))[0] == pytest.approx(4.5 / 5)
    assert best_kept(subset, full)[0] == 0.5
    assert np.isnan(tau_b(pair_signs(np.ones((1, 3))), pair_signs(np.arange(3.0)[None]))[0])
    third = np.array([[0.1 + 0.2, 0.3]])  # equal on paper
    assert not pair_signs(third).any()


# ---- draws -----------------------------------------------------------------------------------------------------------


def test_random_subsets_are_simple_random_samples() -> None:
    """Tolerance: five standard errors of a share over 4000 draws; pairs have n (n - 1) / (U (U - 1))."""
    drawn = random_subsets(np.zeros(9, dtype=np.intp), 4, 4000, np.random.default_rng(0))
    assert (drawn.sum(axis=1) == 4).all()
    assert np.isin(drawn, (0, 1)).all()
    assert drawn.mean(axis=0) == pytest.approx(np.full(9, 4 / 9), abs=0.04)
    together = (drawn.T @ drawn) / 4000
    assert together[~np.eye(9, dtype=bool)] == pytest.approx(np.full(72, 4 * 3 / (9 * 8)), abs=0.03)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.data())
@settings(max_examples=50)
def test_random_subsets_keep_the_proportions(groups: list[int], data: st.DataObject) -> None:
    groups_U = np.unique(groups, return_inverse=True)[1].astype(np.intp)
    n = data.draw(st.integers(1, len(groups)))
    drawn = random_subsets(groups_U, n, 20, np.random.default_rng(1))
    assert (drawn.sum(axis=1) == n).all()
    for group in np.unique(groups_U):
        share = n * (groups_U == group).sum() / len(groups)
        found = drawn[:, groups_U == group].sum(axis=1)
        assert (np.abs(found - share) < 1 + 1e-9).all()


def test_resampling_keeps_the_size_of_every_stratum() -> None:
    strata = np.array([0, 0, 0, 1, 1, 2])
    drawn = resampled(strata, 50, np.random.default_rng(0))
    for stratum, size in enumerate((3, 2, 1)):
        assert (drawn[:, strata == stratum].sum(axis=1) == size).all()


# ---- a subset against its suite --------------------------------------------------------------------------------------


def inside(target: Target, n: int) -> np.ndarray:
    return np.arange(len(target.prompts)) < n


def agreement(target: Target, n: int, draws: int = DRAWS) -> Agreement:
    found = nested(target, inside(target, n), draws, [0])
    assert found is not None
    return found


@given(arrays(np.float64, (3, 8, 2), elements=st.integers(0, 16).map(lambda n: n / 16)))
@settings(max_examples=30, deadline=None)
def test_a_suite_predicts_itself(x_MPK: np.ndarray) -> None:
    target = target_of(x_MPK)
    found = agreement(target, 8, 50)
    assert found.pairs_kept == found.pairs
    assert found.best_kept == 1
    assert found.bias == pytest.approx(0, abs=1e-15)
    assert found.bias_range == pytest.approx((0, 0), abs=1e-15)
    assert found.rmse == pytest.approx(0, abs=1e-15)
    if found.tau is not None:
        assert found.tau == pytest.approx(1)
    if found.tau_range is not None:
        assert found.tau_range == pytest.approx((1, 1))
    point = curve_point(target, 8, 20, np.random.default_rng(0))
    assert point is not None
    assert point.best_kept == 1
    assert point.pairs_kept in (None, 1)


def test_scores_are_means_of_prompt_means_and_bias_is_their_difference() -> None:
    x = population(3, 20, 4)
    found = agreement(target_of(x), 5)
    assert [row.full for row in found.models] == pytest.approx(x.mean(axis=(1, 2)))
    assert [row.subset for row in found.models] == pytest.approx(x[:, :5].mean(axis=(1, 2)))
    gaps = x[:, :5].mean(axis=(1, 2)) - x.mean(axis=(1, 2))
    assert found.bias == pytest.approx(gaps.mean())
    assert found.rmse == pytest.approx(np.sqrt((gaps**2).mean()))


def test_bias_interval_has_its_closed_form() -> None:
    """Subset - full = (1 - f)(subset - rest): a difference of two means. Tolerance: the bootstrap's 1000 draws, 8 %."""
    x = population(3, 60, 2, seed=1)
    found = agreement(target_of(x), 20)
    means_P = x.mean(axis=(0, 2))
    error = (1 - 20 / 60) * np.sqrt(means_P[:20].var(ddof=1) / 20 + means_P[20:].var(ddof=1) / 40)
    assert found.bias is not None
    assert found.bias_range is not None
    half = scipy_stats.t.ppf(0.975, 19) * error
    assert found.bias_range[1] - found.bias == pytest.approx(half, rel=0.08)
    assert found.bias - found.bias_range[0] == pytest.approx(half, rel=0.08)


def test_bias_intervals_cover_what_the_draw_of_prompts_explains() -> None:
    """Of 200 random subsets without a bias of their own, about 95 % have an interval that holds 0 (four errors)."""
    target = target_of(population(3, 60, 1, seed=2))
    rng = np.random.default_rng(3)
    covered = 0
    for n in range(200):
        member = np.zeros(60, dtype=bool)
        member[rng.permutation(60)[:20]] = True
        found = nested(target, member, 200, [n])
        assert found is not None
        assert found.bias_range is not None
        covered += found.bias_range[0] <= 0 <= found.bias_range[1]
    assert covered / 200 == pytest.approx(0.95, abs=0.062)


def test_random_subsets_err_as_the_finite_population_correction_says() -> None:
    """RMSE^2 = (1 - n / P) s^2 / n. Tolerance: 4000 draws of 3 correlated models, 5 %."""
    x = population(3, 40, 1)
    target = target_of(x)
    for n in (5, 20, 35):
        point = curve_point(target, n, 4000, np.random.default_rng(4))
        assert point is not None
        variance = x[:, :, 0].var(axis=1, ddof=1).mean()
        assert point.rmse == pytest.approx(np.sqrt((1 - n / 40) * variance / n), rel=0.05)


def test_order_is_kept_better_by_more_prompts() -> None:
    target = target_of(population(4, 80, 1, seed=5))
    points = [curve_point(target, n, DRAWS, np.random.default_rng(0)) for n in (5, 10, 20, 40, 80)]
    kept = [point.pairs_kept for point in points if point is not None and point.pairs_kept is not None]
    assert len(kept) == 5
    assert kept == sorted(kept)
    assert kept[-1] == 1


def test_expected_order_of_two_models_has_its_closed_form() -> None:
    """One pair, n of P prompts: every subset is listed by hand; one of them ties the two. Four standard errors."""
    x = np.array([[1.0, 4.0, 2.0, 8.0, 5.0], [3.0, 3.5, 3.0, 3.0, 4.0]])
    gaps = [x[1, list(s)].sum() - x[0, list(s)].sum() for s in itertools.combinations(range(5), 2)]
    assert x[1].sum() < x[0].sum()
    share = np.mean([0.5 * (1 - np.sign(gap)) for gap in gaps])
    point = curve_point(target_of(x[:, :, None]), 2, 6000, np.random.default_rng(0))
    assert point is not None
    assert point.pairs_kept == pytest.approx(share, abs=0.026)
    assert point.best_kept == pytest.approx(point.pairs_kept)


def test_pairs_are_told_apart_as_scipy_does() -> None:
    x = population(4, 30, 1, seed=6)[:, :, 0] * 0.2 + np.array([0, 0, 0.1, 1])[:, None]
    pairs = list(itertools.combinations(range(4), 2))
    p_values = np.array([scipy_stats.ttest_rel(x[i], x[j]).pvalue for i, j in pairs])
    order = np.argsort(p_values)
    holm = np.maximum.accumulate(p_values[order] * np.arange(6, 0, -1))
    expected = np.zeros(6, dtype=bool)
    expected[order] = holm <= 0.05
    found = decided_pairs(target_of(x[:, :, None]))
    assert found.tolist() == expected.tolist()
    assert 0 < found.sum() < 6


def test_lower_can_be_better() -> None:
    target = replace(target_of(population(3, 30, 1)), higher_is_better=False)
    assert agreement(target, 30, 20).best_full == (MODELS[int(np.argmin(target.full_M))],)


def test_few_prompts_give_no_range() -> None:
    found = agreement(target_of(population(3, 30, 1)), 5)
    assert found.tau_range is None
    assert found.bias_range is not None
    assert agreement(target_of(population(3, 30, 1)), 1).bias_range is None


# ---- variance, width, power ------------------------------------------------------------------------------------------


def test_components_are_recovered() -> None:
    """Planted: between 2^2 + 1.5^2, within 1, pair 2 x 1.5^2. Tolerance: 4 standard errors at 2000 prompts."""
    found = components(target_of(population(3, 2000, 3)))
    assert found.videos == pytest.approx(3)
    assert found.within == pytest.approx(1, abs=0.06)
    assert found.between == pytest.approx(6.25, abs=0.9)
    assert found.pair_between == pytest.approx(4.5, abs=0.5)
    assert found.pair_low <= found.pair_observed <= found.pair_high


def test_components_are_those_of_the_analysis_of_variance() -> None:
    """Balanced: within is the mean square of videos; the mean variance of a pair is twice the rest's mean square."""
    x = population(4, 25, 3, seed=7)
    found = components(target_of(x))
    means_MP = x.mean(axis=2)
    within = ((x - means_MP[..., None]) ** 2).sum() / (4 * 25 * 2)
    rest = means_MP - means_MP.mean(axis=0) - means_MP.mean(axis=1, keepdims=True) + means_MP.mean()
    assert found.within == pytest.approx(within)
    assert found.observed == pytest.approx(means_MP.var(axis=1, ddof=1).mean())
    assert found.between == pytest.approx(found.observed - within / 3)
    assert found.pair_observed == pytest.approx(2 * (rest**2).sum() / (3 * 24))


def test_unequal_numbers_of_videos() -> None:
    """Half of the prompts have one video, half three: 1 / videos averages to 2/3, and between stays unbiased."""
    x = population(2, 3000, 3, seed=8)
    x[:, ::2, 1:] = np.nan
    found = components(target_of(x))
    assert found.videos == pytest.approx(1.5)
    assert found.within == pytest.approx(1, abs=0.07)
    assert found.between == pytest.approx(6.25, abs=0.9)


def test_one_video_a_prompt_does_not_tell_what_more_would_bring() -> None:
    found = components(target_of(population(2, 20, 1)))
    assert found.within is found.between is found.pair_between is None
    assert found.score_variance() == found.observed
    assert found.score_variance(5) is found.difference_variance(5) is None


def test_widths_are_those_of_simulated_intervals() -> None:
    """Mean width of 20000 t intervals of 12 prompts with 2 videos each; 1 % is ten standard errors."""
    rng = np.random.default_rng(9)
    means_RN = rng.normal(0, 2, size=(20000, 12)) + rng.normal(0, 1, size=(20000, 12, 2)).mean(axis=2)
    widths_R = 2 * scipy_stats.t.ppf(0.975, 11) * means_RN.std(axis=1, ddof=1) / np.sqrt(12)
    assert expected_width(2**2 + 1 / 2, 12) == pytest.approx(widths_R.mean(), rel=0.01)
    assert expected_width(1.0, 1) is None


@given(st.floats(1e-6, 1e3), st.integers(2, 400))
def test_widths_shrink_with_size_and_grow_with_variance(variance: float, n: int) -> None:
    width, more, noisier = expected_width(variance, n), expected_width(variance, n + 1), expected_width(2 * variance, n)
    assert width is not None
    assert more is not None
    assert more < width
    assert noisier == pytest.approx(np.sqrt(2) * width)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_prompts_needed_for_small_medium_and_large_effects(effect: float, n: int) -> None:
    """Paired t test, two-sided 5 %, power 80 %; the noncentral t distribution reaches it at n and not before."""

    def reached(n: int) -> float:
        return float(scipy_stats.nct.sf(scipy_stats.t.ppf(0.975, n - 1), n - 1, effect * np.sqrt(n)))

    assert reached(n - 1) < 0.8 <= reached(n)
    assert prompts_needed(1.0, effect) == n


@given(st.floats(0.05, 1.5), st.floats(0.5, 0.95))
@settings(max_examples=30, deadline=None)
def test_needed_prompts_are_the_fewest_that_suffice(effect: float, power: float) -> None:
    def reached(n: int) -> float:
        return float(scipy_stats.nct.sf(scipy_stats.t.ppf(0.975, n - 1), n - 1, effect * np.sqrt(n)))

    n = prompts_needed(4.0, 2 * effect, power=power)
    if n < APPROXIMATE_FROM:
        assert n == 6 or reached(n - 1) < power + 1e-9
        assert reached(n) >= power - 1e-9


def test_many_prompts_are_approximated_within_one() -> None:
    exact = next(n for n in range(1990, 2100) if (detectable_effect(n) or 1) <= 0.0625)
    z = scipy_stats.norm.ppf(0.975)
    assert exact == pytest.approx(((z + scipy_stats.norm.ppf(0.8)) / 0.0625) ** 2 + z**2 / 2, abs=1)
    assert prompts_needed(1e8, 1.0) == pytest.approx(7.849e8, rel=1e-3)


def test_needed_prompts_reach_their_power_in_simulation() -> None:
    """4000 simulated paired t tests with the planned number; 0.02 is three standard errors."""
    n = prompts_needed(1.7**2, 0.6)
    draws = np.random.default_rng(10).normal(0.6, 1.7, size=(4000, n))
    rejected = scipy_stats.ttest_1samp(draws, 0.0, axis=1).pvalue <= 0.05
    assert rejected.mean() == pytest.approx(0.8, abs=0.02)


def test_detectable_effect_is_that_of_the_comparison() -> None:
    differences = np.random.default_rng(11).gamma(2.0, size=23)
    effect = detectable_effect(23)
    assert effect is not None
    assert effect * differences.std(ddof=1) == pytest.approx(minimum_detectable_difference(differences))
    assert detectable_effect(5) is detectable_effect(1) is None


# ---- headline scores -------------------------------------------------------------------------------------------------


def test_headlines_on_one_set_of_prompts_are_those_of_single_prompts() -> None:
    rng = np.random.default_rng(12)
    scores = {name: rng.uniform(0.2, 0.9, size=(2, 7, 3)) for name in BOUNDS}
    found = targets_of(scores)
    for m in range(2):
        by_prompt = [{name: x[m, p].mean() for name, x in scores.items()} for p in range(7)]
        overall = {name: float(x[m].mean()) for name, x in scores.items()}
        headline = totals(overall)
        for name, value in (("total", headline.total), ("quality", headline.quality), ("semantic", headline.semantic)):
            assert value is not None
            assert found[name].full_M[m] == pytest.approx(value / 100)
        singles = [mean7({name: row[name] for name in CUSTOM7}) for row in by_prompt]
        assert 100 * found["mean7"].values_MU[m] == pytest.approx(np.array(singles, dtype=float))
    video = np.mean([scores[name] for name in CUSTOM7], axis=0)
    assert components(found["mean7"]).within == pytest.approx(video.var(axis=2, ddof=1).mean())


def test_headlines_of_dimensions_with_prompts_of_their_own() -> None:
    """Seven dimensions, five prompt sets: the variance of the mean is the sum of theirs, each with its own number."""
    rng = np.random.default_rng(13)
    prompts, scores = {}, {}
    for place, name in enumerate(CUSTOM7):
        n = 40 + 10 * place
        prompts[name] = [f"{name}-{p}" for p in range(n)]
        scores[name] = rng.normal(0.5, 0.05 * (1 + place), size=(2, n, 2))
    target = targets_of(scores, prompts=prompts)["mean7"]
    assert len(target.prompts) == sum(map(len, prompts.values()))
    assert target.full_M == pytest.approx(np.mean([x.mean(axis=(1, 2)) for x in scores.values()], axis=0))
    parts = [x.mean(axis=2).var(axis=1, ddof=1) / x.shape[1] / 49 for x in scores.values()]
    variance_M = target.values_MU.var(axis=1, ddof=1) / len(target.prompts)
    assert variance_M == pytest.approx(np.sum(parts, axis=0), rel=0.02)  # degrees of freedom: P - 1 each, or U - 1
    assert len(np.unique(target.groups_U)) == 7
    assert curve_point(target, 6, 50, np.random.default_rng(0)) is None  # no prompt left for some dimension
    assert curve_point(target, 60, 50, np.random.default_rng(0)) is not None


def test_a_subset_without_a_dimension_has_no_headline() -> None:
    rng = np.random.default_rng(14)
    prompts = {name: [f"{name}-{p}" for p in range(8)] for name in CUSTOM7}
    target = targets_of({name: rng.uniform(size=(2, 8, 1)) for name in CUSTOM7}, prompts=prompts)["mean7"]
    assert nested(target, np.array([prompt.startswith("color") for prompt in target.prompts]), 20, [0]) is None


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_missing_is_left_out_and_listed(tmp_path: Path) -> None:
    x = population(3, 12, 2)
    x[1, 4] = np.nan
    x[2, [4, 7]] = np.nan
    x[0, 9, 1] = np.nan  # the other video still counts
    runs = [
        load_run(
            fabricate(
                tmp_path / MODELS[m],
                {"color": {f"p{p:02d}": [None if np.isnan(v) else v for v in row] for p, row in enumerate(table)}},
            )
        )
        for m, table in enumerate(x.tolist())
    ]
    study = study_runs(runs, Settings("p00,p04,p05", draws=50))
    (target,) = study.targets
    assert target.left_out == {"p04": ("b", "c"), "p07": ("c",)}
    assert target.n_prompts == 10
    assert not study.complete
    kept = [p for p in range(12) if p not in (4, 7)]
    assert target.subset is not None
    assert target.subset.n_prompts == 2
    assert [row.full for row in target.subset.models] == pytest.approx(np.nanmean(x[:, kept], axis=2).mean(axis=1))
    record = to_json(study)
    assert record["targets"][0]["left_out"] == {"p04": ("b", "c"), "p07": ("c",)}


def test_a_dimension_that_a_model_lacks_is_studied_without_it(tmp_path: Path) -> None:
    x = population(3, 10, 1)
    runs = [
        load_run(
            fabricate(
                tmp_path / MODELS[m],
                {
                    name: {f"p{p}": row for p, row in enumerate(x[m].tolist())}
                    for name in (("color", "scene", "human_action"), ("color", "scene"), ("color",))[m]
                },
            )
        )
        for m in range(3)
    ]
    study = study_runs(runs, Settings(draws=50))
    assert {target.name: target.models for target in study.targets} == {"color": ("a", "b", "c"), "scene": ("a", "b")}
    assert study.not_studied == {"scene": "not scored for c: studied without", "human_action": "scored for a only"}
    assert not study.complete


def test_random_subset_and_seed(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, population(3, 30, 2))
    one, again, other = (study_runs(runs, Settings("10", draws=50, seed=seed)) for seed in (1, 1, 2))
    assert to_json(one) == to_json(again)
    assert one.subset is not None
    assert other.subset is not None
    assert len(one.subset.prompts) == 10
    assert one.subset.prompts != other.subset.prompts
    assert study_runs(runs, Settings("30", draws=50)).targets[0].subset == replace(
        study_runs(runs, Settings(",".join(f"p{p:02d}" for p in range(30)), draws=50)).targets[0].subset  # type: ignore[type-var]
    )


def test_order_of_the_runs_does_not_matter(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, population(3, 20, 2))
    forth, back = (study_runs(some, Settings("8", draws=200)).targets[0] for some in (runs, runs[::-1]))
    assert forth.subset is not None
    assert back.subset is not None
    for name in ("tau", "tau_range", "tau_rest", "pairs_kept", "best_kept", "bias", "bias_range", "rmse"):
        assert getattr(forth.subset, name) == pytest.approx(getattr(back.subset, name), abs=1e-12)
    assert forth.components.pair_observed == pytest.approx(back.components.pair_observed)
    assert forth.power.needed == back.power.needed


def test_prompt_files_match_by_text_and_lists_by_id(tmp_path: Path) -> None:
    runs = runs_of(tmp_path / "runs", population(2, 12, 1))
    (tmp_path / "few.txt").write_text("a picture of p03\np05\na picture of p99\n")
    study = study_runs(runs, Settings(str(tmp_path / "few.txt"), draws=50))
    assert study.subset is not None
    assert study.subset.prompts == {"p03", "p05"}
    assert study.subset.unknown == ("003",)
    assert not study.complete


def two_suites(root: Path) -> tuple[list[RunRecord], list[RunRecord]]:
    """Three models on a full suite and, 2 points higher, on another one."""
    full = runs_of(root / "full", 0.5 + 0.01 * population(3, 40, 2))
    other = {"suite": {"name": "other", "sha256": "cd" * 32, "n_prompts": 12}}
    small = runs_of(root / "small", 0.52 + 0.01 * population(3, 12, 1, seed=1), **other)
    return full, small


def test_a_suite_of_other_prompts(tmp_path: Path) -> None:
    full, small = two_suites(tmp_path)
    study = study_runs([*small, *full], Settings("other", draws=200))
    (target,) = study.targets
    found = target.subset
    assert study.suite["name"] == "made-up"
    assert study.other_suite is not None
    assert study.other_suite["name"] == "other"
    assert (target.n_prompts, target.planned, target.n_planned) == (40, "other", 12)
    assert found is not None
    means = [run.results["value"].mean() for run in (*full, *small)]
    assert [row.full for row in found.models] == pytest.approx(means[:3])
    assert [row.subset for row in found.models] == pytest.approx(means[3:])
    assert found.bias_range is not None
    assert found.bias_range[0] < 0.02 < found.bias_range[1]
    assert target.power.videos == 1
    assert to_json(study_runs([*full, *small], Settings(draws=200)))["targets"] == to_json(study)["targets"]


def test_the_mean_of_seven_stands_in_for_a_total(tmp_path: Path) -> None:
    rng = np.random.default_rng(15)
    level = np.array([0.4, 0.5, 0.6])

    def scored(root: Path, names: Sequence[str], **changes: Any) -> list[RunRecord]:
        return [
            load_run(
                fabricate(
                    root / MODELS[m],
                    {d: {f"p{p}": [float(level[m] + rng.normal(0, 0.01))] for p in range(12)} for d in names},
                    **changes,
                )
            )
            for m in range(3)
        ]

    other = {"suite": {"name": "other", "sha256": "cd" * 32, "n_prompts": 12}}
    runs = [*scored(tmp_path / "full", list(BOUNDS)), *scored(tmp_path / "small", CUSTOM7, **other)]
    found = {target.name: target for target in study_runs(runs, Settings("other", draws=50)).targets}
    total = found["total"].subset
    assert total is not None
    assert (total.predictor, total.tau, total.bias, total.rmse) == ("mean7", 1, None, None)
    assert found["total"].planned == "made-up"
    assert found["semantic"].subset is None
    assert found["mean7"].subset is not None


def test_more_videos_narrow_less_than_more_prompts(tmp_path: Path) -> None:
    study = study_runs(runs_of(tmp_path, population(3, 60, 4)), Settings(sizes=(10, 40), draws=50, videos=4))
    width = {(w.n, w.videos): w for w in study.targets[0].widths}
    assert width[10, 4].score < width[10, 1].score
    assert width[40, 1].score < width[10, 4].score
    assert width[60, 4].score_of_suite == 0
    assert width[10, 1].score_of_suite is None  # those videos are not the ones of the suite
    one = study_runs(runs_of(tmp_path / "one", population(3, 60, 1)), Settings(draws=50, videos=3)).targets[0]
    assert one.power.needed is None
    assert one.power.detectable is None


# ---- bad input -------------------------------------------------------------------------------------------------------


def refused(runs: Sequence[RunRecord], says: str, **changes: Any) -> None:
    with pytest.raises(UserError, match=says):
        study_runs(runs, Settings(**{"draws": 20} | changes))


def test_what_cannot_be_studied_is_refused(tmp_path: Path) -> None:
    x = population(2, 12, 1)
    runs = runs_of(tmp_path / "runs", x)
    refused(runs[:1], "at least two models")
    refused([runs[0], runs[0]], "given twice")
    refused(runs, "no suite, no file and no prompt id", subset="p01,p1x")
    refused(runs, "Did you mean p01", subset="p01x")
    refused(runs, "has 12 prompts", subset="13")
    refused(runs, "has 12 prompts", subset="0")
    refused(runs, "None of the 50 prompts of custom50", subset="custom50")
    lite, half = (
        runs_of(tmp_path / key, x, **{key: value}) for key, value in (("profile", "lite"), ("precision", "bf16"))
    )
    refused([runs[0], lite[1]], "profile official and lite")
    refused([runs[0], half[1]], "precision fp32 and bf16")
    refused([runs[0], runs_of(tmp_path / "version", x, version=2)[1]], "color version 1 and 2")


def test_disjoint_prompts_and_suites_are_refused(tmp_path: Path) -> None:
    ids = [[f"{name}{p}" for p in range(5)] for name in "ab"]
    runs = [
        load_run(fabricate(tmp_path / name, {"color": {prompt: [0.5] for prompt in some}}))
        for name, some in zip("ab", ids, strict=True)
    ]
    refused(runs, "fewer than 2 prompts that all models scored")
    full, small = two_suites(tmp_path / "two")
    refused([*full, *small], "neither is the subset '5'", subset="5")
    refused([full[0], full[1], small[2]], "matched by the names of their directories, and 0 of them match")
    third = {"suite": {"name": "third", "sha256": "ef" * 32, "n_prompts": 3}}
    refused([*full, *small, *runs_of(tmp_path / "third", population(2, 3, 1), **third)], "answered 3 prompt suites")
    unpaired = study_runs([*full, *small[:2]], Settings(draws=20))
    assert unpaired.not_studied == {"c": "a run of made-up only"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": (1, 5)},
        {"sizes": ()},
        {"difference": 1.0},
        {"difference": 0.0},
        {"power": 1.0},
        {"power": 0.04},
        {"videos": 0},
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Settings(**wrong)


# ---- published tables ------------------------------------------------------------------------------------------------


def test_published_tables_are_compared_and_repeated_figures_set_apart() -> None:
    study = study_published()
    assert study.models == ("Runway Gen-2", "LaVie", "ModelScope", "VideoCrafter-0.9", "CogVideo", "LinGen")
    found = {target.name: target for target in study.targets}
    assert "temporal_flickering" not in found  # printed for none of them on custom prompts
    aesthetic = {score.model: score for score in found["aesthetic_quality"].scores}
    assert (aesthetic["LinGen"].full, aesthetic["LinGen"].subset) == pytest.approx((0.6055, 0.5786))
    assert [model for model, score in aesthetic.items() if not score.same] == ["LinGen"]
    assert found["aesthetic_quality"].bias == pytest.approx(-0.0269)
    assert found["aesthetic_quality"].pairs_informative == 5  # LinGen with each of the five
    for target in study.targets:
        pairs = [(score.full, score.subset) for score in target.scores]
        assert target.tau == pytest.approx(scipy_stats.kendalltau(*zip(*pairs, strict=True)).statistic)
        assert target.n_same >= 3
    record = to_json(study)
    assert record["mode"] == "published"
    assert "28 of their 36" in record["verdict"]
    assert "power" in record["limits"][0]


# ---- the command and its page ----------------------------------------------------------------------------------------


def invoke(*args: str | Path) -> Any:
    return CliRunner().invoke(build_app(), ["subset-study", *map(str, args)])


def test_command_writes_json_and_page_and_says_the_verdict(tmp_path: Path) -> None:
    runs = [run.path for run in runs_of(tmp_path / "runs", 0.5 + 0.02 * population(3, 24, 2))]
    out, page = tmp_path / "study.json", tmp_path / "study.html"
    done = invoke(*runs, "--subset", "8", "--sizes", "6,12", "--json", out, "--out", page)
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text())
    assert record["schema"] == "m4v-eval/subset-study/1"
    (target,) = record["targets"]
    assert [point["n"] for point in target["curve"]] == [6, 8, 12, 24]
    assert target["subset"]["pairs"] == 3
    words = " ".join(done.output.split())
    assert " ".join(record["verdict"].split()) in words
    assert f"{target['subset']['pairs_kept']:g} of 3 pairs of models" in record["verdict"]
    assert f"you need {target['power']['needed']:,} prompts" in record["verdict"]
    html = page.read_text()
    assert html.count("<svg") == 2
    assert "http" not in html.replace("http-equiv", "")
    again = tmp_path / "again.html"
    invoke(*runs, "--subset", "8", "--sizes", "6,12", "--out", again)
    assert again.read_text() == html


def test_exit_codes(tmp_path: Path) -> None:
    x = population(2, 12, 1)
    paths = [run.path for run in runs_of(tmp_path / "runs", x)]
    assert invoke(*paths).exit_code == 0
    other = runs_of(tmp_path / "other", x[:, :9])
    incomplete = invoke(paths[0], other[1].path)
    assert incomplete.exit_code == INCOMPLETE
    assert "left out: 3 prompts (p09, p10, p11)" in incomplete.output
    assert invoke("--reference").exit_code == 0
    for wrong in ([], [*paths, "--reference"], ["--reference", "--subset", "5"], [*paths, "--sizes", "5,x"]):
        assert isinstance(invoke(*wrong).exception, UserError)


def test_torch_is_not_needed(tmp_path: Path) -> None:
    paths = [str(run.path) for run in runs_of(tmp_path / "runs", population(2, 8, 1))]
    script = (
        "import sys; from pathlib import Path; from evalkit.records import load_run;"
        "from evalkit.subset_study import *; from evalkit.report.subset_page import render_subset_study as render;"
        f"study = study_runs([load_run(Path(p)) for p in {paths!r}], Settings(draws=10));"
        f"render(study, Path({str(tmp_path / 'p.html')!r}));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_lite_study_says_so_everywhere(tmp_path: Path) -> None:
    runs = runs_of(tmp_path / "runs", population(2, 8, 1), "lite/aesthetic_quality", profile="lite")
    page = tmp_path / "page.html"
    done = invoke(*(run.path for run in runs), "--out", page)
    assert done.exit_code == 0, done.output
    assert "lite stand-ins, not VBench" in " ".join(done.output.split())
    assert "These are not VBench scores" in page.read_text()


@pytest.mark.browser
def test_pages_fit_keep_to_themselves_and_do_not_complain(tmp_path: Path) -> None:
    from evalkit.report.subset_page import render_subset_study
    from tests.browser import chromium, complaints, horizontal_overflow, requests

    hostile = "<script>window.hacked = 1</script>"
    full, small = two_suites(tmp_path)
    suite = {"name": hostile, "sha256": "ab" * 32, "n_prompts": 40}
    runs = [replace(run, manifest=run.manifest | {"suite": suite}) for run in full]
    studies: list[Study] = [
        study_runs([*runs, *small], Settings("other", draws=50)),
        study_runs(runs, Settings(draws=50)),
    ]
    for name, study in (*((f"study{n}", s) for n, s in enumerate(studies)), ("published", study_published())):
        render_subset_study(study, tmp_path / f"{name}.html")
    for width in (1280, 360):
        with chromium(width, dark=width == 360) as browser:
            for page in sorted(tmp_path.glob("*.html")):
                browser.get(page.as_uri())
                assert complaints(browser) == []
                assert requests(browser) == [page.as_uri()]
                assert horizontal_overflow(browser) == 0
                assert browser.execute_script("return window.hacked") is None
