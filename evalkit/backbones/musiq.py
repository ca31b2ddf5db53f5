"""MUSIQ: technical quality of an image at any size, from patches of three scales of it.

Ke, Wang, Wang, Milanfar, Yang: "MUSIQ: Multi-scale Image Quality Transformer", ICCV 2021 (arXiv:2108.05997).
Parameter names are those of the published checkpoint.

Axes: B batch, C channels, H W image, P patches of one scale, N tokens, D token width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.backbones import published
from evalkit.backbones.base import PerFrame, Runtime
from evalkit.backbones.images import DTYPES
from evalkit.types import Array, Frames
from evalkit.weights import WeightStore, load_strict

# The publisher gives no full sha256; the file name carries its first eight digits, 358bb6af.
CHECKPOINT = published.MUSIQ

PATCH = 32
SCALES = (224, 384)  # longer sides of the two resized copies; the third scale is the image itself
GRID = 10  # positions are hashed to a GRID x GRID table
LONGEST = 512  # VBench scales larger frames down first
STEM = 64  # channels of the convolutions in front of the transformer


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, so that the output has ceil(size / stride) elements; the odd one goes after."""
    total = (math.ceil(size / stride) - 1) * stride + kernel - size
    return total // 2, total - total // 2


def pad_same(x_BCHW: Tensor, kernel: int, stride: int) -> Tensor:
    height, width = x_BCHW.shape[-2:]
    return F.pad(x_BCHW, (*same_padding(width, kernel, stride), *same_padding(height, kernel, stride)))


class StdConv2d(nn.Conv2d):
    """Convolution with weights standardised per output channel (Qiao et al. 2019), "same" padding, no bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        std, mean = torch.std_mean(self.weight.float(), dim=(1, 2, 3), keepdim=True)
        weight = ((self.weight - mean) / (std + 1e-5)).to(x_BCHW.dtype)
        return F.conv2d(pad_same(x_BCHW, self.kernel_size[0], self.stride[0]), weight, stride=self.stride)


class GroupNorm(nn.GroupNorm):
    """32 groups, computed on contiguous maps: many times faster than on the channels-last ones convolutions prefer."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(32, channels, eps)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(x_BCHW.contiguous()).contiguous(memory_format=torch.channels_last)


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions that widens its input fourfold."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.gn1 = StdConv2d(width, width, 1), GroupNorm(width, eps=1e-4)
        self.conv2, self.gn2 = StdConv2d(width, width, 3), GroupNorm(width, eps=1e-4)
        self.conv3, self.gn3 = StdConv2d(width, 4 * width, 1), GroupNorm(4 * width, eps=1e-4)
        self.conv_proj, self.gn_proj = StdConv2d(width, 4 * width, 1), GroupNorm(4 * width, eps=1e-4)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.gn1(self.conv1(x_BCHW)).relu_()
        y_BCHW = self.gn2(self.conv2(y_BCHW)).relu_()
        y_BCHW = self.gn3(self.conv3(y_BCHW))
        out: Tensor = y_BCHW.add_(self.gn_proj(self.conv_proj(x_BCHW))).relu_()
        return out


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries_BND: Tensor, tokens_BND: Tensor) -> Tensor:
        query, key, value = self.query(queries_BND), self.key(tokens_BND), self.value(tokens_BND)
        mixed = F.scaled_dot_product_attention(self._split(query), self._split(key), self._split(value))
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x_BND: Tensor) -> Tensor:
        batch, tokens, _ = x_BND.shape
        return x_BND.view(batch, tokens, self.heads, -1).transpose(1, 2)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x_BND)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block that returns its first `kept` tokens (all by default)."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)

    def forward(self, x_BND: Tensor, kept: int | None = None) -> Tensor:
        normed_BND = self.norm1(x_BND)
        x_BND = x_BND[:, :kept] + self.attention(normed_BND[:, :kept], normed_BND)
        out: Tensor = x_BND + self.mlp(self.norm2(x_BND))
        return out


class Encoder(nn.Module):
    """Adds position and scale embeddings and a class token, and returns the class token `(B, D)`."""

    def __init__(self, width: int, hidden: int, heads: int, depth: int) -> None:
        super().__init__()
        self.posembed_input = nn.ParameterDict({"position_emb": torch.zeros(1, GRID * GRID, width)})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": torch.zeros(len(SCALES) + 1, width)})
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.transformer = nn.ModuleDict({f"encoderblock_{i}": Block(width, hidden, heads) for i in range(depth)})

    def forward(self, x_BND: Tensor, positions_N: Tensor, scales_N: Tensor) -> Tensor:
        x_BND = (
            x_BND + self.posembed_input["position_emb"][0, positions_N] + self.scaleembed_input["scale_emb"][scales_N]
        )
        x_BND = torch.cat((self.cls.expand(len(x_BND), -1, -1), x_BND), dim=1)
        *blocks, last = self.transformer.values()
        for block in blocks:
            x_BND = block(x_BND)
        class_BD: Tensor = self.encoder_norm(last(x_BND, kept=1)[:, 0])  # nothing else is read
        return class_BD


