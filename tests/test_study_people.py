"""Metrics against people: known relations to simulated people, closed forms, scipy, and what must not matter."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from evalkit.errors import UserError
from evalkit.scoring import BOUNDS, CUSTOM7, QUALITY, mean7, totals
from evalkit.stats import holm
from evalkit.study.people import PeopleResult, ScoreAgainstPeople, measures, metrics_against_people, people_to_json
from evalkit.study.people.compared import ComparedPairs
from evalkit.study.people.judged import credit, judged_pairs
from evalkit.study.people.record import ENOUGH_MODELS, caveats
from evalkit.study.people.standing import win_rates
from evalkit.study.types import AxisResult, Ballots, Duel, Estimate, Standing, StudyResult, Vote
from tests.fabricate_study import (
    AXIS_NAMES,
    MODELS,
    Array,
    ballots,
    paired_votes,
    prompt_id,
    ranked_votes,
    run,
    runs_of,
)

FAST = 200
"""Resamples where an interval's exact bounds do not matter."""


def against(votes: Ballots | StudyResult, scores: Mapping[str, Array], **changes: Any) -> PeopleResult:
    return metrics_against_people(votes, runs_of(scores, **changes), n_resamples=FAST)


def only(result: PeopleResult, name: str = "color") -> ScoreAgainstPeople:
    """The named score on the first axis."""
    (found,) = [score for score in result.axes[0].scores if score.name == name]
    return found


T = TypeVar("T")


def the(part: T | None) -> T:
    """A part that must be there."""
    assert part is not None
    return part


