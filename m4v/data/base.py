"""What training reads: batches of clips and captions, each a pure function of seed and step.

Axes: B batch, T frames, H height, W width, C channels (RGB).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Batch(NamedTuple):
    """Clips `(B, T, H, W, C)`, uint8 RGB, and a caption for each."""

    video_BTHWC: Tensor
    captions: list[str]


@runtime_checkable
class Source(Protocol):
    """Where training takes its clips from."""

    @property
    def frames(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def fps(self) -> float: ...

    def batch(self, step: int, size: int, *, seed: int, images: bool = False) -> Batch:
        """The clips of one training step; the same arguments give the same bits, whatever was asked for before.

        Args:
            step: from 0.
            size: clips in the batch.
            seed: of the order (and, in procedural worlds, of the content).
            images: single frames (T = 1) instead of clips.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """The identity of the data, for configurations and cache keys; values are plain JSON."""
        ...


def check_request(step: int, size: int, seed: int) -> None:
    """Refuse a batch that cannot be.

    Raises:
        ValueError: a negative step or seed, or an empty batch.
    """
    for name, value, least in (("step", step, 0), ("batch size", size, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} {value}: must be at least {least}")


def check_clip(frames: int, height: int, width: int, fps: float, multiple: int = 1) -> None:
    """Refuse a clip size that no source can deliver.

    Raises:
        ValueError: naming the value and what it must be.
    """
    if frames < 1:
        raise ValueError(f"{frames} frames: a clip has at least one")
    if not fps > 0:
        raise ValueError(f"{fps:g} frames a second: must be positive")
    for name, size in (("height", height), ("width", width)):
        if size < multiple or size % multiple:
            raise ValueError(f"{name} {size}: must be a positive multiple of {multiple} pixels")
