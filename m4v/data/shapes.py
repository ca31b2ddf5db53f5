"""The world `shapes` in pictures, and as a source of training data: coloured shapes that move over a dark background.

A clip is a pure function of (level, seed, index); `m4v.data.scenes` says what is in it. Shapes are anti-aliased by
area: a row of pixels is cut into strips whose coverage is exact.

Axes: B batch, T frames, H height, W width, C channels (RGB), N strips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from m4v.data.base import Batch, check_clip, check_request
from m4v.data.scenes import (
    APEX,
    COLOURS,
    DIRECTION,
    FORMS,
    LEVELS,
    MOTIONS,
    PALETTE,
    PHRASINGS,
    REACH,
    RELATIONS,
    SQUARE,
    Background,
    Colour,
    Form,
    Level,
    Motion,
    Pan,
    Relation,
    Scene,
    Thing,
    caption,
    scene_at,
    vocabulary,
)

__all__ = [
    "COLOURS",
    "FORMS",
    "LEVELS",
    "MOTIONS",
    "PALETTE",
    "PHRASINGS",
    "RELATIONS",
    "Background",
    "Colour",
    "Form",
    "Level",
    "Motion",
    "Pan",
    "Relation",
    "Scene",
    "ShapesWorld",
    "Thing",
    "caption",
    "render",
    "render_batch",
    "scene_at",
    "vocabulary",
]

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[Any]
"""float32 throughout; numpy's stubs lose it in every product."""

VERSION = 1
"""Of the world; raised whenever a seed gives another clip or caption, for it is part of the data's identity."""

SUBROWS = 4  # strips that a row of pixels is cut into; along the row, coverage is exact
PAN_SHIFT = 0.5  # picture widths by which a panning camera moves the background over the clip
GROWN_FROM = 0.5  # first size of a shape that grows, relative to its last


def render(scene: Scene, frames: int, size: int | tuple[int, int]) -> Frames:
    """Draw a scene: `(T, H, W, C)`, uint8 RGB.

    Args:
        scene: what to draw.
        frames: of the clip; the motion takes the whole clip, whatever their number.
        size: in pixels, one side of a square or (height, width).
    """
    height, width = (size, size) if isinstance(size, int) else size
    video: Frames = render_batch([scene], frames, height, width)[0]
    return video


def render_batch(scenes: Sequence[Scene], frames: int, height: int, width: int) -> Frames:
    """Draw scenes: `(B, T, H, W, C)`, uint8 RGB. A scene looks the same in any batch."""
    time_T = np.linspace(0, 1, frames, dtype=np.float32) if frames > 1 else np.zeros(1, np.float32)
    grey_BTHW = _backgrounds(scenes, time_T, height, width)
    video_BTHWC = np.repeat(grey_BTHW[..., None], 3, axis=-1)
    for k in range(max(scene.count for scene in scenes)):
        having = [b for b, scene in enumerate(scenes) if scene.count > k]
        cover_BTHW = _coverage([scenes[b] for b in having], k, time_T, height, width)
        colour_BC = np.array([PALETTE[scenes[b].things[k].colour] for b in having], np.float32)
        under = video_BTHWC if len(having) == len(scenes) else video_BTHWC[having]
        under += cover_BTHW[..., None] * (colour_BC[:, None, None, None] - under)
        if under is not video_BTHWC:
            video_BTHWC[having] = under
    video_BTHWC += 0.5
    return video_BTHWC.astype(np.uint8)


def _column(values: Sequence[float]) -> Floats:
    return np.array(values, np.float32)[:, None]


def _backgrounds(scenes: Sequence[Scene], time_T: Floats, height: int, width: int) -> Floats:
    """Grey levels `(B, T, H, W)`."""
    grounds = [scene.background for scene in scenes]
    x_W = (np.arange(width, dtype=np.float32) + 0.5) / width
    y_H = (np.arange(height, dtype=np.float32) + 0.5) / height
    shift_B = _column([{"left": -PAN_SHIFT, "right": PAN_SHIFT, None: 0.0}[scene.pan] for scene in scenes])
    phase_BTW = x_W + (_column([g.phase for g in grounds]) + shift_B * time_T)[..., None]
    wave_BTW = _column([g.wave for g in grounds])[..., None] * np.sin(np.float32(math.tau) * phase_BTW)
    across_BW = _column([g.level for g in grounds]) + _column([g.slope_x for g in grounds]) * (2 * x_W - 1)
    down_BH = _column([g.slope_y for g in grounds]) * (2 * y_H - 1)
    grey_BTHW: Floats = (across_BW[:, None] + wave_BTW)[:, :, None] + down_BH[:, None, :, None]
    return grey_BTHW


def _coverage(scenes: Sequence[Scene], k: int, time_T: Floats, height: int, width: int) -> Floats:
    """Share of every pixel that shape `k` of each scene covers: `(B, T, H, W)`, 0 to 1."""
    things = [scene.things[k] for scene in scenes]
    way = [DIRECTION[scene.motion] for scene in scenes]
    travel_B = _column([scene.travel for scene in scenes])
    x_BT = (_column([t.x for t in things]) + travel_B * _column([d[0] for d in way]) * time_T) * width
    y_BT = (_column([t.y for t in things]) + travel_B * _column([d[1] for d in way]) * time_T) * height
    growth_B = _column([1 - GROWN_FROM if scene.motion == "grows" else 0.0 for scene in scenes])
    size_BT = _column([t.size for t in things]) * min(height, width) * (1 - growth_B * (1 - time_T))
    forms = [t.shape for t in things]
    half_BTN, share_BTN = _strips(forms, y_BT[..., None], size_BT[..., None], height)
    return _spread(x_BT, half_BTN, share_BTN, width)