def worths(n_models: int, n_prompts: int, n_videos: int = 1, *, seed: int = 0, apart: float = 0.5) -> Array:
    """What clips are worth to people: models differ, prompts add noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_models, n_prompts, n_videos)) + apart * np.arange(n_models)[:, None, None]


def certain(worth_MPK: Array) -> Ballots:
    """One rater without doubt."""
    return ballots(ranked_votes(1e6 * worth_MPK, 1, np.random.default_rng(0)))


# ---- metrics of known relation ---------------------------------------------------------------------------------------


def test_a_perfect_metric_agrees_with_certain_people_everywhere() -> None:
    worth_MPK = worths(4, 20)
    found = only(against(certain(worth_MPK), {"color": 0.5 + worth_MPK / 100}))
    assert (the(found.pairs).n, the(found.pairs).n_prompts) == (6 * 20, 20)
    # 20 prompts without a miss: Clopper and Pearson's bound, not an interval of no width.
    share = the(found.pairs).share
    assert (share.value, share.low, share.high) == pytest.approx((1, 0.025 ** (1 / 20), 1), rel=1e-12)
    assert the(found.pairs).p_value == pytest.approx(1e-4, rel=0.01)
    assert the(the(found.models).spearman).value == 1.0
    assert the(found.models).p_spearman == pytest.approx(2 / math.factorial(4))


def test_a_perfect_metric_under_noise_agrees_as_often_as_the_majority_is_right() -> None:
    """Each of n raters is right with chance p = 1 / (1 + exp(-|difference|)): a sum of binomial tails.

    The tolerance is 4 standard errors of the 3,600 pairs, about 0.03.
    """
    n_raters, worth_MPK = 5, worths(4, 600, seed=1)
    votes = ballots(paired_votes(worth_MPK, n_raters, np.random.default_rng(2)))
    found = only(metrics_against_people(votes, runs_of({"color": 0.5 + worth_MPK / 100}), n_resamples=2))
    first, second = np.triu_indices(4, 1)
    right_J = 1 / (1 + np.exp(-np.abs(worth_MPK[first, :, 0] - worth_MPK[second, :, 0]))).ravel()
    expected = scipy_stats.binom.sf(n_raters // 2, n_raters, right_J)
    others = scipy_stats.binom.sf(2, 4, right_J) + scipy_stats.binom.pmf(2, 4, right_J) / 2  # of four, a tie being half
    one = right_J * others + (1 - right_J) * (1 - others)
    tolerance = 4 * 0.5 / math.sqrt(len(right_J))
    assert the(found.pairs).share.value == pytest.approx(np.mean(expected), abs=tolerance)
    assert the(the(found.pairs).one_rater).value == pytest.approx(one.mean(), abs=tolerance)
    assert the(the(found.pairs).one_rater).value < the(found.pairs).share.value, (
        "one more rater is noisier than the truth"
    )


def compared(worth_MP: Array, score_MP: Array, n_raters: int, rng: np.random.Generator) -> ComparedPairs:
    place = {prompt_id(p): p for p in range(worth_MP.shape[1])}
    pairs = judged_pairs(ranked_votes(worth_MP[..., None], n_raters, rng), MODELS[: len(worth_MP)])
    gaps = [
        score_MP[MODELS.index(p.a), place[p.prompt_id]] - score_MP[MODELS.index(p.b), place[p.prompt_id]] for p in pairs
    ]
    margins, one_rater = [p.margin for p in pairs], [the(p.one_rater) for p in pairs]
    prompts = np.array([place[p.prompt_id] for p in pairs])
    return ComparedPairs(np.array(gaps), np.array(margins), np.array(one_rater), prompts)


@pytest.mark.parametrize("relation", [0.0, 0.6])
def test_intervals_cover_at_the_stated_rate(relation: float) -> None:
    """100 studies of 20 prompts, 4 models and 5 raters: 95 % intervals must cover in at least 86 % (4 SE below).

    The truth is 1/2 and 0 for an independent metric; else it is that of one study of 1,500 prompts.
    """
    rng = np.random.default_rng(3)

    def study(n_prompts: int) -> ComparedPairs:
        worth_MP, noise_MP = rng.normal(size=(2, 4, n_prompts))
        return compared(worth_MP, relation * worth_MP + math.sqrt(1 - relation**2) * noise_MP, 5, rng)

    agreement, rho = 0.5, 0.0
    if relation:
        large = study(1500)
        agreement = float(credit(large.gap_J, large.margin_J).mean())
        rho = float(measures.symmetric_spearman(large.gap_J, large.margin_J, np.ones((1, len(large))))[0])
    covered, rejected = np.zeros(2), np.zeros(2)
    for seed in range(100):
        pairs = study(20)
        over, along = pairs.agreement(seed), the(pairs.correlation(measures.draw_prompts(20, FAST, seed), seed))
        for place, (estimate, truth) in enumerate(((over.share, agreement), (along.rho, rho))):
            covered[place] += the(estimate.low) <= truth <= the(estimate.high)
        rejected += [over.p_value <= 0.05, along.p_value <= 0.05]
    assert (covered >= 86).all(), covered
    if relation:
        assert (rejected >= 50).all(), rejected
    else:
        assert (rejected <= 14).all(), rejected  # 5 % + 4 SE


def test_a_metric_turned_round_disagrees_as_much() -> None:
    worth_MPK = worths(4, 12, seed=4)
    votes = ballots(ranked_votes(worth_MPK, 5, np.random.default_rng(0)))
    score_MPK = 0.5 + worths(4, 12, seed=5, apart=0.3) / 100 + worth_MPK / 100
    good, bad = (only(against(votes, {"color": x_MPK})) for x_MPK in (score_MPK, 1 - score_MPK))
    assert the(good.pairs).share.value == pytest.approx(1 - the(bad.pairs).share.value, abs=1e-12)
    assert the(good.pairs).p_value == pytest.approx(the(bad.pairs).p_value, abs=1e-12)  # 12 prompts: exact
    assert the(good.clips).rho.value == pytest.approx(-the(bad.clips).rho.value, abs=1e-12)
    assert (the(good.clips).rho.low, the(good.clips).rho.high) == pytest.approx(
        (-the(the(bad.clips).rho.high), -the(the(bad.clips).rho.low)), abs=1e-9
    )
    assert the(the(good.models).spearman).value == pytest.approx(-the(the(bad.models).spearman).value, abs=1e-12)


def test_a_metric_that_is_better_when_lower_is_not_turned_round() -> None:
    worth_MPK = worths(4, 12, seed=4)
    votes = ballots(ranked_votes(worth_MPK, 5, np.random.default_rng(0)))
    high = only(against(votes, {"color": 0.5 + worth_MPK / 100}))
    low = only(against(votes, {"color": 0.5 - worth_MPK / 100}, directions={"color": False}))
    assert (high.pairs, high.clips) == (low.pairs, low.clips)
    assert the(high.models).spearman == the(low.models).spearman
    assert not low.higher_is_better


# ---- what must not matter --------------------------------------------------------------------------------------------

MONOTONE: Mapping[str, Callable[[Array], Array]] = {
    "exponential": np.exp,
    "cube": lambda x: x**3 + x,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(MONOTONE)))
def test_agreement_knows_only_the_order_of_scores(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    worth_MPK = rng.normal(size=(3, 6, 1))
    votes = ballots(ranked_votes(worth_MPK, 3, rng), MODELS[:3])
    score_MPK = np.round(rng.normal(size=worth_MPK.shape), 1)  # some ties
    plain, changed = (only(against(votes, {"color": x_MPK})).pairs for x_MPK in (score_MPK, MONOTONE[name](score_MPK)))
    assert plain == changed


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-10, 10), st.permutations(range(4)))
def test_neither_scale_nor_the_order_of_models_and_votes_matters(
    seed: int, scale: float, shift: float, order: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    worth_MPK = rng.normal(size=(4, 7, 1))
    votes = ballots(ranked_votes(worth_MPK, 3, rng), MODELS[:4])
    score_MPK = rng.normal(size=worth_MPK.shape)
    other = replace(votes, models=tuple(MODELS[m] for m in order), votes=votes.votes[::-1])
    plain = only(against(votes, {"color": score_MPK}))
    runs = runs_of({"color": scale * score_MPK + shift})
    changed = only(metrics_against_people(other, dict(reversed(runs.items())), n_resamples=FAST))
    assert plain.pairs == changed.pairs
    for ours, theirs in (
        (the(plain.clips).rho, the(changed.clips).rho),
        (the(the(plain.models).spearman), the(the(changed.models).spearman)),
        (the(the(plain.models).pearson), the(the(changed.models).pearson)),
    ):
        assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high), abs=1e-6)
    assert the(plain.clips).p_value == pytest.approx(the(changed.clips).p_value, abs=1e-12)
    assert the(plain.models).p_spearman == pytest.approx(the(changed.models).p_spearman, abs=1e-12)
    places = [{point.model: point.standing.value for point in the(s.models).points} for s in (plain, changed)]
    assert places[0] == pytest.approx(places[1], abs=1e-6)


# ---- parts against independent implementations -----------------------------------------------------------------------

small = st.lists(st.tuples(st.integers(-4, 4), st.integers(-3, 3), st.integers(0, 3)), min_size=2, max_size=12)


@given(small)
def test_the_correlation_is_scipys_over_pairs_taken_both_ways(rows: list[tuple[int, int, int]]) -> None:
    x_J, y_J, w_J = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    times = w_J.astype(int)
    x, y = np.repeat(x_J, times), np.repeat(y_J, times)
    ours = measures.symmetric_spearman(x_J, y_J, w_J[None])[0]
    if not (x.any() and y.any()):
        assert math.isnan(ours)
        return
    theirs = scipy_stats.spearmanr(np.r_[x, -x], np.r_[y, -y]).statistic
    assert ours == pytest.approx(theirs, abs=1e-12)


@settings(max_examples=40)
@given(st.integers(2, 5).flatmap(lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(n)))))
def test_the_permutation_test_is_scipys(orders: tuple[list[int], list[int]]) -> None:
    x_M, y_M = (np.array(order, dtype=float) for order in orders)
    ours = the(measures.permutation_p_value(x_M, y_M))
    theirs = scipy_stats.permutation_test(
        (x_M,), lambda x: scipy_stats.spearmanr(x, y_M).statistic, permutation_type="pairings"
    ).pvalue
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert ours >= measures.least_p_value(len(x_M)) - 1e-12


def test_orders_of_many_models_are_drawn() -> None:
    x_M = np.arange(10.0)
    found = measures.permutation_p_value(x_M, x_M)
    assert found == pytest.approx(1 / (1 + measures.DRAWN_ORDERS))  # 2 of 3,628,800 orders: none is drawn
    assert measures.permutation_p_value(x_M, np.ones(10)) is None


def test_one_rater_against_the_others_worked_example() -> None:
    """Three prefer a, one b, one neither. Each of the three meets 2 : 1 for a (right); b's meets 3 : 0 (wrong); the tie
    is half: (3 * 1 + 0 + 0.5) / 5."""
    said = [(1, 2), (1, 2), (1, 2), (2, 1), (1, 1)]
    votes = [Vote(f"r{n}", "p000", 0, AXIS_NAMES[0], ("amber", "birch"), ranks) for n, ranks in enumerate(said)]
    (pair,) = judged_pairs(votes, ("birch", "amber"))
    assert (pair.a, pair.won, pair.tied, pair.lost) == ("birch", 1, 1, 3)
    assert pair.margin == pytest.approx(-2 / 5)
    assert pair.one_rater == pytest.approx(3.5 / 5)
    assert judged_pairs(votes[:1], ("birch", "amber"))[0].one_rater is None


def test_win_rates_weigh_opponents_alike() -> None:
    """a beats b in 3 of 4 and ties c once: (3/4 + 1/2) / 2; d met nobody."""
    wins, ties = np.zeros((2, 1, 4, 4))
    wins[0, 0, 1], wins[0, 1, 0], ties[0, 0, 2], ties[0, 2, 0] = 3, 1, 1, 1
    assert win_rates(wins, ties)[0] == pytest.approx([0.625, 0.25, 0.5, np.nan], nan_ok=True)


def test_certain_people_are_placed_by_win_rate() -> None:
    """A model that always wins has no finite strength."""
    worth_MPK = worths(4, 8, apart=100)
    found = against(certain(worth_MPK), {"color": 0.5 + worth_MPK / 1000}).axes[0]
    assert found.standing == "win_rate"
    assert [point.standing.value for point in the(found.scores[0].models).points] == pytest.approx([0, 1 / 3, 2 / 3, 1])


# ---- totals ----------------------------------------------------------------------------------------------------------


def all_sixteen(n_models: int, n_prompts: int, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.3, 0.7, size=(n_models, n_prompts, 2)) for name in BOUNDS}


TOTALS: Mapping[str, Any] = {
    "quality": 1.0,
    "semantic": 1.0,
    "total": 1.0,
    "mean7": 1.0,
    "m4v_avg4": None,
    "coverage": {"scored": []},
}


def test_a_total_is_the_official_one_of_each_clip_and_of_each_model() -> None:
    worth_MPK, scores = worths(4, 8, 2), all_sixteen(4, 8)
    votes = ballots(ranked_votes(worth_MPK, 3, np.random.default_rng(1)))
    result = against(votes, scores, aggregate=TOTALS)
    names = [score.name for score in result.axes[0].scores if score.is_total]
    assert names == ["quality", "semantic", "total", "mean7"], "only headlines that a run has"
    official: dict[str, Callable[[Mapping[str, float]], float | None]] = {
        "quality": lambda x: totals(x).quality,
        "semantic": lambda x: totals(x).semantic,
        "total": lambda x: totals(x).total,
        "mean7": mean7,
    }
    for name in names:
        found = only(result, name)
        clips_MPK = np.array(
            [
                official[name]({d: float(x_MPK[place]) for d, x_MPK in scores.items()})
                for place in np.ndindex(worth_MPK.shape)
            ],
            dtype=float,
        ).reshape(worth_MPK.shape)
        by_hand = only(against(votes, {"color": clips_MPK / 100}))
        alone = (replace(the(found.pairs), p_adjusted=None), replace(the(found.clips), p_adjusted=None))
        assert alone == (replace(the(by_hand.pairs), p_adjusted=None), replace(the(by_hand.clips), p_adjusted=None))
        for ours, theirs in zip(the(found.models).points, the(by_hand.models).points, strict=True):
            assert ours.score.value == pytest.approx(theirs.score.value, abs=1e-12)


def test_a_total_without_clips_that_have_everything_is_compared_over_models_only() -> None:
    """As on VBench's own suite: each prompt asks for some dimensions."""
    scores = all_sixteen(4, 8)
    for place, x_MPK in enumerate(scores.values()):
        x_MPK[:, place % 8 :: 8] = np.nan
        assert np.isnan(x_MPK).any()
    votes = ballots(ranked_votes(worths(4, 8, 2), 3, np.random.default_rng(1)))
    found = only(against(votes, scores, aggregate=TOTALS), "total")
    assert found.pairs is None
    assert found.clips is None
    assert "all of its 16 dimensions" in found.notes[0]
    means = [{name: float(np.nanmean(x_MPK[m])) for name, x_MPK in scores.items()} for m in range(4)]
    expected = [(totals(mean).total or 0) / 100 for mean in means]
    assert [point.score.value for point in the(found.models).points] == pytest.approx(expected, abs=1e-12)


