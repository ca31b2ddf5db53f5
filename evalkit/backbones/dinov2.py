"""DINOv2 ViT-B/14: one feature vector per frame.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (arXiv:2304.07193). The blocks are timm's;
the positions, learnt for 518 pixels, are interpolated by DINO's rule, as facebookresearch/dinov2 does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones.base import Runtime
from evalkit.backbones.dino import MEAN, STD, resize_positions
from evalkit.backbones.images import DTYPES, center_crop, load_antialiased, standardize
from evalkit.backbones.vit import Block, from_timm, prepare
from evalkit.types import Array, Frames
from evalkit.weights import Checkpoint, WeightStore, load_strict

CHECKPOINT = Checkpoint(
    key="dinov2-vitb14",
    file="dino_model/dinov2_vitb14_pretrain.pth",
    url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
    size=346_378_731,
    licence="Apache-2.0",
    source="facebookresearch/dinov2",
)
SHORTER_SIDE, SIDE, PATCH = 256, 224, 14
LEARNT_SIDE = 518
"""Pixels a side for which positions were learnt."""

MASK = "mask_token"
"""The token that hides patches in training; in the file, and read by nothing here."""


class DinoV2(nn.Module):
    """ViT-B/14 for squares of 224 pixels; smaller for tests."""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.vit = VisionTransformer(
            LEARNT_SIDE, PATCH, embed_dim=width, depth=depth, num_heads=heads, num_classes=0, init_values=1.0
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the class token `(B, D)`."""
        class_11D, learnt_1ND = self.vit.cls_token, self.vit.pos_embed
        assert class_11D is not None
        assert learnt_1ND is not None
        patches_BDhw = self.vit.patch_embed.proj(x_BCHW)
        position_1ND = resize_positions(learnt_1ND, *patches_BDhw.shape[-2:])
        class_B1D = class_11D.expand(len(x_BCHW), -1, -1)
        tokens_BND = torch.cat([class_B1D, patches_BDhw.flatten(2).transpose(1, 2)], dim=1) + position_1ND
        class_BD: Tensor = self.vit.norm(self.vit.blocks(tokens_BND))[:, 0]
        return class_BD


def rebuild(block: Any, kept: int | None = None) -> Block:
    """A block without its layer scales: they are multiplied into the layers before them."""
    for layer, scale in ((block.attn.proj, block.ls1), (block.mlp.fc2, block.ls2)):
        layer.weight.data = layer.weight * scale.gamma[:, None]
        layer.bias.data = layer.bias * scale.gamma
    return from_timm(block, kept)


class DinoV2Embed:
    """Frames `(B, H, W, 3)` to unit vectors `(B, D)`, float32."""

    def __init__(self, network: DinoV2, runtime: Runtime) -> None:
        self.network = network
        self.runtime = runtime
        prepare(network, network.vit.blocks, rebuild, runtime)

    @torch.inference_mode()
    def __call__(self, frames_BHWC: Frames) -> Array:
        x_BCHW = center_crop(load_antialiased(frames_BHWC, SHORTER_SIDE, self.runtime.device), SIDE)
        x_BCHW = standardize(x_BCHW, MEAN, STD).to(DTYPES[self.runtime.precision])
        features: Array = F.normalize(self.network(x_BCHW).float(), dim=-1).cpu().numpy()
        return features


def load_images(store: WeightStore, runtime: Runtime) -> DinoV2Embed:
    """The network from the official checkpoint.

    Raises:
        UserError: the checkpoint is missing or is another model's.
    """
    with torch.device("meta"):
        network = DinoV2()
    tensors = {key: value for key, value in store.state_dict(CHECKPOINT).items() if key != MASK}
    load_strict(network.vit, tensors, CHECKPOINT)
    return DinoV2Embed(network, runtime)
