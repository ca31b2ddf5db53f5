"""How balanced an assignment came out: the least and the largest of each kind of count, votes only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from evalkit.study.planning.assignment import Showing

Range = tuple[int, int]
"""Least and largest count."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Ranges of counts over the whole plan.

    Args:
        items: how often each item is shown.
        pairs: how often each pair of models meets.
        pair_items: on how many items each pair meets.
        places: how often each model stands in each place.
        orders: how often one model of a pair stands left of the other (both ways).
        rater_pairs: as `pairs`, of the rater with the widest range.
        rater_places: as `places`, of the rater with the widest range.
    """

    items: Range
    pairs: Range
    pair_items: Range
    places: Range
    orders: Range
    rater_pairs: Range
    rater_places: Range


def balance(raters: Sequence[Sequence[Showing]], models: Sequence[str]) -> Balance:
    """Count the votes of an assignment; attention checks do not count."""
    own = [[screen for screen in screens if screen.kind == "vote"] for screens in raters]
    votes = [screen for screens in own for screen in screens]
    pairs = [frozenset(pair) for pair in combinations(models, 2)]
    places = list(product(models, range(len(votes[0].models))))
    both_ways = [(a, b) for a, b in product(models, models) if a != b]
    orders = Counter(pair for screen in votes for pair in combinations(screen.models, 2))
    items = Counter(screen.item for screen in votes)
    return Balance(
        (min(items.values()), max(items.values())),
        _range(_pairs(votes), pairs),
        _range(Counter(pair for pair, _ in {(pair, s.item) for s in votes for pair in _met(s)}), pairs),
        _range(_places(votes), places),
        _range(orders, both_ways),
        _widest(_range(_pairs(screens), pairs) for screens in own),
        _widest(_range(_places(screens), places) for screens in own),
    )


def _met(screen: Showing) -> list[frozenset[str]]:
    return [frozenset(pair) for pair in combinations(screen.models, 2)]


def _pairs(screens: Iterable[Showing]) -> Counter[frozenset[str]]:
    return Counter(pair for screen in screens for pair in _met(screen))


def _places(screens: Iterable[Showing]) -> Counter[tuple[str, int]]:
    return Counter((model, place) for screen in screens for place, model in enumerate(screen.models))


def _range(counts: Mapping[Any, int], keys: Sequence[Any]) -> Range:
    """Over all keys, those that never came up included."""
    found = [counts.get(key, 0) for key in keys]
    return min(found), max(found)


def _widest(ranges: Iterable[Range]) -> Range:
    return max(ranges, key=lambda found: found[1] - found[0])
