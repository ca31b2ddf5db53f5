"""Stand-in for subject consistency: does the middle of the picture keep its colours and its contours?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.base import Extractor, FeatureSpec, PerFrame, Runtime
from evalkit.lite._consistency import consistency, halves
from evalkit.lite._pixels import Floats, centre_window, colour_histogram, luma_grid, rgb_grid, soft_bins, unit
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Array, Clip, Features, Frames, Score
from evalkit.weights import WeightStore

GRID = 64
CELLS = 4  # orientation histograms a side
ANGLES = 8  # bins over half a turn: the sign of an edge depends on the light behind the subject
FLAT = 2.0  # grey levels a pixel below which a gradient is no contour

_WINDOW_HW = centre_window(GRID, GRID)


def orientation_histograms(luma_HW: Floats) -> Floats:
    """Centre-weighted histograms of gradient orientation, `(CELLS**2 * ANGLES,)`, in grey levels a pixel."""
    dy_HW, dx_HW = np.gradient(luma_HW)
    low_HW, share_HW = soft_bins(np.mod(np.arctan2(dy_HW, dx_HW), np.pi) * (ANGLES / np.pi), ANGLES)
    cell_G = np.arange(GRID) * CELLS // GRID
    cell_HW = cell_G[:, None] * CELLS + cell_G[None, :]
    strength_HW = np.hypot(dx_HW, dy_HW) * _WINDOW_HW
    histogram = np.zeros(CELLS**2 * ANGLES)
    for step, weight_HW in ((0, 1 - share_HW), (1, share_HW)):
        index_HW = cell_HW * ANGLES + (low_HW + step) % ANGLES
        histogram += np.bincount(index_HW.ravel(), (weight_HW * strength_HW).ravel(), minlength=len(histogram))
    return np.asarray(histogram * (CELLS**2 / _WINDOW_HW.sum()), dtype=np.float32)


def describe(frames_BHWC: Frames) -> Array:
    """Colours and contours of every frame, equally weighted in one unit vector: `(B, D)`."""
    return np.stack([_describe(frame_HWC) for frame_HWC in frames_BHWC])


def _describe(frame_HWC: Array) -> Floats:
    colours = colour_histogram(rgb_grid(frame_HWC, GRID, GRID), _WINDOW_HW)
    contours = unit(orientation_histograms(luma_grid(frame_HWC, GRID, GRID)), FLAT)
    return halves(colours, contours)


def _load(store: WeightStore, runtime: Runtime) -> Extractor:
    return PerFrame(describe, batch=1)


FEATURE = FeatureSpec("lite/colours_and_contours", version=1, load=_load)


def score(clip: Clip, features: Features) -> Score:
    return consistency(features[FEATURE.name])


METRIC = MetricSpec(
    name="lite/subject_consistency",
    version=1,
    title="Subject consistency (lite)",
    summary="Not VBench: similarity of the centre-weighted colour and edge-orientation histograms of each frame to the"
    " previous and the first frame. It sees pixels, not subjects.",
    features=(FEATURE,),
    score=score,
    source="Colour: Comaniciu, Ramesh and Meer 2003 (Epanechnikov kernel, Bhattacharyya coefficient). Contours: Dalal"
    " and Triggs 2005 (histograms of oriented gradients). Averaged as in VBench's subject consistency.",
    pooling="frames",
    min_frames=2,
    degrades={"swap": -1, "shuffle": -1, "flicker": -1},
    examples=(
        # Second frame: like the first, 1 and 1. Third: orthogonal to both, 0 and 0.
        Example({FEATURE.name: np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])}, value=0.5),
        # cos = 0.6 to the first and, for the third, 0.6 to the second: ((0.6 + 0.6) + (0.6 + 1)) / 4.
        Example({FEATURE.name: np.array([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])}, value=0.7),
    ),
)
