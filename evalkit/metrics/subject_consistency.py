"""Does the subject keep its looks from frame to frame?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.features import DINO
from evalkit.metrics.base import Example, MetricSpec
from evalkit.metrics.consistency import frame_consistency
from evalkit.types import Clip, Features, Score


def score(clip: Clip, features: Features) -> Score:
    return frame_consistency(features[DINO.name])


METRIC = MetricSpec(
    name="subject_consistency",
    version=1,
    title="Subject consistency",
    summary="Cosine similarity of DINO ViT-B/16 features of each frame to the previous and to the first frame.",
    features=(DINO,),
    score=score,
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/subject_consistency.py",
    pooling="frames",
    min_frames=2,
    degrades={"flicker": -1, "shuffle": -1, "swap": -1},
    quirks=(
        "On one GPU the dimension is the mean over all frame pairs, so long clips weigh more; on several GPUs it is the"
        " mean over videos. This is the former.",
        "The second frame is compared with the first twice: as the previous and as the first frame.",
        "Negative similarities count as zero.",
        "Frames are resized to a short side of 224 and not cropped, so the subject may lie anywhere in a wide frame.",
        "The official package stops with a division by zero at a clip of one frame; here it is unscored.",
    ),
    # Frame 1 is orthogonal to frame 0: (0 + 0) / 2. Frame 2 equals frame 0: (0 + 1) / 2. Mean 1/4.
    examples=(Example({DINO.name: np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])}, 0.25),),
)
