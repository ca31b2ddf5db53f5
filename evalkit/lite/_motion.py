"""Global motion between small luma images: phase correlation, and sampling between the pixels.

Source: Kuglin and Hines 1975 (phase correlation); Thomas 1987, BBC Research Department Report 1987/11 (its highest
peaks as candidates for local motion).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from evalkit.lite._pixels import Floats
from evalkit.types import Array

Spectrum = npt.NDArray[np.complex64]

# Below this cross-power (grey levels squared, summed) a frequency carries no phase worth trusting: flat frames.
NO_POWER = 1.0
NEIGHBOURHOOD = 2  # pixels around a peak that belong to it


def spectrum(luma_HW: Floats) -> Spectrum:
    """Fourier transform `(H, W // 2 + 1)` of an image without its mean, tapered so that borders do not correlate."""
    height, width = luma_HW.shape
    taper_HW = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    transformed: Spectrum = scipy.fft.rfft2((luma_HW - luma_HW.mean()) * taper_HW)
    return transformed


def shifts(earlier: Spectrum, later: Spectrum, width: int, n: int = 1) -> list[tuple[float, float]]:
    """The `n` strongest motions `(dy, dx)` in pixels: `later(y, x)` resembles `earlier(y - dy, x - dx)`.

    Args:
        earlier: spectrum of the first image.
        later: spectrum of the second image.
        width: of the images (a spectrum does not tell odd from even).
        n: how many peaks of the phase correlation to return, strongest first.
    """
    height = earlier.shape[0]
    cross = np.conj(earlier) * later
    surface_HW = scipy.fft.irfft2(cross / (np.abs(cross) + NO_POWER), s=(height, width))
    remaining_HW = surface_HW.copy()
    found = []
    for _ in range(n):
        y, x = (int(i) for i in np.unravel_index(int(remaining_HW.argmax()), remaining_HW.shape))
        column_H, row_W = surface_HW[:, x], surface_HW[y]
        found.append((_signed(y + _offset(column_H, y), height), _signed(x + _offset(row_W, x), width)))
        around = np.arange(-NEIGHBOURHOOD, NEIGHBOURHOOD + 1)
        remaining_HW[np.ix_((y + around) % height, (x + around) % width)] = -np.inf
    return found


def _signed(shift: float, period: int) -> float:
    return shift - period if shift > period / 2 else shift


def _offset(line: Array, peak: int) -> float:
    """Where between the pixels a parabola through the peak and its two neighbours has its top, -0.5 to 0.5."""
    before, top, after = float(line[peak - 1]), float(line[peak]), float(line[(peak + 1) % len(line)])
    curvature = before - 2 * top + after
    return float(np.clip((before - after) / (2 * curvature), -0.5, 0.5)) if curvature < 0 else 0.0


def displaced(luma_HW: Floats, dy: float, dx: float) -> Floats:
    """The image sampled at `(y + dy, x + dx)`, bilinear, the border repeated: `(H, W)`."""
    return _displaced_rows(_displaced_rows(luma_HW, dy).T, dx).T


def _displaced_rows(image_HW: Floats, dy: float) -> Floats:
    whole = int(np.floor(dy))
    share = np.float32(dy - whole)
    rows_H = np.arange(len(image_HW)) + whole
    last = len(image_HW) - 1
    upper_HW, lower_HW = image_HW[np.clip(rows_H, 0, last)], image_HW[np.clip(rows_H + 1, 0, last)]
    moved: Floats = upper_HW + share * (lower_HW - upper_HW)
    return moved
