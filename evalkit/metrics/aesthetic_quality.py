"""Would people find the frames beautiful?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.features import LAION
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Clip, Features, Score

FULL_MARKS = 10
"""Top of the predictor's scale."""


def score(clip: Clip, features: Features) -> Score:
    scores_T = np.asarray(features[LAION.name], np.float64)[:, 0]
    return Score(float(scores_T.mean()) / FULL_MARKS, n_terms=len(scores_T))


METRIC = MetricSpec(
    name="aesthetic_quality",
    version=1,
    title="Aesthetic quality",
    summary="Mean over frames of the LAION aesthetic predictor (a linear head on CLIP ViT-L/14), divided by 10.",
    features=(LAION,),
    score=score,
    range=(None, None),
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/aesthetic_quality.py",
    quirks=(
        "The value is neither clipped to [0, 1] nor rescaled; the predictor may leave its scale of 1 to 10.",
        "Only the central square of the frame is seen.",
    ),
    examples=(Example({LAION.name: np.array([[4.0], [5.0], [6.6]])}, 0.52),),
)
