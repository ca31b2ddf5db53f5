"""ViTDet: a plain vision transformer as the backbone of a detector, with a feature pyramid made of its last map.

Li, Mao, Girshick, He: "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022
(arXiv:2203.16527), as GRiT builds it (`grit/modeling/backbone/vit.py`): two blocks in three attend within windows, the
third over the whole image; all add relative positions per axis (Li et al., MViTv2, arXiv:2112.01526).
Parameter names are those of GRiT's checkpoint, except for `Level`.

Axes: B images (or windows), H W map, D width, N = H * W tokens, A attention heads, K width of a head, C channels of the
pyramid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones.vit import MLP_ROWS

STRIDES = (8, 16, 32, 64, 128)
"""Pixels per cell of the pyramid's levels, p3 to p7."""

BIAS_SIZE = 2**24
"""Attention weights for which the position bias is laid out at once; more only leave the cache (64 MB in float32)."""


@dataclass(frozen=True, slots=True)
class VitShape:
    """Sizes of the backbone; the default is ViTDet-B as published."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    patch: int = 16
    window: int = 14
    global_every: int = 3  # the last block of every such group attends globally
    pretraining_grid: int = 14  # patches a side of the table of absolute positions
    training_grid: int = 64  # patches a side that the tables of relative positions of the global blocks cover
    channels: int = 256


class Attention(nn.Module):
    """Self-attention over a map, or over windows of it, with relative positions.

    Args:
        width: of the tokens.
        heads: number of heads.
        reach: cells a side that the tables of relative positions cover.
        window: side of the windows; None attends over the whole map.
    """

    def __init__(self, width: int, heads: int, reach: int, window: int | None) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * reach - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * reach - 1, width // heads))

    def forward(self, x_BHWD: Tensor) -> Tensor:
        qkv_BHWE = self.qkv(x_BHWD)
        if self.window is None:
            mixed_BHWD = self._attend(qkv_BHWE)
        else:
            # The reference pads the layer's input with zeros; its output there is the same everywhere. These cells are
            # not masked: they are attended to.
            padding_E = self.qkv(x_BHWD.new_zeros(1, x_BHWD.shape[-1]))[0]
            windows = cut_windows(qkv_BHWE, self.window, padding_E)
            mixed_BHWD = join_windows(self._attend(windows), self.window, x_BHWD.shape[:3])
        out: Tensor = self.proj(mixed_BHWD)
        return out

    def _attend(self, qkv_BHWE: Tensor) -> Tensor:
        batch, height, width, _ = qkv_BHWE.shape
        q, k, v = qkv_BHWE.reshape(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        rows_HHK, columns_WWK = (
            relative_positions(table, size) for table, size in ((self.rel_pos_h, height), (self.rel_pos_w, width))
        )
        q_BAHWK = q.unflatten(2, (height, width))
        rows_BAHWH = torch.einsum("bahwk,hyk->bahwy", q_BAHWK, rows_HHK)
        columns_BAHWW = torch.einsum("bahwk,wxk->bahwx", q_BAHWK, columns_WWK)
        at_once = max(1, BIAS_SIZE // (batch * (height * width) ** 2))
        parts = [
            _attend_with_bias(*part)
            for part in zip(
                *(torch.split(x, at_once, dim=1) for x in (q, k, v, rows_BAHWH, columns_BAHWW)), strict=True
            )
        ]
        return torch.cat(parts, dim=1).transpose(1, 2).reshape(batch, height, width, -1)


def _attend_with_bias(q_BANK: Tensor, k_BANK: Tensor, v_BANK: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    bias_BANN = (rows[..., :, None] + columns[..., None, :]).flatten(-2).flatten(2, 3)
    if q_BANK.device.type == "cpu" and q_BANK.dtype != torch.float32:
        # The CPU kernel is slower in half precision than in float32.
        wide_BANK = F.scaled_dot_product_attention(q_BANK.float(), k_BANK.float(), v_BANK.float(), bias_BANN.float())
        return wide_BANK.to(q_BANK.dtype)
    return F.scaled_dot_product_attention(q_BANK, k_BANK, v_BANK, bias_BANN)


def relative_positions(table_LK: Tensor, size: int) -> Tensor:
    """Embedding of the offset between any two of `size` cells in a row: `(size, size, K)`, query first.

    A table for another size is scaled linearly, so that its ends mean the largest offset.
    """
    offsets = 2 * size - 1
    if len(table_LK) != offsets:
        table_LK = F.interpolate(table_LK.T[None], size=offsets, mode="linear")[0].T
    cells = torch.arange(size, device=table_LK.device)
    return table_LK[cells[:, None] - cells + size - 1]


def cut_windows(x_BHWD: Tensor, window: int, padding_D: Tensor) -> Tensor:
    """Cut maps into square windows `(B * windows, window, window, D)`; the last ones are filled up with `padding_D`."""
    batch, height, width, depth = x_BHWD.shape
    rows, columns = -(-height // window), -(-width // window)
    if (height, width) != (rows * window, columns * window):
        padded = padding_D.expand(batch, rows * window, columns * window, depth).clone()
        padded[:, :height, :width] = x_BHWD
        x_BHWD = padded
    return x_BHWD.view(batch, rows, window, columns, window, depth).transpose(2, 3).flatten(0, 2)


def join_windows(windows: Tensor, window: int, shape_BHW: torch.Size) -> Tensor:
    """Undo `cut_windows` for maps of that batch size, height and width."""
    batch, height, width = shape_BHW
    rows, columns = -(-height // window), -(-width // window)
    padded = windows.view(batch, rows, columns, window, window, -1).transpose(2, 3)
    return padded.reshape(batch, rows * window, columns * window, -1)[:, :height, :width]


class Mlp(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x_BHWD: Tensor) -> Tensor:
        tokens = x_BHWD.flatten(0, 2)
        parts = torch.split(tokens, MLP_ROWS if tokens.device.type == "cpu" else len(tokens))
        return torch.cat([self.fc2(F.gelu(self.fc1(part))) for part in parts]).view_as(x_BHWD)


class Block(nn.Module):
    """A pre-norm transformer block over a map."""

    def __init__(self, shape: VitShape, attends_globally: bool) -> None:
        super().__init__()
        reach, window = (shape.training_grid, None) if attends_globally else (shape.window, shape.window)
        self.norm1 = nn.LayerNorm(shape.width, eps=1e-6)
        self.attn = Attention(shape.width, shape.heads, reach, window)
        self.norm2 = nn.LayerNorm(shape.width, eps=1e-6)
        self.mlp = Mlp(shape.width)

    def forward(self, x_BHWD: Tensor) -> Tensor:
        x_BHWD = x_BHWD + self.attn(self.norm1(x_BHWD))
        out: Tensor = x_BHWD + self.mlp(self.norm2(x_BHWD))
        return out


class Vit(nn.Module):
    """Images `(B, 3, H * patch, W * patch)` to one map `(B, D, H, W)`."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, shape.width, shape.patch, shape.patch)})
        # The first place is that of a class token, which pre-training had and detection has not.
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.pretraining_grid**2 + 1, shape.width))
        group = shape.global_every
        self.blocks = nn.ModuleList(Block(shape, i % group == group - 1) for i in range(shape.layers))

    def forward(self, images_B3HW: Tensor) -> Tensor:
        x_BHWD: Tensor = self.patch_embed["proj"](images_B3HW).permute(0, 2, 3, 1)
        x_BHWD = x_BHWD + self._positions(x_BHWD.shape[1], x_BHWD.shape[2])
        for block in self.blocks:
            x_BHWD = block(x_BHWD)
        return x_BHWD.permute(0, 3, 1, 2)

    def _positions(self, height: int, width: int) -> Tensor:
        places_1ND = self.pos_embed[:, 1:]
        side = math.isqrt(places_1ND.shape[1])
        grid_1DHW = torch.unflatten(places_1ND.transpose(1, 2), 2, (side, side))
        if (height, width) != (side, side):
            grid_1DHW = F.interpolate(grid_1DHW, (height, width), mode="bicubic", align_corners=False)
        return grid_1DHW.permute(0, 2, 3, 1)


