"""Which models meet on a screen and in which places: Latin squares and balanced incomplete blocks.

Models are numbers from 0 here. A *row* is an order of the places of a screen, a *block* a set of models that meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

Row = tuple[int, ...]
Block = tuple[int, ...]

MAX_BLOCKS = 100
"""Blocks of the largest balanced design that is used: balance is complete only after all of them."""

_MAX_SETS, _MAX_TRIES = 6000, 20_000


def williams(size: int) -> tuple[tuple[Row, ...], ...]:
    """Latin squares in which each number follows each other number equally often (Williams 1949).

    Returns:
        One square of `size` rows for an even size; two, the second with its rows reversed, for an odd one, and only
        both together are balanced for what follows what. In each square every number stands once in every place.
    """
    zigzag = [0] + [(n + 1) // 2 if n % 2 else size - n // 2 for n in range(1, size)]
    square = tuple(tuple((n + step) % size for n in zigzag) for step in range(size))
    return (square,) if size % 2 == 0 else (square, tuple(row[::-1] for row in square))


@dataclass(frozen=True, slots=True)
class BlockDesign:
    """Blocks of one size.

    Args:
        n_models: models in all.
        blocks: in an order in which any stretch is nearly balanced.
        per_pair: in how many blocks each pair of models meets.
    """

    n_models: int
    blocks: tuple[Block, ...]
    per_pair: int


def balanced_blocks(n_models: int, size: int) -> BlockDesign | None:
    """The smallest balanced incomplete block design with cyclic development; None without one of reasonable size.

    A few base blocks are developed by adding 1 to every model modulo M, or modulo M - 1 with one model fixed, and
    chosen so that every pair of models meets equally often (Bose 1939). All sets of `size` models are such a design
    too.
    """
    if size == n_models:
        return BlockDesign(n_models, (tuple(range(n_models)),), 1)
    if size == 2:  # all pairs: nothing smaller is balanced
        return BlockDesign(n_models, spread_out(tuple(combinations(range(n_models), 2)), n_models), 1)
    if comb(n_models, size) > _MAX_SETS:
        return None
    developments = [_Development(n_models, size, shift) for shift in _shifts(n_models)]
    for per_pair in range(1, comb(n_models - 2, size - 2) + 1):
        n_blocks, rest = divmod(per_pair * n_models * (n_models - 1), size * (size - 1))
        if n_blocks > MAX_BLOCKS:
            return None
        if rest or n_blocks * size % n_models:
            continue
        for development in developments:
            if blocks := development.blocks(per_pair):
                return BlockDesign(n_models, spread_out(blocks, n_models), per_pair)
    return None


def _shifts(n_models: int) -> Iterator[Callable[[int], int]]:
    yield lambda model: (model + 1) % n_models
    yield lambda model: model if model == n_models - 1 else (model + 1) % (n_models - 1)


class _Development:
    """Sets of models in orbits under a shift, and how often each orbit makes a pair meet (alike within pair orbits)."""

    def __init__(self, n_models: int, size: int, shift: Callable[[int], int]) -> None:
        self.orbits = list(_orbits(n_models, size, shift))
        pairs = [orbit[0] for orbit in _orbits(n_models, 2, shift)]
        self.meetings = [[sum(set(pair) <= set(block) for block in orbit) for pair in pairs] for orbit in self.orbits]
        self.tries = 0

    def blocks(self, per_pair: int) -> tuple[Block, ...]:
        """Orbits that make every pair meet `per_pair` times; nothing if there are none, or none are found soon."""
        wanted = [per_pair] * len(self.meetings[0])
        for repeats in (False, True):
            self.tries = 0
            if chosen := self._cover(wanted, 0, repeats):
                return tuple(block for n in chosen for block in self.orbits[n])
        return ()

    def _cover(self, wanted: list[int], first: int, repeats: bool) -> list[int] | None:
        if not any(wanted):
            return []
        for n in range(first, len(self.orbits)):
            self.tries += 1
            if self.tries > _MAX_TRIES:
                return None
            left = [want - have for want, have in zip(wanted, self.meetings[n], strict=True)]
            if min(left) >= 0 and (rest := self._cover(left, n + (not repeats), repeats)) is not None:
                return [n, *rest]
        return None


def _orbits(n_models: int, size: int, shift: Callable[[int], int]) -> Iterator[tuple[Block, ...]]:
    seen: set[Block] = set()
    for start in combinations(range(n_models), size):
        if start not in seen:
            orbit = [start]
            while (following := tuple(sorted(map(shift, orbit[-1])))) != start:
                orbit.append(following)
            seen.update(orbit)
            yield tuple(orbit)


def spread_out(blocks: Sequence[Block], n_models: int) -> tuple[Block, ...]:
    """The same blocks in an order in which models and pairs come up as evenly as can be from the first block on."""
    features_CF = features(blocks, n_models)
    shown = np.zeros(features_CF.max() + 1)
    order: list[int] = []
    for _ in blocks:
        cost_C = shown[features_CF].sum(axis=1)
        cost_C[order] = np.inf
        order.append(int(cost_C.argmin()))
        shown[features_CF[order[-1]]] += 1
    return tuple(blocks[n] for n in order)


def features(blocks: Sequence[Block], n_models: int) -> npt.NDArray[np.intp]:
    """What each block shows, as numbers (blocks, features of a block): its models, then its pairs of models.

    The sum of the counts of what a block shows is, but for a constant, half of what showing it would add to the sum of
    the squared counts.
    """
    pairs = {pair: n_models + n for n, pair in enumerate(combinations(range(n_models), 2))}
    return np.array([[*block, *(pairs[pair] for pair in combinations(sorted(block), 2))] for block in blocks])
