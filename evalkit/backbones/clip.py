"""OpenAI's CLIP: the image towers of ViT-B/32 and ViT-L/14, one feature vector per frame.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (arXiv:2103.00020). The network
is open_clip's; the published files are TorchScript archives of fp16 weights, of which only the tensors are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.backbones import published
from evalkit.backbones.base import Extractor, PerFrame, Runtime
from evalkit.backbones.images import DTYPES, center_crop, load_resized, standardize
from evalkit.backbones.vit import from_open_clip, prepare
from evalkit.types import Array, Frames
from evalkit.weights import Checkpoint, WeightStore, load_strict

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIDE = 224
HEAD_WIDTH = 64


@dataclass(frozen=True, slots=True)
class ImageTower:
    """The shape of a CLIP image tower and the file that holds it."""

    checkpoint: Checkpoint
    patch: int
    width: int
    layers: int
    output: int

    def build(self) -> VisionTransformer:
        """The tower with random weights."""
        from open_clip.transformer import QuickGELU, VisionTransformer

        return VisionTransformer(
            image_size=SIDE,
            patch_size=self.patch,
            width=self.width,
            layers=self.layers,
            heads=self.width // HEAD_WIDTH,
            mlp_ratio=4,
            output_dim=self.output,
            act_layer=QuickGELU,
        )


B32 = ImageTower(
    published.CLIP_B32,
    patch=32,
    width=768,
    layers=12,
    output=512,
)
L14 = ImageTower(
    published.CLIP_L14,
    patch=14,
    width=1024,
    layers=24,
    output=768,
)


def preprocess(frames_BHWC: Frames, device: str) -> Tensor:
    """Frames to `(B, 3, 224, 224)`; bicubic overshoot beyond [0, 255] is kept."""
    x_BCHW = load_resized(frames_BHWC, SIDE, "bicubic", device)
    return standardize(center_crop(x_BCHW, SIDE), MEAN, STD)


class ClipEmbed:
    """Frames `(B, H, W, 3)` to unit vectors `(B, D)`, float32."""

    def __init__(self, network: VisionTransformer, runtime: Runtime, published_in_half: bool = False) -> None:
        self.network = network
        self.runtime = runtime
        prepare(network, network.transformer.resblocks, from_open_clip, runtime, published_in_half)

    def __call__(self, frames_BHWC: Frames) -> Array:
        features: Array = self.embed(frames_BHWC).cpu().numpy()
        return features

    @torch.inference_mode()
    def embed(self, frames_BHWC: Frames) -> Tensor:
        """As calling, but the features stay on the device."""
        return self.encode(preprocess(frames_BHWC, self.runtime.device))

    @torch.inference_mode()
    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Preprocessed images `(B, 3, 224, 224)` to unit vectors `(B, D)` on the device."""
        return F.normalize(self.network(x_BCHW.to(DTYPES[self.runtime.precision])).float(), dim=-1)


def load_images(tower: ImageTower, store: WeightStore, runtime: Runtime) -> ClipEmbed:
    """Build an image tower from its official checkpoint; extractors of one store and runtime share it.

    Raises:
        UserError: the checkpoint is missing, untrusted, or another model's.
    """
    return store.shared(f"{tower} {runtime}", lambda: _load_images(tower, store, runtime))


def _load_images(tower: ImageTower, store: WeightStore, runtime: Runtime) -> ClipEmbed:
    with torch.device("meta"):
        network = tower.build()
    tensors = store.state_dict(tower.checkpoint)
    images = {key.removeprefix("visual."): value for key, value in tensors.items() if key.startswith("visual.")}
    in_half = all(value.dtype == torch.float16 for key, value in images.items() if key.startswith("transformer."))
    load_strict(network, images, tower.checkpoint)
    del tensors, images  # or packing the weights would hold them twice
    return ClipEmbed(network, runtime, in_half)


def load(tower: ImageTower, store: WeightStore, runtime: Runtime) -> Extractor:
    """The per-frame extractor of an image tower."""
    return PerFrame(load_images(tower, store, runtime), runtime.batch)


load_b32 = partial(load, B32)
