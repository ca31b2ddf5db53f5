"""The votes of one axis, counted by rater and prompt.

Axes: C cells (what one rater said of one prompt), I items (videos of one prompt and seed), K counts of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from evalkit.stats import FloatArray
from evalkit.study.statistics.counts import Counts, IntArray, Layout, Pattern, count
from evalkit.study.types import Protocol, Vote


@dataclass(frozen=True)
class Tally:
    """Counts of one axis; nothing in it depends on the order of the votes.

    Args:
        models: labels, in the order of the counts.
        layout: which count stands where.
        cells_CK: counts of each rater and prompt that met.
        rater_C: the rater of a cell, from 0.
        prompt_C: the prompt of a cell, from 0.
        items_IK: counts of each prompt and seed.
        prompt_I: the prompt of an item.
        n_votes: answers counted.
        n_raters: who gave them.
        n_prompts: what they were about.
        tied: whether an answer calls two models equal.
    """

    models: tuple[str, ...]
    layout: Layout
    cells_CK: FloatArray
    rater_C: IntArray
    prompt_C: IntArray
    items_IK: FloatArray
    prompt_I: IntArray
    n_votes: int
    n_raters: int
    n_prompts: int
    tied: bool

    @property
    def total(self) -> Counts:
        """Sums over all votes, in one row."""
        return Counts(self.layout, self.cells_CK.sum(axis=0, keepdims=True))

    @property
    def items(self) -> Counts:
        """Counts by prompt and seed."""
        return Counts(self.layout, self.items_IK)


def tally(votes: Sequence[Vote], models: Sequence[str], protocol: Protocol) -> Tally:
    """Count the votes of one axis.

    Args:
        votes: of one axis; one at most of each rater for the same models, prompt and seed.
        models: labels; every model of a vote is among them.
        protocol: how they were given.
    """
    places = {model: place for place, model in enumerate(models)}
    by_vote = [Pattern.of(vote, places) for vote in votes]
    patterns = sorted(set(by_vote))
    counts = count(patterns, len(models), protocol)
    pattern_V = _places(by_vote, patterns)
    raters, prompts = sorted({vote.rater for vote in votes}), sorted({vote.prompt_id for vote in votes})
    rater_V = _places([vote.rater for vote in votes], raters)
    prompt_V = _places([vote.prompt_id for vote in votes], prompts)
    seeds = [-1 if vote.seed is None else vote.seed for vote in votes]
    seed_V = _places(seeds, sorted(set(seeds)))
    n_prompts, n_seeds = max(len(prompts), 1), max(len(set(seeds)), 1)
    cells_CK, cell_C = _summed(rater_V * n_prompts + prompt_V, pattern_V, counts)
    items_IK, item_I = _summed(prompt_V * n_seeds + seed_V, pattern_V, counts)
    return Tally(
        models=tuple(models),
        layout=counts.layout,
        cells_CK=cells_CK,
        rater_C=cell_C // n_prompts,
        prompt_C=cell_C % n_prompts,
        items_IK=items_IK,
        prompt_I=item_I // n_seeds,
        n_votes=len(votes),
        n_raters=len(raters),
        n_prompts=len(prompts),
        tied=any(pattern.tied for pattern in patterns),
    )


def _places(values: Sequence[object], known: Sequence[object]) -> IntArray:
    places = {value: place for place, value in enumerate(known)}
    return np.array([places[value] for value in values], dtype=np.intp)


def _summed(group_V: IntArray, pattern_V: IntArray, counts: Counts) -> tuple[FloatArray, IntArray]:
    """Counts of each group of votes, and the groups; whole and half numbers, so their sums are exact."""
    groups, place_V = np.unique(group_V, return_inverse=True)
    shape = (len(groups), len(counts.table_BK))
    times_GN = sparse.csr_array((np.ones(len(place_V)), (place_V, pattern_V)), shape=shape)
    return np.asarray(times_GN @ counts.table_BK), groups
