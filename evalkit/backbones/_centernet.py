"""CenterNet2's first stage: where in an image something might be, of whatever class.

Zhou, Koltun, Kraehenbuehl: "Probabilistic two-stage detection" (arXiv:2103.07461), with the settings of GRiT's
`configs/Base.yaml`. Parameter names are those of GRiT's checkpoint below `proposal_generator`.

Axes: B images, C channels, H W map, M cells of a level, N boxes; a box is x0 y0 x1 y1 in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones._vitdet import STRIDES

LIKELIEST = 1000
"""Cells of a level that may propose a box."""
PROPOSALS = 256
MIN_PROBABILITY = 1e-4
MAX_OVERLAP = 0.9
MIN_SIDE = 0.01  # pixels; of two edges on the wrong sides of each other, the second is moved


class Scale(nn.Module):
    """A learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class CenterNetHead(nn.Module):
    """For every cell of every level: the logit of an object's centre being there, and the distances to its edges."""

    def __init__(self, channels: int, convolutions: int = 4) -> None:
        super().__init__()
        tower: list[nn.Module] = []
        for _ in range(convolutions):
            tower += nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(32, channels), nn.ReLU()
        self.bbox_tower = nn.Sequential(*tower)
        self.bbox_pred = nn.Conv2d(channels, 4, 3, padding=1)
        self.agn_hm = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)

    def forward(self, levels_BCHW: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return for each level the logits `(B, 1, H, W)` and the distances `(B, 4, H, W)`, in strides: l t r b."""
        towers = [self.bbox_tower(level_BCHW) for level_BCHW in levels_BCHW]
        return [
            (self.agn_hm(x_BCHW), F.relu(scale(self.bbox_pred(x_BCHW))))
            for x_BCHW, scale in zip(towers, self.scales, strict=True)
        ]


class CenterNet(nn.Module):
    """Pyramids to proposals: for each image boxes `(N, 4)` and scores `(N,)`, likeliest first, float32.

    Boxes may reach beyond the image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.centernet_head = CenterNetHead(channels)

    def forward(self, levels_BCHW: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        maps = self.centernet_head(levels_BCHW)
        return [
            select([(logits_B1HW[i, 0], distances_B4HW[i]) for logits_B1HW, distances_B4HW in maps])
            for i in range(len(levels_BCHW[0]))
        ]


def select(levels: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Boxes `(N, 4)` and scores `(N,)` of one image from its logits `(H, W)` and distances `(4, H, W)` per level."""
    from torchvision.ops import nms

    candidates = [_read_level(*level, stride) for level, stride in zip(levels, STRIDES, strict=True)]
    boxes_N4, scores_N = (torch.cat(parts) for parts in zip(*candidates, strict=True))
    kept = nms(boxes_N4, scores_N, MAX_OVERLAP)
    if len(kept) > PROPOSALS:  # boxes that tie with the last one stay
        kept = kept[scores_N[kept] >= scores_N[kept[PROPOSALS - 1]]]
    return boxes_N4[kept], scores_N[kept]


def _read_level(logits_HW: Tensor, distances_4HW: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The likeliest boxes of a level; a score is the root of a probability."""
    probabilities_M = logits_HW.float().sigmoid().flatten()
    cells = (probabilities_M > MIN_PROBABILITY).nonzero()[:, 0]
    if len(cells) > LIKELIEST:
        cells = cells[probabilities_M[cells].topk(LIKELIEST, sorted=False).indices]
    left, top, right, bottom = (distances_4HW.float() * stride).flatten(1)[:, cells]
    width = logits_HW.shape[1]
    x, y = ((place * stride + stride // 2).float() for place in (cells % width, cells // width))
    x0, y0 = x - left, y - top
    x1, y1 = (x + right).maximum(x0 + MIN_SIDE), (y + bottom).maximum(y0 + MIN_SIDE)
    return torch.stack([x0, y0, x1, y1], dim=1), probabilities_M[cells].sqrt()