def test_stand_ins_keep_their_name() -> None:
    scores = {
        name if name == "temporal_flickering" else f"lite/{name}": x
        for name, x in all_sixteen(4, 8).items()
        if name in CUSTOM7
    }
    votes = ballots(ranked_votes(worths(4, 8, 2), 3, np.random.default_rng(1)))
    result = against(votes, scores, profile="lite", aggregate={"lite/mean7": 50.0})
    assert result.lite
    found = only(result, "lite/mean7")
    assert the(found.pairs).n == 8 * 2 * 6
    assert any("lite" in caveat for caveat in caveats(result))
    names = [score.name for score in result.axes[0].scores]
    assert [name for name in names if not name.startswith("lite/")] == ["temporal_flickering"]


def test_totals_of_other_suites_and_lacking_dimensions_say_why_they_are_missing() -> None:
    votes = ballots(ranked_votes(worths(3, 8, 2), 3, np.random.default_rng(1)), MODELS[:3])
    scores = {name: x for name, x in all_sixteen(3, 8).items() if name in QUALITY}
    aggregate = {"i2v/quality (official script)": 60.0, "quality": 60.0, "mean7": 50.0}
    result = against(votes, scores, aggregate=aggregate)
    assert [score.name for score in result.axes[0].scores if score.is_total] == ["quality"]
    assert set(result.left_out.scores) == {"i2v/quality (official script)", "mean7"}
    assert "overall_consistency" in result.left_out.scores["mean7"]


