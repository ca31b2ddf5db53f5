"""Records that pass between the stages: prompts -> decode -> features -> scores.

Array names carry their axes as a suffix: T frames, H height, W width, C channels (RGB), D feature width, B batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
"""Decoded frames, `(T, H, W, 3)`, RGB, uint8, C-contiguous."""

Array = npt.NDArray[Any]
Features = Mapping[str, Array]
"""What the feature extractors found in one clip, by extractor name."""

Profile = Literal["official", "lite"]
Precision = Literal["fp32", "bf16", "fp16"]
PixelReader = Literal["decord", "opencv"]
"""Whose colour conversion: decord uses the matrix that the file names, OpenCV always BT.601."""

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a suite.

    `dimensions` lists the dimensions the prompt is meant for (empty: all of them);
    `auxiliary` holds per-dimension facts such as the object or colour to look for.
    """

    id: str
    text: str
    dimensions: tuple[str, ...] = ()
    auxiliary: Mapping[str, Any] = field(default_factory=dict)

    def asks_for(self, dimension: str) -> bool:
        return not self.dimensions or dimension in self.dimensions


@dataclass(frozen=True, slots=True)
class PromptSuite:
    """A named, ordered set of prompts with the source it came from."""

    name: str
    prompts: tuple[Prompt, ...]
    source: str
    standard: bool = False
    """Whether it is written as VBench's own list of prompts, and VBench's protocol applies."""

    @property
    def sha256(self) -> str:
        """Identity of the content (ids, texts, dimensions, auxiliary facts); independent of file format."""
        canonical = [[p.id, p.text, list(p.dimensions), dict(p.auxiliary)] for p in self.prompts]
        return hashlib.sha256(json.dumps(canonical, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Sample:
    """One video file, matched to the prompt it is scored with.

    `generated_from` is the text that it was generated from, where that is known to be another (a rewritten prompt).
    """

    path: Path
    file: str
    prompt: Prompt
    seed: int | None
    generated_from: str | None = None


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the container says about a video, read without decoding a frame.

    `width` and `height` are those of the frames as decoded (after rotation metadata has been applied);
    `n_frames` is exact: the decoder raises if it cannot deliver that many.
    """

    width: int
    height: int
    n_frames: int
    fps: float
    codec: str
    pixel_format: str
    rotation: int = 0

    @property
    def duration_s(self) -> float:
        return self.n_frames / self.fps if self.fps > 0 else 0.0


@dataclass(frozen=True, slots=True)
class FrameChunk:
    """Consecutive frames `start .. start + len(frames_THWC) - 1` of a clip."""

    start: int
    frames_THWC: Frames
    opencv_THWC: Frames | None = None
    """The same frames as OpenCV sees them; None where that makes no difference (no colour matrix but BT.601 named)."""
    scaled: Mapping[Size, Frames] = field(default_factory=dict)
    """The same frames as decord scales them; empty for GIFs and stills, which it does not read."""

    def colours(self, reader: PixelReader, size: Size | None = None) -> Frames:
        """The frames as the official reader of a feature sees them, asked for frames of `size` if one is given."""
        if size is not None and size in self.scaled:
            return self.scaled[size]
        return self.frames_THWC if reader == "decord" or self.opencv_THWC is None else self.opencv_THWC


@dataclass(frozen=True, slots=True)
class Clip:
    """All that a metric may know of a video besides its frames: never a path."""

    info: VideoInfo
    prompt: str
    auxiliary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's verdict on one clip: a raw value, or the reason why there is none.

    `n_terms` is the number of terms averaged into `value` (frame pairs, frames); it is the clip's weight where a
    dimension is pooled over frames rather than over videos.
    """

    value: float | None
    n_terms: int = 1
    unscored: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) != (self.unscored is not None):
            raise ValueError("a Score has either a value or the reason why it is unscored")

    @classmethod
    def missing(cls, reason: str) -> Score:
        return cls(value=None, n_terms=0, unscored=reason)
