"""Features of a long clip, part by part: any extractor, run on pieces of the one decode.

A part is a range of frames. Parts begin in order and may overlap; each goes to a reader of its own, which sees a clip
that is just this part, so that memory does not grow with the length of the whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np

from evalkit.backbones import dinov2, dreamsim
from evalkit.backbones.base import Extractor, FeatureSpec, Loader, Reader, ReadsPrompts, Runtime
from evalkit.types import Array, Clip, Frames
from evalkit.weights import WeightStore

PREFIX = "long/"

Part = tuple[int, int]
"""First frame, and the one after the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartedClip(Clip):
    """A clip that is judged in parts, scene by scene; none if it cannot be divided."""

    scenes: tuple[tuple[Part, ...], ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, in order."""
        return tuple(chain.from_iterable(self.scenes))

    def only(self, part: Part) -> Clip:
        """The clip that a part is by itself."""
        return Clip(replace(self.info, n_frames=part[1] - part[0]), self.prompt, self.auxiliary)


class InParts:
    """Extractor that gives an object array with the features of every part; None for parts below `min_frames`."""

    def __init__(self, extractor: Extractor, min_frames: int) -> None:
        self.extractor = extractor
        self.min_frames = min_frames

    def read_prompts(self, prompts: Iterable[str]) -> None:
        if isinstance(self.extractor, ReadsPrompts):
            self.extractor.read_prompts(prompts)

    def open(self, clip: Clip) -> Reader:
        assert isinstance(clip, PartedClip), "the suite divides the clip"
        return _InPartsReader(self, clip)


class _InPartsReader:
    def __init__(self, extractor: InParts, clip: PartedClip) -> None:
        self.clip = clip
        self.open_part = extractor.extractor.open
        self.features = np.full(len(clip.parts), None, dtype=object)
        long_enough = [(i, part) for i, part in enumerate(clip.parts) if part[1] - part[0] >= extractor.min_frames]
        self.ahead = deque(long_enough)
        self.reading: list[tuple[int, Part, Reader]] = []

    def push(self, start: int, frames_THWC: Frames) -> None:
        stop = start + len(frames_THWC)
        while self.ahead and self.ahead[0][1][0] < stop:
            index, part = self.ahead.popleft()
            self.reading.append((index, part, self.open_part(self.clip.only(part))))
        for index, (first, end), reader in self.reading:
            lo, hi = max(start, first), min(stop, end)
            reader.push(lo - first, frames_THWC[lo - start : hi - start])
            if end <= stop:
                self.features[index] = reader.close()
        self.reading = [entry for entry in self.reading if entry[1][1] > stop]

    def close(self) -> Array:
        return self.features


class FirstFrames:
    """Extractor of the first frame of every part: `(parts, D)`."""

    def __init__(self, embed: Callable[[Frames], Array]) -> None:
        self.embed = embed

    def open(self, clip: Clip) -> Reader:
        assert isinstance(clip, PartedClip), "the suite divides the clip"
        return _FirstFramesReader(self.embed, [first for first, _ in clip.parts])


class _FirstFramesReader:
    def __init__(self, embed: Callable[[Frames], Array], firsts: Sequence[int]) -> None:
        self.embed = embed
        self.firsts = frozenset(firsts)
        self.features: list[Array] = []

    def push(self, start: int, frames_THWC: Frames) -> None:
        for index, frame_HWC in enumerate(frames_THWC, start):
            if index in self.firsts:
                self.features.append(self.embed(frame_HWC[None]))

    def close(self) -> Array:
        return np.concatenate(self.features)


def in_parts(feature: FeatureSpec, min_frames: int) -> FeatureSpec:
    """The same network, run on every part of at least `min_frames` frames."""
    return replace(feature, name=PREFIX + feature.name, load=partial(_load_in_parts, feature.load, min_frames))


def _load_in_parts(load: Loader, min_frames: int, store: WeightStore, runtime: Runtime) -> Extractor:
    return InParts(load(store, runtime), min_frames)


def _load_first_frames(
    load: Callable[[WeightStore, Runtime], Callable[[Frames], Array]], store: WeightStore, runtime: Runtime
) -> Extractor:
    return FirstFrames(load(store, runtime))


FIRST_DINOV2 = FeatureSpec(
    PREFIX + "first frames/dinov2", 1, partial(_load_first_frames, dinov2.load_images), (dinov2.CHECKPOINT,)
)
FIRST_DREAMSIM = FeatureSpec(
    PREFIX + "first frames/dreamsim", 1, partial(_load_first_frames, dreamsim.load_images), dreamsim.CHECKPOINTS
)
