"""LAION's aesthetic predictor: one score per frame, a linear head on the unit CLIP ViT-L/14 image feature.

https://github.com/LAION-AI/aesthetic-predictor; scores run from about 1 to 10.
"""

from __future__ import annotations

import torch
from torch import nn

from evalkit.backbones import published
from evalkit.backbones.base import Extractor, PerFrame, Runtime
from evalkit.backbones.clip import L14, ClipEmbed, load_images
from evalkit.types import Array, Frames
from evalkit.weights import WeightStore, load_strict

HEAD = published.LAION


class AestheticScore:
    """Frames `(B, H, W, 3)` to scores `(B, 1)`, float32."""

    def __init__(self, clip: ClipEmbed, head: nn.Linear) -> None:
        self.clip = clip
        self.head = head.to(clip.runtime.device)

    @torch.inference_mode()
    def __call__(self, frames_BHWC: Frames) -> Array:
        scores: Array = self.head(self.clip.embed(frames_BHWC)).cpu().numpy()
        return scores


def load(store: WeightStore, runtime: Runtime) -> Extractor:
    """Build CLIP ViT-L/14 and the head from their official checkpoints.

    Raises:
        UserError: a checkpoint is missing, untrusted, or another model's.
    """
    head = nn.Linear(L14.output, 1)
    load_strict(head, store.state_dict(HEAD), HEAD)
    return PerFrame(AestheticScore(load_images(L14, store, runtime), head), runtime.batch)
