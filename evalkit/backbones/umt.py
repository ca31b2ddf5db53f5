"""UMT ViT-L/16: a clip to one logit for each of the 400 actions of Kinetics.

Li et al., "Unmasked Teacher: Towards Training-Efficient Video Foundation Models" (ICCV 2023, arXiv:2303.16058), trained
on Kinetics-710, then Kinetics-400. The blocks are timm's; every token attends to the patches of all 16 frames.

Axes: B batch, C channels, T frames, P patches of a frame, N tokens (T * P), D width, K actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones import published
from evalkit.backbones._opencv import resize
from evalkit.backbones.actions import ACTIONS
from evalkit.backbones.base import Extractor, Runtime, SelectedFrames
from evalkit.backbones.dino import MEAN, STD
from evalkit.backbones.images import DTYPES, centre, scaled, standardize
from evalkit.backbones.viclip import middle_frames
from evalkit.backbones.vit import from_timm, prepare
from evalkit.types import Array, Clip, Frames
from evalkit.weights import WeightStore, load_strict

CHECKPOINT = published.UMT
FRAMES = 16
SHORT_SIDE, SIDE, PATCH = 256, 224, 16
PATCHES = (SIDE // PATCH) ** 2
PRETRAINED_FRAMES = 8


class Umt(nn.Module):
    """ViT over space and time that classifies the mean token; smaller for tests.

    Parameter names are the checkpoint's but for the attention biases (`join_biases`).
    """

    def __init__(self, width: int = 1024, depth: int = 24, heads: int = 16) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        patch = (1, PATCH, PATCH)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, width, patch, patch)})
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)))
        self.fc_norm = norm(width)
        self.head = nn.Linear(width, len(ACTIONS))
        self.position_ND: Tensor
        self.register_buffer("position_ND", positions(width), persistent=False)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the logits `(B, K)` of 16 frames."""
        tokens_BND = self.patch_embed["proj"](x_BCTHW).flatten(2).transpose(1, 2) + self.position_ND
        logits_BK: Tensor = self.head(self.fc_norm(self.blocks(tokens_BND).mean(dim=1)))
        return logits_BK


def positions(width: int) -> Tensor:
    """The fixed position `(N, D)` of every token, in no checkpoint: sinusoids of 8 frames, stretched over 16.

    The tokens of the 8 frames of pre-training are counted through; their sinusoids are interpolated linearly in time.
    """
    channel_D = np.arange(width)
    angle_ND = np.arange(PRETRAINED_FRAMES * PATCHES)[:, None] / 10_000 ** (2 * (channel_D // 2) / width)
    wave_ND = np.where(channel_D % 2, np.cos(angle_ND), np.sin(angle_ND)).astype(np.float32)
    wave_PDT = torch.from_numpy(wave_ND).view(PRETRAINED_FRAMES, PATCHES, width).permute(1, 2, 0)
    return F.interpolate(wave_PDT, size=FRAMES, mode="linear").permute(2, 0, 1).flatten(0, 1)


def join_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put each block's `q_bias` and `v_bias` into timm's `qkv.bias`; keys have none, as softmax would cancel it."""
    joined = dict(tensors)
    for name in tensors:
        attention = name.removesuffix("q_bias")
        if attention != name and f"{attention}v_bias" in joined:
            q_D, v_D = joined.pop(name), joined.pop(f"{attention}v_bias")
            joined[f"{attention}qkv.bias"] = torch.cat([q_D, torch.zeros_like(q_D), v_D])
    return joined


def preprocess(frames_THWC: Frames, device: str) -> Tensor:
    """Frames to `(T, 3, 224, 224)`: scaled by OpenCV's rules to a short side of 256, the centre cut out."""
    height, width = scaled(frames_THWC.shape[1:3], SHORT_SIDE)
    rows, columns = centre(height, SIDE), centre(width, SIDE)
    crops_THWC = np.stack([resize(frame_HWC, height, width, rows, columns) for frame_HWC in frames_THWC])
    return standardize(torch.from_numpy(crops_THWC).to(device).permute(0, 3, 1, 2).float(), MEAN, STD)


class UmtLogits:
    """A clip's 16 frames to the logits of all actions `(K,)`, float32."""

    def __init__(self, network: Umt, runtime: Runtime, published_in_half: bool = False) -> None:
        self.network = network
        self.runtime = runtime
        prepare(network, network.blocks, from_timm, runtime, published_in_half, kept=None)

    @torch.inference_mode()
    def __call__(self, clip: Clip, frames_THWC: Frames) -> Array:
        x_TCHW = preprocess(frames_THWC, self.runtime.device).to(DTYPES[self.runtime.precision])
        logits: Array = self.network(x_TCHW.transpose(0, 1)[None])[0].float().cpu().numpy()
        return logits


def load(store: WeightStore, runtime: Runtime) -> Extractor:
    """Build the extractor from the official checkpoint.

    Raises:
        UserError: the checkpoint is missing or is another model's.
    """
    with torch.device("meta"):
        network = Umt()
    tensors = join_biases(store.state_dict(CHECKPOINT))
    in_half = all(tensor.dtype == torch.float16 for tensor in tensors.values())
    load_strict(network, tensors, CHECKPOINT)
    del tensors  # or packing the weights would hold them twice
    return SelectedFrames(partial(middle_frames, count=FRAMES), UmtLogits(network, runtime, in_half))
