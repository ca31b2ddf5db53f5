"""GRiT's network: the detector, and the decoder that describes what it finds.

Wu et al., arXiv:2212.00280; put together as in the official `grit/modeling/meta_arch/grit.py` with the settings of
`configs/GRiT_B_DenseCap_ObjectDet.yaml`.

Axes: B frames, H W frame, C channels, N detections of a frame, S cells of a detection (14 x 14, row by row), D width of
the features; a box is x0 y0 x1 y1 in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones._cascade import POOLED_STRIDES, Cascade, pool
from evalkit.backbones._centernet import CenterNet
from evalkit.backbones._grit_text import TextDecoder, TextShape
from evalkit.backbones._vitdet import VitDet, VitShape

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
DIVISOR = 32
"""Frames are padded to multiples of it, after standardising: with the mean colour."""

CELLS = 14
"""Cells a side of a detection that are described."""


@dataclass(frozen=True, slots=True)
class GritShape:
    """Sizes of the network; the default is the published one."""

    backbone: VitShape = field(default_factory=VitShape)
    head: int = 1024
    text: TextShape = field(default_factory=TextShape)


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one frame: boxes `(N, 4)`, scores `(N,)`, and the features `(N, S, D)` to describe them by."""

    boxes_N4: Tensor
    scores_N: Tensor
    features_NSD: Tensor


class Grit(nn.Module):
    """The detector, and the decoder that describes what it finds."""

    def __init__(self, shape: GritShape | None = None) -> None:
        super().__init__()
        shape = shape or GritShape()
        channels = shape.backbone.channels
        self.backbone = VitDet(shape.backbone)
        self.proposal_generator = CenterNet(channels)
        self.roi_heads = Cascade(channels, shape.head)
        self.text_decoder = TextDecoder(shape.text)

    @torch.inference_mode()
    def detect(self, frames_B3HW: Tensor) -> list[Detections]:
        """Find the objects of frames with values 0 to 255; each frame's are ordered by score, best first."""
        size = (frames_B3HW.shape[2], frames_B3HW.shape[3])
        levels_BCHW = self.backbone(standardize(frames_B3HW).to(self.dtype))
        proposals = self.proposal_generator(levels_BCHW)
        pooled_BCHW = [level_BCHW.contiguous() for level_BCHW in levels_BCHW[: len(POOLED_STRIDES)]]
        return [
            self._refine([level_BCHW[i : i + 1] for level_BCHW in pooled_BCHW], boxes_N4, scores_N, size)
            for i, (boxes_N4, scores_N) in enumerate(proposals)
        ]

    @property
    def dtype(self) -> torch.dtype:
        return self.backbone.bottom_up.pos_embed.dtype

    def _refine(
        self, levels_1CHW: list[Tensor], proposals_N4: Tensor, proposed_N: Tensor, size: tuple[int, int]
    ) -> Detections:
        boxes_N4, scores_N = self.roi_heads(levels_1CHW, proposals_N4, proposed_N, size)
        regions_NDRR = pool(levels_1CHW, boxes_N4, CELLS)
        return Detections(boxes_N4, scores_N, regions_NDRR.flatten(2).transpose(1, 2))


def standardize(frames_B3HW: Tensor) -> Tensor:
    """Map [0, 255] to zero mean and unit variance per channel, and pad right and below to multiples of `DIVISOR`."""
    mean_311, std_311 = (torch.tensor(v, device=frames_B3HW.device)[:, None, None] for v in (MEAN, STD))
    height, width = frames_B3HW.shape[-2:]
    return F.pad((frames_B3HW - mean_311) / std_311, (0, -width % DIVISOR, 0, -height % DIVISOR))