# ---- what is missing -------------------------------------------------------------------------------------------------


def test_what_one_side_lacks_is_listed() -> None:
    """Of 3 models x 6 prompts x 2 seeds: a model without a run, a run of no model, a prompt and a seed without a video,
    a video without a vote, a clip without a score."""
    votes = ranked_votes(worths(4, 6, 2), 2, np.random.default_rng(0))
    votes = [vote for vote in votes if (vote.prompt_id, vote.seed) != ("p005", 1)]
    score_PK = np.random.default_rng(1).uniform(size=(6, 2))
    gap_PK = score_PK.copy()
    gap_PK[0, 0] = np.nan
    runs = {
        "amber": run("amber", {"color": score_PK, "scene": score_PK}),
        "birch": run("birch", {"color": gap_PK, "scene": score_PK}),
        "cedar": run("cedar", {"color": score_PK[:4], "scene": score_PK[:4, :1]}),
        "zebra": run("zebra", {"color": score_PK}),
    }
    shown = runs["cedar"].results
    runs["cedar"] = replace(runs["cedar"], results=shown[shown["file"] != "p003-1.mp4"])
    result = metrics_against_people(ballots(votes, MODELS[:4]), runs, n_resamples=FAST)
    out = result.left_out
    assert out.models_without_run == ("delta",)
    assert out.runs_without_model == ("zebra",)
    assert out.clips_without_video == {
        "cedar": {
            "p003, seed 1": "no video of seed 1",
            "p004, seed 0": "no video of this prompt",
            "p004, seed 1": "no video of this prompt",
            "p005, seed 0": "no video of this prompt",
        }
    }
    assert out.clips_without_vote == {"amber": ("p005, seed 1",), "birch": ("p005, seed 1",)}
    found, scene = only(result), only(result, "scene")
    assert found.unscored == {"birch": 1}
    assert scene.unscored == {"cedar": 3}
    assert the(found.pairs).n == (11 - 1) + 7 + (7 - 1)  # amber-birch, amber-cedar, birch-cedar
    assert the(scene.pairs).n == 11 + 4 + 4
    assert not result.complete
    assert set(result.runs) == {"amber", "birch", "cedar"}
    assert json.loads(json.dumps(people_to_json(result), allow_nan=False))["left_out"]["models_without_run"] == [
        "delta"
    ]


