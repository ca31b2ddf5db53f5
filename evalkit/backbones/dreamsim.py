"""DreamSim: one feature vector per frame, close for pictures that people take for alike.

Fu et al., "DreamSim: Learning New Dimensions of Human Visual Similarity using Synthetic Data" (arXiv:2306.09344): the
class tokens of three ViT-B/16 (DINO, OpenAI's CLIP, OpenCLIP on LAION-400M), side by side, with low-rank changes of
their attention weights learnt from human judgements. The blocks are timm's; the published files name CLIP's tensors in
DINO's way. The low-rank products are added to the weights once, so that they cost nothing afterwards.

Axes: O and I outputs and inputs of a layer, R rank; the others as in `evalkit.backbones.vit`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones import dino
from evalkit.backbones.base import Runtime
from evalkit.backbones.clip import MEAN as CLIP_MEAN
from evalkit.backbones.clip import STD as CLIP_STD
from evalkit.backbones.images import load_antialiased, load_picture, standardize
from evalkit.backbones.vit import Block, from_timm, prepare, quick_gelu
from evalkit.errors import UserError
from evalkit.types import Array, Frames
from evalkit.weights import Checkpoint, WeightStore, load_strict

SIDE = 224
ARCHIVE = (
    "https://github.com/ssundaram21/dreamsim/releases/download/v0.2.0-checkpoints/dreamsim_ensemble_checkpoint.zip"
)
"""Holds all files below `dreamsim/` but DINO's."""


def _part(key: str, file: str) -> Checkpoint:
    return Checkpoint(key, f"dreamsim/{file}", ARCHIVE, 0, "MIT", "ssundaram21/dreamsim", member=file)


CLIP = _part("dreamsim-clip-vitb16", "clip_vitb16_pretrain.pth.tar")
OPEN_CLIP = _part("dreamsim-open-clip-vitb16", "open_clip_vitb16_pretrain.pth.tar")
ADAPTER = _part("dreamsim-adapter", "ensemble_lora/adapter_model.safetensors")
CONFIG = _part("dreamsim-adapter-config", "ensemble_lora/adapter_config.json")
CHECKPOINTS = (dino.CHECKPOINT, CLIP, OPEN_CLIP, ADAPTER, CONFIG)

LORA = "base_model.model.extractor_list.{tower}.model.blocks.{block}.attn.qkv.lora_{side}.weight"
"""Names in the adapter's file; `side` A is `(R, I)`, B is `(O, R)`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the three towers; smaller for tests."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    output: int = 512


class DinoTower(nn.Module):
    """DINO's class token as the last block leaves it, before the final norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.vit = VisionTransformer(embed_dim=shape.width, depth=shape.depth, num_heads=shape.heads, num_classes=0)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Squares of 224 pixels to `(B, D)`."""
        tokens_BND: Tensor = self.vit.blocks(_tokens(self.vit, x_BCHW))
        return tokens_BND[:, 0]


class ClipTower(nn.Module):
    """CLIP's projected class token; its first norm goes by the name of DINO's position dropout."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        norm = partial(nn.LayerNorm, eps=1e-5)
        self.vit = VisionTransformer(
            embed_dim=shape.width, depth=shape.depth, num_heads=shape.heads, num_classes=0, norm_layer=norm
        )
        self.vit.pos_drop = norm(shape.width)  # type: ignore[assignment]
        self.vit.register_parameter("proj", nn.Parameter(torch.empty(shape.width, shape.output)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Squares of 224 pixels to `(B, D)`."""
        tokens_BND = self.vit.blocks(self.vit.pos_drop(_tokens(self.vit, x_BCHW)))
        features_BD: Tensor = self.vit.norm(tokens_BND)[:, 0] @ self.vit.proj
        return features_BD


def _tokens(vit: Any, x_BCHW: Tensor) -> Tensor:
    patches_BND = vit.patch_embed.proj(x_BCHW).flatten(2).transpose(1, 2)
    tokens_BND: Tensor = torch.cat([vit.cls_token.expand(len(x_BCHW), -1, -1), patches_BND], dim=1) + vit.pos_embed
    return tokens_BND


def from_clip(block: Any, kept: int | None = None) -> Block:
    """Rebuild a timm block with CLIP's activation."""
    rebuilt = from_timm(block, kept)
    rebuilt.activation = quick_gelu
    return rebuilt


