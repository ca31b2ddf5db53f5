"""Are the frames free of blur, noise and wrong exposure?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.features import MUSIQ
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Clip, Features, Score


def score(clip: Clip, features: Features) -> Score:
    scores_T = np.asarray(features[MUSIQ.name], dtype=np.float64)
    return Score(float(scores_T.mean() / 100), n_terms=len(scores_T))


METRIC = MetricSpec(
    name="imaging_quality",
    version=1,
    title="Imaging quality",
    summary="Technical quality of each frame by MUSIQ trained on SPAQ photographs, averaged and divided by 100.",
    features=(MUSIQ,),
    score=score,
    range=(None, None),
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/imaging_quality.py; MUSIQ, ICCV 2021 (arXiv:2108.05997)",
    degrades={"blur": -1, "noise": -1},
    quirks=(
        "The official result file lists 0-100 per video and a fraction for the dimension; here both are fractions.",
        "MUSIQ has no bounds: an extreme frame may score below 0 or above 100, and neither is clipped.",
        "Only frames with a side above 512 pixels are scaled down, bilinearly without antialiasing, with sizes rounded"
        " down; the two smaller scales are bicubic, also without antialiasing, so fine patterns alias.",
        "The smaller scales are fixed at 224 and 384 pixels: frames below that are enlarged.",
    ),
    examples=(Example({MUSIQ.name: np.array([40.0, 60.0, 80.0])}, 0.6),),
)
