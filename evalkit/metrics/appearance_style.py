"""Do the frames have the look that the prompt asks for?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.features import CLIP_STYLE, STYLE_TOKENS
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Clip, Features, Score

STYLE = {"appearance_style": {"appearance_style": "Van Gogh style"}}


def score(clip: Clip, features: Features) -> Score:
    logits_T = np.asarray(features[CLIP_STYLE.name], np.float64)
    if logits_T.size == 0:
        return Score.missing(f"the text that names the style is longer than the {STYLE_TOKENS} tokens that CLIP reads")
    return Score(float(logits_T.mean() / 100), n_terms=len(logits_T))


METRIC = MetricSpec(
    name="appearance_style",
    version=1,
    title="Appearance style",
    summary="Mean over frames of CLIP ViT-B/32's logit for the frame and the name of the style, divided by 100.",
    features=(CLIP_STYLE,),
    score=score,
    range=(-1.0, 1.0),
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/appearance_style.py",
    pooling="frames",
    reads_prompt=True,
    auxiliary=("appearance_style",),
    degrades={"wrong_prompt": -1},
    quirks=(
        "Frames are compared with the name of the style alone ('Van Gogh style'), not with the prompt.",
        "The logit is the cosine times the checkpoint's own scale, which is 100 up to rounding.",
        "On one GPU the dimension is the mean over all frames, so long clips weigh more; on several GPUs it is the mean"
        " over the videos' last frames. This is the former.",
        "Frames are scaled by Pillow, antialiased, where the other CLIP dimensions are not.",
        "The official package stops with an error at a style of more than 77 tokens; here it is unscored.",
    ),
    # Cosines 0.2, 0.25 and 0.3 at a scale of 100.
    examples=(Example({CLIP_STYLE.name: np.array([20.0, 25.0, 30.0])}, 0.25, auxiliary=STYLE),),
)
