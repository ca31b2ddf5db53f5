"""Does the clip show what the prompt says?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.features import VICLIP
from evalkit.metrics.base import Example, MetricSpec
from evalkit.metrics.consistency import cosine
from evalkit.types import Clip, Features, Score


def score(clip: Clip, features: Features) -> Score:
    video_D, text_D = features[VICLIP.name]
    return Score(float(cosine(video_D, text_D)))


METRIC = MetricSpec(
    name="overall_consistency",
    version=1,
    title="Overall consistency",
    summary="Cosine similarity of ViCLIP's features of eight frames of the clip and of the prompt.",
    features=(VICLIP,),
    score=score,
    range=(-1.0, 1.0),
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/overall_consistency.py",
    reads_prompt=True,
    degrades={"wrong_prompt": -1},
    quirks=(
        "Prompts are cut after 30 tokens (32 with the start and end marks).",
        "The cosine is not multiplied by CLIP's logit scale of 100; real clips reach about 0.2 to 0.3.",
        "A clip of fewer than eight frames repeats its last frame.",
        "Frames are resized as uint8, rounded and clamped, where the other CLIP dimensions keep the overshoot.",
    ),
    examples=(
        Example({VICLIP.name: np.array([[0.6, 0.8], [0.8, -0.6]])}, 0.0),
        Example({VICLIP.name: np.array([[0.6, 0.8], [1.0, 0.0]])}, 0.6),
    ),
)
