"""Which frames the detectors are compared on, and how little of a large tensor says whether two of them are equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]

PICTURES = {"square": ("square.mp4", 0), "wide": ("wide.mp4", 7), "tall": ("tall.mp4", 4)}
"""Clip and frame by name: a square, which needs no padding, and two that are padded, to 12 x 22 and 18 x 10 patches."""

FULL_PICTURES = ("square", "tall")

CLIPS = ("square.mp4", "tall.mp4", "enlarged.mp4")
FULL_CLIPS = ("halves.mp4",)
"""Clips that are scored; see `stage` for those that are not files."""

SAMPLED = 24
DIGITS = 7


def stage(clip: str, decode: Callable[[str], Frames]) -> Frames:
    """The 16 frames of a clip, `decode` giving those of a file.

    The enlarged clip is one frame of 770 x 771, which the official package scales down before it looks. The clip of two
    halves has two different frames only: on a CPU the official decoder needs minutes for the texts of a frame.
    """
    if clip == "enlarged.mp4":
        return np.tile(decode("square.mp4")[0], (4, 4, 1))[100:870, 7:778][None].repeat(16, axis=0)
    if clip == "halves.mp4":
        return decode("square.mp4")[[0, -1]].repeat(8, axis=0)
    return decode(clip)


def sample(values: npt.NDArray[Any]) -> dict[str, Any]:
    """A tensor's shape, mean, standard deviation and a few of its elements, always the same ones."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    chosen = np.random.Generator(np.random.PCG64(flat.size)).integers(0, max(1, flat.size), SAMPLED)
    return {
        "shape": list(values.shape),
        "mean": shorten(flat.mean()) if flat.size else None,
        "std": shorten(flat.std()) if flat.size else None,
        "elements": [shorten(x) for x in flat[chosen]] if flat.size else [],
    }


def shorten(value: float) -> float:
    """A number with as many digits as float32 holds."""
    return float(f"{value:.{DIGITS}g}")
