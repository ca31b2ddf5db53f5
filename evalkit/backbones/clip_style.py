"""CLIP ViT-B/32 as a judge of style: one logit per frame, of the frame and the text that names the style.

Radford et al. (arXiv:2103.00020). Image tower and checkpoint are those of `evalkit.backbones.clip`; the text tower is
open_clip's. Unlike there, frames are scaled by Pillow.

Axes: B batch, H height, W width, C channels, D feature width.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones.base import Extractor, PerFrame, Reader, Runtime
from evalkit.backbones.clip import B32, HEAD_WIDTH, MEAN, SIDE, STD, ClipEmbed, load_images
from evalkit.backbones.features import STYLE_TOKENS
from evalkit.backbones.images import DTYPES, center_crop, load_picture, standardize
from evalkit.types import Array, Clip, Frames
from evalkit.weights import WeightStore, load_strict

if TYPE_CHECKING:
    from open_clip.transformer import TextTransformer

MAX_TOKENS = STYLE_TOKENS
"""Of a text with its start and end marks."""
WIDTH, LAYERS = 512, 12
SIZES = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Entries of the archive that are no weights."""


def build_text_tower(layers: int = LAYERS) -> TextTransformer:
    """The text tower with random weights; as in the archive, the scale of the logits belongs to it."""
    from open_clip.transformer import QuickGELU, TextTransformer

    tower = TextTransformer(
        context_length=MAX_TOKENS,
        width=WIDTH,
        heads=WIDTH // HEAD_WIDTH,
        layers=layers,
        output_dim=B32.output,
        act_layer=QuickGELU,
    )
    tower.logit_scale = nn.Parameter(torch.zeros(()))
    return tower


class ClipStyle:
    """Extractor: the logit of every frame with the style that the clip's prompt names, `(T,)`, float32.

    A style too long for CLIP gives no logits, `(0,)`.
    """

    def __init__(self, images: ClipEmbed, tower: TextTransformer) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self.images = images
        self.runtime = images.runtime
        self.scale = math.exp(float(tower.logit_scale))  # before it is rounded to half precision
        self.tower = tower.to(self.runtime.device, DTYPES[self.runtime.precision])
        self.tokenizer = SimpleTokenizer(context_length=MAX_TOKENS)
        self.texts: dict[str, Tensor | None] = {}

    def open(self, clip: Clip) -> Reader:
        style = str(clip.auxiliary["appearance_style"]["appearance_style"])
        if style not in self.texts:
            self.texts[style] = self.text(style)
        return PerFrame(partial(self.logits, self.texts[style]), self.runtime.batch).open(clip)

    @torch.inference_mode()
    def text(self, style: str) -> Tensor | None:
        """The unit vector `(D,)` of a style; None if it has more tokens than CLIP can read."""
        if len(self.tokenizer.encode(style)) > MAX_TOKENS - 2:
            return None
        tokens_1N = self.tokenizer(style).to(self.runtime.device)
        return F.normalize(self.tower(tokens_1N)[0].float(), dim=0)

    @torch.inference_mode()
    def logits(self, text_D: Tensor | None, frames_BHWC: Frames) -> Array:
        """Scaled cosines `(B,)` of frames and style."""
        if text_D is None:
            return np.empty(0, np.float32)
        images_BD = self.images.encode(preprocess(frames_BHWC, self.runtime.device))
        logits: Array = (self.scale * images_BD @ text_D).cpu().numpy()
        return logits


def preprocess(frames_BHWC: Frames, device: str) -> Tensor:
    """Frames to `(B, 3, 224, 224)`: Pillow's bicubic, which averages what it shrinks, rounds and clamps."""
    pictures = [center_crop(load_picture(frame_HWC, SIDE, device), SIDE) for frame_HWC in frames_BHWC]
    return standardize(torch.cat(pictures), MEAN, STD)


def load(store: WeightStore, runtime: Runtime) -> Extractor:
    """Build the extractor from the official checkpoint; the image tower may be in memory already.

    Raises:
        UserError: the checkpoint is missing, untrusted, or another model's.
    """
    with torch.device("meta"):
        tower = build_text_tower()
    # The one buffer that no checkpoint holds.
    tower.attn_mask = tower.build_causal_mask()
    tensors = store.state_dict(B32.checkpoint)
    texts = {key: value for key, value in tensors.items() if not key.startswith("visual.") and key not in SIZES}
    load_strict(tower, texts, B32.checkpoint)
    return ClipStyle(load_images(B32, store, runtime), tower)
