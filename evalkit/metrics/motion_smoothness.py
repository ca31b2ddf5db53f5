"""Do things move as an interpolation network expects them to?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.features import AMT, AMT_MIN_SIDE
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Clip, Features, Score


def score(clip: Clip, features: Features) -> Score:
    errors_T = np.asarray(features[AMT.name], dtype=np.float64)
    if errors_T.size == 0:
        return Score.missing(f"AMT needs three frames of at least {AMT_MIN_SIDE} x {AMT_MIN_SIDE} pixels")
    return Score(float((255.0 - errors_T.mean()) / 255.0), n_terms=len(errors_T))


METRIC = MetricSpec(
    name="motion_smoothness",
    version=1,
    title="Motion smoothness",
    summary="How close AMT-S, given the even frames, comes to the odd ones: 1 minus the mean absolute error over 255.",
    features=(AMT,),
    score=score,
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/motion_smoothness.py; AMT, CVPR 2023",
    min_frames=3,
    degrades={"noise": -1, "flicker": -1, "shuffle": -1},
    quirks=(
        "The predicted frame is truncated to 8 bits, not rounded, which alone costs half a step (0.002).",
        "The last frame of a clip with an even number of frames is not looked at.",
        "The official package stops with an error at a clip of fewer than three frames; here it is unscored.",
        f"Below {AMT_MIN_SIDE} pixels a side the official prediction is NaN, read as black, or it stops; here:"
        " unscored.",
        "On a GPU the official package shrinks frames that it takes to be too large for the memory (above some 2.3"
        " megapixels with 24 GiB); here, as there on a CPU, frames are never shrunk.",
    ),
    # Mean error 2 of 255 steps.
    examples=(Example({AMT.name: np.array([1.0, 3.0])}, 253 / 255), Example({AMT.name: np.zeros(4)}, 1.0)),
)
