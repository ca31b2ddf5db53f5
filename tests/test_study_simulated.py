"""Raters with known preferences: what is simulated is what is said, and what is concluded is what was put in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats as distributions

from evalkit.study.simulate import Raters
from evalkit.study.statistics import bradley_terry
from evalkit.study.statistics.conclude import conclude
from evalkit.study.types import Answer, Ballots, Estimate, Protocol, Screen, Screening, StudyClip, StudyResult

AXIS = "motion_smoothness"
MODELS = ("a", "b", "c", "d", "e")
WORTHS = (1.2, 0.5, 0.5, -0.4, -1.0)
PROMPTS = tuple(f"p{p:02d}" for p in range(50))
REFERENCE = {"rank": (0.0, 0.0, 0.0), "pairwise": (0.5, 0.4, 0.3), "likert5": (0.3, 0.2, 0.5)}
"""By protocol: spread of the raters, spread of the prompts, weight of a tie."""

# ---- the simulation itself -------------------------------------------------------------------------------------------


def test_rankings_follow_plackett_luce() -> None:
    """24,000 rankings of three models against the product of choices; chi-squared of 5 degrees, p above 0.001."""
    worths = np.exp(WORTHS[1:4])
    raters = Raters(("x", "y", "z"), {AXIS: WORTHS[1:4]}, seed=3)
    votes = raters.votes("rank", PROMPTS[:24], n_raters=1000, n_screens=24)
    orders = [tuple(model for _, model in sorted(zip(vote.ranks, vote.models, strict=True))) for vote in votes]
    observed, expected = [], []
    for order in permutations(range(3)):
        observed.append(orders.count(tuple("xyz"[model] for model in order)))
        first, second = worths[order[0]] / worths.sum(), worths[order[1]] / worths[list(order[1:])].sum()
        expected.append(len(votes) * first * second)
    assert distributions.chisquare(observed, expected).pvalue > 0.001


@pytest.mark.parametrize("protocol", ["pairwise", "likert5"])
def test_pairs_follow_the_stated_chances(protocol: Protocol) -> None:
    """Shares of wins and ties of 30,000 votes; 0.036 is four standard errors of a pair's 3,000."""
    raters = Raters(MODELS, {AXIS: WORTHS}, rater_sd=2.0, prompt_sd=0.3, tie=0.7, careless=0.1, seed=5)
    many = tuple(f"p{p}" for p in range(3000))
    votes = raters.votes(protocol, many, n_raters=3000, n_screens=10)
    win_MM, tie_MM = raters.chances(AXIS)
    assert win_MM + win_MM.T + tie_MM + np.eye(5) == pytest.approx(np.ones((5, 5)))
    for a, b in combinations(range(5), 2):
        met = [vote for vote in votes if set(vote.models) == {MODELS[a], MODELS[b]}]
        rank = [dict(zip(vote.models, vote.ranks, strict=True)) for vote in met]
        wins = np.mean([ranks[MODELS[a]] < ranks[MODELS[b]] for ranks in rank])
        ties = np.mean([ranks[MODELS[a]] == ranks[MODELS[b]] for ranks in rank])
        assert (wins, ties) == pytest.approx((win_MM[a, b], tie_MM[a, b]), abs=0.036)
        for vote in met if protocol == "likert5" else []:
            assert np.sign(vote.level or 0) == np.sign(vote.ranks[0] - vote.ranks[1])
            assert vote.level in (-2, -1, 0, 1, 2)


def test_ties_of_rankings_follow_davidson_luce() -> None:
    """Three models of equal worth: the first step has weights 1 a model and v a pair; five standard errors of 5,000."""
    raters = Raters(("x", "y", "z"), {AXIS: (0.0, 0.0, 0.0)}, tie=0.5, seed=1)
    votes = raters.votes("rank", PROMPTS, n_raters=100, n_screens=50)
    kinds = [tuple(sorted(vote.ranks)) for vote in votes]
    assert set(kinds) == {(1, 2, 3), (1, 1, 3), (1, 2, 2)}
    first = 3 * 0.5 / (3 + 3 * 0.5)
    assert kinds.count((1, 1, 3)) / len(kinds) == pytest.approx(first, abs=0.035)
    assert kinds.count((1, 2, 2)) / len(kinds) == pytest.approx((1 - first) * 0.5 / 2.5, abs=0.025)


def clip(id_: str, model: str, degraded: bool = False) -> StudyClip:
    return StudyClip(id_, model, "p1", 0, "0" * 64, 64, 64, 1.0, degraded)


