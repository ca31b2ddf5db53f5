"""Bradley-Terry and Plackett-Luce against choix, scipy, linear programs, and what must not matter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import choix
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize, sparse
from scipy.sparse import csgraph

from evalkit.study.statistics import bradley_terry, dominance, plackett_luce
from evalkit.study.statistics.newton import TOLERANCE, maximise

CHOIX = 1e-5
"""Largest difference of a log-strength from choix's, whose own stopping rule is about 1e-8."""


def win_matrices(most: int = 12, models: tuple[int, int] = (2, 6)) -> st.SearchStrategy[np.ndarray]:
    """Counts of wins (M, M) with an empty diagonal."""
    sizes = st.integers(*models).flatmap(lambda m: arrays(np.int64, (m, m), elements=st.integers(0, most)))
    return sizes.map(lambda wins: (wins - np.diag(np.diag(wins))).astype(np.float64))


def with_ties(wins_MM: np.ndarray) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """The wins, and symmetric counts of ties."""
    counts = arrays(np.int64, wins_MM.shape, elements=st.integers(0, 6)).map(lambda x: np.triu(x, 1).astype(np.float64))
    return counts.map(lambda upper: (wins_MM, upper + upper.T))


def fit_one(wins_MM: np.ndarray, ties_MM: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    found = bradley_terry.fit(wins_MM[None], None if ties_MM is None else ties_MM[None])
    return found.log_strengths_BM[0], float(found.tie_log_odds_B[0])


# ---- Bradley-Terry without ties --------------------------------------------------------------------------------------


@given(win_matrices())
@settings(max_examples=60, deadline=None)
def test_bradley_terry_agrees_with_choix(wins_MM: np.ndarray) -> None:
    strengths_M, tie = fit_one(wins_MM)
    assume(np.isfinite(strengths_M).all())
    pairs = [(a, b) for (a, b), n in np.ndenumerate(wins_MM) for _ in range(int(n))]
    spectral_M = choix.ilsr_pairwise(len(wins_MM), pairs, alpha=0, max_iter=1000)
    newton_M = choix.opt_pairwise(len(wins_MM), pairs, alpha=0, tol=1e-12)
    assert strengths_M == pytest.approx(spectral_M, abs=CHOIX)
    assert strengths_M == pytest.approx(newton_M, abs=CHOIX)
    assert strengths_M.sum() == pytest.approx(0, abs=1e-9)
    assert tie == -np.inf


def test_two_models_have_a_closed_form() -> None:
    """The log-odds of 3 wins in 4."""
    strengths_M, _ = fit_one(np.array([[0.0, 3.0], [1.0, 0.0]]))
    assert strengths_M == pytest.approx([np.log(3) / 2, -np.log(3) / 2], abs=1e-9)


# ---- with ties -------------------------------------------------------------------------------------------------------


def davidson(x: np.ndarray, wins_MM: np.ndarray, ties_MM: np.ndarray) -> float:
    """Negative log-likelihood as Davidson (1970) writes it; the last parameter is log v, the first strength is 1."""
    p, v = np.exp(np.concatenate([[0.0], x[:-1]])), np.exp(x[-1])
    value = 0.0
    for a, b in combinations(range(len(p)), 2):
        tie = v * np.sqrt(p[a] * p[b])
        total = p[a] + p[b] + tie
        value -= wins_MM[a, b] * np.log(p[a] / total) + wins_MM[b, a] * np.log(p[b] / total)
        value -= ties_MM[a, b] * np.log(tie / total)
    return value


@given(win_matrices(models=(2, 4)).flatmap(with_ties))
@settings(max_examples=40, deadline=None)
def test_davidson_agrees_with_a_plain_maximisation(counts: tuple[np.ndarray, np.ndarray]) -> None:
    """Tolerance 1e-4: BFGS with numerical gradients; our value must be no worse than its by more than 1e-9."""
    wins_MM, ties_MM = counts
    assume(ties_MM.any())
    strengths_M, tie = fit_one(wins_MM, ties_MM)
    assume(np.isfinite(strengths_M).all())
    plain = optimize.minimize(davidson, np.zeros(len(wins_MM)), args=(wins_MM, ties_MM), options={"gtol": 1e-7})
    theirs_M = np.concatenate([[0.0], plain.x[:-1]])
    ours = np.append(strengths_M[1:] - strengths_M[0], tie)
    assert davidson(ours, wins_MM, ties_MM) <= plain.fun + 1e-9 * max(1.0, abs(plain.fun))
    assert strengths_M == pytest.approx(theirs_M - theirs_M.mean(), abs=1e-4)
    assert tie == pytest.approx(plain.x[-1], abs=1e-4)


def test_equal_models_have_the_tie_odds_of_the_counts() -> None:
    """Two models of equal strength tie with odds v to 2: 6 ties to 8 wins make v 1.5."""
    strengths_M, tie = fit_one(np.array([[0.0, 4.0], [4.0, 0.0]]), np.array([[0.0, 6.0], [6.0, 0.0]]))
    assert strengths_M == pytest.approx([0, 0], abs=1e-9)
    assert np.exp(tie) == pytest.approx(1.5, rel=1e-8)


# ---- whether there is a maximum --------------------------------------------------------------------------------------


def bounded_by_linear_programs(wins_MM: np.ndarray, ties_MM: np.ndarray) -> bool:
    """Whether no direction but 0 keeps every observed outcome at least as likely, by its definition.

    Outcomes of a pair have the utilities s, -s and g (win, loss, tie), s being half the difference of the strengths; a
    direction keeps an outcome as likely if its utility rises at least as much as the others'.
    """
    n_models, tied = len(wins_MM), bool(ties_MM.any())
    rows: list[np.ndarray] = []
    for a, b in combinations(range(n_models), 2):
        half = np.zeros(n_models + tied)
        half[a], half[b] = 0.5, -0.5
        utilities = [half, -half]
        if tied:
            utilities.append(np.eye(n_models + 1)[-1])
        for k, n in enumerate((wins_MM[a, b], wins_MM[b, a], ties_MM[a, b])):
            if n > 0:
                rows += [other - utilities[k] for other in utilities]
    if not rows:
        return False
    centred = np.append(np.ones(n_models), np.zeros(int(tied)))
    for goal in np.concatenate([np.eye(n_models + tied), -np.eye(n_models + tied)]):
        found = optimize.linprog(
            goal, np.array(rows), np.zeros(len(rows)), centred[None], [0.0], bounds=(-1, 1), method="highs"
        )
        if found.fun < -1e-6:
            return False
    return True


@given(win_matrices(most=1, models=(2, 4)).flatmap(with_ties), st.sampled_from((0.0, 0.5, 0.8)), st.randoms())
@settings(max_examples=60, deadline=None)
def test_existence_agrees_with_linear_programs(counts: tuple[np.ndarray, np.ndarray], thin: float, random: Any) -> None:
    wins_MM, ties_MM = counts
    for a, b in combinations(range(len(wins_MM)), 2):  # few outcomes, so that both answers occur
        for matrix in (wins_MM, ties_MM):
            if random.random() < thin:
                matrix[a, b] = matrix[b, a] = 0
    expected = bounded_by_linear_programs(wins_MM, ties_MM)
    assert bradley_terry.has_maximum(wins_MM[None], ties_MM[None])[0] == expected
    strengths_M, _ = fit_one(wins_MM, ties_MM)
    assert np.isfinite(strengths_M).all() == expected
    names = "abcdef"[: len(wins_MM)]
    assert (bradley_terry.obstacle(wins_MM, ties_MM, names) is None) == expected


def test_ties_both_ways_do_not_suffice() -> None:
    """a beats b, both tie with c: the graph is strongly connected, yet the more ties, the better the fit."""
    wins_MM, ties_MM = np.zeros((3, 3)), np.zeros((3, 3))
    wins_MM[0, 1] = 5
    ties_MM[0, 2] = ties_MM[2, 0] = ties_MM[1, 2] = ties_MM[2, 1] = 3
    assert dominance.strongly_connected((wins_MM + ties_MM > 0)[None])[0]
    assert np.isnan(fit_one(wins_MM, ties_MM)[0]).all()
    assert "more ties" in str(bradley_terry.obstacle(wins_MM, ties_MM, "abc"))
    values = [davidson(np.array([-2.0 * g, -g, g]), wins_MM, ties_MM) for g in (1.0, 5.0, 25.0)]
    assert values == sorted(values, reverse=True)


@given(st.integers(1, 7).flatmap(lambda m: arrays(np.bool_, (m, m))))
@settings(deadline=None)
def test_strong_connectivity_agrees_with_scipy(edges_MM: np.ndarray) -> None:
    n_groups, _ = csgraph.connected_components(sparse.csr_array(edges_MM), directed=True, connection="strong")
    assert dominance.strongly_connected(edges_MM[None])[0] == (n_groups == 1)


@pytest.mark.parametrize(
    ("wins", "said"),
    [
        ([(0, 1), (0, 2), (1, 2), (2, 1)], "a always wins against the others; b and c always lose against a"),
        ([(0, 1), (1, 0), (1, 2), (0, 2)], "a and b always win against c; c always loses against the others"),
        ([(0, 1), (1, 2)], "a always wins against the others; c always loses against the others"),
        ([(0, 1), (1, 0)], "a and b were never compared with c; c was never compared with the others"),
    ],
)
def test_the_obstacle_is_named(wins: list[tuple[int, int]], said: str) -> None:
    wins_MM = np.zeros((3, 3))
    for a, b in wins:
        wins_MM[a, b] = 1
    assert bradley_terry.obstacle(wins_MM, np.zeros((3, 3)), "abc") == said


# ---- Plackett-Luce ---------------------------------------------------------------------------------------------------


@st.composite
def rankings(draw: st.DrawFn, least: int = 2) -> tuple[int, list[tuple[int, ...]]]:
    """Rankings of at least so many of some models."""
    n_models = draw(st.integers(max(least, 2), 6))
    sizes = draw(st.lists(st.integers(least, n_models), min_size=5, max_size=40))
    orders = [draw(st.permutations(range(n_models))) for _ in sizes]
    return n_models, [tuple(order[:size]) for order, size in zip(orders, sizes, strict=True)]


def fit_rankings(n_models: int, data: Sequence[tuple[int, ...]]) -> np.ndarray:
    patterns = sorted(set(data))
    weights = np.array([[data.count(pattern) for pattern in patterns]])
    return plackett_luce.fit(plackett_luce.choices(patterns, n_models), weights)[0]


@given(rankings())
@settings(max_examples=50, deadline=None)
def test_plackett_luce_agrees_with_choix(drawn: tuple[int, list[tuple[int, ...]]]) -> None:
    n_models, data = drawn
    worths_M = fit_rankings(n_models, data)
    assume(np.isfinite(worths_M).all())
    assert worths_M == pytest.approx(choix.ilsr_rankings(n_models, data, alpha=0, max_iter=1000), abs=CHOIX)
    assert worths_M == pytest.approx(choix.opt_rankings(n_models, data, alpha=0, tol=1e-12), abs=CHOIX)


@given(win_matrices(most=4))
@settings(deadline=None)
def test_rankings_of_two_are_bradley_terry(wins_MM: np.ndarray) -> None:
    """Also in whether there is a maximum: the two ask different graphs for it."""
    patterns = [pair for pair in np.ndindex(wins_MM.shape) if pair[0] != pair[1]]
    weights = np.array([[wins_MM[pair] for pair in patterns]])
    worths_M = plackett_luce.fit(plackett_luce.choices(patterns, len(wins_MM)), weights)[0]
    assert worths_M == pytest.approx(fit_one(wins_MM)[0], abs=1e-7, nan_ok=True)


# ---- what must not matter --------------------------------------------------------------------------------------------


@given(win_matrices().flatmap(with_ties), st.floats(0.01, 1000), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_strengths_follow_the_models_and_not_the_scale(
    counts: tuple[np.ndarray, np.ndarray], scale: float, random: Any
) -> None:
    """Another order permutes, other units of counting change nothing, wins read as losses turn the signs."""
    wins_MM, ties_MM = counts
    strengths_M, tie = fit_one(wins_MM, ties_MM)
    order = list(range(len(wins_MM)))
    random.shuffle(order)
    moved_M, moved_tie = fit_one(scale * wins_MM[np.ix_(order, order)], scale * ties_MM[np.ix_(order, order)])
    turned_M, turned_tie = fit_one(wins_MM.T, ties_MM)
    assert moved_M == pytest.approx(strengths_M[order], abs=1e-6, nan_ok=True)
    assert turned_M == pytest.approx(-strengths_M, abs=1e-6, nan_ok=True)
    assert [moved_tie, turned_tie] == pytest.approx([tie, tie], abs=1e-6, nan_ok=True)


@given(rankings(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_worths_follow_the_models(drawn: tuple[int, list[tuple[int, ...]]], random: Any) -> None:
    n_models, data = drawn
    name = list(range(n_models))
    random.shuffle(name)
    renamed = [tuple(name[model] for model in ranking) for ranking in data]
    assert fit_rankings(n_models, renamed)[name] == pytest.approx(fit_rankings(n_models, data), abs=1e-6, nan_ok=True)


def test_batches_are_fitted_one_by_one() -> None:
    """Problems of all kinds together (ties, none, no maximum) as each alone; the gradient's tolerance leaves 1e-7."""
    rng = np.random.default_rng(0)
    wins_BMM = rng.poisson(1.5, (60, 4, 4)).astype(float)
    ties_BMM = np.triu(rng.poisson(0.3, (60, 4, 4)), 1).astype(float)
    ties_BMM += ties_BMM.transpose(0, 2, 1)
    ties_BMM[::3] = 0
    together = bradley_terry.fit(wins_BMM, ties_BMM)
    alone = [fit_one(wins, ties) for wins, ties in zip(wins_BMM, ties_BMM, strict=True)]
    assert together.log_strengths_BM == pytest.approx(np.array([x for x, _ in alone]), abs=1e-7, nan_ok=True)
    assert together.tie_log_odds_B == pytest.approx(np.array([tie for _, tie in alone]), abs=1e-7, nan_ok=True)
    assert 0 < np.isnan(together.tie_log_odds_B).sum() < 60
    assert np.isneginf(together.tie_log_odds_B).any()


def test_newton_goes_to_the_tolerance_from_afar() -> None:
    """-log(2 cosh) is so flat far out that plain Newton steps diverge from 1.1 on."""

    def objective(x_BD: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        slope_BD = -np.tanh(x_BD)
        return -np.logaddexp(x_BD, -x_BD).sum(axis=1), slope_BD, (1 - slope_BD**2)[..., None]

    x_BD, found_B = maximise(objective, np.array([[0.0], [1.5], [-9.0]]))
    assert found_B.all()
    assert np.abs(x_BD).max() <= TOLERANCE