def test_a_dimension_that_one_run_lacks_is_compared_without_it() -> None:
    votes = ballots(ranked_votes(worths(3, 6), 2, np.random.default_rng(0)), MODELS[:3])
    score_PK = np.random.default_rng(1).uniform(size=(6, 1))
    runs = {name: run(name, {"color": score_PK + n, "scene": score_PK}) for n, name in enumerate(MODELS[:2])}
    runs["cedar"] = run("cedar", {"color": score_PK})
    found = only(metrics_against_people(votes, runs, n_resamples=FAST), "scene")
    assert [point.model for point in the(found.models).points] == ["amber", "birch"]
    assert found.unscored == {"cedar": 6}
    assert (the(found.pairs).n, the(found.pairs).tied_scores, the(found.pairs).share.value) == (6, 6, 0.5)
    assert found.clips is None
    assert "scores tie all pairs" in found.notes[0]


def test_clips_of_unknown_seed_match_where_there_is_no_doubt() -> None:
    known = ranked_votes(worths(3, 6, 2), 2, np.random.default_rng(0))
    unknown = [replace(vote, seed=None) for vote in known if vote.seed == 0]
    score_MPK = np.random.default_rng(1).uniform(size=(3, 6, 2))
    alone = only(against(ballots(unknown, MODELS[:3]), {"color": score_MPK[..., :1]}))
    assert the(alone.pairs).n == 18
    with pytest.raises(UserError, match="No two clips"):
        against(ballots(unknown, MODELS[:3]), {"color": score_MPK})  # which of two videos?
    nameless = only(against(ballots(known, MODELS[:3]), {"color": score_MPK[..., :1]}, seeds=False))
    assert the(nameless.pairs).n == 36, "both seeds are taken for the only video"


