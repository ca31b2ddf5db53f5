"""Features of a clip beside those of the picture that it was to begin from.

Axes: T frames of the clip, D feature width; the picture comes first, so that there are 1 + T rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evalkit.backbones import dino, dreamsim
from evalkit.backbones.base import Extractor, FeatureSpec, PerFrame, Reader, Runtime
from evalkit.backbones.images import center_crop, load_antialiased, load_picture
from evalkit.types import Array, Clip, Frames
from evalkit.weights import WeightStore

SHORTER_SIDE, SIDE = 256, 224


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencedClip(Clip):
    """A clip and the decoded picture it was generated from, `(H, W, 3)`, RGB, uint8."""

    reference_HWC: Frames


class Referenced:
    """Extractor that embeds the clip's frames and its picture.

    Args:
        embed: frames `(B, H, W, 3)` to features `(B, D)`.
        embed_picture: a still `(H, W, 3)` to features `(1, D)`; stills are scaled by another rule than frames.
        batch: frames at once.
    """

    def __init__(self, embed: Callable[[Frames], Array], embed_picture: Callable[[Frames], Array], batch: int) -> None:
        self.frames = PerFrame(embed, batch)
        self.embed_picture = embed_picture

    def open(self, clip: Clip) -> Reader:
        assert isinstance(clip, ReferencedClip), "the suite provides the picture"
        return _ReferencedReader(self.embed_picture(clip.reference_HWC), self.frames.open(clip))


class _ReferencedReader:
    def __init__(self, picture_1D: Array, frames: Reader) -> None:
        self.picture_1D = picture_1D
        self.frames = frames

    def push(self, start: int, frames_THWC: Frames) -> None:
        self.frames.push(start, frames_THWC)

    def close(self) -> Array:
        return np.concatenate([self.picture_1D, self.frames.close()])


def _load_dino(store: WeightStore, runtime: Runtime) -> Extractor:
    network = dino.load_images(store, runtime)

    def embed(frames_BHWC: Frames) -> Array:
        return network.embed(center_crop(load_antialiased(frames_BHWC, SHORTER_SIDE, runtime.device), SIDE))

    def embed_picture(picture_HWC: Frames) -> Array:
        return network.embed(center_crop(load_picture(picture_HWC, SHORTER_SIDE, runtime.device), SIDE))

    return Referenced(embed, embed_picture, runtime.batch)


def _load_dreamsim(store: WeightStore, runtime: Runtime) -> Extractor:
    network = dreamsim.load_images(store, runtime)
    return Referenced(network, network.picture, runtime.batch)


I2V_DINO = FeatureSpec("i2v/dino", version=1, load=_load_dino, checkpoints=(dino.CHECKPOINT,))
I2V_DREAMSIM = FeatureSpec("i2v/dreamsim", version=1, load=_load_dreamsim, checkpoints=dreamsim.CHECKPOINTS)
