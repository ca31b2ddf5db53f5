"""Where a video cuts from one scene to the next: the content detector, frame by frame.

Two frames are compared in HSV: the mean absolute differences of hue, saturation and value, averaged. From a threshold
on the frame begins a new scene; cuts that follow each other too soon are merged into one. This is what PySceneDetect
(`ContentDetector` with its defaults, https://scenedetect.com, version 0.7) computes with OpenCV; the arithmetic is in
integers as OpenCV's, so that the values are the same to the bit.

Axes: H height, W width, C channels, T frames; y and x are those of the reduced frame.
"""

from __future__ import annotations

import numpy as np

from evalkit.types import Array, Frames

VERSION = 1
"""Raise it whenever cuts come out differently; it is part of every cache key."""

THRESHOLD = 35.0
"""VBench-Long's (`VBenchLong.preprocess`); PySceneDetect's own default is 27."""

MIN_LENGTH = 15
"""Frames between two cuts."""

SIDE = 256
"""Longer side to which larger frames are reduced."""

_UNIT = 1 << 12  # OpenCV divides by tables of fixed-point reciprocals
_DIVISOR = np.maximum(np.arange(256), 1)
_PER_VALUE = np.rint(255 * _UNIT / _DIVISOR).astype(np.int64) * (np.arange(256) > 0)
_PER_SPREAD = np.rint(180 * _UNIT / (6 * _DIVISOR)).astype(np.int64) * (np.arange(256) > 0)


class CutFinder:
    """Finds the cuts of one video, whose frames are pushed in order and in chunks of any size."""

    def __init__(self, threshold: float = THRESHOLD, min_length: int = MIN_LENGTH) -> None:
        self.threshold = threshold
        self.merger = _Merger(min_length)
        self.previous_HWC: Array | None = None
        self.cuts: list[int] = []

    def push(self, start: int, frames_THWC: Frames) -> None:
        """Take the next frames, as OpenCV sees them; `start` is the index of the first."""
        for index, frame_HWC in enumerate(frames_THWC, start):
            hsv_HWC = to_hsv(reduce(frame_HWC))
            change = 0.0 if self.previous_HWC is None else content_change(self.previous_HWC, hsv_HWC)
            self.previous_HWC = hsv_HWC
            self.cuts += self.merger.take(index, change >= self.threshold)


class _Merger:
    """Turns frames that differ from their predecessor into cuts at least `min_length` frames apart.

    Before the first accepted cut, changes that come too soon after the last one are dropped. Later they start a merge:
    it ends, with one cut at its last change, when that lies `min_length` after its first and as much calm has followed.
    """

    def __init__(self, min_length: int) -> None:
        self.min_length = min_length
        self.last_change: int | None = None
        self.accepted = False
        self.merged_from: int | None = None

    def take(self, index: int, changed: bool) -> list[int]:
        """The cuts that are settled with this frame."""
        last = index if self.last_change is None else self.last_change
        calm = index - last >= self.min_length
        self.last_change = index if changed else last
        if self.merged_from is not None:
            if changed or not calm or last - self.merged_from < self.min_length:
                return []
            self.merged_from = None
            return [last]
        if not changed:
            return []
        if calm:
            self.accepted = True
            return [index]
        if self.accepted:
            self.merged_from = index
        return []


def content_change(a_HWC: Array, b_HWC: Array) -> float:
    """Mean absolute difference of two HSV pictures over pixels and channels; hue is compared as a plain number."""
    return float(np.abs(a_HWC - b_HWC).mean())


def to_hsv(rgb_HWC: Array) -> Array:
    """8-bit RGB to 8-bit HSV with hue in steps of two degrees (0 to 179), as integers."""
    r, g, b = np.moveaxis(rgb_HWC.astype(np.int64), -1, 0)
    value = np.maximum(np.maximum(r, g), b)
    spread = value - np.minimum(np.minimum(r, g), b)
    saturation = _rounded(spread * _PER_VALUE[value])
    sixth = np.where(value == r, g - b, np.where(value == g, b - r + 2 * spread, r - g + 4 * spread))
    hue = _rounded(sixth * _PER_SPREAD[spread])
    return np.stack([hue + 180 * (hue < 0), saturation, value], axis=-1)


def _rounded(fixed: Array) -> Array:
    return (fixed + _UNIT // 2) // _UNIT


def reduce(frame_HWC: Frames) -> Array:
    """Scale a frame to a longer side of 256 pixels, bilinear without antialiasing; smaller ones stay as they are."""
    height, width = frame_HWC.shape[:2]
    scale = max(height, width) / SIDE
    if scale <= 1:
        return frame_HWC
    top, bottom, weight_y = _taps(height, max(1, round(height / scale)))
    left, right, weight_x = _taps(width, max(1, round(width / scale)))
    wide_HxC = _mix(frame_HWC[:, left], frame_HWC[:, right], weight_x[None, :, None], shift=4)
    return (_mix(wide_HxC[top], wide_HxC[bottom], weight_y[:, None, None], shift=16, apart=True) + 2) >> 2


def _taps(size: int, reduced: int) -> tuple[Array, Array, Array]:
    """The two source pixels of every reduced one, and the second's weight in units of 1/2048."""
    place = ((np.arange(reduced) + 0.5) * (size / reduced) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    weight = np.where((first < 0) | (first >= size - 1), 0, place - first)
    first = first.clip(0, size - 1)
    return first, np.minimum(first + 1, size - 1), np.rint(weight * 2048).astype(np.int64)


def _mix(a: Array, b: Array, weight: Array, shift: int, apart: bool = False) -> Array:
    """Fixed-point interpolation; OpenCV drops bits after the sum in one direction and before it in the other."""
    a, b = a * (2048 - weight), b * weight
    mixed: Array = (a >> shift) + (b >> shift) if apart else (a + b) >> shift
    return mixed