class Musiq(nn.Module):
    """MUSIQ with one output; smaller for tests."""

    def __init__(self, width: int = 384, hidden: int = 1152, heads: int = 6, depth: int = 14) -> None:
        super().__init__()
        self.conv_root = StdConv2d(3, STEM, 7, 2)
        self.gn_root = GroupNorm(STEM, eps=1e-6)
        self.block1 = Bottleneck(STEM)
        self.embedding = nn.Linear(4 * STEM * (PATCH // 4) ** 2, width)
        self.transformer_encoder = Encoder(width, hidden, heads, depth)
        self.head = nn.Linear(width, 1)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Score images (RGB in 0..1, float32): `(B,)`, about 0..100 for the checkpoint trained on SPAQ."""
        patches, positions, scales = multiscale_patches(images_B3HW * 2 - 1)
        tokens_BND = self._embed(patches.to(self.head.weight.dtype))
        class_BD = self.transformer_encoder(tokens_BND, positions, scales)
        # In half precision the score would come in steps of a quarter.
        return F.linear(class_BD.float(), self.head.weight.float(), self.head.bias.float())[:, 0]

    def _embed(self, patches_BN3HW: Tensor) -> Tensor:
        x_BCHW = patches_BN3HW.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x_BCHW = self.gn_root(self.conv_root(x_BCHW)).relu_()
        # After a ReLU, ignoring what lies outside is the same as padding with zeros.
        x_BCHW = self.block1(F.max_pool2d(x_BCHW, 3, 2, ceil_mode=True))
        tokens_ND = self.embedding(x_BCHW.permute(0, 2, 3, 1).flatten(1))
        return torch.unflatten(tokens_ND, 0, patches_BN3HW.shape[:2])


def multiscale_patches(images_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut an image at three scales into patches.

    The reference pads the patches of each resized copy to a fixed number and masks the padding: a masked key gets a
    logit of -1000, which the softmax turns into exactly zero. Here there is no padding and no mask.

    Returns:
        patches `(B, N, 3, PATCH, PATCH)`; for each of the N its hashed position and its scale.
    """
    scaled = [resize_longer_side(images_B3HW, longer) for longer in SCALES] + [images_B3HW]
    patches, positions = zip(*(cut(image_B3HW) for image_B3HW in scaled), strict=True)
    counts = torch.tensor([len(position_P) for position_P in positions], device=images_B3HW.device)
    scales_N = torch.arange(len(scaled), device=images_B3HW.device).repeat_interleave(counts)
    return torch.cat(patches, dim=1), torch.cat(positions), scales_N


def resize_longer_side(images_B3HW: Tensor, longer: int) -> Tensor:
    """Bicubic, without antialiasing; the other side is rounded to the nearest integer (halves to even)."""
    height, width = images_B3HW.shape[-2:]
    ratio = longer / max(height, width)
    size = max(1, round(height * ratio)), max(1, round(width * ratio))
    return F.interpolate(images_B3HW, size, mode="bicubic", align_corners=False)


def cut(images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    """Cut into patches `(B, P, 3, PATCH, PATCH)`, row by row, zero-padded evenly, with their positions `(P,)`."""
    padded = pad_same(images_B3HW, PATCH, PATCH)
    rows, columns = padded.shape[-2] // PATCH, padded.shape[-1] // PATCH
    grid = torch.unflatten(torch.unflatten(padded, 3, (columns, PATCH)), 2, (rows, PATCH))
    patches = grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    return patches, hashed_positions(rows, columns, images_B3HW.device)


def hashed_positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """Index of each patch in the table of position embeddings: the image is laid over a GRID x GRID raster."""
    cells = torch.arange(GRID, dtype=torch.float32, device=device)[None, None]
    row_R, column_C = (F.interpolate(cells, count, mode="nearest")[0, 0].long() for count in (rows, columns))
    return (row_R[:, None] * GRID + column_C).flatten()


def limit_size(frames_B3HW: Tensor) -> Tensor:
    """Scale frames whose longer side exceeds LONGEST down to it: bilinear, no antialiasing, sizes rounded down."""
    height, width = frames_B3HW.shape[-2:]
    if max(height, width) <= LONGEST:
        return frames_B3HW
    scale = LONGEST / max(height, width)
    size = max(1, int(scale * height)), max(1, int(scale * width))
    return F.interpolate(frames_B3HW, size, mode="bilinear", align_corners=False)


class MusiqScore:
    """Frames `(B, H, W, 3)` to scores `(B,)`, float32, about 0..100."""

    def __init__(self, network: Musiq, runtime: Runtime) -> None:
        network.to(runtime.device, DTYPES[runtime.precision])
        self.network = torch.compile(network) if runtime.compile else network
        self.runtime = runtime

    @torch.inference_mode()
    def __call__(self, frames_BHWC: Frames) -> Array:
        frames_B3HW = torch.from_numpy(frames_BHWC).to(self.runtime.device).permute(0, 3, 1, 2).float()
        scores_B: Array = self.network(limit_size(frames_B3HW) / 255).float().cpu().numpy()
        return scores_B


def load(store: WeightStore, runtime: Runtime) -> PerFrame:
    network = Musiq()
    load_strict(network, store.state_dict(CHECKPOINT), CHECKPOINT)
    # One frame is some 280 patches, enough to keep a CPU busy; more only leave its cache.
    return PerFrame(MusiqScore(network, runtime), 1 if runtime.device == "cpu" else runtime.batch)