def test_an_axis_without_scored_clips_and_a_model_without_votes_are_no_failure() -> None:
    """On the second axis people judged prompts that no run has; nobody judged `delta` on the first."""
    rng = np.random.default_rng(0)
    first = ranked_votes(worths(3, 6), 3, rng)
    second = [replace(vote, prompt_id="q1", axis=AXIS_NAMES[1]) for vote in ranked_votes(worths(4, 1), 3, rng)]
    result = against(ballots([*first, *second]), {"color": worths(5, 6, seed=1)})
    voted, silent = (axis.scores[0] for axis in result.axes)
    assert the(voted.pairs).n == 18
    assert [point.model for point in the(voted.models).points] == list(MODELS[:3])
    assert silent.pairs is None
    assert silent.models is None
    assert silent.notes == ("No pair of judged clips has this score.", "Fewer than two models have this score.")
    assert result.left_out.clips_without_vote["ebony"] == tuple(f"p00{n}, seed 0" for n in range(6))
    json.dumps(people_to_json(result), allow_nan=False)


def test_few_prompts_have_no_interval_over_prompts() -> None:
    votes = ballots(ranked_votes(worths(4, 3), 5, np.random.default_rng(0)))
    found = only(against(votes, {"color": worths(4, 3, seed=9)}))
    assert the(found.clips).rho.low is None
    assert the(the(found.models).pearson).low is None


def test_few_models_are_no_evidence() -> None:
    votes = ballots(ranked_votes(worths(3, 20), 5, np.random.default_rng(0)), MODELS[:3])
    result = against(votes, {"color": worths(3, 20)})
    found = only(result)
    assert not the(found.models).enough
    assert the(found.models).p_least == pytest.approx(2 / 6)
    assert the(found.models).p_spearman == pytest.approx(2 / 6)
    assert the(found.models).spearman == Estimate(1.0)
    assert any("told apart from chance" in caveat for caveat in caveats(result))
    assert ENOUGH_MODELS == 4


# ---- several tests at once -------------------------------------------------------------------------------------------


