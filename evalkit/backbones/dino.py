"""DINO ViT-B/16: one feature vector per frame.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (ICCV 2021, arXiv:2104.14294). The blocks are
timm's; positions are interpolated by DINO's own rule, from which timm's differs by 4e-3 on frames that are not square.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones import published
from evalkit.backbones.base import Extractor, PerFrame, Runtime
from evalkit.backbones.images import DTYPES, load_resized, standardize
from evalkit.backbones.vit import from_timm, prepare
from evalkit.types import Array, Frames
from evalkit.weights import WeightStore, load_strict

CHECKPOINT = published.DINO
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
SIDE = 224


class Dino(nn.Module):
    """ViT-B/16 with DINO's handling of any input size; smaller for tests."""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.vit = VisionTransformer(embed_dim=width, depth=depth, num_heads=heads, num_classes=0)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the class token `(B, D)`; pixels beyond the last whole patch are ignored."""
        class_11D, learnt_1ND = self.vit.cls_token, self.vit.pos_embed
        assert class_11D is not None
        assert learnt_1ND is not None
        patches_BDhw = self.vit.patch_embed.proj(x_BCHW)
        square = x_BCHW.shape[-2] == x_BCHW.shape[-1]
        position_1ND = learnt_1ND if square else resize_positions(learnt_1ND, *patches_BDhw.shape[-2:])
        class_B1D = class_11D.expand(len(x_BCHW), -1, -1)
        tokens_BND = torch.cat([class_B1D, patches_BDhw.flatten(2).transpose(1, 2)], dim=1) + position_1ND
        class_BD: Tensor = self.vit.norm(self.vit.blocks(tokens_BND))[:, 0]
        return class_BD


def resize_positions(position_1ND: Tensor, rows: int, columns: int) -> Tensor:
    """Interpolate position embeddings (class token first, then a square grid) to another grid.

    Bicubic, with 0.1 added to the target size before the scale is taken: DINO's guard against a scale that rounds down
    by one patch. It shifts every sampling point, so it is part of the result.
    """
    grid = round((position_1ND.shape[1] - 1) ** 0.5)
    grid_1Dhw = position_1ND[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / grid, (columns + 0.1) / grid)
    resized_1Dhw = F.interpolate(grid_1Dhw, scale_factor=scale, mode="bicubic")
    return torch.cat([position_1ND[:, :1], resized_1Dhw.flatten(2).transpose(1, 2)], dim=1)


class DinoEmbed:
    """Frames `(B, H, W, 3)` to unit vectors `(B, D)`, float32."""

    def __init__(self, network: Dino, runtime: Runtime) -> None:
        self.network = network
        self.runtime = runtime
        prepare(network, network.vit.blocks, from_timm, runtime)

    def __call__(self, frames_BHWC: Frames) -> Array:
        return self.embed(load_resized(frames_BHWC, SIDE, "bilinear", self.runtime.device))

    @torch.inference_mode()
    def embed(self, x_BCHW: Tensor) -> Array:
        """Scaled pictures `(B, 3, h, w)` in [0, 255] to unit vectors."""
        x_BCHW = standardize(x_BCHW, MEAN, STD).to(DTYPES[self.runtime.precision])
        features: Array = F.normalize(self.network(x_BCHW).float(), dim=-1).cpu().numpy()
        return features


def load_images(store: WeightStore, runtime: Runtime) -> DinoEmbed:
    """The network from the official checkpoint, one for all that read it.

    Raises:
        UserError: the checkpoint is missing or is another model's.
    """

    def build() -> DinoEmbed:
        with torch.device("meta"):
            network = Dino()
        load_strict(network.vit, store.state_dict(CHECKPOINT), CHECKPOINT)
        return DinoEmbed(network, runtime)

    return store.shared(f"{CHECKPOINT.key} {runtime}", build)


def load(store: WeightStore, runtime: Runtime) -> Extractor:
    """The per-frame extractor; raises as `load_images` does."""
    return PerFrame(load_images(store, runtime), runtime.batch)
