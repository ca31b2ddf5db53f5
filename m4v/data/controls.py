"""Data spoilt on purpose: negative controls, by which an evaluation shows that it would notice.

Axes: B clips, T frames, H rows, W columns, C colours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from m4v.recipe import derived_seed


def shuffled_frames(video_BTHWC: Tensor, seed: int) -> Tensor:
    """The frames of every clip in an order of its own, drawn from the seed."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "frames"))
    order_BT = torch.rand(video_BTHWC.shape[:2], generator=generator).argsort(dim=1)
    return torch.stack([clip[order] for clip, order in zip(video_BTHWC, order_BT, strict=True)])
