"""Temporal flickering: how little neighbouring frames differ, pixel by pixel, at native size. Reads no network.

The official number is float32 arithmetic of NumPy 1.x (the package requires numpy < 2), rounding included. NumPy 1 adds
a large array up in runs of 8192 values; a run of differences sums to less than 2**24, which float32 holds exactly. So
the runs are summed here as integers, many times faster, and only the addition of the runs is left to float32.
"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.base import FeatureSpec, Reader, Runtime
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Array, Clip, Features, Frames, Score
from evalkit.weights import WeightStore

RUN = 8192
BLOCK = 8 * RUN  # fits in a CPU cache


class FlickerReader:
    """Keeps the previous frame and one number per pair of frames: the mean absolute difference, 0 to 255."""

    def __init__(self) -> None:
        self.previous_N: Frames | None = None
        self.errors: list[np.float32] = []

    def push(self, start: int, frames_THWC: Frames) -> None:
        for frame_N in frames_THWC.reshape(len(frames_THWC), -1):
            if self.previous_N is not None:
                self.errors.append(_mean_absolute_error(self.previous_N, frame_N))
            self.previous_N = frame_N

    def close(self) -> Array:
        return np.array(self.errors, np.float32)


class FlickerExtractor:
    def open(self, clip: Clip) -> Reader:
        return FlickerReader()


def _mean_absolute_error(a_N: Frames, b_N: Frames) -> np.float32:
    """The float32 mean of |a - b| over two flattened RGB frames, as NumPy 1 rounds it for BGR frames."""
    sums_R = _run_sums(a_N, b_N)
    total = np.cumsum(sums_R, dtype=np.float32)[-1] if sums_R.sum() >= 2**24 else sums_R.sum()
    return np.float32(float(total) / len(a_N))


def _run_sums(a_N: Frames, b_N: Frames) -> Array:
    """Sums of |a - b| over each run of the frame in BGR order, as integers."""
    blocks = (_absolute_difference(a_N[i : i + BLOCK], b_N[i : i + BLOCK]) for i in range(0, len(a_N), BLOCK))
    sums_R = np.concatenate([np.add.reduceat(d_N, np.arange(0, len(d_N), RUN), dtype=np.uint32) for d_N in blocks])
    sums_R = sums_R.astype(np.int64)
    excess_R = _bgr_excess(a_N, b_N, np.arange(RUN, len(a_N), RUN))
    sums_R[:-1] += excess_R
    sums_R[1:] -= excess_R
    return sums_R


def _absolute_difference(a_N: Frames, b_N: Frames) -> Frames:
    larger_N = np.maximum(a_N, b_N)
    larger_N -= np.minimum(a_N, b_N)
    return larger_N


def _bgr_excess(a_N: Frames, b_N: Frames, cuts_R: Array) -> Array:
    """What the values before each cut sum to in OpenCV's BGR order, less what they sum to in RGB order.

    Only a pixel that is cut makes a difference: its blue value then lies before the cut, its red value behind it.
    """
    red_R = cuts_R - cuts_R % 3
    red, blue = (np.abs(a_N[at].astype(np.int64) - b_N[at]) for at in (red_R, red_R + 2))
    return np.where(cuts_R % 3, blue - red, 0)


def load(store: WeightStore, runtime: Runtime) -> FlickerExtractor:
    return FlickerExtractor()


FLICKER = FeatureSpec("flicker", version=1, load=load, pixels="opencv")


def score(clip: Clip, features: Features) -> Score:
    """(255 - mean over pairs of the mean absolute error) / 255."""
    errors_T = features[FLICKER.name]
    mean = float(np.mean(errors_T))  # float32, as the official package averages
    return Score((255.0 - mean) / 255.0, n_terms=len(errors_T))


METRIC = MetricSpec(
    name="temporal_flickering",
    version=1,
    title="Temporal flickering",
    summary="One minus the mean absolute difference between neighbouring frames, at native size.",
    features=(FLICKER,),
    score=score,
    source="VBench (Huang et al., CVPR 2024), section 3.2; official file vbench/temporal_flickering.py",
    min_frames=2,
    degrades={"flicker": -1, "noise": -1, "shuffle": -1},
    quirks=(
        "A clip that moves scores worse and a frozen one scores 1: the official prompts for this dimension ask for"
        " static scenes, and the official filter that drops clips with motion is a separate script.",
        "The official package drops videos that OpenCV cannot open from the average without a word, and scores the"
        " frames before a damaged one as if they were the clip; here such a video is listed as unscored.",
        "OpenCV converts every clip with the BT.601 matrix, also those tagged BT.709; so does this dimension.",
    ),
    examples=(
        Example({"flicker": np.zeros(3, np.float32)}, 1.0),
        Example({"flicker": np.array([51.0], np.float32)}, 0.8),
        Example({"flicker": np.array([0.0, 25.5, 51.0], np.float32)}, 0.9),
    ),
)
