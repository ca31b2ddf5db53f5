"""Agreement, intervals clustered by rater and prompt, rates and tests: published examples, scipy, simulation."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as distributions

from evalkit.stats import bootstrap_mean, holm, paired_comparison
from evalkit.study.simulate import Raters
from evalkit.study.statistics.agreement import kendall_w, krippendorff_alpha
from evalkit.study.statistics.conclude import conclude, prompt_level_duels, prompt_level_means
from evalkit.study.statistics.duels import duels
from evalkit.study.statistics.intervals import bounded, p_values, unbounded
from evalkit.study.statistics.resampling import Spread, resample, spread
from evalkit.study.statistics.sample import draw
from evalkit.study.types import AxisResult, Ballots, Duel, Protocol, Screening, Standing, StudyResult, Vote

AXIS = "aesthetic_quality"
MODELS = ("a", "b", "c")


def ballots(votes: Iterable[Vote], protocol: Protocol = "rank", ties: bool = False, **changes: object) -> Ballots:
    counted = tuple(votes)
    made = Ballots("here", protocol, ties, MODELS, (AXIS,), counted, Screening(len({vote.rater for vote in counted})))
    return replace(made, **changes)


def vote(rater: str, prompt: str, models: str, ranks: str, level: int | None = None, seed: int | None = 0) -> Vote:
    return Vote(rater, prompt, seed, AXIS, tuple(models), tuple(map(int, ranks)), level)


def of(found: Ballots | StudyResult) -> AxisResult:
    return (conclude(found) if isinstance(found, Ballots) else found).axes[0]


def standing(result: AxisResult, model: str) -> Standing:
    return next(entry for entry in result.standings if entry.model == model)


def duel(result: AxisResult, *pair: str) -> Duel:
    return next(entry for entry in result.duels if {entry.a, entry.b} == set(pair))


# ---- agreement -------------------------------------------------------------------------------------------------------

KRIPPENDORFF_2011 = [
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
]


@pytest.mark.parametrize(("metric", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(metric: str, value: float) -> None:
    """Four observers, twelve units, missing data (Krippendorff 2011, sections C and D), to the three digits printed."""
    values = [[np.nan if x == "." else float(x) for x in row.split()] for row in KRIPPENDORFF_2011]
    assert krippendorff_alpha(values, metric) == pytest.approx(value, abs=5e-4)  # type: ignore[arg-type]


@given(arrays(np.int64, (3, 8), elements=st.integers(0, 4)), st.sampled_from(("nominal", "ordinal", "interval")))
@settings(deadline=None)
def test_alpha_knows_neither_raters_nor_order_of_units(values_RU: np.ndarray, metric: str) -> None:
    alpha = krippendorff_alpha(values_RU, metric)  # type: ignore[arg-type]
    shuffled = np.random.default_rng(0).permutation(values_RU[::-1], axis=1)
    assert krippendorff_alpha(shuffled, metric) == pytest.approx(alpha, nan_ok=True)  # type: ignore[arg-type]
    unanimous = np.broadcast_to(values_RU[0], values_RU.shape)
    if len(set(values_RU[0].tolist())) > 1:
        assert krippendorff_alpha(unanimous, metric) == 1  # type: ignore[arg-type]


def test_alpha_of_nothing_to_compare() -> None:
    assert np.isnan(krippendorff_alpha([[1.0, np.nan], [np.nan, 2.0]]))
    assert np.isnan(krippendorff_alpha([[1.0, 1.0], [1.0, 1.0]]))


@given(st.integers(3, 6), st.integers(2, 6), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_w_is_a_mean_correlation_of_ranks(n_models: int, n_raters: int, rng: random.Random) -> None:
    """Mean Spearman correlation of all pairs of raters = (m W - 1) / (m - 1), without ties."""
    ranks_RM = np.array([rng.sample(range(1, n_models + 1), n_models) for _ in range(n_raters)], dtype=float)
    rho = np.mean([distributions.spearmanr(a, b).statistic for a, b in combinations(ranks_RM, 2)])
    assert (n_raters * kendall_w(ranks_RM) - 1) / (n_raters - 1) == pytest.approx(rho, abs=1e-9)
    assert kendall_w(np.broadcast_to(ranks_RM[0], ranks_RM.shape)) == pytest.approx(1)


@given(arrays(np.int64, st.tuples(st.integers(2, 6), st.integers(3, 6)), elements=st.integers(0, 3)))
@settings(deadline=None)
def test_w_with_ties_is_friedmans_statistic(scores_RM: np.ndarray) -> None:
    """W = chi^2 / (m (n - 1)); scipy corrects Friedman's chi^2 for ties."""
    ranks_RM = np.apply_along_axis(distributions.rankdata, 1, scores_RM)
    n_raters, n_models = ranks_RM.shape
    w = kendall_w(ranks_RM)
    if (ranks_RM == ranks_RM[:, :1]).all():
        assert np.isnan(w)
    else:
        chi = distributions.friedmanchisquare(*ranks_RM.T).statistic
        assert w == pytest.approx(chi / (n_raters * (n_models - 1)), abs=1e-9)


