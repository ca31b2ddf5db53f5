"""Norms, embedders and mixers: the parts from which blocks are built.

A mixer takes normalised text and video tokens and returns them mixed, without an output projection (the block owns
that): `forward(text_BLD, video_BND, context) -> (text_BLD, video_BND)`. Attention and Mamba share this interface, so
replacing the one by the other is one field of the configuration.

Axes: B batch, L text tokens, N video tokens, D width, H heads, K head dimension, P channels of a state-space head,
S state size, G groups that share B and C, M tokens of the re-composed sequence, A position axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m4v.config import Config
from m4v.layout import Shape
from m4v.ops import attention, fourier_features, rotary_angles, rotate
from m4v.recompose import recompose, restore
from m4v.scan import causal_conv1d, selective_scan, ssd


class MambaConfig(Config):
    """The state-space mixer.

    `mamba2` has one decay a head and runs as chunked matmuls (SSD); `mamba1` has a decay for each channel and state. B
    and C are as wide as keys and queries, which lets attention weights be carried over (Mamba in the Llama). `gate`:
    `silu` is the standard y * silu(z), `sum` is y + z, as drawn in the architecture figure of M4V. `registers` puts a
    learnable token before each frame; `text` = `both` adds a second copy of the text after the video. `activation`: the
    standard SiLU behind the convolution; without it the mixer can be exactly linear attention.
    """

    ssm: Literal["mamba1", "mamba2"] = "mamba2"
    state: int = 64
    groups: int | None = None
    conv: int = 4
    expand: int = 1
    gate: Literal["silu", "sum"] = "silu"
    chunk: int = 256
    registers: bool = True
    text: Literal["prefix", "both"] = "both"
    activation: bool = True


@dataclass(frozen=True)
class Context:
    """What mixers know of the sequence besides its tokens.

    `text_mask_BL` is True at real text; `angles_NR` are the rotary angles of text then video; `mask` is the attention
    mask or None; `frames` the token grid of each video frame, oldest first, `noisy` how many of the last ones are
    noisy; `levels` the pyramid level of each frame, `stages` how many levels there are; `registers_FD` a register for
    each frame.
    """

    text_mask_BL: Tensor
    angles_NR: Tensor | None
    mask: Tensor | None
    frames: tuple[tuple[int, int], ...]
    noisy: int
    levels: tuple[int, ...]
    stages: int
    registers_FD: Tensor | None


class TimeAndText(nn.Module):
    """The global condition: time and pooled text, (B, D) (FLUX.1, SD3)."""

    def __init__(self, width: int, pooled: int, features: int = 256) -> None:
        super().__init__()
        self.features = features
        self.time = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
        self.text = nn.Sequential(nn.Linear(pooled, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t_B: Tensor, pooled_BE: Tensor) -> Tensor:
        return torch.add(self.time(fourier_features(t_B, self.features).to(pooled_BE.dtype)), self.text(pooled_BE))


class Modulation(nn.Module):
    """`n` vectors (B, 1, D) from the condition; starts at zero, so that gates are closed (adaLN-zero, DiT)."""

    def __init__(self, width: int, n: int) -> None:
        super().__init__()
        self.n = n
        self.linear = nn.Linear(width, n * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition_BD: Tensor) -> tuple[Tensor, ...]:
        return torch.chunk(self.linear(F.silu(condition_BD))[:, None], self.n, dim=-1)


def stateless_norm(x: Tensor) -> Tensor:
    """Layer norm over the last axis without parameters."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def mlp(width: int, ratio: float) -> nn.Sequential:
    """Two layers with a tanh-approximated GELU."""
    hidden = int(width * ratio)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))


