"""How VBench's dimensions judge motion by the magnitudes of optical flow; the network that finds them is in `raft`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evalkit.types import Array, VideoInfo

SAMPLED_FPS = 8  # dynamic_degree looks at about so many frames a second
MIN_SIDE = 121  # below it, padded, the coarsest correlation map is one cell wide and the official flow is NaN


class Rule(Protocol):
    """What pairs of frames a verdict looks at, and what they say.

    Attributes:
        stride: every how many frames one is taken.
        top: share of a flow field, its largest magnitudes, that sums a pair up.
        loops: whether the first and the last frame taken are compared as well, both ways, after all other pairs.
        n_pairs: how many pairs there are.
    """

    @property
    def stride(self) -> int: ...
    @property
    def top(self) -> float: ...
    @property
    def loops(self) -> bool: ...
    @property
    def n_pairs(self) -> int: ...

    def verdict(self, magnitudes_P: Array) -> bool | None:
        """What the pairs known so far settle; None while those that are NaN can change it."""

    def matters(self, magnitudes_P: Array, pair: int) -> bool:
        """Whether this pair can still change the verdict."""


@dataclass(frozen=True, slots=True)
class MovingRule:
    """dynamic_degree: a clip moves if a quarter as many pairs as it has frames do.

    Args:
        n_frames: frames looked at.
        stride: every how many frames of the clip one is.
        threshold: a pair above it moves, pixels.
    """

    n_frames: int
    stride: int
    threshold: float
    top = 0.05
    loops = False

    @classmethod
    def of(cls, info: VideoInfo) -> MovingRule:
        stride = max(1, round(info.fps / SAMPLED_FPS))
        return cls(len(range(0, info.n_frames, stride)), stride, 6.0 * (min(info.width, info.height) / 256.0))

    @property
    def n_pairs(self) -> int:
        return self.n_frames - 1

    @property
    def needed(self) -> int:
        """How many pairs must move: a quarter of the frames, half a pair rounded to even; a frame alone never moves."""
        return round(4 * (self.n_frames / 16.0)) if self.n_pairs else 1

    def verdict(self, magnitudes_P: Array) -> bool | None:
        moving = int(np.count_nonzero(magnitudes_P > self.threshold))
        if moving >= self.needed:
            return True
        return False if moving + np.count_nonzero(np.isnan(magnitudes_P)) < self.needed else None

    def matters(self, magnitudes_P: Array, pair: int) -> bool:
        return self.verdict(magnitudes_P) is None


@dataclass(frozen=True, slots=True)
class StaticRule:
    """The static filter: a clip stands still if few pairs move and its first and last frame are near each other.

    Args:
        n_frames: frames of the clip.
        threshold: a pair above it moves, pixels.
    """

    n_frames: int
    threshold: float
    stride = 1
    top = 0.02
    loops = True

    @classmethod
    def of(cls, info: VideoInfo) -> StaticRule:
        return cls(info.n_frames, 3.0 * (min(info.width, info.height) / 256.0))

    @property
    def n_pairs(self) -> int:
        return self.n_frames + 1

    @property
    def tolerated(self) -> int:
        """How many pairs may move."""
        return round(2 * (self.n_frames / 16.0))

    def verdict(self, magnitudes_P: Array) -> bool | None:
        loops_2 = magnitudes_P[-2:]
        if self._moving(magnitudes_P) > self.tolerated or (loops_2 > self.threshold * self.tolerated * 2).any():
            return False
        return None if self._may_move(magnitudes_P) or np.isnan(loops_2).any() else True

    def matters(self, magnitudes_P: Array, pair: int) -> bool:
        is_loop = pair % self.n_pairs >= self.n_pairs - 2
        return self.verdict(magnitudes_P) is None and (is_loop or self._may_move(magnitudes_P))

    def _moving(self, magnitudes_P: Array) -> int:
        return int(np.count_nonzero(magnitudes_P[:-2] > self.threshold))

    def _may_move(self, magnitudes_P: Array) -> bool:
        unknown = int(np.count_nonzero(np.isnan(magnitudes_P[:-2])))
        return self._moving(magnitudes_P) + unknown > self.tolerated
