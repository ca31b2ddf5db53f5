"""Stand-in for background consistency: do the colours and their coarse layout around the middle stay?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.base import Extractor, FeatureSpec, PerFrame, Runtime
from evalkit.lite._consistency import consistency, halves
from evalkit.lite._pixels import Floats, centre_window, colour_histogram, rgb_grid, unit
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Array, Clip, Features, Frames, Score
from evalkit.weights import WeightStore

GRID, CELL = 32, 4  # colours are counted on 32x32 pixels, the layout is that of their means in 8x8 cells
FLAT = 8.0  # grey levels (rms) below which a layout is no layout

_BORDER_HW = 1 - centre_window(GRID, GRID)


def _cells(image_HWC: Floats) -> Floats:
    n = GRID // CELL
    means: Floats = image_HWC.reshape(n, CELL, n, CELL, -1).mean(axis=(1, 3))
    return means


_BORDER_CELLS = _cells(_BORDER_HW) / (_cells(_BORDER_HW).sum() * 3)  # over all cells and channels they add up to 1


def layout(rgb_HWC: Floats) -> Floats:
    """Border-weighted thumbnail without its mean brightness, of unit length: `(D,)`."""
    cells_HWC = _cells(rgb_HWC)
    # One mean over all channels: the hue of a flat sky is part of the layout, its brightness is not.
    centred_HWC = cells_HWC - (cells_HWC * _BORDER_CELLS).sum()
    return unit(centred_HWC * np.sqrt(_BORDER_CELLS), FLAT)


def describe(frames_BHWC: Frames) -> Array:
    """Colours and layout of every frame's border, equally weighted in one unit vector: `(B, D)`."""
    grids = [rgb_grid(frame_HWC, GRID, GRID) for frame_HWC in frames_BHWC]
    # Colours hold under a moving camera, layout tells places of the same colours apart.
    return np.stack([halves(colour_histogram(rgb_HWC, _BORDER_HW), layout(rgb_HWC)) for rgb_HWC in grids])


def _load(store: WeightStore, runtime: Runtime) -> Extractor:
    return PerFrame(describe, batch=1)


FEATURE = FeatureSpec("lite/colours_and_layout", version=1, load=_load)


def score(clip: Clip, features: Features) -> Score:
    return consistency(features[FEATURE.name])


METRIC = MetricSpec(
    name="lite/background_consistency",
    version=1,
    title="Background consistency (lite)",
    summary="Not VBench: similarity of the colour histogram and of an 8x8 thumbnail, both weighted towards the border,"
    " of each frame to the previous and the first frame. It sees colours and layout, not places.",
    features=(FEATURE,),
    score=score,
    source="Colour: the Bhattacharyya coefficient, as in Comaniciu, Ramesh and Meer 2003. Layout: Torralba, Fergus and"
    " Freeman 2008 (tiny images without their mean, of unit norm). Averaged as in VBench's background consistency.",
    pooling="frames",
    min_frames=2,
    degrades={"swap": -1, "shuffle": -1, "flicker": -1},
    examples=(
        Example({FEATURE.name: np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])}, value=0.25),
        # A negative of the layout counts as no resemblance, not as less than none.
        Example({FEATURE.name: np.array([[1.0, 0.0], [-1.0, 0.0]])}, value=0.0),
    ),
)
