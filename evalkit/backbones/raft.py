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
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from evalkit.backbones import published
from evalkit.backbones.base import Extractor, Reader, Runtime
from evalkit.backbones.flow_rules import MIN_SIDE, MovingRule, Rule, StaticRule
from evalkit.backbones.images import DTYPES
from evalkit.types import Array, Clip, Frames, VideoInfo
from evalkit.weights import WeightStore, load_strict

if TYPE_CHECKING:
    from evalkit.backbones._raft import Raft, View

CHECKPOINT = published.RAFT


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


load_moving, load_static = partial(load, MovingRule.of), partial(load, StaticRule.of)