def test_agreement_of_a_study() -> None:
    """Two raters: mean W of the prompts by hand; alpha = 1 - (n - 1) / n (1 - tau), Kendall's tau here being 0."""
    found = of(
        ballots(
            [
                vote("x", "p1", "abc", "123"),
                vote("y", "p1", "cab", "312"),  # the same order, shown otherwise
                vote("x", "p2", "abc", "123"),
                vote("y", "p2", "abc", "321"),
                vote("x", "p3", "abc", "213"),
                vote("z", "p4", "abc", "213"),  # alone on a prompt: compared with nobody
            ]
        )
    )
    assert found.kendall_w is not None
    assert found.kendall_w.value == pytest.approx((1 + 0) / 2)
    n = 2 * 3 * 2 * 2  # prompts, pairs, both orders, raters
    assert found.krippendorff_alpha is not None
    assert found.krippendorff_alpha.value == pytest.approx(1 - (n - 1) / n * (1 - 0.0))
    assert "0.50 if raters answered at random" in " ".join(found.notes)


def test_w_of_a_study_has_the_correction_for_ties() -> None:
    votes = [vote("x", "p", "abc", "113"), vote("y", "p", "abc", "123"), vote("z", "p", "abc", "213")]
    found = of(ballots(votes, ties=True)).kendall_w
    assert found is not None
    assert found.value == pytest.approx(kendall_w([[1.5, 1.5, 3], [1, 2, 3], [2, 1, 3]]))


def test_videos_of_other_seeds_are_other_things() -> None:
    """Raters who rank different videos of a prompt do not disagree about anything."""
    votes = [vote("x", "p1", "abc", "123", seed=0), vote("y", "p1", "abc", "321", seed=1)]
    assert of(ballots(votes)).kendall_w is None
    assert of(ballots(votes)).krippendorff_alpha is None
    assert of(ballots(replace(v, seed=0) for v in votes)).kendall_w is not None


# ---- variance --------------------------------------------------------------------------------------------------------


def crossed(rng: np.random.Generator, n_raters: int, n_prompts: int, sds: tuple[float, float, float]) -> np.ndarray:
    """A value of each rater and prompt: effect of the rater + effect of the prompt + a rest."""
    raters, prompts, rest = (rng.normal(size=size) for size in ((n_raters, 1), (1, n_prompts), (n_raters, n_prompts)))
    return np.asarray(sds[0] * raters + sds[1] * prompts + sds[2] * rest)


def mean_spread(values_RP: np.ndarray, n_resamples: int = 400, seed: int = 0) -> Spread:
    """The two-way spread of a plain mean."""
    table_C2 = np.stack([values_RP.ravel(), np.ones(values_RP.size)], axis=1)
    rater_C, prompt_C = (index.ravel() for index in np.indices(values_RP.shape))
    drawn = resample(table_C2, rater_C, prompt_C, n_resamples=n_resamples, seed=seed)
    return spread(drawn, lambda rows: rows[:, :1] / rows[:, 1:])


@pytest.mark.parametrize("sds", [(1.0, 0.5, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.2)])
@pytest.mark.parametrize(("n_raters", "n_prompts"), [(12, 20), (3, 4)])
def test_variance_of_a_mean_has_a_closed_form(sds: tuple[float, float, float], n_raters: int, n_prompts: int) -> None:
    """Variances of the means of raters, of prompts and of cells; five standard errors of 4000 resamples are 11 %."""
    values_RP = crossed(np.random.default_rng(3), n_raters, n_prompts, sds)
    of_raters = values_RP.mean(axis=1).var(ddof=1) / n_raters
    of_prompts = values_RP.mean(axis=0).var(ddof=1) / n_prompts
    expected = of_raters + of_prompts - values_RP.var(ddof=1) / values_RP.size
    expected = max(expected, of_raters, of_prompts)
    found = mean_spread(values_RP, n_resamples=4000)
    assert found.variance_E[0] == pytest.approx(expected, rel=0.11)
    freedom = expected**2 / (of_raters**2 / (n_raters - 1) + of_prompts**2 / (n_prompts - 1))
    assert found.freedom_E[0] == pytest.approx(max(freedom, n_raters - 1), rel=0.25)


