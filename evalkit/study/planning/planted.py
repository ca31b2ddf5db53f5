"""Attention checks among a rater's screens.

Checks look like any screen. They come after votes, at most one after each, one in each equal part of a rater's screens:
so none is first, no two are adjacent, and whoever gives up half-way has met half of them. `evalkit.study.checks` says
when one is failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from evalkit.study.checks import SPOILED_AXES
from evalkit.study.planning.assignment import Item, Showing
from evalkit.study.types import Protocol, ScreenKind

SPOILED_PER_MODEL = 2
"""Spoiled clips that are made of each model: raters share them, since each takes time to encode."""


def usable_checks(protocol: Protocol, block_size: int, axes: Sequence[str]) -> tuple[ScreenKind, ...]:
    """The kinds of checks that can be failed: no clip stands between two, and a spoiled one need not mean less."""
    kinds: list[ScreenKind] = ["degraded"] if set(axes) & set(SPOILED_AXES) else []
    return (*kinds, "identical") if protocol != "rank" or block_size > 2 else tuple(kinds)


@dataclass
class Planter:
    """Adds checks to the screens of one rater after another.

    Args:
        items: all items of the study.
        models: labels.
        block_size: clips on a screen.
        kinds: of checks, which take turns.
        seed: of everything that is drawn.
    """

    items: Sequence[Item]
    models: Sequence[str]
    block_size: int
    kinds: Sequence[ScreenKind]
    seed: int
    used: Counter[object] = field(default_factory=Counter)
    planted: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, 1])
        drawn = [self.items[n] for n in self.rng.permutation(len(self.items))]
        n_spoiled = SPOILED_PER_MODEL * len(self.models)
        self.spoiled = [(drawn[n % len(drawn)], self.models[n % len(self.models)]) for n in range(n_spoiled)]
        self.twins = [(item, model) for item in drawn for model in self.models]

    def plant(self, votes: Sequence[Showing], n_checks: int) -> tuple[Showing, ...]:
        """A rater's votes with checks among them.

        Raises:
            ValueError: more checks than votes.
        """
        if n_checks > len(votes):
            raise ValueError(f"{n_checks} checks among {len(votes)} votes")
        bounds = [len(votes) * part // n_checks for part in range(n_checks + 1)] if n_checks else []
        after = [int(self.rng.integers(low, high)) for low, high in pairwise(bounds)]
        kinds = [self.kinds[(self.planted + n) % len(self.kinds)] for n in range(n_checks)]
        self.planted += n_checks
        self.rng.shuffle(kinds)
        screens: list[Showing] = []
        for n, vote in enumerate(votes):
            screens.append(vote)
            if n in after:
                checked = {screen.item for screen in screens if screen.kind != "vote"}
                screens.append(self._check(kinds.pop(), votes, n, checked))
        return tuple(screens)

    def _check(self, kind: ScreenKind, votes: Sequence[Showing], after: int, checked: Collection[Item]) -> Showing:
        nearness = {vote.item: len(votes) - abs(n - after) for n, vote in enumerate(votes)}
        nearness |= dict.fromkeys(checked, len(votes) + 1)
        item, model = self._choose(self.spoiled if kind == "degraded" else self.twins, nearness)
        others = [other for other in self.models if other != model]
        copies = 1 if kind == "degraded" else 2
        company = [others[n] for n in self.rng.permutation(len(others))[: self.block_size - copies]]
        order = self.rng.permutation(self.block_size)
        shown = tuple((*[model] * copies, *company)[n] for n in order)
        return Showing(item, shown, kind, int(np.flatnonzero(order == 0)[0]) if kind == "degraded" else None)

    def _choose(self, choices: Sequence[tuple[Item, str]], nearness: Mapping[Item, int]) -> tuple[Item, str]:
        """The model, then the item with it, planted least; then one that the rater meets far away, best not at all."""

        def cost(choice: tuple[Item, str]) -> tuple[int, int, int, float]:
            item, model = choice
            return self.used[model], self.used[choice], nearness.get(item, 0), self.rng.random()

        chosen = min(choices, key=cost)
        self.used.update([chosen, chosen[1]])
        return chosen
