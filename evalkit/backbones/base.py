"""What a feature extractor is: a streaming reader of one clip, loaded once and shared by every metric that names it.

A clip is decoded once, in chunks; each chunk is pushed to every open reader and then forgotten, so memory does not grow
with the length of the clip. A reader keeps only features (a few kilobytes a frame) and hands them over at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from evalkit.types import Array, Clip, Frames, PixelReader, Precision, Size
from evalkit.weights import Checkpoint, WeightStore


class Reader(Protocol):
    """Reads one clip in one pass."""

    def push(self, start: int, frames_THWC: Frames) -> None:
        """Take the next frames; `start` is the index of the first. Chunks arrive in order and without gaps."""

    def close(self) -> Array:
        """Return the clip's features. Called once, after the last chunk."""


class Extractor(Protocol):
    """A loaded network (or plain pixel statistic) that can read clips, one after the other."""

    def open(self, clip: Clip) -> Reader: ...


@runtime_checkable
class ReadsPrompts(Protocol):
    """An extractor that also reads prompts; it is told all of them in advance, and can then let its text network go."""

    def read_prompts(self, prompts: Iterable[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how networks run.

    `batch` is the number of frames a per-frame network sees at once; results do not depend on it.
    """

    device: str = "cpu"
    precision: Precision = "fp32"
    batch: int = 8
    compile: bool = False


Loader = Callable[[WeightStore, Runtime], Extractor]


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The declaration of an extractor.

    Args:
        name: key under which metrics find the features.
        version: raise it whenever the numbers change; it is part of every cache key.
        load: builds the extractor; the only place where weights are read.
        checkpoints: the files `load` reads.
        pixels: the reader whose colours the official package feeds it (they differ on clips tagged BT.709).
        size: the size that the official package asks decord for; GIFs and stills come at their own size all the same.
    """

    name: str
    version: int
    load: Loader
    checkpoints: tuple[Checkpoint, ...] = ()
    pixels: PixelReader = "decord"
    size: Size | None = None


class PerFrame:
    """Extractor for networks that embed every frame on its own: `embed((B, H, W, 3)) -> (B, D)`."""

    def __init__(self, embed: Callable[[Frames], Array], batch: int) -> None:
        self.embed = embed
        self.batch = batch

    def open(self, clip: Clip) -> Reader:
        return _PerFrameReader(self.embed, self.batch)


class _PerFrameReader:
    def __init__(self, embed: Callable[[Frames], Array], batch: int) -> None:
        self.embed = embed
        self.batch = batch
        self.pending: list[Frames] = []
        self.features: list[Array] = []

    def push(self, start: int, frames_THWC: Frames) -> None:
        self.pending.append(frames_THWC)
        while sum(map(len, self.pending)) >= self.batch:
            self._embed(self.batch)

    def close(self) -> Array:
        if self.pending:
            self._embed(self.batch)
        return np.concatenate(self.features)

    def _embed(self, n: int) -> None:
        frames_BHWC = self.pending[0] if len(self.pending) == 1 else np.concatenate(self.pending)
        self.features.append(self.embed(frames_BHWC[:n]))
        rest = frames_BHWC[n:]
        self.pending = [rest] if len(rest) else []


class SelectedFrames:
    """Extractor for networks that read a few chosen frames of a clip together.

    Args:
        choose: maps the clip's frame count to the indices wanted, in order; an index may repeat (short clips).
        embed: maps the clip and its chosen frames `(T, H, W, 3)` to features.
    """

    def __init__(self, choose: Callable[[int], Sequence[int]], embed: Callable[[Clip, Frames], Array]) -> None:
        self.choose = choose
        self.embed = embed

    def open(self, clip: Clip) -> Reader:
        return _SelectedFramesReader(self, clip)


class _SelectedFramesReader:
    def __init__(self, extractor: SelectedFrames, clip: Clip) -> None:
        self.extractor = extractor
        self.clip = clip
        self.indices = list(extractor.choose(clip.info.n_frames))
        self.wanted = set(self.indices)
        self.found: dict[int, Frames] = {}

    def push(self, start: int, frames_THWC: Frames) -> None:
        for index in range(start, start + len(frames_THWC)):
            if index in self.wanted:
                self.found[index] = frames_THWC[index - start].copy()

    def close(self) -> Array:
        return self.extractor.embed(self.clip, np.stack([self.found[index] for index in self.indices]))