COVERED = 200


@pytest.mark.parametrize("sds", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 1.0)])
def test_intervals_cover_whatever_varies(sds: tuple[float, float, float]) -> None:
    """200 studies of 8 raters and 12 prompts: the 95 % interval covers 0 in 179 to 198, 99.8 % of the binomial.

    Of noise alone the larger of the terms often stands in for their sum: there 98 % are expected, and 200 possible.
    """
    low, high = distributions.binom.ppf([0.001, 0.999], COVERED, 0.95)
    if sds == (0.0, 0.0, 1.0):
        high = COVERED
    rng = np.random.default_rng(11)
    hits = 0
    for study in range(COVERED):
        found = unbounded(mean_spread(crossed(rng, 8, 12, sds), seed=study))[0]
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0 <= found.high
    assert low <= hits <= high


def test_the_pigeonhole_bootstrap_would_count_noise_three_times() -> None:
    """Why raters and prompts are not drawn together: of noise alone that gives 3 times the variance (Owen 2007)."""
    values_RP = crossed(np.random.default_rng(5), 30, 30, (0.0, 0.0, 1.0))
    rng = np.random.default_rng(6)
    weights = [rng.multinomial(30, np.full(30, 1 / 30), size=2000) for _ in range(2)]
    both = np.einsum("br,bp,rp->b", *weights, values_RP) / 900
    true = 1 / 900
    assert both.var() / true == pytest.approx(3, rel=0.25)
    assert mean_spread(values_RP, 2000).variance_E[0] / true == pytest.approx(1, rel=0.5)


def test_clusters_without_a_vote_are_no_evidence() -> None:
    """Of ten raters two met the pair: it rests on two clusters, not ten."""
    votes = [vote(f"r{r}", f"p{p}", "ac", "12") for r in range(10) for p in range(6)]
    votes += [vote(f"r{r}", f"p{p}", "ab", "12") for r in (0, 1) for p in range(6)]
    votes += [vote("r0", "p0", "cb", "12")]
    found = of(ballots(votes, "pairwise", ties=True))
    many, few = duel(found, "a", "c").win, duel(found, "a", "b").win
    assert many.low is not None
    assert few.low is not None
    assert few.low < many.low - 0.2
    assert duel(found, "c", "b").win.low is None  # one rater, one prompt


# ---- intervals and tests ---------------------------------------------------------------------------------------------


def spread_of(value: float, variance: float, freedom: float = 1e9, clusters: float = 10.0) -> Spread:
    return Spread(*(np.array([x]) for x in (value, variance, freedom, clusters, 1.0)))


@given(st.integers(2, 200), st.data())
@settings(deadline=None)
def test_shares_of_independent_votes_have_wilsons_interval(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n - 1))
    share = k / n
    found = bounded(spread_of(share, share * (1 - share) / n), 0, 1)[0]
    expected = distributions.binomtest(k, n).proportion_ci(method="wilson")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


@given(st.floats(0, 1), st.floats(0, 0.25), st.floats(1, 100), st.floats(2, 50))
@settings(deadline=None)
def test_intervals_stay_within_bounds_and_agree_with_the_test(
    share: float, variance: float, freedom: float, clusters: float
) -> None:
    made = spread_of(1 + 4 * share, 16 * variance, freedom, clusters)
    found = bounded(made, 1, 5)[0]
    p_value = p_values(made, 1, 5)[0]
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert p_value is not None
    assert 1 <= found.low <= found.value <= found.high <= 5
    assert found.low < found.high
    if abs(p_value - 0.05) > 1e-6:
        assert (p_value < 0.05) == (not found.low <= 3 <= found.high)


