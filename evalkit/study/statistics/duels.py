"""Every pair of models on one axis: shares of wins and ties, win rate, level, and the test of no preference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evalkit.stats import FloatArray
from evalkit.study.statistics import rates
from evalkit.study.statistics.counts import Counts
from evalkit.study.statistics.intervals import bounded, p_values
from evalkit.study.statistics.sample import Sample
from evalkit.study.types import Duel, Estimate

MOST_LEVEL = 2.0
"""Levels of `likert5` lie between -2 and 2."""


def duels(sample: Sample, order: Sequence[str]) -> tuple[tuple[Duel, ...], tuple[str, ...]]:
    """Duels of all pairs that met, and a note on those that did not.

    The test of no preference is that of a win rate of 1/2, with the variance and degrees of freedom of its interval, so
    that the two never contradict each other.

    Args:
        sample: the votes.
        order: all models, best first; the better-placed one of a pair is its `a`.
    """
    share = bounded(sample.spread(_shares, _votes_3), 0.0, 1.0)
    rate_spread = sample.spread(rates.pair_win_rates, rates.votes)
    rate, p_value = bounded(rate_spread, 0.0, 1.0), p_values(rate_spread, 0.0, 1.0)
    level = (
        bounded(sample.spread(rates.levels, rates.votes), -MOST_LEVEL, MOST_LEVEL)
        if sample.protocol == "likert5"
        else None
    )
    n_L = rates.votes(sample.tally.total)[0]
    found, strangers = [], []
    for pair, (first, second) in enumerate(sample.tally.layout.pairs_L2.tolist()):
        a, b = sample.models[first], sample.models[second]
        win, tie, lose = share[3 * pair : 3 * pair + 3]
        win_rate = rate[pair]
        if win is None or tie is None or lose is None or win_rate is None:
            strangers.append(f"{a} and {b}")
            continue
        known = tie if sample.ties else Estimate(0.0, 0.0, 0.0)  # not an estimate: nobody could answer so
        duel = Duel(a, b, int(n_L[pair]), win, known, lose, win_rate, level[pair] if level else None, p_value[pair])
        found.append(duel if order.index(a) < order.index(b) else turned(duel))
    notes = (f"Never shown together, so not compared: {'; '.join(strangers)}.",) if strangers else ()
    return tuple(sorted(found, key=lambda duel: (order.index(duel.a), order.index(duel.b)))), notes


def _shares(counts: Counts) -> FloatArray:
    """Win, tie and loss of the first pair, then of the next."""
    return rates.shares(counts).reshape(len(counts.table_BK), -1)


def _votes_3(counts: Counts) -> FloatArray:
    return np.repeat(rates.votes(counts), 3, axis=1)


def turned(duel: Duel) -> Duel:
    """The same duel seen from the other model."""
    level = None if duel.level is None else _mirrored(duel.level, 0.0)
    return Duel(
        duel.b,
        duel.a,
        duel.n,
        duel.lose,
        duel.tie,
        duel.win,
        _mirrored(duel.win_rate, 1.0),
        level,
        duel.p_value,
        duel.p_adjusted,
    )


def _mirrored(estimate: Estimate, total: float) -> Estimate:
    low = None if estimate.high is None else total - estimate.high
    high = None if estimate.low is None else total - estimate.low
    return Estimate(total - estimate.value, low, high)
