"""Screens from wheels that turn together: which item, and which models in which order, by number.

Items, models and blocks are numbers here; `evalkit.study.planning.assignment` names them and says what is guaranteed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb, gcd, lcm

import numpy as np

from evalkit.study.planning.designs import Block, Row, balanced_blocks, features, williams

Screen = tuple[int, Row]
"""An item, and its models in the order shown."""

_MAX_CANDIDATES = 4000


def full_screens(n_items: int, size: int, n_screens: int) -> Iterator[Screen]:
    """Item and row of each screen that shows all models.

    The row moves on with every screen, and by one more whenever the two wheels would meet again as before. An odd size
    has two squares: they take turns after as many screens as make a square whole for the rater, and after as many
    passes over the items as make it whole for an item.
    """
    squares = williams(size)
    for n in range(n_screens):
        turn, item = divmod(n, n_items)
        square = squares[(item // size + turn // size) % len(squares)]
        yield item, square[(n + n // lcm(n_items, size)) % size]


def block_screens(
    n_items: int, n_models: int, size: int, n_raters: int, screens: int, rng: np.random.Generator
) -> tuple[list[Screen], bool]:
    """Item and order of models of each screen that shows some of the models, and whether the design is balanced."""
    design = balanced_blocks(n_models, size)
    if design is not None:
        start = int(rng.integers(len(design.blocks)))
        blocks = design.blocks[start:] + design.blocks[:start]
        dealt = _cogwheels(n_items, blocks, n_raters * screens, wrap=screens > n_items)
    else:
        dealt = _evened_out(n_items, n_models, size, n_raters * screens, rng)
    orders = _Orders(size)
    return [
        (item, orders.choose(n // screens, item, block)) for n, (item, block) in enumerate(dealt)
    ], design is not None


def _cogwheels(n_items: int, blocks: Sequence[Block], n_screens: int, *, wrap: bool) -> Iterator[tuple[int, Block]]:
    """Item and block of each screen.

    Args:
        n_items: N.
        blocks: the design, B of them.
        n_screens: of all raters.
        wrap: start afresh after N B screens. Then no N B screens in a row repeat an item and block; without it, no
            N - 1 screens in a row repeat an item.
    """
    together, cycle = lcm(n_items, len(blocks)), gcd(n_items, len(blocks))
    for n in range(n_screens):
        ahead = n // together % cycle if wrap else n // together
        yield (n + ahead) % n_items, blocks[n % len(blocks)]


def _evened_out(
    n_items: int, n_models: int, size: int, n_screens: int, rng: np.random.Generator
) -> Iterator[tuple[int, Block]]:
    """Item and block of each screen, the block being the one that evens out best how often pairs met before."""
    if comb(n_models, size) <= _MAX_CANDIDATES:
        candidates = list(combinations(range(n_models), size))
    else:
        drawn = rng.permuted(np.tile(np.arange(n_models), (_MAX_CANDIDATES, 1)), axis=1)[:, :size]
        candidates = [tuple(sorted(map(int, block))) for block in np.unique(np.sort(drawn, axis=1), axis=0)]
    features_CF = features(candidates, n_models)
    n_features = n_models + comb(n_models, 2)
    overall, on_item = np.zeros(n_features), np.zeros((n_items, n_features))
    for n in range(n_screens):
        item = n % n_items
        minor_C = on_item[item][features_CF].sum(axis=1) + rng.random(len(candidates))  # once divided, less than 1
        best = int((overall[features_CF].sum(axis=1) + minor_C / (size**2 * (n_screens + 1))).argmin())
        for counts in (overall, on_item[item]):
            counts[features_CF[best]] += 1
        yield item, candidates[best]


class _Orders:
    """In which order the models of a block stand: each block in each row of the Latin squares in turn.

    Of the rows in which a block was shown least, the one is taken whose places, and whose pairs of a left and a right
    model, came up least: overall, on this item and, above all, for this rater.
    """

    def __init__(self, size: int) -> None:
        self.rows = [row for square in williams(size) for row in square]
        self.used: Counter[tuple[object, ...]] = Counter()

    def choose(self, rater: int, item: int, block: Block) -> Row:
        """The order of the next screen, which is counted."""
        orders = [tuple(block[n] for n in row) for row in self.rows]
        best = min(orders, key=lambda order: (self.used[order], self._familiar(rater, item, order)))
        self.used.update([best, *(feature for _, feature in _features(rater, item, best))])
        return best

    def _familiar(self, rater: int, item: int, order: Row) -> int:
        return sum(weight * self.used[feature] for weight, feature in _features(rater, item, order))


def _features(rater: int, item: int, order: Row) -> Iterator[tuple[int, tuple[object, ...]]]:
    """What should come up equally often, with its weight."""
    for left, right in combinations(order, 2):
        yield 1, ("pair", left, right)
        yield 1, ("pair on item", item, left, right)
    for place, model in enumerate(order):
        yield 1, ("place", model, place)
        yield 1, ("place on item", item, model, place)
        yield 3, ("place for rater", rater, model, place)
