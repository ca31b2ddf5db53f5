"""Do the two objects stand to each other as the prompt says?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from evalkit.backbones.detections import FRAMES, detections
from evalkit.backbones.features import GRIT_OBJECTS
from evalkit.metrics._detections import by_frame, frame_mean
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Clip, Features, Score

AXES = {"on the right of": 0, "on the left of": 0, "on the bottom of": 1, "on the top of": 1}
"""The axis along which a relationship is looked for: 0 is x, 1 is y."""

OVERLAP = 0.1
"""Intersection over union up to which two objects stand clearly apart."""

Box = Sequence[int]
"""x0 y0 x1 y1 in whole pixels."""


def score(clip: Clip, features: Features) -> Score:
    asked = clip.auxiliary["spatial_relationship"]
    axis = axis_of(asked["relationship"])
    if axis is None:
        return Score.missing(f"{asked['relationship']!r} is none of the relationships {', '.join(map(repr, AXES))}")
    names = (asked["object_a"], asked["object_b"])
    return frame_mean(
        best_pair(axis, rows["box"][np.isin(rows["object"], names)].astype(int).tolist())
        for rows in by_frame(features[GRIT_OBJECTS.name])
    )


def axis_of(relationship: str) -> int | None:
    """The axis of a relationship, or of a part of its words such as `left`; None if it has none."""
    return next((axis for words, axis in AXES.items() if relationship in words), None)


def best_pair(axis: int, boxes: Iterable[Box]) -> float:
    """The best score of two of these boxes, 0 if there are no two."""
    return max((position_score(axis, a, b) for a, b in combinations(boxes, 2)), default=0.0)


def position_score(axis: int, a: Box, b: Box) -> float:
    """How clearly two boxes stand side by side along an axis, 0 to 1; the order of the two does not matter.

    0 if their centres are not farther apart along the axis than across it; else 1, divided by the overlap in tenths
    where there is more than one.
    """
    distances = [abs(b[k] + b[k + 2] - a[k] - a[k + 2]) / 2 for k in (0, 1)]
    if distances[axis] <= distances[1 - axis]:
        return 0.0
    return OVERLAP / max(OVERLAP, intersection_over_union(a, b))


def intersection_over_union(a: Box, b: Box) -> float:
    """0 where neither box has an area."""
    sides = [max(0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1)]
    intersection = sides[0] * sides[1]
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - intersection
    return intersection / union if union else 0.0


# Frame 0: far apart along x, 1. Frame 1: 20 x 20 boxes that share 10 x 20, IoU 200/600: 0.1/(1/3) = 0.3. Frame 2: above
# each other, 0. Frame 3: two bicycles and no car, 1. The other twelve frames: nothing, 0. Sum 2.3.
SEEN = detections(
    [
        (0, (0.0, 0.0, 20.0, 20.0), 0.9, "bicycle", "bicycle"),
        (0, (60.0, 0.0, 80.0, 20.0), 0.8, "car", "car"),
        (1, (0.0, 0.0, 20.0, 20.0), 0.9, "bicycle", "bicycle"),
        (1, (10.0, 0.0, 30.9, 20.0), 0.8, "car", "car"),
        (2, (0.0, 0.0, 20.0, 20.0), 0.9, "bicycle", "bicycle"),
        (2, (0.0, 30.0, 20.0, 50.0), 0.8, "car", "car"),
        (3, (0.0, 0.0, 20.0, 20.0), 0.9, "bicycle", "bicycle"),
        (3, (60.0, 0.0, 80.0, 20.0), 0.8, "bicycle", "bicycle"),
    ]
)
LEFT = {"object_a": "bicycle", "object_b": "car", "relationship": "on the left of"}

METRIC = MetricSpec(
    name="spatial_relationship",
    version=1,
    title="Spatial relationship",
    summary=f"How clearly the two objects of the prompt stand side by side, or above each other, in {FRAMES} frames.",
    features=(GRIT_OBJECTS,),
    score=score,
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/spatial_relationship.py",
    pooling="frames",
    reads_prompt=True,
    auxiliary=("object_a", "object_b", "relationship"),
    quirks=(
        "Only the axis is looked at: an object on the left scores as one on the right, one on top as one below.",
        "Two detections of one of the objects serve as well as one of each.",
        "Corners are rounded down to whole pixels.",
        "On one GPU the dimension is the mean over frames, on several over videos; all clips have the same number of"
        " frames, so the two are equal.",
        "The official package stops with a division by zero at two boxes that hold no whole pixel; here they do not"
        " overlap.",
        "A relationship of other words scores 0 officially; here the clip is unscored, for no picture could fulfil it.",
    ),
    examples=(
        Example({GRIT_OBJECTS.name: SEEN}, 2.3 / 16, auxiliary={"spatial_relationship": LEFT}),
        Example(
            {GRIT_OBJECTS.name: SEEN},
            1 / 16,
            auxiliary={"spatial_relationship": LEFT | {"relationship": "on the top of"}},
        ),
    ),
)