def test_unanimous_votes_are_not_certain() -> None:
    """Eight raters and twenty prompts without exception tell as much as eight votes (Wilson, t with 7 degrees)."""
    found = of(ballots(vote(f"r{r}", f"p{p}", "abc", "123") for r in range(8) for p in range(20)))
    t = distributions.t.ppf(0.975, 7)
    first = duel(found, "a", "b")
    assert (first.win.value, first.win.high, first.lose.value, first.lose.low) == (1, 1, 0, 0)
    assert first.win.low == pytest.approx(1 / (1 + t**2 / 8))
    assert first.lose.high == pytest.approx(1 - 1 / (1 + t**2 / 8))
    assert first.p_value == pytest.approx(2 * distributions.t.sf(np.sqrt(8), 7))
    assert (first.tie.value, first.tie.low, first.tie.high) == (0, 0, 0)  # no ties in this protocol
    middle = standing(found, "b").mean_rank
    assert middle is not None
    assert middle.low is not None
    assert middle.low < 2
    assert found.kendall_w is not None
    assert found.kendall_w.value == pytest.approx(1)
    assert found.krippendorff_alpha is not None
    assert found.krippendorff_alpha.value == 1


NULLS = 200


@pytest.mark.parametrize(("rater_sd", "prompt_sd"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.7, 0.7)])
def test_the_test_of_no_preference_holds_its_level(rater_sd: float, prompt_sd: float) -> None:
    """200 studies of 6 raters and 10 prompts, no difference: p < 0.05 in at most 21, the binomial's 99.9 % quantile."""
    hits = 0
    for study in range(NULLS):
        raters = Raters(("a", "b"), {AXIS: (0.0, 0.0)}, rater_sd, prompt_sd, tie=0.4, seed=study)
        votes = raters.votes("pairwise", [f"p{p}" for p in range(10)], n_raters=6, n_screens=10)
        (found,), _ = duels(draw(votes, ("a", "b"), "pairwise", ties=True, n_resamples=200, seed=study), ("a", "b"))
        p_value = found.p_value
        assert p_value is not None
        hits += p_value < 0.05
    assert hits <= distributions.binom.ppf(0.999, NULLS, 0.05)


def test_holm_is_over_all_duels_of_all_axes() -> None:
    axes = ("motion_smoothness", "semantic_coherence")
    raters = Raters(MODELS, dict.fromkeys(axes, (0.4, 0.0, -0.4)), rater_sd=0.5, seed=2)
    votes = raters.votes("rank", ["p1", "p2", "p3", "p4", "p5", "p6"], n_raters=8, n_screens=6, ties=False)
    result = conclude(ballots(votes, axes=axes))
    every = [entry for axis in result.axes for entry in axis.duels]
    assert len(every) == 6
    assert [entry.p_adjusted for entry in every] == holm([float(str(entry.p_value)) for entry in every])


# ---- rates -----------------------------------------------------------------------------------------------------------


def test_rates_by_hand() -> None:
    votes = [
        vote("x", "p1", "abc", "123"),
        vote("x", "p2", "cab", "311"),  # a = b > c
        vote("y", "p1", "abc", "213"),  # b > a > c
        vote("y", "p2", "bca", "113"),  # b = c > a
    ]
    found = of(ballots(votes, ties=True))
    ranks = [standing(found, model).mean_rank for model in MODELS]
    assert [rank and rank.value for rank in ranks] == pytest.approx(
        [(1 + 1.5 + 2 + 3) / 4, 6 / 4, (3 + 3 + 3 + 1.5) / 4]
    )
    pair = duel(found, "a", "b")
    assert (pair.a, pair.b, pair.n) == ("b", "a", 4)
    assert [e.value for e in (pair.win, pair.tie, pair.lose, pair.win_rate)] == [0.5, 0.25, 0.25, 0.625]
    rates = [standing(found, model).win_rate for model in MODELS]
    assert [rate and rate.value for rate in rates] == pytest.approx([(0.375 + 0.75) / 2, (0.625 + 0.875) / 2, 0.1875])
    assert [entry.model for entry in found.standings] == ["b", "a", "c"]
    assert [standing(found, model).n for model in MODELS] == [4, 4, 4]
    assert (found.n_votes, found.n_raters, found.n_prompts) == (4, 2, 2)


def test_each_opponent_weighs_alike() -> None:
    """a wins 9 of 10 against b and 0 of 2 against c: 0.45, not 0.75."""
    votes = [vote("x", f"p{p}", "ab", "12" if p else "21") for p in range(10)]
    votes += [vote("x", f"p{p}", "ac", "21") for p in range(2)]
    rate = standing(of(ballots(votes, "pairwise", ties=True)), "a").win_rate
    assert rate is not None
    assert rate.value == pytest.approx(0.45)