def test_p_values_are_corrected_over_all_scores_and_axes() -> None:
    worth_MPK = worths(4, 12)
    votes = [v for n, a in enumerate(AXIS_NAMES) for v in ranked_votes(worth_MPK, 3, np.random.default_rng(n), a)]
    scores = {name: 0.5 + worths(4, 12, seed=n, apart=n / 5) / 100 for n, name in enumerate(("color", "scene"))}
    result = against(ballots(votes), scores)
    found = [score for axis in result.axes for score in axis.scores]
    assert len(found) == 6
    for part, name in (("pairs", "p_value"), ("clips", "p_value"), ("models", "p_spearman")):
        parts = [getattr(score, part) for score in found]
        assert [p.p_adjusted for p in parts] == pytest.approx(holm([getattr(p, name) for p in parts]))


# ---- studies without votes -------------------------------------------------------------------------------------------


def published(models: tuple[str, ...], ranks: tuple[float, ...]) -> StudyResult:
    """Mean ranks as a paper prints them."""
    standings = tuple(
        Standing(model, 50, Estimate(rank, rank - 0.1, rank + 0.2), None, None, None)
        for model, rank in sorted(zip(models, ranks, strict=True), key=lambda pair: pair[1])
    )
    one = Estimate(1.0)
    duels = (Duel(models[0], models[1], 50, one, Estimate(0.0), Estimate(0.0), one),)
    axis = AxisResult("aesthetic_quality", 250, None, 50, standings, duels)
    return StudyResult("a paper", "prompt", "rank", models, (axis,), None)


def test_published_mean_ranks_compare_models_only() -> None:
    score_MPK = np.linspace(0.7, 0.3, 5)[:, None, None] + np.zeros((5, 4, 1))
    result = against(published(MODELS, (1.4, 2.1, 2.9, 3.8, 4.8)), {"color": score_MPK})
    found = only(result)
    assert result.axes[0].standing == "mean_rank"
    assert not result.clips_compared
    assert found.pairs is None
    assert found.clips is None
    assert the(found.models).spearman == Estimate(1.0), "a low rank is a high standing; no interval without prompts"
    assert the(found.models).p_spearman == pytest.approx(2 / 120)
    first = the(found.models).points[0].standing
    assert (first.value, first.low, first.high) == pytest.approx((-1.4, -1.6, -1.3), rel=1e-12)
    assert any("Published means" in caveat for caveat in caveats(result))
    json.dumps(people_to_json(result), allow_nan=False)


# ---- refusals --------------------------------------------------------------------------------------------------------


def scored(n_models: int = 3) -> dict[str, Any]:
    return runs_of({"color": worths(n_models, 4)})


VOTES = ballots(ranked_votes(worths(3, 4), 2, np.random.default_rng(0)), MODELS[:3])


def test_runs_that_do_not_compare_are_refused() -> None:
    score_PK = worths(1, 4)[0]
    for changes, words in (
        ({"suite": {"name": "other", "sha256": "cd" * 32, "n_prompts": 4}}, "prompt suites"),
        ({"profile": "lite"}, "profile"),
        ({"precision": "bf16"}, "precision"),
    ):
        with pytest.raises(UserError, match=words):
            metrics_against_people(VOTES, scored() | {"cedar": run("cedar", {"color": score_PK}, **changes)})


def test_labels_that_match_nothing_are_refused_with_a_hint() -> None:
    runs = scored()
    with pytest.raises(UserError, match=r"(?s)knows no Amber, Birch.*Did you mean.*amber") as caught:
        metrics_against_people(VOTES, {"Amber": runs["amber"], "Birch": runs["birch"], "cedar": runs["cedar"]})
    assert "1 of the study's models" in caught.value.what


def test_another_text_under_the_same_id_is_another_suite() -> None:
    other = replace(VOTES, prompts={**VOTES.prompts, "p002": "a picture of number two"})
    with pytest.raises(UserError, match="p002"):
        metrics_against_people(other, scored())
    spaced = replace(VOTES, prompts={**VOTES.prompts, "p002": " a  picture of number 2\n"})
    assert metrics_against_people(spaced, scored(), n_resamples=FAST).complete


def test_nothing_in_common_is_refused() -> None:
    elsewhere = replace(
        VOTES, votes=tuple(replace(vote, prompt_id=f"q{vote.prompt_id}") for vote in VOTES.votes), prompts={}
    )
    with pytest.raises(UserError, match="No two clips"):
        metrics_against_people(elsewhere, scored())