CLIPS = {f"c{m}": clip(f"c{m}", model) for m, model in enumerate(MODELS)} | {"bad": clip("bad", "a", degraded=True)}


def answers(raters: Raters, screen: Screen, protocol: Protocol, ties: bool, n: int = 60) -> Iterator[Answer]:
    for rater in range(n):
        said = raters.answer(f"r{rater}", screen, CLIPS, protocol, ties=ties)
        assert set(said) == {AXIS}
        yield said[AXIS]


@pytest.mark.parametrize("ties", [True, False])
def test_attentive_raters_pass_checks(ties: bool) -> None:
    raters = Raters(MODELS, {AXIS: WORTHS}, rater_sd=0.5, tie=0.3, seed=1)
    for ranks in answers(raters, Screen("identical", "p1", ("c0", "c3", "c1", "c3", "c2")), "rank", ties):
        assert abs(ranks[1] - ranks[3]) == (0 if ties else 1)
    for ranks in answers(raters, Screen("degraded", "p1", ("c1", "bad", "c2", "c3", "c4")), "rank", ties):
        assert ranks[1] == 5
    for pair in (Screen("identical", "p1", ("c3", "c3")), Screen("degraded", "p1", ("c4", "bad"))):
        expected = 0 if pair.kind == "identical" else -1
        assert {np.sign(level) for (level,) in answers(raters, pair, "likert5", True)} == {expected}
        assert set(answers(raters, pair, "pairwise", True)) == {(expected,)}


def test_careless_raters_do_not() -> None:
    """A third say 0 of equal clips: v = 1 beside 1 and 1; 60 raters, far from none and from all."""
    raters = Raters(MODELS, {AXIS: WORTHS}, tie=1.0, careless=1.0, seed=1)
    said = list(answers(raters, Screen("identical", "p1", ("c3", "c3")), "pairwise", True))
    assert 8 < said.count((0,)) < 32
    last = [ranks[0] for ranks in answers(raters, Screen("degraded", "p1", ("bad", "c1", "c2")), "rank", False)]
    assert 8 < last.count(3) < 32


def test_answers_are_valid_and_repeatable() -> None:
    raters = Raters(MODELS, {AXIS: WORTHS}, rater_sd=0.5, prompt_sd=0.5, tie=0.5, seed=9)
    screen = Screen("vote", "p1", ("c2", "c0", "c4", "c1", "c3"))
    said = list(answers(raters, screen, "rank", True))
    assert said == list(answers(raters, screen, "rank", True))
    assert all(distributions.rankdata(ranks, method="min").tolist() == list(ranks) for ranks in said)
    assert len(set(said)) > 20
    assert all(sorted(ranks) == [1, 2, 3, 4, 5] for ranks in answers(raters, screen, "rank", False))


def test_careless_raters_are_about_as_many_as_said() -> None:
    raters = Raters(MODELS, {AXIS: WORTHS}, careless=0.25, seed=2)
    assert sum(raters.is_careless(f"r{r}") for r in range(1000)) == pytest.approx(250, abs=70)  # five standard errors


# ---- recovery --------------------------------------------------------------------------------------------------------


def study_of(protocol: Protocol, seed: int) -> tuple[Raters, StudyResult]:
    """500 raters who see 10 of 50 prompts each."""
    rater_sd, prompt_sd, tie = REFERENCE[protocol]
    raters = Raters(MODELS, {AXIS: WORTHS}, rater_sd, prompt_sd, tie, seed=seed)
    votes = raters.votes(protocol, PROMPTS, n_raters=500, n_screens=10, ties=tie > 0)
    ballots = Ballots("simulated", protocol, tie > 0, MODELS, (AXIS,), votes, Screening(500))
    return raters, conclude(ballots, seed=seed, n_resamples=400)


def truths(raters: Raters, ties: bool) -> dict[tuple[str, ...], float]:
    """What the figures estimate: means over all raters and prompts there could be."""
    win_MM, tie_MM = raters.chances(AXIS, ties=ties)
    rate_M = (win_MM + tie_MM / 2).sum(axis=1) / (len(MODELS) - 1)
    strength_M = bradley_terry.fit(win_MM[None], tie_MM[None]).log_strengths_BM[0]
    found: dict[tuple[str, ...], float] = {}
    for m, model in enumerate(MODELS):
        found["win_rate", model] = rate_M[m]
        found["bradley_terry", model] = strength_M[m]
        found["plackett_luce", model] = WORTHS[m] - np.mean(WORTHS)
        found["mean_rank", model] = 1 + (len(MODELS) - 1) * (1 - rate_M[m])
    for a, b in permutations(range(len(MODELS)), 2):
        found["win", MODELS[a], MODELS[b]] = win_MM[a, b]
        found["tie", MODELS[a], MODELS[b]] = found["tie", MODELS[b], MODELS[a]] = tie_MM[a, b]
    return found