def test_levels_count_for_the_preferred_model() -> None:
    """Negative where the first clip is better, whichever model that is."""
    votes = [
        vote("x", "p1", "ab", "12", -2),
        vote("x", "p2", "ba", "21", 1),
        vote("y", "p1", "ab", "11", 0),
        vote("y", "p2", "ba", "12", -1),
    ]
    found = duel(of(ballots(votes, "likert5", ties=True)), "a", "b")
    assert found.level is not None
    sign = 1 if found.a == "a" else -1
    assert sign * found.level.value == pytest.approx((2 + 1 + 0 - 1) / 4)
    assert [e.value for e in (found.win, found.tie, found.lose)] == [0.5, 0.25, 0.25]


# ---- what must not matter, and what is missing -----------------------------------------------------------------------


def some_study(protocol: Protocol = "rank", **more: int) -> Ballots:
    raters = Raters(MODELS, {AXIS: (0.8, 0.0, -0.8)}, rater_sd=0.5, prompt_sd=0.5, tie=0.3, seed=1)
    votes = raters.votes(protocol, [f"p{p}" for p in range(8)], n_raters=7, n_screens=6, **more)
    return ballots(votes, protocol, ties=True)


@pytest.mark.parametrize("protocol", ["rank", "pairwise", "likert5"])
def test_neither_order_nor_names_matter(protocol: Protocol) -> None:
    """Exactly: the order of votes, the order in which models were shown, and the names of raters and prompts."""
    study = some_study(protocol)
    rng = random.Random(0)

    def shown_otherwise(given: Vote) -> Vote:
        places = rng.sample(range(len(given.models)), len(given.models))
        level = None if given.level is None else given.level * (1 if places[0] == 0 else -1)
        models, ranks = (tuple(values[place] for place in places) for values in (given.models, given.ranks))
        renamed = {"rater": f"z{9 - int(given.rater[1:])}", "prompt_id": f"q{(5 * int(given.prompt_id[1:])) % 8}"}
        return replace(given, models=models, ranks=ranks, level=level, **renamed)

    moved = [shown_otherwise(given) for given in rng.sample(study.votes, len(study.votes))]
    assert conclude(replace(study, votes=tuple(moved)), seed=4) == conclude(study, seed=4)
    assert conclude(study, seed=5) != conclude(study, seed=4)


def test_the_order_of_the_models_does_not_matter() -> None:
    """To their figures; resamples are drawn in another order, so bounds agree as two seeds do (within 0.05)."""
    study = some_study()
    one, other = of(study), of(replace(study, models=("c", "a", "b")))
    assert [entry.model for entry in one.standings] == [entry.model for entry in other.standings]
    for mine, theirs in zip(one.standings, other.standings, strict=True):
        for name in ("mean_rank", "win_rate", "bradley_terry"):
            a, b = getattr(mine, name), getattr(theirs, name)
            assert a.value == pytest.approx(b.value, abs=1e-7)
            assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=0.1)
    for a, b in ((one.kendall_w, other.kendall_w), (one.krippendorff_alpha, other.krippendorff_alpha)):
        assert a is not None
        assert b is not None
        assert a.value == pytest.approx(b.value, abs=1e-9)


def test_duels_follow_the_standings() -> None:
    found = of(some_study())
    order = [entry.model for entry in found.standings]
    assert [(entry.a, entry.b) for entry in found.duels] == list(combinations(order, 2))
    strengths = [entry.bradley_terry.value for entry in found.standings if entry.bradley_terry]
    assert strengths == sorted(strengths, reverse=True)
    assert sum(strengths) == pytest.approx(0, abs=1e-9)


def test_one_rater_has_intervals_over_prompts() -> None:
    study = some_study()
    one = replace(study, votes=tuple(given for given in study.votes if given.rater == "r001"))
    result = conclude(one)
    assert "not for other raters" in result.caveats[0]
    rank = standing(of(result), "a").mean_rank
    assert rank is not None
    assert rank.low is not None
    assert of(result).kendall_w is None
    assert of(result).krippendorff_alpha is None
    single = conclude(replace(one, votes=one.votes[:1]))
    assert all(e.low is None and e.high is None for d in of(single).duels for e in (d.win, d.lose, d.win_rate))
    assert all(d.p_value is None and d.p_adjusted is None for d in of(single).duels)
    assert "no intervals" in single.caveats[0]


