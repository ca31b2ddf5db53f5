"""A cascade of three heads that refine proposals, and the choice of the boxes that are kept.

Cai, Vasconcelos: "Cascade R-CNN" (CVPR 2018, arXiv:1712.00726) on RoIAlign (He et al., Mask R-CNN, arXiv:1703.06870),
as GRiT sets it up (`grit/modeling/roi_heads/grit_roi_heads.py` on detectron2's `CascadeROIHeads`), with VBench's score
threshold. Parameter names are those of GRiT's checkpoint below `roi_heads`.

Axes: N boxes, C channels, R side of a pooled region, D width; a box is x0 y0 x1 y1 in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones._vitdet import STRIDES

POOLED_STRIDES = STRIDES[:3]
REGION = 7
"""Cells a side that a head sees of a box."""
MIN_SCORE = 0.5
MAX_OVERLAP = 0.5
MAX_DETECTIONS = 256
STEPS = ((10.0, 5.0), (20.0, 10.0), (30.0, 15.0))
"""What a head's outputs are divided by, per stage: shifts, and logarithms of scale."""
MAX_GROWTH = math.log(1000 / 16)
REFERENCE_SIDE, REFERENCE_STRIDE = 224, 16  # a box of that side is read from the map of that stride


class BoxHead(nn.Module):
    """Pooled regions `(N, C * R * R)` to `(N, D)`."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x_NX: Tensor) -> Tensor:
        return F.relu(self.fc2(F.relu(self.fc1(x_NX))))


class BoxPredictor(nn.Module):
    """`(N, D)` to the probability of an object `(N,)` and the change of its box `(N, 4)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, 2)
        self.bbox_pred = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x_ND).float().softmax(dim=-1)[:, 0], self.bbox_pred(x_ND).float()


class Cascade(nn.Module):
    """Refines the proposals of one image and keeps the best.

    Args:
        channels: of the pyramid.
        width: of the heads.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.box_head = nn.ModuleList(BoxHead(channels * REGION**2, width) for _ in STEPS)
        self.box_predictor = nn.ModuleList(BoxPredictor(width) for _ in STEPS)

    def forward(
        self, levels_1CHW: Sequence[Tensor], proposals_N4: Tensor, proposed_N: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return the boxes kept `(N, 4)`, inside the image, and their scores `(N,)`, best first.

        Args:
            levels_1CHW: the image's pyramid, p3 to p5.
            proposals_N4: boxes to refine.
            proposed_N: their scores.
            size: the image's height and width, without padding.
        """
        boxes_N4, scores_N = self.refine(levels_1CHW, proposals_N4, size)
        return keep_best(clip(boxes_N4, size), (scores_N * proposed_N) ** 0.5)

    def refine(self, levels_1CHW: Sequence[Tensor], boxes_N4: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return all boxes after the last stage, not clipped, and the mean of the stages' probabilities."""
        total_N = torch.zeros_like(boxes_N4[:, 0])
        for stage, (head, predictor) in enumerate(zip(self.box_head, self.box_predictor, strict=True)):
            if stage > 0:
                boxes_N4 = clip(boxes_N4, size)
            regions_NCRR = pool(levels_1CHW, boxes_N4, REGION)
            probability_N, change_N4 = predictor(head(regions_NCRR.flatten(1).to(levels_1CHW[0].dtype)))
            boxes_N4 = move(boxes_N4, change_N4, *STEPS[stage])
            total_N = total_N + probability_N
        return boxes_N4, total_N * (1 / len(STEPS))


def pool(levels_1CHW: Sequence[Tensor], boxes_N4: Tensor, side: int) -> Tensor:
    """Read every box from the level that suits its size: `(N, C, side, side)`, float32."""
    from torchvision.ops import roi_align

    regions_NCRR = boxes_N4.new_zeros(len(boxes_N4), levels_1CHW[0].shape[1], side, side)
    assigned_N = choose_level(boxes_N4)
    for level, (x_1CHW, stride) in enumerate(zip(levels_1CHW, POOLED_STRIDES, strict=True)):
        (here,) = (assigned_N == level).nonzero(as_tuple=True)
        if len(here):
            regions_NCRR[here] = roi_align(x_1CHW.float(), [boxes_N4[here]], side, 1 / stride, aligned=True)
    return regions_NCRR


def choose_level(boxes_N4: Tensor) -> Tensor:
    """Index `(N,)` of the level to read a box from: one coarser for every doubling of its side (FPN, equation 1)."""
    sides_N = ((boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])).sqrt()
    exponents_N = (math.log2(REFERENCE_STRIDE) + (sides_N / REFERENCE_SIDE + 1e-8).log2()).floor()
    finest, coarsest = math.log2(POOLED_STRIDES[0]), math.log2(POOLED_STRIDES[-1])
    return (exponents_N.clamp(finest, coarsest) - finest).long()


def move(boxes_N4: Tensor, change_N4: Tensor, shift_step: float, scale_step: float) -> Tensor:
    """Shift boxes by a part of their size and scale them: R-CNN's parametrisation."""
    sizes_N2 = boxes_N4[:, 2:] - boxes_N4[:, :2]
    centres_N2 = boxes_N4[:, :2] + 0.5 * sizes_N2
    centres_N2 = change_N4[:, :2] / shift_step * sizes_N2 + centres_N2
    sizes_N2 = (change_N4[:, 2:] / scale_step).clamp(max=MAX_GROWTH).exp() * sizes_N2
    return torch.cat([centres_N2 - 0.5 * sizes_N2, centres_N2 + 0.5 * sizes_N2], dim=1)


def clip(boxes_N4: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut boxes at the edges of an image of that height and width."""
    height, width = size
    return boxes_N4.clamp(min=0).minimum(boxes_N4.new_tensor([width, height, width, height]))


def keep_best(boxes_N4: Tensor, scores_N: Tensor) -> tuple[Tensor, Tensor]:
    """Drop unlikely boxes, those that overlap a likelier one, and those without an area; best first."""
    from torchvision.ops import nms

    likely = (boxes_N4.isfinite().all(dim=1) & (scores_N > MIN_SCORE)).nonzero()[:, 0]
    boxes_N4, scores_N = boxes_N4[likely], scores_N[likely]
    kept = nms(boxes_N4, scores_N, MAX_OVERLAP)[:MAX_DETECTIONS]
    kept = kept[(boxes_N4[kept, 2:] > boxes_N4[kept, :2]).all(dim=1)]
    return boxes_N4[kept], scores_N[kept]