def figures(result: StudyResult) -> dict[tuple[str, ...], Estimate]:
    """Every figure with an interval of which the truth is known; of a duel both wins, and the tie once."""
    found: dict[tuple[str, ...], Estimate | None] = {}
    for standing in result.axes[0].standings:
        for name in ("win_rate", "bradley_terry", "plackett_luce", "mean_rank"):
            found[name, standing.model] = getattr(standing, name)
    for duel in result.axes[0].duels:
        first, second = sorted((duel.a, duel.b))
        found["win", duel.a, duel.b], found["win", duel.b, duel.a] = duel.win, duel.lose
        found["tie", first, second] = duel.tie if duel.tie.value > 0 else None
    return {key: figure for key, figure in found.items() if figure is not None}


def coverage(protocol: Protocol, n_studies: int) -> Mapping[tuple[str, ...], int]:
    """In how many studies the interval of each figure holds its truth."""
    hits: dict[tuple[str, ...], int] = {}
    for seed in range(n_studies):
        raters, result = study_of(protocol, seed)
        true = truths(raters, ties=REFERENCE[protocol][2] > 0)
        for key, figure in figures(result).items():
            assert figure.low is not None
            assert figure.high is not None
            hits[key] = hits.get(key, 0) + (figure.low <= true[key] <= figure.high)
    return hits


def check_coverage(protocol: Protocol, n_studies: int) -> None:
    """Every truth is inside its 95 % interval as often as chance allows.

    On average over the figures no less often than the binomial distribution's 0.1 % quantile for one of them (an
    average of dependent figures varies no more than one of them), and each by itself no less often than the quantile of
    0.1 % shared out over the figures (Bonferroni). Intervals of noise alone are wider: up to 98 % are expected there.
    """
    hits = coverage(protocol, n_studies)
    assert len(hits) == 40  # rank: 4 figures of 5 models, 20 wins; else 2 of 5 models, 20 wins, 10 ties
    mean = np.mean(list(hits.values()))
    assert mean >= distributions.binom.ppf(0.001, n_studies, 0.95)
    assert mean <= distributions.binom.ppf(0.999, n_studies, 0.98)
    least = distributions.binom.ppf(0.001 / len(hits), n_studies, 0.95)
    assert {key: n for key, n in hits.items() if n < least} == {}


@pytest.mark.parametrize("protocol", ["rank", "pairwise"])
def test_known_preferences_are_recovered(protocol: Protocol) -> None:
    """500 raters, 12 studies: on average at least 8 of 12 hold the truth."""
    check_coverage(protocol, 12)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["rank", "pairwise", "likert5"])
def test_known_preferences_are_recovered_at_the_stated_rate(protocol: Protocol) -> None:
    """500 raters, 150 studies: of a figure's intervals at least 133 (89 %) hold the truth on average, 130 of each."""
    check_coverage(protocol, 150)


@pytest.mark.parametrize("protocol", ["rank", "pairwise", "likert5"])
def test_five_hundred_raters_find_the_order(protocol: Protocol) -> None:
    """The unequal models in the order of their worths, and every difference but that of the equal two significant."""
    _, result = study_of(protocol, seed=77)
    order = [standing.model for standing in result.axes[0].standings]
    assert sorted(order, key=lambda model: -WORTHS[MODELS.index(model)]) == order
    for duel in result.axes[0].duels:
        assert duel.p_adjusted is not None
        assert (duel.p_adjusted < 0.05) == ({duel.a, duel.b} != {"b", "c"})
    if protocol == "pairwise":
        assert result.axes[0].tie_log_odds == pytest.approx(np.log(0.3), abs=0.2)


def test_careless_raters_pull_towards_a_draw() -> None:
    """Half of them careless halves every win rate's distance from 1/2, as `chances` says."""
    raters = Raters(MODELS, {AXIS: WORTHS}, careless=0.5, seed=4)
    votes = raters.votes("rank", PROMPTS, n_raters=400, n_screens=10)
    result = conclude(Ballots("simulated", "rank", False, MODELS, (AXIS,), votes, Screening(400)), n_resamples=200)
    attentive = truths(Raters(MODELS, {AXIS: WORTHS}), ties=False)
    for standing in result.axes[0].standings:
        expected = (attentive["win_rate", standing.model] - 0.5) / 2
        assert standing.win_rate is not None
        assert standing.win_rate.value - 0.5 == pytest.approx(expected, abs=0.06)
