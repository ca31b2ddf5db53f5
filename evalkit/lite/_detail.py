"""Detail and noise of a frame, told apart by where they are: noise is everywhere, detail only where something is."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from evalkit.backbones.base import Extractor, FeatureSpec, PerFrame, Runtime
from evalkit.types import Array, Features, Frames
from evalkit.weights import WeightStore

LONGEST = 1024  # pixels; larger frames are averaged down by a whole factor, so time and verdict stay comparable
SHORTEST = 32  # pixels; smaller frames are repeated up, so that there is at least one block
BLOCK = 16
NOISE_QUANTILE, DETAIL_QUANTILE = 0.2, 0.9  # over blocks: the emptiest fifth, the richest tenth
LAPLACIAN_GAIN = 20**0.5  # root of the sum of squared coefficients of the 4-neighbour Laplacian
DIAGONAL_GAIN = 36**0.5  # the same of the mask [1 -2 1]^T [1 -2 1]
SPREAD = 1.2  # how far the two quantiles lie apart where there is nothing but noise
ABS_TO_STD = math.sqrt(math.pi / 2)  # standard deviation of a normal variable over its mean absolute value

# Score = detail / (detail + HALF + NOISE_COST * noise): scaling both down (blur) and raising noise alone lower it.
HALF = 4.0  # grey levels of detail that a clean frame needs for one half
NOISE_COST = 2.0


def _luma(frame_HWC: Array) -> Image.Image:
    luma = Image.fromarray(frame_HWC).convert("L")
    if max(luma.size) > LONGEST:
        luma = luma.reduce(math.ceil(max(luma.size) / LONGEST))
    if min(luma.size) < SHORTEST:
        factor = math.ceil(SHORTEST / min(luma.size))
        return luma.resize((luma.width * factor, luma.height * factor), Image.Resampling.NEAREST)
    return luma


def _block_means(image_HW: Array) -> Array:
    """Mean over blocks of 16x16, the ragged edge left out: `(N,)`, float64."""
    rows, columns = image_HW.shape[0] // BLOCK, image_HW.shape[1] // BLOCK
    whole_HW = image_HW[: rows * BLOCK, : columns * BLOCK]
    sums = whole_HW.reshape(rows, BLOCK, columns * BLOCK).sum(axis=1, dtype=np.int32)
    return np.asarray(sums.reshape(rows, columns, BLOCK).sum(axis=2).ravel() / BLOCK**2)


def detail_and_noise(luma_HW: Array) -> tuple[float, float]:
    """Standard deviations (grey levels) of fine detail in the richest blocks and of noise in the emptiest ones.

    Both are high-pass responses scaled so that white noise of standard deviation s reads s (Immerkaer 1996, per block).
    The noise is measured with a mask that straight edges do not excite, the detail with the Laplacian, that they do.
    """
    padded_HW = np.pad(luma_HW.astype(np.int16), 1, mode="edge")
    across_HW = np.diff(padded_HW, n=2, axis=1)
    down_HW = np.diff(padded_HW, n=2, axis=0)
    diagonal_HW = np.diff(across_HW, n=2, axis=0)
    laplacian_HW = across_HW[1:-1] + down_HW[:, 1:-1]
    noise_N = _block_means(np.abs(diagonal_HW)) * (ABS_TO_STD / DIAGONAL_GAIN)
    activity_N = _block_means(np.abs(laplacian_HW)) * (ABS_TO_STD / LAPLACIAN_GAIN)
    noise = float(np.quantile(noise_N, NOISE_QUANTILE))
    activity = float(np.quantile(activity_N, DETAIL_QUANTILE))
    return math.sqrt(max(activity**2 - (SPREAD * noise) ** 2, 0.0)), noise


def _embed(frames_BHWC: Frames) -> Array:
    return np.array([detail_and_noise(np.asarray(_luma(frame_HWC))) for frame_HWC in frames_BHWC])


def _load(store: WeightStore, runtime: Runtime) -> Extractor:
    return PerFrame(_embed, batch=1)


FEATURE = FeatureSpec("lite/detail", version=1, load=_load)


def clarity(features: Features) -> Array:
    """Detail over detail, noise and a threshold, per frame: `(T,)`, 0 to 1."""
    detail_T, noise_T = np.asarray(features[FEATURE.name], dtype=np.float64).T
    return np.asarray(detail_T / (detail_T + HALF + NOISE_COST * noise_T))
