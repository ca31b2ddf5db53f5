"""How far things move between frames (RAFT-things), and the two rules that judge clips by it.

A pair of frames is summed up by one number, the mean of its largest flow magnitudes in pixels, over the padded field.
The official verdict on a clip counts pairs above a threshold, so it is settled long before the last pair in most clips;
no pair is computed that cannot change it. Features hold a number for every pair in the official order, and NaN for
those that were left out.

Sources: vbench/dynamic_degree.py and static_filter.py of the official package.

Axes: P pairs of frames.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from evalkit.backbones.base import Extractor, FeatureSpec, Reader, Runtime
from evalkit.backbones.images import DTYPES
from evalkit.types import Array, Clip, Frames, VideoInfo
from evalkit.weights import Checkpoint, WeightStore, load_strict

if TYPE_CHECKING:
    from evalkit.backbones._raft import Raft, View

CHECKPOINT = Checkpoint(
    key="raft",
    file="raft_model/models/raft-things.pth",
    url="https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip",
    member="models/raft-things.pth",
    size=21_108_000,
    licence="BSD-3-Clause (the repository's; none stated for the weights alone)",
    source="princeton-vl/RAFT",
)

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


class FlowMagnitudes:
    """Extractor: `(P,)` float32, the flow magnitude of each pair that the rule needs; NaN for all others.

    Frames with a side below `MIN_SIDE` have no flow.

    Args:
        raft: the network.
        rule: makes the rule for a clip.
    """

    def __init__(self, raft: Raft, rule: Callable[[VideoInfo], Rule]) -> None:
        self.raft = raft
        self.rule = rule

    def open(self, clip: Clip) -> Reader:
        return _PairReader(self.raft, self.rule(clip.info), min(clip.info.width, clip.info.height) >= MIN_SIDE)


class _PairReader:
    """Holds the last frame taken, and the first where the rule comes back to it."""

    def __init__(self, raft: Raft, rule: Rule, readable: bool) -> None:
        self.raft = raft
        self.rule = rule
        self.magnitudes_P = np.full(rule.n_pairs, np.nan, np.float32)
        self.open = readable and rule.verdict(self.magnitudes_P) is None
        self.first: View | None = None
        self.last: View | None = None
        self.taken = 0

    def push(self, start: int, frames_THWC: Frames) -> None:
        for frame_HWC in frames_THWC[-start % self.rule.stride :: self.rule.stride]:
            if self.open:
                self._take(frame_HWC)

    def close(self) -> Array:
        return self.magnitudes_P

    def _take(self, frame_HWC: Frames) -> None:
        from evalkit.backbones._raft import View

        view = View(self.raft, frame_HWC)
        if self.last is not None:
            self._measure(self.taken - 1, self.last, view)
        self.taken += 1
        self.last = view
        if self.rule.loops:
            self.first = self.first or view
            if self.taken == self.rule.n_pairs - 1:
                self._measure(-2, self.first, view)
                self._measure(-1, view, self.first)
        self.open = self.rule.verdict(self.magnitudes_P) is None
        if not self.open:
            self.first = self.last = None

    def _measure(self, pair: int, first: View, second: View) -> None:
        if self.rule.matters(self.magnitudes_P, pair):
            self.magnitudes_P[pair] = magnitude(self.raft.flow(first, second), self.rule.top)


def magnitude(flow_2HW: Tensor, top: float) -> float:
    """Mean length of the longest displacements, the share `top` of all, in pixels."""
    x_HW, y_HW = flow_2HW.cpu().numpy()
    lengths_HW = np.sqrt(np.square(x_HW) + np.square(y_HW))
    longest = np.sort(-lengths_HW, axis=None)[: int(lengths_HW.size * top)]
    return float(-longest.mean())  # summed in float32 in this order, as the official package does


ENCODERS = r"^(feature_encoder|context_encoder)\."
RENAMES = (
    (r"^module\.", ""),
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (ENCODERS + r"conv1\.", r"\1.convnormrelu.0."),
    (ENCODERS + r"norm1\.", r"\1.convnormrelu.1."),
    (ENCODERS + r"conv2\.", r"\1.conv."),
    (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.conv(c|f)(\d)\.", r"update_block.motion_encoder.conv\1\2.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"(motion_encoder\.conv)c", r"\1corr"),
    (r"(motion_encoder\.conv)f", r"\1flow"),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)
"""From the publisher's names to torchvision's."""


def rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors under torchvision's names; the norm of a projection is published twice."""
    renamed = {}
    for key, tensor in tensors.items():
        if ".norm3." in key:
            continue
        for pattern, name in RENAMES:
            key = re.sub(pattern, name, key)
        renamed[key] = tensor
    return renamed


def build(store: WeightStore, runtime: Runtime) -> Raft:
    """Build the network from the official checkpoint.

    Raises:
        UserError: the checkpoint is missing or is another model's.
    """
    from torchvision.models.optical_flow import raft_large

    from evalkit.backbones._raft import Raft

    with torch.device("meta"):
        network = raft_large()
    load_strict(network, rename(store.state_dict(CHECKPOINT)), CHECKPOINT)
    raft = Raft(network).to(runtime.device, DTYPES[runtime.precision]).eval().requires_grad_(False)
    if runtime.compile:
        raft.step = torch.compile(raft.step)  # type: ignore[method-assign]
    return raft


def load(rule: Callable[[VideoInfo], Rule], store: WeightStore, runtime: Runtime) -> Extractor:
    """Load RAFT once for both rules."""
    return FlowMagnitudes(store.shared(f"raft {runtime}", lambda: build(store, runtime)), rule)


MOVING = FeatureSpec("raft_moving", 1, partial(load, MovingRule.of), (CHECKPOINT,), pixels="opencv")
STATIC = FeatureSpec("raft_static", 1, partial(load, StaticRule.of), (CHECKPOINT,), pixels="opencv")