_NORMS = ((dino.MEAN, dino.STD), (CLIP_MEAN, CLIP_STD), (CLIP_MEAN, CLIP_STD))
_REBUILD: tuple[Callable[..., Block], ...] = (from_timm, from_clip, from_timm)


class DreamSim(nn.Module):
    """The three towers."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        shape = shape or Shape()
        self.towers = nn.ModuleList([DinoTower(shape), ClipTower(shape), ClipTower(shape)])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Squares of 224 pixels in [0, 255] to centred vectors `(B, D)`."""
        dtype = next(self.parameters()).dtype
        parts = [
            tower(standardize(x_BCHW, *norm).to(dtype)).float() for tower, norm in zip(self.towers, _NORMS, strict=True)
        ]
        features_BD = torch.cat(parts, dim=-1)
        return features_BD - features_BD.mean(dim=-1, keepdim=True)


class DreamSimEmbed:
    """Frames `(B, H, W, 3)` to unit vectors `(B, D)`, float32."""

    def __init__(self, network: DreamSim, runtime: Runtime) -> None:
        self.network = network
        self.runtime = runtime
        for tower, rebuild in zip(network.towers, _REBUILD, strict=True):
            prepare(tower, tower.vit.blocks, rebuild, runtime)  # type: ignore[arg-type, union-attr]

    def __call__(self, frames_BHWC: Frames) -> Array:
        return self._embed(load_antialiased(frames_BHWC, (SIDE, SIDE), self.runtime.device))

    def picture(self, picture_HWC: Frames) -> Array:
        """A still `(H, W, 3)` to a unit vector `(1, D)`."""
        return self._embed(load_picture(picture_HWC, (SIDE, SIDE), self.runtime.device))

    @torch.inference_mode()
    def _embed(self, x_BCHW: Tensor) -> Array:
        features: Array = F.normalize(self.network(x_BCHW), dim=-1).cpu().numpy()
        return features


def load_images(store: WeightStore, runtime: Runtime) -> DreamSimEmbed:
    """The network from the published files, one for all that read it.

    Raises:
        UserError: a file is missing or is another model's.
    """

    def build() -> DreamSimEmbed:
        with torch.device("meta"):
            network = DreamSim()
        adapter, scale = read_adapter(store)
        for index, (tower, checkpoint) in enumerate(zip(network.towers, CHECKPOINTS[:3], strict=True)):
            tensors = store.state_dict(checkpoint)
            assert isinstance(tower.vit, nn.Module)
            load_strict(tower.vit, tensors, checkpoint)
            _add_low_rank(tower.vit, index, adapter, scale)
        if adapter:
            raise _does_not_fit(f"{min(adapter)} does not belong there")
        return DreamSimEmbed(network, runtime)

    return store.shared(f"dreamsim {runtime}", build)


def read_adapter(store: WeightStore) -> tuple[dict[str, Tensor], float]:
    """The low-rank factors by name, and by what their products are multiplied (alpha / rank).

    Raises:
        UserError: a file is missing, or not what it claims to be.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for checkpoint in (ADAPTER, CONFIG):
        store.sha256(checkpoint)
    try:
        factors = load_file(store.path(ADAPTER))
        config = json.loads(store.path(CONFIG).read_text(encoding="utf-8"))
        return factors, float(config["lora_alpha"]) / int(config["r"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as e:
        raise _does_not_fit(str(e).splitlines()[0][:160] if str(e) else repr(e)) from e


def _add_low_rank(vit: nn.Module, tower: int, adapter: dict[str, Tensor], scale: float) -> None:
    """Add scale x B A to the attention weights of every block, and take the factors out of `adapter`."""
    for index, block in enumerate(vit.blocks):  # type: ignore[arg-type]
        a_RI, b_OR = (_take(adapter, LORA.format(tower=tower, block=index, side=side)) for side in "AB")
        weight_OI = block.attn.qkv.weight
        if (b_OR.shape[0], a_RI.shape[1]) != weight_OI.shape or b_OR.shape[1] != a_RI.shape[0]:
            raise _does_not_fit(f"the factors of block {index} of tower {tower} have other shapes")
        weight_OI.data = weight_OI + scale * (b_OR.float() @ a_RI.float())


def _take(adapter: dict[str, Tensor], name: str) -> Tensor:
    if name not in adapter:
        raise _does_not_fit(f"{name} is missing")
    return adapter.pop(name)


def _does_not_fit(why: str) -> UserError:
    return UserError(
        f"The files in dreamsim/ensemble_lora are not DreamSim's adapter: {why}.", f"Unpack {ARCHIVE} there again."
    )
