"""Stand-in for motion smoothness: can a frame be predicted from its two neighbours?"""

from __future__ import annotations

from collections import deque

import numpy as np

from evalkit.backbones.base import FeatureSpec, Reader, Runtime
from evalkit.lite._motion import Spectrum, displaced, shifts, spectrum
from evalkit.lite._pixels import Floats, luma_grid
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Array, Clip, Features, Frames, Score
from evalkit.weights import WeightStore

HEIGHT, WIDTH, BLOCK = 96, 128, 8
PEAKS = 3  # motions a block may choose from, besides standing still
STILL = 2.0  # grey levels a pixel: differences of this size are quantisation and compression, not motion


def _block_means(image_HW: Floats) -> Floats:
    blocks: Floats = image_HW.reshape(HEIGHT // BLOCK, BLOCK, WIDTH // BLOCK, BLOCK).mean(axis=(1, 3))
    return blocks


def prediction_error(before: Floats, middle: Floats, after: Floats, motions: list[tuple[float, float]]) -> float:
    """Mean absolute error (grey levels) of the middle frame against the mean of its neighbours, moved half way.

    Every block of 8x8 pixels takes the best of the `motions` (dy, dx from `before` to `after`).
    """
    candidates = [
        (displaced(before, -dy / 2, -dx / 2) + displaced(after, dy / 2, dx / 2)) / 2
        if dy or dx
        else (before + after) / 2
        for dy, dx in motions
    ]
    errors = np.stack([_block_means(np.abs(middle - candidate)) for candidate in candidates])
    return float(errors.min(axis=0).mean())


def change(before: Floats, middle: Floats, after: Floats) -> float:
    """Mean absolute difference (grey levels) of the middle frame from its neighbours; bounds the error from above."""
    return float((np.abs(middle - before).mean() + np.abs(after - middle).mean()) / 2)


class _MidFrameReader:
    """Keeps three small frames; hands over `(T - 2, 2)`: prediction error and change of every inner frame."""

    def __init__(self) -> None:
        self.recent: deque[tuple[Floats, Spectrum]] = deque(maxlen=3)
        self.terms: list[tuple[float, float]] = []

    def push(self, start: int, frames_THWC: Frames) -> None:
        for frame_HWC in frames_THWC:
            luma_HW = luma_grid(frame_HWC, WIDTH, HEIGHT)
            self.recent.append((luma_HW, spectrum(luma_HW)))
            if len(self.recent) == 3:
                self._measure()

    def _measure(self) -> None:
        (before, earlier), (middle, _), (after, later) = self.recent
        motions = [(0.0, 0.0), *shifts(earlier, later, WIDTH, PEAKS)]
        self.terms.append((prediction_error(before, middle, after, motions), change(before, middle, after)))

    def close(self) -> Array:
        return np.array(self.terms).reshape(-1, 2)


class _MidFrame:
    def open(self, clip: Clip) -> Reader:
        return _MidFrameReader()


def _load(store: WeightStore, runtime: Runtime) -> _MidFrame:
    return _MidFrame()


FEATURE = FeatureSpec("lite/mid_frame", version=1, load=_load)


def score(clip: Clip, features: Features) -> Score:
    """1 - mean over inner frames of error / (change + STILL): 1 for a still, near 0 where neighbours tell nothing."""
    error_T, change_T = np.asarray(features[FEATURE.name], dtype=np.float64).T
    return Score(float(1 - (error_T / (change_T + STILL)).mean()), n_terms=len(error_T))


METRIC = MetricSpec(
    name="lite/motion_smoothness",
    version=1,
    title="Motion smoothness (lite)",
    summary="Not VBench: how well each frame is predicted by its two neighbours moved half way towards each other"
    " (phase correlation, best of four motions a block), relative to how much the picture changes.",
    features=(FEATURE,),
    score=score,
    source="The idea of VBench's motion smoothness (predict the middle frame) with the motion of Kuglin and Hines 1975"
    " and Thomas 1987 in place of a network.",
    min_frames=3,
    degrades={"noise": -1, "flicker": -1, "shuffle": -1},
    examples=(
        # (error, change) = (1, 2) and (3, 2): 1 - (1/4 + 3/4) / 2.
        Example({FEATURE.name: np.array([[1.0, 2.0], [3.0, 2.0]])}, value=0.5),
        Example({FEATURE.name: np.array([[0.0, 0.0]])}, value=1.0),
    ),
)
