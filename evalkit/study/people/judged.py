"""What people said of two models' clips: votes, taken apart into pairs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from evalkit.stats import FloatArray
from evalkit.study.types import Vote

Sides = tuple[str, int | None, str, str]
"""Prompt, seed and the two models, in the order of the study."""


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """The votes on the clips of models `a` and `b` for one prompt and seed, on one axis.

    Args:
        won: votes that prefer `a`.
        tied: votes that call them equal.
        lost: votes that prefer `b`.
        one_rater: mean credit of one rater against the majority of the others; None with a single rater.
    """

    prompt_id: str
    seed: int | None
    a: str
    b: str
    won: int
    tied: int
    lost: int
    one_rater: float | None

    @property
    def clip(self) -> tuple[str, int | None]:
        """Prompt and seed."""
        return self.prompt_id, self.seed

    @property
    def margin(self) -> float:
        """Votes for `a` less those for `b`, as a share: twice its win rate above one half, a tie being half a win."""
        return (self.won - self.lost) / (self.won + self.tied + self.lost)


def credit(said: FloatArray, truth: FloatArray) -> FloatArray:
    """1 where two preferences have one sign, 0 where they contradict each other, one half where either is a tie."""
    return np.asarray(0.5 + 0.5 * np.sign(said) * np.sign(truth), dtype=np.float64)


def judged_pairs(votes: Iterable[Vote], models: tuple[str, ...]) -> list[JudgedPair]:
    """The pairs of clips that some votes of one axis compare, sorted by prompt, seed and models.

    Args:
        votes: of one axis.
        models: whose clips count, in the order of the study.
    """
    said: dict[Sides, Counter[tuple[str, int]]] = defaultdict(Counter)
    for vote in votes:
        for sides, sign in _comparisons(vote, models):
            said[sides][vote.rater, sign] += 1
    order = {model: place for place, model in enumerate(models)}
    places = {
        sides: (sides[0], -1 if sides[1] is None else sides[1], order[sides[2]], order[sides[3]]) for sides in said
    }
    return [_pair(sides, said[sides]) for sides in sorted(said, key=places.__getitem__)]


def _comparisons(vote: Vote, models: tuple[str, ...]) -> Iterable[tuple[Sides, int]]:
    """Each pair of shown models: 1 if the first is preferred, -1 if the second, 0 for a tie."""
    ranks = dict(zip(vote.models, vote.ranks, strict=True))
    for a, b in combinations([model for model in models if model in ranks], 2):
        yield (vote.prompt_id, vote.seed, a, b), (ranks[a] < ranks[b]) - (ranks[a] > ranks[b])


def _pair(sides: Sides, said: Mapping[tuple[str, int], int]) -> JudgedPair:
    by_sign = {sign: sum(n for (_, s), n in said.items() if s == sign) for sign in (1, 0, -1)}
    return JudgedPair(*sides, by_sign[1], by_sign[0], by_sign[-1], _one_rater(said))


def _one_rater(said: Mapping[tuple[str, int], int]) -> float | None:
    """Leave-one-out: what each rater says, against the majority of all others."""
    balance: dict[str, int] = defaultdict(int)
    for (rater, sign), n in said.items():
        balance[rater] += sign * n
    if len(balance) < 2:
        return None
    own_N = np.array([balance[rater] for rater in balance], dtype=np.float64)
    return float(credit(own_N, own_N.sum() - own_N).mean())


def wins_by_prompt(
    votes: Iterable[Vote], models: tuple[str, ...], prompts: Mapping[str, int]
) -> tuple[FloatArray, FloatArray]:
    """How often each model is preferred to each other, and how often they tie, by prompt: (P, M, M) both.

    `wins[p, i, j]` counts votes for `i` against `j`; ties stand on both sides of the diagonal.

    Args:
        votes: of one axis.
        models: in the order of the axes M.
        prompts: place of each prompt.
    """
    model_place = {model: place for place, model in enumerate(models)}
    wins_PMM = np.zeros((len(prompts), len(models), len(models)))
    ties_PMM = np.zeros_like(wins_PMM)
    for vote in votes:
        for (prompt, _, a, b), sign in _comparisons(vote, models):
            p, i, j = prompts[prompt], model_place[a], model_place[b]
            if sign == 0:
                ties_PMM[p, i, j] += 1
                ties_PMM[p, j, i] += 1
            else:
                wins_PMM[(p, i, j) if sign > 0 else (p, j, i)] += 1
    return wins_PMM, ties_PMM
