"""Votes as counts that add up: everything that is estimated is a function of their sums.

Axes: B rows (clusters or resamples), K counts of a row, M models, L pairs of models, O outcomes of a pair, S sets of
models that Plackett-Luce chooses from, N distinct answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from evalkit.stats import FloatArray
from evalkit.study.statistics import plackett_luce
from evalkit.study.types import Protocol, Vote

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]


class Pattern(NamedTuple):
    """An answer without who gave it: places of the models shown, in the list's order, their ranks, and the level.

    The level is that of the preference for the first of two models: 2, 1, 0, -1 or -2; None where there are no levels.
    """

    models: tuple[int, ...]
    ranks: tuple[int, ...]
    level: int | None = None

    @classmethod
    def of(cls, vote: Vote, places: dict[str, int]) -> Pattern:
        """The answer of a vote, whatever order its models were shown in."""
        shown = sorted(zip((places[model] for model in vote.models), vote.ranks, strict=True))
        models, ranks = tuple(model for model, _ in shown), tuple(rank for _, rank in shown)
        if vote.level is None:
            return cls(models, ranks)
        return cls(models, ranks, -vote.level if models[0] == places[vote.models[0]] else vote.level)

    @property
    def tied(self) -> bool:
        return len(set(self.ranks)) < len(self.ranks)

    @property
    def order(self) -> tuple[int, ...]:
        """The models from best to worst."""
        return tuple(model for _, model in sorted(zip(self.ranks, self.models, strict=True)))


@dataclass(frozen=True)
class Layout:
    """Which count stands where in a row.

    Args:
        n_models: M.
        scores_O: of each outcome of a pair, positive where the first model is preferred: 1, 0, -1, or 2 to -2.
        members_SM: the sets that Plackett-Luce chooses from; none where it does not apply.
    """

    n_models: int
    scores_O: FloatArray
    members_SM: BoolArray

    @cached_property
    def pairs_L2(self) -> IntArray:
        """First and second model of each pair."""
        return np.stack(np.triu_indices(self.n_models, 1), axis=1)

    @cached_property
    def slices(self) -> dict[str, slice]:
        sizes = {
            "outcomes": len(self.pairs_L2) * len(self.scores_O),
            "shown": self.n_models,
            "ranks": self.n_models,
            "full": 1,
            "tied": 1,
            "chosen": self.n_models,
            "faced": len(self.members_SM),
        }
        ends = np.cumsum(list(sizes.values())).tolist()
        return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


@dataclass(frozen=True)
class Counts:
    """Rows of counts.

    Args:
        layout: which count stands where.
        table_BK: the rows.
    """

    layout: Layout
    table_BK: FloatArray

    def _columns(self, name: str) -> FloatArray:
        return self.table_BK[:, self.layout.slices[name]]

    @property
    def outcomes_BLO(self) -> FloatArray:
        """Votes for each outcome of each pair."""
        return self._columns("outcomes").reshape(len(self.table_BK), len(self.layout.pairs_L2), -1)

    @property
    def shares_BL3(self) -> FloatArray:
        """Votes in which the first model of a pair is preferred, neither is, or the second is."""
        scores_O = self.layout.scores_O
        kinds_O3 = np.stack([scores_O > 0, scores_O == 0, scores_O < 0], axis=1).astype(np.float64)
        return self.outcomes_BLO @ kinds_O3

    @property
    def wins_BMM(self) -> FloatArray:
        """Votes in which the model of the row is preferred to that of the column."""
        shares_BL3 = self.shares_BL3
        return self._square(shares_BL3[..., 0], shares_BL3[..., 2])

    @property
    def ties_BMM(self) -> FloatArray:
        """Votes in which two models are called equal, symmetric."""
        ties_BL = self.shares_BL3[..., 1]
        return self._square(ties_BL, ties_BL)

    def _square(self, upper_BL: FloatArray, lower_BL: FloatArray) -> FloatArray:
        first_L, second_L = self.layout.pairs_L2.T
        square_BMM = np.zeros((len(upper_BL), self.layout.n_models, self.layout.n_models))
        square_BMM[:, first_L, second_L], square_BMM[:, second_L, first_L] = upper_BL, lower_BL
        return square_BMM

    @property
    def shown_BM(self) -> FloatArray:
        """Votes in which a model was shown."""
        return self._columns("shown")

    @property
    def ranks_BM(self) -> FloatArray:
        """Sum of each model's ranks in full rankings, tied models having the mean of their places."""
        return self._columns("ranks")

    @property
    def full_B(self) -> FloatArray:
        """Full rankings."""
        return self._columns("full")[:, 0]

    @property
    def tied_B(self) -> FloatArray:
        """Sum over full rankings and their groups of t tied models of t^3 - t (Kendall's correction)."""
        return self._columns("tied")[:, 0]

    @property
    def chosen_BM(self) -> FloatArray:
        """Choices of each model in rankings (Plackett-Luce)."""
        return self._columns("chosen")

    @property
    def faced_BS(self) -> FloatArray:
        """Choices from each set in rankings (Plackett-Luce)."""
        return self._columns("faced")


def count(patterns: Sequence[Pattern], n_models: int, protocol: Protocol) -> Counts:
    """One row of counts for each answer.

    Plackett-Luce's counts are there for rankings of which none has a tie.
    """
    scores_O = np.array([2, 1, 0, -1, -2] if protocol == "likert5" else [1, 0, -1], dtype=np.float64)
    ordered = protocol == "rank" and not any(pattern.tied for pattern in patterns)
    made = plackett_luce.choices([pattern.order for pattern in patterns] if ordered else [], n_models)
    layout = Layout(n_models, scores_O, made.members_SM)
    table_NK = np.zeros((len(patterns), layout.slices["faced"].stop))
    counts = Counts(layout, table_NK)
    for n, pattern in enumerate(patterns):
        counts.shown_BM[n, list(pattern.models)] = 1
        _count_pairs(counts.outcomes_BLO[n], layout, pattern)
        if protocol == "rank" and len(pattern.models) == n_models:
            _count_ranks(counts, n, pattern.ranks)
    if ordered:
        table_NK[:, layout.slices["chosen"]], table_NK[:, layout.slices["faced"]] = made.chosen_NM, made.faced_NS
    return counts


def _count_pairs(outcomes_LO: FloatArray, layout: Layout, pattern: Pattern) -> None:
    rank = dict(zip(pattern.models, pattern.ranks, strict=True))
    for pair, (a, b) in enumerate(layout.pairs_L2.tolist()):
        if a in rank and b in rank:
            score = pattern.level if pattern.level is not None else int(np.sign(rank[b] - rank[a]))
            outcomes_LO[pair, layout.scores_O == score] = 1


def _count_ranks(counts: Counts, n: int, ranks: tuple[int, ...]) -> None:
    sizes_M = np.array([ranks.count(rank) for rank in ranks])
    counts.full_B[n] = 1
    counts.ranks_BM[n] = np.array(ranks) + (sizes_M - 1) / 2
    counts.tied_B[n] = np.sum(sizes_M**2 - 1)  # each of the t members of a group adds t^2 - 1