def _strips(forms: Sequence[Form], y_BT1: Floats, size_BT1: Floats, height: int) -> tuple[Floats, Floats]:
    """Cut every form into strips, `SUBROWS` to a row of pixels.

    Returns:
        Half the width of each strip in pixels, and the share of the strip's height that the form fills: `(B, T, N)`.
    """
    reach_B42 = np.array([REACH[form] for form in forms], np.float32)[:, :, None, None]
    edge_N = np.arange(height * SUBROWS + 1, dtype=np.float32) / SUBROWS
    top, bottom = y_BT1 - reach_B42[:, 2] * size_BT1, y_BT1 + reach_B42[:, 3] * size_BT1
    upper_BTN, lower_BTN = np.maximum(edge_N[:-1], top), np.minimum(edge_N[1:], bottom)
    down_BTN = (upper_BTN + lower_BTN) / 2 - y_BT1
    half_BTN = np.empty_like(down_BTN)
    for form in set(forms):
        of = [b for b, other in enumerate(forms) if other == form]
        half_BTN[of] = _half_width(form, down_BTN[of], size_BT1[of])
    return half_BTN, np.maximum(lower_BTN - upper_BTN, 0) * SUBROWS


def _half_width(form: Form, down: Floats, size: Floats) -> Floats:
    """Half the width of a form at a distance below its centroid; anything outside of it."""
    if form == "circle":
        return np.asarray(np.sqrt(np.maximum(size**2 - down**2, 0)))
    if form == "square":
        return np.broadcast_to(np.float32(SQUARE) * size, down.shape)
    return np.maximum(down + np.float32(APEX) * size, 0) / np.float32(math.sqrt(3))


def _spread(x_BT: Floats, half_BTN: Floats, share_BTN: Floats, width: int) -> Floats:
    """Coverage of pixels by strips, exact along x: `(B, T, H, W)`."""
    centre_W = np.arange(width, dtype=np.float32) + 0.5
    batch, frames, strips = half_BTN.shape
    split = (batch, frames, strips // SUBROWS, SUBROWS, 1)
    half, share = half_BTN.reshape(split), share_BTN.reshape(split) / SUBROWS
    widest = np.minimum(2 * half, 1)
    away_BTW = np.abs(centre_W - x_BT[..., None])[:, :, None] - 0.5  # from the pixel's near side to the axis
    cover_BTHW = np.zeros((batch, frames, strips // SUBROWS, width), np.float32)
    for s in range(SUBROWS):
        cover_BTHW += share[:, :, :, s] * np.clip(half[:, :, :, s] - away_BTW, 0, widest[:, :, :, s])
    return cover_BTHW


# --- the source -------------------------------------------------------------------------------------------------------

_VIDEOS, _IMAGES = 0, 1  # streams of scenes: joint training sees other scenes as pictures than as clips


class ShapesWorld:
    """The world as a source of training data (`m4v.data.base.Source`).

    Args:
        level: one of `LEVELS`.
        frames: of a clip.
        height: in pixels, a multiple of 8.
        width: in pixels, a multiple of 8.
        fps: what the clips say of themselves; motion takes the whole clip.

    Raises:
        ValueError: an unknown level, or a size that is not possible.
    """

    def __init__(
        self, level: Level = "default", *, frames: int = 17, height: int = 32, width: int = 32, fps: float = 8.0
    ) -> None:
        if level not in LEVELS:
            raise ValueError(f"the world of shapes has no level {level!r}; choose from {', '.join(LEVELS)}")
        check_clip(frames, height, width, fps, multiple=8)
        self.level: Level = level
        self.frames, self.height, self.width, self.fps = frames, height, width, fps

    def scenes(self, step: int, size: int, *, seed: int, images: bool = False) -> list[Scene]:
        """The scenes of a batch: numbers `step * size` and following of the seed's sequence.

        Raises:
            ValueError: a negative step or seed, or an empty batch.
        """
        check_request(step, size, seed)
        stream = _IMAGES if images else _VIDEOS
        return [scene_at(self.level, seed, index, stream=stream) for index in range(step * size, (step + 1) * size)]

    def batch(self, step: int, size: int, *, seed: int, images: bool = False) -> Batch:
        """Clips and captions of a training step; single frames are captioned without motion.

        Raises:
            ValueError: a negative step or seed, or an empty batch.
        """
        scenes = self.scenes(step, size, seed=seed, images=images)
        video_BTHWC = render_batch(scenes, 1 if images else self.frames, self.height, self.width)
        return Batch(torch.from_numpy(video_BTHWC), [caption(scene, still=images) for scene in scenes])

    def describe(self) -> dict[str, Any]:
        """The identity of the data: the world's version and settings."""
        size = {"frames": self.frames, "height": self.height, "width": self.width, "fps": self.fps}
        return {"source": "shapes", "version": VERSION, "level": self.level, **size}
