"""Which clips of a prompt stand still, and so may be judged for flickering.

The official suite generates 25 videos for each prompt of temporal_flickering, keeps the first five that stand still,
and scores those. `STATIC_FILTER` is the verdict on one clip, declared like a metric but no dimension; `keep`
says which clips are kept.

Source: static_filter.py of the official repository (vbench/cli/static_filter.py of the package).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evalkit.backbones.features import STATIC
from evalkit.backbones.flow_rules import MIN_SIDE, StaticRule
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Array, Clip, Features, Score

KEPT = 5
"""Clips kept of a prompt."""

Verdicts = Mapping[str, bool | None]
"""By file: whether the clip stands still; None where it could not be judged."""


def score(clip: Clip, features: Features) -> Score:
    """1 for a clip that stands still, 0 for one that moves."""
    static = StaticRule.of(clip.info).verdict(features[STATIC.name])
    if static is None:
        return Score.missing(f"RAFT finds no flow, which needs frames of at least {MIN_SIDE} x {MIN_SIDE} pixels")
    return Score(float(static))


def keep(files: Mapping[str, Sequence[str]], verdicts: Verdicts) -> dict[str, tuple[str, ...]]:
    """The first clips of each prompt that stand still, five at most; fewer, or none, where there are no more.

    First is by file name as text, as in the official script: `-0`, `-1`, `-10`, `-11`, ..., `-2`. There the kept
    clips are copied under new numbers from 0 on, in this order.

    Args:
        files: the candidates of each prompt, in any order.
        verdicts: one for every candidate, or at least for each one before the last that is kept.
    """
    return {
        prompt: tuple([file for file in sorted(candidates) if verdicts.get(file)][:KEPT])
        for prompt, candidates in files.items()
    }


def _pairs(known: Sequence[float], first_last: float = np.nan, last_first: float = np.nan) -> dict[str, Array]:
    """Magnitudes of the 15 pairs of a clip of 16 frames, of which some may be left out, and of its ends."""
    neighbours = [*known, *[np.nan] * (15 - len(known))]
    return {STATIC.name: np.array([*neighbours, first_last, last_first], np.float32)}


STATIC_FILTER = MetricSpec(
    name="static_filter",
    version=1,
    title="Static filter",
    summary="Whether a clip stands still: where RAFT finds large flow in at most an eighth as many pairs as frames.",
    features=(STATIC,),
    score=score,
    source="static_filter.py of the official VBench repository; RAFT, ECCV 2020",
    quirks=(
        "A pair moves if the mean of the largest 2 % of its flow, over the padded frame, exceeds 3/256 of the frame's"
        " shorter side. Every frame counts, whatever the rate; round(n / 8) pairs of n frames may move.",
        "The first and the last frame are compared as well, both ways, with 2 round(n / 8) times that threshold. Up to"
        " four frames nothing may move, and the ends may not differ at all: no clip so short stands still unless its"
        " flow is exactly zero.",
        f"Below {MIN_SIDE} pixels a side the official flow is NaN, which counts as still, or the network stops with an"
        " error; here such a clip is unscored.",
    ),
    # 16 frames of 64 x 48: 2 pairs may exceed 3 * 48 / 256 = 0.5625 pixels, and the ends 4 times as much (2.25).
    examples=(
        Example(_pairs([0.5] * 13, 2.2, 2.2), 1.0),
        Example(_pairs([0.6, 0.6, *[0.5] * 13], 2.2, 2.2), 1.0),
        Example(_pairs([0.6, 0.5, 0.6, 0.6]), 0.0),
        Example(_pairs([0.5] * 13, 2.2, 2.3), 0.0),
        Example(_pairs([0.5] * 13, 2.3), 0.0),
    ),
)
