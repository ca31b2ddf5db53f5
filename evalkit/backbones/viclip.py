"""ViCLIP: one vector for a clip and one for its prompt.

Wang et al., "InternVid: A Large-scale Video-Text Dataset for Multimodal Understanding and Generation" (ICLR 2024,
arXiv:2307.06942). Both towers are CLIP ViT-L/14's with open_clip's blocks; the video tower attends over the patches of
all eight frames at once.

Axes: B batch, C channels, T frames, P patches of a frame, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones import published
from evalkit.backbones.base import Extractor, Runtime, SelectedFrames
from evalkit.backbones.clip import HEAD_WIDTH, MEAN, SIDE, STD
from evalkit.backbones.images import DTYPES, center_crop, load_resized, standardize
from evalkit.backbones.vit import from_open_clip, prepare
from evalkit.types import Array, Clip, Frames
from evalkit.weights import WeightStore, load_strict

CHECKPOINT = published.VICLIP
FRAMES = 8
MAX_TOKENS = 32
TRAINING_ONLY = frozenset({"temp"})
"""Keys of the checkpoint that scoring does not use: the temperature of the contrastive loss."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the two towers; the default is the published network."""

    patch: int = 14
    video_width: int = 1024
    video_layers: int = 24
    text_width: int = 768
    text_layers: int = 12
    output: int = 768


class VideoTower(nn.Module):
    """ViT over space and time: every token attends to all patches of all frames.

    Parameter names are the checkpoint's.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        from open_clip.transformer import QuickGELU, Transformer

        width, patch = shape.video_width, shape.patch
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn((SIDE // patch) ** 2 + 1, width) * width**-0.5)
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, FRAMES, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, shape.video_layers, width // HEAD_WIDTH, act_layer=QuickGELU)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, shape.output) * width**-0.5)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the projected class token `(B, D)` of eight frames."""
        patches_BTPD = self.conv1(x_BCTHW).flatten(3).permute(0, 2, 3, 1)
        patches_BTPD = patches_BTPD + self.positional_embedding[1:] + self.temporal_positional_embedding[:, :, None]
        class_B1D = (self.class_embedding + self.positional_embedding[0]).expand(len(x_BCTHW), 1, -1)
        # The order of the patch tokens does not matter: positions are added, and only the class token is read.
        tokens_BND = self.ln_pre(torch.cat([class_B1D, patches_BTPD.flatten(1, 2)], dim=1))
        class_BD: Tensor = self.ln_post(self.transformer(tokens_BND)[:, 0]) @ self.proj
        return class_BD


class ViClip(nn.Module):
    """The two towers under the checkpoint's names."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        from open_clip.transformer import QuickGELU, TextTransformer

        shape = shape or Shape()
        self.vision_encoder = VideoTower(shape)
        self.text_encoder = TextTransformer(
            context_length=MAX_TOKENS,
            width=shape.text_width,
            heads=shape.text_width // HEAD_WIDTH,
            layers=shape.text_layers,
            output_dim=shape.output,
            act_layer=QuickGELU,
        )


class ViClipEmbed:
    """A clip's eight frames and its prompt to two unit vectors `(2, D)`, float32: video first, then text."""

    def __init__(self, network: ViClip, runtime: Runtime) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self.network = network.to(runtime.device, DTYPES[runtime.precision])
        self.runtime = runtime
        self.tokenize = SimpleTokenizer(context_length=MAX_TOKENS)
        self.texts: dict[str, Array] = {}
        prepare(network.vision_encoder, network.vision_encoder.transformer.resblocks, from_open_clip, runtime)

    def __call__(self, clip: Clip, frames_THWC: Frames) -> Array:
        if clip.prompt not in self.texts:
            self.texts[clip.prompt] = self.text(clip.prompt)
        return np.stack([self.video(frames_THWC), self.texts[clip.prompt]])

    def read_prompts(self, prompts: Iterable[str]) -> None:
        """Encode all prompts that will be asked for, then drop the text tower: a quarter of the network's weights."""
        self.texts |= {prompt: self.text(prompt) for prompt in dict.fromkeys(prompts)}
        del self.network.text_encoder

    @torch.inference_mode()
    def video(self, frames_THWC: Frames) -> Array:
        """The unit vector `(D,)` of a clip."""
        x_CTHW = preprocess(frames_THWC, self.runtime.device).transpose(0, 1).to(DTYPES[self.runtime.precision])
        return _unit(self.network.vision_encoder(x_CTHW[None]))

    @torch.inference_mode()
    def text(self, prompt: str) -> Array:
        """The unit vector `(D,)` of a prompt; words beyond 30 tokens are cut off."""
        return _unit(self.network.text_encoder(self.tokenize(prompt).to(self.runtime.device)))


def _unit(x_1D: Tensor) -> Array:
    vector: Array = F.normalize(x_1D[0].float(), dim=0).cpu().numpy()
    return vector


def preprocess(frames_THWC: Frames, device: str) -> Tensor:
    """Frames to `(T, 3, 224, 224)`; unlike CLIP's, they are resized as uint8: rounded and clamped."""
    x_TCHW = load_resized(frames_THWC, SIDE, "bicubic", device).clamp_(0, 255).round_()
    return standardize(center_crop(x_TCHW, SIDE), MEAN, STD)


def middle_frames(n_frames: int, count: int = FRAMES) -> list[int]:
    """Cut a clip into `count` equal intervals and take each one's middle; a short clip repeats its last frame."""
    used = min(count, n_frames)
    edges = [k * n_frames // used for k in range(used + 1)]
    middles = [(start + end - 1) // 2 for start, end in pairwise(edges)]
    return middles + middles[-1:] * (count - used)


class ViClipReader(SelectedFrames):
    """Extractor: reads eight frames of a clip, and all prompts beforehand."""

    def __init__(self, embed: ViClipEmbed) -> None:
        super().__init__(middle_frames, embed)
        self.read_prompts = embed.read_prompts


def load(store: WeightStore, runtime: Runtime) -> Extractor:
    """Build the extractor from the official checkpoint.

    Raises:
        UserError: the checkpoint is missing or is another model's.
    """
    with torch.device("meta"):
        network = ViClip()
    # The one buffer that no checkpoint holds.
    network.text_encoder.attn_mask = network.text_encoder.build_causal_mask()
    tensors = store.state_dict(CHECKPOINT)
    load_strict(network, {key: value for key, value in tensors.items() if key not in TRAINING_ONLY}, CHECKPOINT)
    del tensors  # or packing the weights would hold them twice
    return ViClipReader(ViClipEmbed(network, runtime))
