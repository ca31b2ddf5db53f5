"""Small images for the stand-ins: every frame is shrunk to a fixed grid before anything is measured on it.

A fixed grid bounds the cost of a frame whatever its resolution, and makes 2x2 and odd-sized frames ordinary.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from evalkit.types import Array

Floats = npt.NDArray[np.float32]

LEVELS = 6  # colour bins a channel


def shrink(frame_HWC: Array, width: int, height: int) -> Image.Image:
    """Average an RGB frame `(H, W, 3)`, uint8, over the cells of a `width` x `height` grid (repeats if smaller)."""
    return Image.fromarray(frame_HWC).resize((width, height), Image.Resampling.BOX)


def rgb_grid(frame_HWC: Array, width: int, height: int) -> Floats:
    """The frame on a grid: `(height, width, 3)`, float32, 0 to 255."""
    return np.asarray(shrink(frame_HWC, width, height), dtype=np.float32)


def luma_grid(frame_HWC: Array, width: int, height: int) -> Floats:
    """The frame's luma (BT.601) on a grid: `(height, width)`, float32, 0 to 255."""
    return np.asarray(shrink(frame_HWC, width, height).convert("L"), dtype=np.float32)


def centre_window(height: int, width: int) -> Floats:
    """Epanechnikov profile 1 - r^2 over the inscribed ellipse, 0 outside: `(height, width)`, 1 at the centre."""
    y_H = (np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1
    x_W = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    window_HW: Floats = np.maximum(0, 1 - y_H[:, None] ** 2 - x_W[None, :] ** 2)
    return window_HW


def unit(vector_D: Array, floor: float) -> Floats:
    """Scale `(D,)` to unit length with one more element, `floor`, so that a flat frame still resembles a flat frame."""
    extended = np.append(np.asarray(vector_D, dtype=np.float32).ravel(), np.float32(floor))
    scaled: Floats = extended / np.linalg.norm(extended)
    return scaled


def soft_bins(values: Floats, n: int) -> tuple[Array, Floats]:
    """Bin of each value (0 to n) and the share of it that belongs to the next: what moves slowly counts slowly."""
    low = np.minimum(values.astype(np.int64), n - 1)
    return low, np.asarray(values - low, dtype=np.float32)


def colour_histogram(rgb_HWC: Floats, weight_HW: Floats) -> Floats:
    """Square root of the weighted RGB histogram, `(LEVELS**3,)`: dot products are Bhattacharyya coefficients."""
    channels = [soft_bins(rgb_HWC[..., c].ravel() * ((LEVELS - 1) / 255), LEVELS - 1) for c in range(3)]
    (red_N, _), (green_N, _), (blue_N, _) = channels
    first_N = (red_N * LEVELS + green_N) * LEVELS + blue_N
    shares = [(1 - share_N, share_N) for _, share_N in channels]
    histogram = np.zeros(LEVELS**3)
    for r, g, b in np.ndindex(2, 2, 2):
        share_N = weight_HW.ravel() * shares[0][r] * shares[1][g] * shares[2][b]
        histogram += np.bincount(first_N + (r * LEVELS + g) * LEVELS + b, share_N, minlength=LEVELS**3)
    return np.asarray(np.sqrt(histogram / histogram.sum()), dtype=np.float32)