def test_a_model_that_always_wins_has_no_finite_strength() -> None:
    found = of(ballots(vote(f"r{r}", f"p{p}", "abc", "123" if r else "132") for r in range(3) for p in range(4)))
    assert [entry.bradley_terry or entry.plackett_luce for entry in found.standings] == [None] * 3
    assert sum("a always wins" in note for note in found.notes) == 2
    assert [entry.model for entry in found.standings] == ["a", "b", "c"]  # by win rate


def test_strengths_that_hang_on_one_vote_have_no_interval() -> None:
    votes = [vote(f"r{r}", f"p{p}", "abc", "123") for r in range(4) for p in range(4)]
    found = of(ballots([*votes, vote("r5", "p0", "abc", "321")]))
    strength = standing(found, "a").bradley_terry
    assert strength is not None
    assert strength.low is None
    assert "of the resamples have no finite maximum" in " ".join(found.notes)


def test_blocks_have_no_mean_ranks() -> None:
    found = of(some_study(shown=2))
    assert {entry.mean_rank for entry in found.standings} == {None}
    assert "screens show only some" in found.notes[0]
    assert all(entry.win_rate and entry.bradley_terry for entry in found.standings)


def test_plackett_luce_needs_rankings_without_ties() -> None:
    with_ties = of(some_study())
    assert {entry.plackett_luce for entry in with_ties.standings} == {None}
    assert "Some rankings have ties" in " ".join(with_ties.notes)
    raters = Raters(MODELS, {AXIS: (0.5, 0.0, -0.5)}, seed=1)
    votes = raters.votes("rank", ["p1", "p2", "p3", "p4", "p5"], n_raters=9, n_screens=5)
    without = of(ballots(votes, ties=True))  # allowed, never used
    assert all(entry.plackett_luce for entry in without.standings)
    assert without.tie_log_odds is None


def test_models_that_never_met_are_named() -> None:
    votes = [vote(f"r{r}", f"p{p}", models, "12") for r in range(3) for p in range(3) for models in ("ab", "bc")]
    found = of(ballots(votes, "pairwise", ties=True))
    assert {frozenset((entry.a, entry.b)) for entry in found.duels} == {frozenset("ab"), frozenset("bc")}
    assert "Never shown together, so not compared: a and c." in found.notes


def test_no_votes_are_a_result_too() -> None:
    result = conclude(ballots([]))
    assert (of(result).n_votes, of(result).duels) == (0, ())
    assert [entry.n for entry in of(result).standings] == [0, 0, 0]
    assert result.caveats == ("No vote counts.",)


# ---- prompt means ----------------------------------------------------------------------------------------------------


def test_prompt_level_figures_are_those_of_the_house() -> None:
    rng = np.random.default_rng(0)
    values_PM = np.round(rng.normal([2.0, 1.0, 3.0], 1, (20, 3)), 1)
    values_PM[3, 0] = values_PM[3, 1]
    means, found = prompt_level_means(values_PM), prompt_level_duels(values_PM, MODELS)
    expected = bootstrap_mean(values_PM[:, 0], np.arange(20))
    assert (means[0].value, means[0].low, means[0].high) == (expected.estimate, expected.low, expected.high)
    assert [(entry.a, entry.b) for entry in found] == [("b", "a"), ("b", "c"), ("a", "c")]
    first = found[0]
    wins, ties = values_PM[:, 1] < values_PM[:, 0], values_PM[:, 1] == values_PM[:, 0]
    assert (first.win.value, first.tie.value) == pytest.approx((wins.mean(), ties.mean()))
    assert first.win_rate.value == pytest.approx(first.win.value + first.tie.value / 2)
    assert first.win.value + first.tie.value + first.lose.value == pytest.approx(1)
    assert first.p_value == paired_comparison(values_PM[:, 1], values_PM[:, 0]).p_value


def test_prompt_level_missing_values_and_unanimity() -> None:
    values_PM = np.array([[1.0, 2.0, np.nan], [1.0, 3.0, 2.0], [1.0, 2.0, 2.0], [1.0, 2.0, 4.0]])
    found = prompt_level_duels(values_PM, MODELS)
    assert [entry.n for entry in found] == [4, 3, 3]
    assert found[0].win.value == 1
    assert found[0].win.low is not None
    assert 0 < found[0].win.low < 1
    assert (prompt_level_means(values_PM)[0].value, prompt_level_means(values_PM)[2].value) == pytest.approx((1, 8 / 3))