class Attention(nn.Module):
    """Joint softmax attention of text and video (MM-DiT, Esser et al. 2024); `streams` = 2 keeps separate weights.

    Args:
        width: D, a multiple of `heads`.
        streams: 1 for shared, 2 for separate projections of text and video.
        qk_norm: RMS-normalise queries and keys per head.
    """

    def __init__(self, width: int, heads: int, streams: int, qk_norm: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(streams))
        self.q_norm = nn.ModuleList(head_norm(width // heads, qk_norm) for _ in range(streams))
        self.k_norm = nn.ModuleList(head_norm(width // heads, qk_norm) for _ in range(streams))

    def forward(self, text_BLD: Tensor, video_BND: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        text = text_BLD.shape[1]
        inputs = [text_BLD, video_BND] if len(self.qkv) == 2 else [torch.cat([text_BLD, video_BND], dim=1)]
        parts = [self.project(stream, x) for stream, x in enumerate(inputs)]
        q, k, v = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        if context.angles_NR is not None:
            q, k = rotate(q, context.angles_NR), rotate(k, context.angles_NR)
        mixed_BND = attention(q, k, v, context.mask).flatten(-2)
        return mixed_BND[:, :text], mixed_BND[:, text:]

    def project(self, stream: int, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = torch.unflatten(self.qkv[stream](x_BND), -1, (3, self.heads, -1)).unbind(-3)
        return self.q_norm[stream](q), self.k_norm[stream](k), v


class HeadNorm(nn.RMSNorm):
    """RMS norm whose weight follows the type of its input: PyTorch's fused one needs both alike, also in autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def head_norm(width: int, on: bool) -> nn.Module:
    return HeadNorm(width, eps=1e-6) if on else nn.Identity()


class Mamba(nn.Module):
    """State-space mixing of the re-composed sequence (MM-DiM block, path 2).

    Text and video are re-composed, projected to z, x, B, C and the step size, convolved, scanned, gated and put back.
    The scan path alternates over layers. There is no output projection at `expand` 1.

    Args:
        width: D.
        heads: attention heads that this mixer replaces; D / heads channels make one state-space head.
        layer: index of the layer; it chooses one of the eight scan paths.
        streams: 1 for shared, 2 for separate projections of text and video.
        bc_norm: RMS-normalise B and C per group, as attention does its keys and queries.
    """

    def __init__(
        self, width: int, heads: int, layer: int, streams: int, config: MambaConfig, bc_norm: bool = True
    ) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.channels = P = width // heads
        self.heads = H = heads * config.expand
        self.groups = G = config.groups or max(1, width // config.state)
        what, shared = ("heads", H) if config.ssm == "mamba2" else ("channels", H * P)
        if shared % G:
            raise ValueError(f"{shared} state-space {what} do not divide into {G} groups of B and C")
        self.sizes = (H * P, H * P, G * config.state, G * config.state, self._step_width(width))
        self.project = nn.ModuleList(nn.Linear(width, sum(self.sizes), bias=False) for _ in range(streams))
        mixed = sum(self.sizes[1:4])
        self.conv_weight_DK = nn.Parameter(torch.empty(mixed, config.conv))
        self.conv_bias_D = nn.Parameter(torch.zeros(mixed))
        self.b_norm, self.c_norm = head_norm(config.state, bc_norm), head_norm(config.state, bc_norm)
        if config.ssm == "mamba1":
            self.step_up = nn.Linear(self.sizes[-1], H * P, bias=False)
        rates = H if config.ssm == "mamba2" else H * P
        self.log_decay = nn.Parameter(
            torch.empty(rates) if config.ssm == "mamba2" else torch.empty(rates, config.state)
        )
        self.step_bias = nn.Parameter(torch.empty(rates))
        self.skip = nn.Parameter(torch.ones(rates))
        self.reset_parameters()
        self.down = nn.Linear(H * P, width, bias=False) if config.expand > 1 else nn.Identity()

    def _step_width(self, width: int) -> int:
        return self.heads if self.config.ssm == "mamba2" else -(-width // 16)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw convolution, decay and steps as Mamba starts: A = -1..-S (mamba1) or -U(1, 16) (mamba2)."""
        self.conv_weight_DK.uniform_(-1, 1).div_(self.config.conv**0.5)
        if self.config.ssm == "mamba2":
            self.log_decay.uniform_(1, 16).log_()
        else:
            self.log_decay.copy_(torch.arange(1, self.config.state + 1, dtype=torch.float32).log())
        draw_steps(self.step_bias)

    def forward(self, text_BLD: Tensor, video_BND: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        sequence = recompose(
            text_BLD,
            context.text_mask_BL,
            video_BND,
            context.frames,
            path=self.layer,
            registers_TD=context.registers_FD if self.config.registers else None,
            text=self.config.text,
        )
        projected_BMD = self._project(sequence.tokens_BND, text_BLD.shape[1])
        z, xBC, dt = torch.split(projected_BMD, [self.sizes[0], sum(self.sizes[1:4]), self.sizes[4]], dim=-1)
        # Convolution biases would wake the state on padding; the mask keeps it at exactly 0 until text arrives.
        xBC = causal_conv1d(xBC, self.conv_weight_DK, self.conv_bias_D)
        xBC = (F.silu(xBC) if self.config.activation else xBC) * sequence.valid_BN[..., None]
        x, B, C = torch.split(xBC, list(self.sizes[1:4]), dim=-1)
        y_BMD = self._scan(x, B, C, dt)
        y_BMD = y_BMD * F.silu(z) if self.config.gate == "silu" else y_BMD + z
        mixed_text, mixed_video = restore(y_BMD, sequence.plan)
        return self.down(mixed_text), self.down(mixed_video)

    def _project(self, x_BMD: Tensor, text: int) -> Tensor:
        if len(self.project) == 1:
            out: Tensor = self.project[0](x_BMD)
            return out
        ends = (text, x_BMD.shape[1] - (text if self.config.text == "both" else 0))
        segments = x_BMD[:, : ends[0]], x_BMD[:, ends[0] : ends[1]], x_BMD[:, ends[1] :]
        return torch.cat([self.project[w](x) for w, x in zip((0, 1, 0), segments, strict=True)], dim=1)

    def _scan(self, x_BMD: Tensor, B: Tensor, C: Tensor, dt: Tensor) -> Tensor:
        B_BMGS = self.b_norm(torch.unflatten(B, -1, (self.groups, -1)))
        C_BMGS = self.c_norm(torch.unflatten(C, -1, (self.groups, -1)))
        # The scan computes in float32 at least: a decay rounded to bfloat16 would be off by up to 0.4 %.
        A = -self.log_decay.to(torch.promote_types(self.log_decay.dtype, torch.float32)).exp()
        if self.config.ssm == "mamba1":
            step_BMD = F.softplus(self.step_up(dt) + self.step_bias)
            return selective_scan(x_BMD, step_BMD, A, B_BMGS, C_BMGS) + self.skip * x_BMD
        x_BMHP = torch.unflatten(x_BMD, -1, (self.heads, -1))
        y_BMHP = ssd(x_BMHP, F.softplus(dt + self.step_bias), A, B_BMGS, C_BMGS, self.config.chunk)
        return (y_BMHP + self.skip[:, None] * x_BMHP).flatten(-2)


@torch.no_grad()
def draw_steps(bias: Tensor) -> None:
    """Fill with biases whose softplus is a step size between 1e-3 and 1e-1, uniform in logarithms (Gu and Dao 2023)."""
    step = bias.uniform_(math.log(1e-3), math.log(1e-1)).exp_()
    bias.copy_(step + torch.log(-torch.expm1(-step)))


class TemporalBranch(nn.Module):
    """Causal attention over whole frames (MM-DiM block, path 3; M4V slides, eq. 3-4).

    Condition frames are pooled to the lowest pyramid stage and their space is folded into the channels, so that a frame
    is one token; a noisy frame enters at most `detail` times finer per side and is split into interleaved pieces of
    that size. Cost is quadratic in the number of frames only. The values start at zero: the branch begins as no change.
    """

    def __init__(self, width: int, heads: int, detail: int = 2) -> None:
        super().__init__()
        self.heads, self.detail = heads, detail
        self.qkv = nn.Linear(width, 3 * width)
        with torch.no_grad():
            self.qkv.weight[2 * width :] = 0
            self.qkv.bias[2 * width :] = 0

    def forward(self, video_BND: Tensor, context: Context) -> Tensor:
        grid, finest = self.lowest(context)
        runs = self._runs(context, finest)
        frames = torch.split(video_BND, [n * size[0] * size[1] for n, size, _ in runs], dim=1)
        pieces = [
            split_pieces(pool(x, n, size, (grid[0] * f, grid[1] * f)), n, grid, f)
            for x, (n, size, f) in zip(frames, runs, strict=True)
        ]
        mixed_BTSD = self._attend(torch.cat(pieces, dim=1), [f * f for n, _, f in runs for _ in range(n)])
        parts = torch.split(mixed_BTSD, [n * f * f for n, _, f in runs], dim=1)
        return torch.cat(
            [
                unpool(join_pieces(y, n, grid, f), n, (grid[0] * f, grid[1] * f), size)
                for y, (n, size, f) in zip(parts, runs, strict=True)
            ],
            dim=1,
        )

    def lowest(self, context: Context) -> tuple[tuple[int, int], int]:
        """Grid of the lowest stage, and how much finer per side the noisy frame is split."""
        (rows, cols), level = context.frames[-1], context.levels[-1]
        down = context.stages - 1 - level
        return (rows >> down, cols >> down), min(self.detail, 1 << down)

    def _runs(self, context: Context, finest: int) -> list[tuple[int, tuple[int, int], int]]:
        """Consecutive frames that are treated alike: how many, their grid, and the factor of their pieces."""
        first_noisy = len(context.frames) - context.noisy
        frames = [(size, finest if i >= first_noisy else 1) for i, size in enumerate(context.frames)]
        return [(len(list(run)), *kind) for kind, run in groupby(frames)]

    def _attend(self, x_BTSD: Tensor, pieces: list[int]) -> Tensor:
        frame_T = torch.tensor([frame for frame, n in enumerate(pieces) for _ in range(n)], device=x_BTSD.device)
        qkv = torch.unflatten(self.qkv(x_BTSD), -1, (3, self.heads, -1))
        q, k, v = (part.permute(0, 1, 3, 2, 4) for part in qkv.unbind(-3))  # B T H S K: a frame is one token
        angles = rotary_angles(frame_T[:, None], (q.shape[-1],))
        q, k = (torch.unflatten(rotate(part.flatten(2, 3), angles), 2, (self.heads, -1)) for part in (q, k))
        mask = frame_T[:, None] >= frame_T[None, :]
        mixed = attention(q.flatten(3), k.flatten(3), v.flatten(3), mask)
        return torch.unflatten(mixed, -1, (x_BTSD.shape[2], -1)).permute(0, 1, 3, 2, 4).flatten(-2)


def pool(x_BND: Tensor, frames: int, size: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Average each frame's row-major tokens down to the grid `to`."""
    if size == to:
        return x_BND
    blocks = torch.unflatten(x_BND, 1, (frames, to[0], size[0] // to[0], to[1], size[1] // to[1]))
    return blocks.mean(dim=(3, 5)).flatten(1, 3)


def unpool(x_BND: Tensor, frames: int, size: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Repeat each frame's tokens up to the grid `to` (nearest neighbour)."""
    if size == to:
        return x_BND
    x = torch.unflatten(x_BND, 1, (frames, size[0], 1, size[1], 1))
    return x.expand(-1, -1, -1, to[0] // size[0], -1, to[1] // size[1], -1).flatten(1, 5)


def split_pieces(x_BND: Tensor, frames: int, grid: tuple[int, int], factor: int) -> Tensor:
    """Interleaved pieces, (B, T * factor^2, rows * cols, D): each sees the whole frame, a fraction of a token aside."""
    x = torch.unflatten(x_BND, 1, (frames, grid[0], factor, grid[1], factor))
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 3)


def join_pieces(x_BFSD: Tensor, frames: int, grid: tuple[int, int], factor: int) -> Tensor:
    """Inverse of `split_pieces`, (B, T * rows * factor * cols * factor, D)."""
    x = torch.unflatten(torch.unflatten(x_BFSD, 2, grid), 1, (frames, factor, factor))
    return x.permute(0, 1, 4, 2, 5, 3, 6).flatten(1, 5)


def token_positions(grids: list[Shape], device: torch.device) -> Tensor:
    """Positions (time, row, column) of all video tokens in the coordinates of the last unit, (N, 3).

    A unit at lower resolution is interpolated so that its tokens lie at the centres of what they cover; the last unit
    keeps whole numbers at any stage, so that stages extrapolate (PyramidFlow Section 3.4 and Figure 3b). Time starts at
    1; text stands at 0.
    """
    last, start, parts = grids[-1], 1, []
    for grid in grids:
        rows, cols = last.rows / grid.rows, last.cols / grid.cols
        t = torch.arange(start, start + grid.frames, device=device, dtype=torch.float32)
        y = (torch.arange(grid.rows, device=device, dtype=torch.float32) + 0.5) * rows - 0.5
        x = (torch.arange(grid.cols, device=device, dtype=torch.float32) + 0.5) * cols - 0.5
        parts.append(torch.stack(torch.meshgrid(t, y, x, indexing="ij"), dim=-1).flatten(0, 2))
        start += grid.frames
    return torch.cat(parts)