class Level(nn.Module):
    """One level of the pyramid: 1x1 and 3x3 convolution, each followed by a layer norm over the channels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, channels, 1, bias=False)
        self.norm1 = nn.LayerNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        x_BCHW = self.norm1(self.conv1(x_BDHW).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        out: Tensor = self.norm2(self.conv2(x_BCHW).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class VitDet(nn.Module):
    """Images to the pyramid's levels p3 to p7, finest first, each `(B, C, H / stride, W / stride)`.

    Height and width must be multiples of 32.
    """

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        width, channels = shape.width, shape.channels
        self.bottom_up = Vit(shape)
        self.fpn_stride_16_8 = nn.ConvTranspose2d(width, width, 2, stride=2, bias=False)
        self.levels = nn.ModuleDict({str(stride): Level(width, channels) for stride in STRIDES[:3]})
        self.top_block = nn.ModuleDict(
            {name: nn.Conv2d(channels, channels, 3, stride=2, padding=1) for name in ("p6", "p7")}
        )

    def forward(self, images_B3HW: Tensor) -> list[Tensor]:
        map_BDHW = self.bottom_up(images_B3HW)
        p3 = self.levels["8"](self.fpn_stride_16_8(map_BDHW))
        p4 = self.levels["16"](map_BDHW)
        p5 = self.levels["32"](F.max_pool2d(map_BDHW, 2))
        p6 = self.top_block["p6"](p5)
        return [p3, p4, p5, p6, self.top_block["p7"](F.relu(p6))]
