"""Does the scene stay the same from frame to frame?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.features import CLIP_B32
from evalkit.metrics.base import Example, MetricSpec
from evalkit.metrics.consistency import frame_consistency
from evalkit.types import Clip, Features, Score


def score(clip: Clip, features: Features) -> Score:
    return frame_consistency(features[CLIP_B32.name])


METRIC = MetricSpec(
    name="background_consistency",
    version=1,
    title="Background consistency",
    summary="Cosine similarity of CLIP ViT-B/32 features of each frame to the previous and to the first frame.",
    features=(CLIP_B32,),
    score=score,
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/background_consistency.py",
    pooling="frames",
    min_frames=2,
    degrades={"flicker": -1, "shuffle": -1, "swap": -1},
    quirks=(
        "The dimension is the mean over all frame pairs, so long clips weigh more (on one GPU and on several).",
        "Nothing separates background from foreground: the feature describes the whole central square of the frame.",
        "The second frame is compared with the first twice: as the previous and as the first frame.",
        "Negative similarities count as zero.",
        "The official package stops with a division by zero at a clip of one frame; here it is unscored.",
    ),
    # Frame 1 points away from frame 0: (0 + 0) / 2. Frame 2 is at 60 degrees to frame 0, 120 to frame 1: (0 + 1/2) / 2.
    examples=(Example({CLIP_B32.name: np.array([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.75**0.5]])}, 0.125),),
)
