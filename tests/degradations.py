"""Planted degradations: real-content clips, the same clips made worse by a known amount, and how to score either.

Every degradation maps `(frames_THWC, strength)` to frames of the same shape, is seeded, and does nothing at strength 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import skimage.data
from PIL import Image
from scipy.ndimage import gaussian_filter

from evalkit.backbones.base import Extractor, FeatureSpec, Runtime
from evalkit.metrics.base import MetricSpec
from evalkit.types import Array, Clip, Frames, Score, VideoInfo
from evalkit.weights import WeightStore, default_root

HEIGHT, WIDTH, N_FRAMES, FPS = 120, 160, 24, 8.0
SEED = 20250

STRENGTHS = {
    "blur": (0.0, 0.7, 1.5, 3.0),  # standard deviation, pixels
    "noise": (0.0, 5.0, 12.0, 30.0),  # standard deviation, grey levels
    "flicker": (0.0, 0.1, 0.25, 0.5),  # relative amplitude of the gain
    "shuffle": (0.0, 0.1, 0.25, 0.5),  # share of frames out of place
    "swap": (0.0, 0.125, 0.25, 0.5),  # share of the clip, at its end, that shows something else
    "wrong_prompt": (0.0, 0.34, 0.67, 1.0),  # share of the prompt's cues that are wrong
}


@dataclass(frozen=True)
class Photo:
    """A photograph inside the scikit-image wheel, the camera's way over it, and what it does and does not show.

    `start` and `end` are windows (left, top, width as fractions of the photograph's width and height).
    """

    load: Callable[[], Array]
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    shown: tuple[str, str, str]
    not_shown: tuple[str, str, str]


def _left_eye() -> Array:
    left_HWC: Array = skimage.data.stereo_motorcycle()[0]  # type: ignore[no-untyped-call]
    return left_HWC


PHOTOS = {
    "astronaut": Photo(
        skimage.data.astronaut,
        (0.10, 0.05, 0.60),
        (0.25, 0.00, 0.60),
        ("orange suit", "white collar", "black visor"),
        ("violet suit", "cyan collar", "green visor"),
    ),
    "coffee": Photo(
        skimage.data.coffee,
        (0.05, 0.05, 0.60),
        (0.20, 0.15, 0.65),
        ("brown table", "colourful saucer", "dark café"),
        ("pink table", "monochrome saucer", "blue café"),
    ),
    "cat": Photo(
        skimage.data.cat,
        (0.10, 0.00, 0.55),
        (0.28, 0.08, 0.60),
        ("brown fur", "gray cushion", "golden light"),
        ("blue fur", "purple cushion", "green light"),
    ),
    "rocket": Photo(
        skimage.data.rocket,
        (0.30, 0.10, 0.50),
        (0.18, 0.22, 0.55),
        ("blue sky", "night launch", "black tower"),
        ("red sky", "sunlit launch", "pink tower"),
    ),
    "motorcycle": Photo(
        _left_eye,
        (0.10, 0.10, 0.55),
        (0.30, 0.15, 0.55),
        ("red motorcycle", "brown boxes", "gray floor"),
        ("cyan motorcycle", "purple boxes", "pink floor"),
    ),
}


@cache
def clip(name: str, n_frames: int = N_FRAMES, height: int = HEIGHT, width: int = WIDTH) -> Frames:
    """A camera that moves over a photograph and accelerates and brakes gently: `(T, H, W, 3)`, read-only."""
    photo = PHOTOS[name]
    image = Image.fromarray(photo.load())
    frames = []
    for t in np.linspace(0, 1, n_frames):
        eased = t * t * (3 - 2 * t)
        left, top, share = (a + (b - a) * eased for a, b in zip(photo.start, photo.end, strict=True))
        x, y, w = left * image.width, top * image.height, share * image.width
        h = min(w * height / width, image.height - y)
        frames.append(np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=(x, y, x + w, y + h))))
    frames_THWC = np.stack(frames)
    frames_THWC.setflags(write=False)
    return frames_THWC


def _to_uint8(values: Array) -> Frames:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def blur(frames_THWC: Frames, strength: float) -> Frames:
    """Gaussian blur of every frame; strength is the standard deviation in pixels."""
    sigma = (0, strength, strength, 0)
    return _to_uint8(gaussian_filter(frames_THWC.astype(np.float32), sigma)) if strength else frames_THWC


def noise(frames_THWC: Frames, strength: float) -> Frames:
    """White noise, new in every frame; strength is the standard deviation in grey levels."""
    return _to_uint8(frames_THWC + strength * np.random.default_rng(SEED).standard_normal(frames_THWC.shape))


def flicker(frames_THWC: Frames, strength: float) -> Frames:
    """Every other frame is darker by a random part of the strength (half to all of it)."""
    depth_T = np.random.default_rng(SEED).uniform(0.5, 1, len(frames_THWC))
    depth_T[::2] = 0
    return _to_uint8(frames_THWC * (1 - strength * depth_T)[:, None, None, None])


def shuffle(frames_THWC: Frames, strength: float) -> Frames:
    """A share of the frames trade places in random pairs, the pairs of a lower strength among those of a higher one.

    The first stays: it is what VBench's consistencies compare with, and another reference is another degradation.
    """
    n_pairs = (len(frames_THWC) - 1) // 2
    pairs = 1 + np.random.default_rng(SEED).permutation(len(frames_THWC) - 1)[: 2 * n_pairs].reshape(n_pairs, 2)
    swapped = pairs[: round(strength * n_pairs)]
    order = np.arange(len(frames_THWC))
    order[swapped] = swapped[:, ::-1]
    return frames_THWC[order]


def swap(frames_THWC: Frames, strength: float, other_THWC: Frames | None = None) -> Frames:
    """The last share of the clip shows another subject in another place (by default the mirrored negative)."""
    n = round(strength * len(frames_THWC))
    other = 255 - frames_THWC[:, ::-1] if other_THWC is None else other_THWC
    return np.concatenate([frames_THWC[: len(frames_THWC) - n], other[len(frames_THWC) - n :]])


def prompt_for(name: str, strength: float = 0.0) -> str:
    """A prompt with three cues, the first share of which is not true of the clip."""
    photo = PHOTOS[name]
    n = round(strength * len(photo.shown))
    return "A video of " + ", ".join((*photo.not_shown[:n], *photo.shown[n:]))


def degraded(name: str, kind: str, strength: float) -> tuple[Frames, str]:
    """The clip and the prompt of a photograph, made worse in one way."""
    frames_THWC = clip(name)
    if kind == "wrong_prompt":
        return frames_THWC, prompt_for(name, strength)
    if kind == "swap":
        names = list(PHOTOS)
        return swap(frames_THWC, strength, clip(names[names.index(name) - 1])), prompt_for(name)
    degrade = {"blur": blur, "noise": noise, "flicker": flicker, "shuffle": shuffle}[kind]
    return degrade(frames_THWC, strength), prompt_for(name)


@cache
def extractors(features: tuple[FeatureSpec, ...]) -> dict[str, Extractor]:
    """The extractors of features that need no checkpoint."""
    return {f.name: f.load(WeightStore(default_root()), Runtime()) for f in features}


def score_frames(metric: MetricSpec, frames_THWC: Frames, prompt: str = "", cuts: Sequence[int] = ()) -> Score:
    """Score frames as the runner does: open a reader per extractor, push chunks (cut at `cuts`), close, score."""
    n, height, width, _ = frames_THWC.shape
    if n < metric.min_frames:
        return Score.missing(f"needs at least {metric.min_frames} frames, the clip has {n}")
    video = Clip(VideoInfo(width, height, n, FPS, "none", "rgb24"), prompt)
    readers = {name: extractor.open(video) for name, extractor in extractors(metric.features).items()}
    for start, stop in pairwise(sorted({0, *cuts, n})):
        for reader in readers.values():
            reader.push(start, np.ascontiguousarray(frames_THWC[start:stop]))
    return metric.score(video, {name: reader.close() for name, reader in readers.items()})
