"""Stand-in for imaging quality: sharp, clean and neither crushed nor blown out?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.base import Extractor, FeatureSpec, PerFrame, Runtime
from evalkit.lite._detail import FEATURE as DETAIL
from evalkit.lite._detail import clarity
from evalkit.lite._pixels import luma_grid
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Array, Clip, Features, Frames, Score
from evalkit.weights import WeightStore

WIDTH, HEIGHT = 32, 24
BLACK, WHITE = 6.0, 249.0  # mean luma at which a whole cell has lost its content
CLIPPED_COST = 0.5  # a night sky is black without being a fault, so lost cells cost half their share


def clipped_share(frames_BHWC: Frames) -> Array:
    """Share of grid cells that are all black or white, `(B, 1)`; cells, because pixels clip in any sharp picture."""
    luma_BHW = np.stack([luma_grid(frame_HWC, WIDTH, HEIGHT) for frame_HWC in frames_BHWC])
    return np.asarray(((luma_BHW <= BLACK) | (luma_BHW >= WHITE)).mean(axis=(1, 2))[:, None])


def _load(store: WeightStore, runtime: Runtime) -> Extractor:
    return PerFrame(clipped_share, batch=1)


CLIPPED = FeatureSpec("lite/clipped", version=1, load=_load)


def score(clip: Clip, features: Features) -> Score:
    """Mean over frames of clarity times exposure."""
    exposure_T = 1 - CLIPPED_COST * np.asarray(features[CLIPPED.name], dtype=np.float64)[:, 0]
    return Score(float((clarity(features) * exposure_T).mean()), n_terms=len(exposure_T))


METRIC = MetricSpec(
    name="lite/imaging_quality",
    version=1,
    title="Imaging quality (lite)",
    summary="Not VBench: fine detail relative to noise (high-pass energy of the richest against the emptiest blocks),"
    " lowered by the share of crushed or blown-out picture. It cannot tell pleasing softness from defocus.",
    features=(DETAIL, CLIPPED),
    score=score,
    source="Immerkaer 1996 (noise operator), taken per block; sharpness is the Laplacian's energy net of that noise.",
    degrades={"blur": -1, "noise": -1},
    examples=(
        # detail 4 of 4 + 4: one half.
        Example({DETAIL.name: np.array([[4.0, 0.0]]), CLIPPED.name: np.array([[0.0]])}, value=0.5),
        # noise 4 costs 8 more: a quarter; half the picture is black: times 3/4. Second frame: nothing in it.
        Example(
            {DETAIL.name: np.array([[4.0, 4.0], [0.0, 0.0]]), CLIPPED.name: np.array([[0.5], [1.0]])}, value=0.09375
        ),
    ),
)
