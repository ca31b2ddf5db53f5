"""Does anything move, by more than a little, for a good part of the clip?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.features import MOVING
from evalkit.backbones.flow_rules import MIN_SIDE, MovingRule
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Array, Clip, Features, Score


def score(clip: Clip, features: Features) -> Score:
    moves = MovingRule.of(clip.info).verdict(features[MOVING.name])
    if moves is None:
        return Score.missing(f"RAFT finds no flow, which needs frames of at least {MIN_SIDE} x {MIN_SIDE} pixels")
    return Score(float(moves))


def _pairs(*known: float) -> dict[str, Array]:
    """Magnitudes of the 15 pairs of a clip of 16 frames; those after the ones given were not needed."""
    return {MOVING.name: np.array([*known, *[np.nan] * (15 - len(known))], np.float32)}


METRIC = MetricSpec(
    name="dynamic_degree",
    version=1,
    title="Dynamic degree",
    summary="Share of clips that move: where RAFT finds large flow in at least a quarter as many pairs as frames.",
    features=(MOVING,),
    score=score,
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/dynamic_degree.py; RAFT, ECCV 2020",
    min_frames=2,
    quirks=(
        "A clip counts whole or not at all: 1 if it moves, 0 if not.",
        "A pair moves if the mean of the largest 5 % of its flow exceeds 6/256 of the frame's shorter side; the flow is"
        " that of the frame padded to multiples of 8, so the border's copies count, but the side is that of the frame.",
        "About 8 frames a second are looked at: every round(fps / 8)-th, half rounded to even, so clips of 12 and of 20"
        " fps are both halved (to 6 and to 10).",
        "round(n / 4) pairs of n frames must move. Two frames need none: such a clip always moves, whatever it shows."
        " A single one (a short clip of a high rate) never does.",
        "A clip of one frame counts as still in the official package; here it is unscored, as everywhere.",
        f"Below {MIN_SIDE} pixels a side the official flow is NaN, which counts as still, or the network stops with an"
        " error; here such a clip is unscored unless the number of frames alone decides.",
        "The official package reads only files called .mp4 (or folders of images), and the frames before a damaged one"
        " as if they were the clip.",
    ),
    # 16 frames of 64 x 48 at 8 fps: 4 pairs must exceed 6 * 48 / 256 = 1.125 pixels; 12 of 15 others settle it.
    examples=(
        Example(_pairs(2.0, 2.0, 1.0, 1.2, 1.13), 1.0),
        Example(_pairs(*[1.0] * 12), 0.0),
        Example(_pairs(*[2.0, 1.0, 1.0, 1.0] * 3, 1.1, 1.1, 1.1), 0.0),
    ),
)
