"""LinGen: MATE blocks, whose cost is linear in the number of tokens; full-sequence diffusion.

MATE has two branches: MA, a bidirectional Mamba-2 over a rotary-major scan with review tokens, and TE, temporal Swin
attention (TESA). Source: LinGen (Wang et al., arXiv 2412.09856, CVPR 2025), abstract and Figure 4, and its supplement:
E.1 (autoencoder 8 x 8 x 8, patch 2 x 2 x 1, factorised learnable positions, RMSNorm, SwiGLU, adaptive norm from the
time step, 32 layers of width 2560 with 20 heads), E.2 (eq. 1-3; Mamba-2 with state 128 and heads of 64, its output
normalised), Figure 9 (50 solver steps). The autoencoder is like Movie Gen's (arXiv 2410.13720), of 16 latent channels.

Inferred, not stated in what we could read: the two branches are added; review tokens are averages of the scanned
sequence (they are said to add no parameters), 64 of them, read first in both directions; TESA's window of 8 frames by
4 x 4 places (it is said to be spatially adjacent, temporally medium-range); between MATE and MLP, cross-attention to T5
features; AdaLN vectors shared by all layers, each with an offset table (both as in PixArt-alpha; with a projection in
each layer the model would have 5.9 billion parameters). Expansion 2 (Mamba-2's default) and a SwiGLU of 8/3 width make
4.72 billion parameters where the paper says 4B; expansion 1 would make 4.09. Mamba-2's convolution covers x, B and C;
eq. 2 counts x only.

Axes: B batch, N video tokens, R review tokens, M = R + N, D width, E channels of the mixer, H heads, K head dimension,
P channels of a state-space head, S state, G groups of B and C, T frames, Y rows, X columns, W windows, V tokens of a
window, L text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from m4v.backbone import Head
from m4v.layers import Modulation, draw_steps, head_norm
from m4v.layout import Codec, Evaluation, Shape, full_sequence
from m4v.ops import attention, fourier_features, modulate, sinusoids
from m4v.paths import ROTARY_SCHEDULES, inverse, raster, rotary_major_scan, zigzag_scan
from m4v.scan import causal_conv1d, ssd
from m4v.variants.base import ModelConfig, Text, VelocityModel, patchify, unpatchify
from m4v.variants.m4v import TINY
from m4v.variants.stiv import CrossAttention, Offsets, embedder, mlp_embedder, only_unit

ScanName = Literal["rotary-major", "zigzag", "raster"]


class LinGenConfig(ModelConfig):
    """Each of LinGen's parts is one field: `tesa`, `review_tokens` (0 is none) and `scan` are its ablations.

    `clip` is 17 seconds at 16 frames a second and 512 x 512 (68 seconds are 1088 frames); "512p" is taken as a square.
    `head_width` is the state-space head dimension, `window` TESA's frames, rows and columns, `largest` the token grid
    that the position tables cover. The pooled text is not used: the adaptive norm depends on time alone.
    """

    clip: tuple[int, int, int] = (272, 512, 512)
    codec: Codec = Codec(causal=False)
    width: int = 2560
    heads: int = 20
    layers: int = 32
    scan: ScanName = "rotary-major"
    review_tokens: int = 64
    tesa: bool = True
    window: tuple[int, int, int] = (8, 4, 4)
    expand: int = 2
    state: int = 128
    head_width: int = 64
    conv: int = 4
    chunk: int = 256
    mlp_ratio: float = 8 / 3
    qk_norm: bool = False
    shared_adaln: bool = True
    largest: tuple[int, int, int] = (256, 128, 128)
    steps: int = 50

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads or self.expand * self.width % self.head_width:
            raise ValueError(
                f"width {self.width} (expanded {self.expand}-fold) does not divide into {self.heads} attention heads "
                f"and state-space heads of {self.head_width}"
            )
        if min(self.window) < 1 or self.review_tokens < 0:
            raise ValueError(
                f"a window of {self.window} tokens, {self.review_tokens} review tokens: sizes are positive"
            )
        return self

    def build(self) -> LinGen:
        return LinGen(self)

    def evaluations(self, frames: int, height: int, width: int) -> tuple[Evaluation, ...]:
        """All frames at once, `steps` times."""
        latent = self.codec.latent_shape(frames, height, width)
        self.grid(latent)
        return (Evaluation(-1, 0, full_sequence(latent), self.steps),)

    def grid(self, latent: Shape) -> Shape:
        """The token grid of a latent block.

        Raises:
            ValueError: it does not divide into patches, or is larger than the position tables.
        """
        grid = self.patch.tokens(latent)
        if any(size > most for size, most in zip(grid, self.largest, strict=True)):
            raise ValueError(f"{' x '.join(map(str, grid))} tokens: this model's positions end at {self.largest}")
        return grid

    @property
    def hidden(self) -> int:
        """Width of the SwiGLU, rounded up to a multiple of 16."""
        return -int(-self.width * self.mlp_ratio // 16) * 16


class Direction(nn.Module):
    """One direction's own part of the Mamba-2: convolution, decay, step bias and skip."""

    def __init__(self, config: LinGenConfig) -> None:
        super().__init__()
        self.head_width, self.state, self.chunk = config.head_width, config.state, config.chunk
        channels = config.expand * config.width
        mixed, heads = channels + 2 * config.state, channels // config.head_width
        self.conv_weight_DK = nn.Parameter(torch.empty(mixed, config.conv))
        self.conv_bias_D = nn.Parameter(torch.zeros(mixed))
        self.log_decay_H = nn.Parameter(torch.empty(heads))
        self.step_bias_H = nn.Parameter(torch.empty(heads))
        self.skip_H = nn.Parameter(torch.ones(heads))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw convolution, decay and steps as Mamba-2 starts."""
        self.conv_weight_DK.uniform_(-1, 1).div_(self.conv_weight_DK.shape[1] ** 0.5)
        self.log_decay_H.uniform_(1, 16).log_()
        draw_steps(self.step_bias_H)

    def forward(self, xBC_BNE: Tensor, dt_BNH: Tensor) -> Tensor:
        xBC_BNE = F.silu(causal_conv1d(xBC_BNE, self.conv_weight_DK, self.conv_bias_D))
        x, B, C = torch.split(xBC_BNE, [xBC_BNE.shape[-1] - 2 * self.state, self.state, self.state], dim=-1)
        x_BNHP = torch.unflatten(x, -1, (-1, self.head_width))
        decay_H = -self.log_decay_H.float().exp()
        step_BNH = F.softplus(dt_BNH + self.step_bias_H)
        y_BNHP = ssd(x_BNHP, step_BNH, decay_H.to(x), B[:, :, None], C[:, :, None], self.chunk)
        return (y_BNHP + self.skip_H[:, None] * x_BNHP).flatten(-2)


class BidirectionalMamba(nn.Module):
    """Bidirectional Mamba-2 over tokens in scan order (MA branch).

    One projection to z, x, B, C and the step size serves both directions, and so do gate, norm and output projection;
    convolution and state-space dynamics are each direction's own. Without review tokens the projections cost exactly
    (6 + 2 / d_h) E N d^2 + 4 N d_s d FLOPs (supplement, eq. 1). Review tokens, averages of equal parts of the sequence,
    stand before it in either direction, so that the state has seen an overview before the first token.
    """

    def __init__(self, config: LinGenConfig) -> None:
        super().__init__()
        channels = config.expand * config.width
        self.review = config.review_tokens
        self.sizes = [channels, channels + 2 * config.state, channels // config.head_width]
        self.project = nn.Linear(config.width, sum(self.sizes), bias=False)
        self.directions = nn.ModuleList(Direction(config) for _ in range(2))
        self.norm = nn.RMSNorm(channels, eps=1e-6)
        self.out = nn.Linear(channels, config.width, bias=False)

    def forward(self, x_BND: Tensor) -> Tensor:
        z, xBC, dt = torch.split(self.project(self.with_review(x_BND)), self.sizes, dim=-1)
        ahead, back = self.directions
        y_BNE = ahead(xBC, dt)[:, self.review :]
        y_BNE = y_BNE + back(self.reverse(xBC), self.reverse(dt))[:, self.review :].flip(1)
        out: Tensor = self.out(self.norm(y_BNE * F.silu(z[:, self.review :])))
        return out

    def with_review(self, x_BND: Tensor) -> Tensor:
        if not self.review:
            return x_BND
        review_BRD = F.adaptive_avg_pool1d(x_BND.transpose(1, 2), self.review).transpose(1, 2)
        return torch.cat([review_BRD, x_BND], dim=1)

    def reverse(self, x_BMD: Tensor) -> Tensor:
        """Turn the video tokens round; the review stays in front."""
        return torch.cat([x_BMD[:, : self.review], x_BMD[:, self.review :].flip(1)], dim=1)


class TemporalSwin(nn.Module):
    """Attention within 3D windows, which odd layers shift by half a window (TE branch; Swin, Liu et al. 2021).

    A grid that windows do not tile is padded, and a shifted grid is rolled; tokens see each other only where they share
    a window of the unrolled grid. An axis no longer than its window is not shifted.
    """

    def __init__(self, config: LinGenConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.window, self.shifted = config.heads, config.window, layer % 2 == 1
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.q_norm = head_norm(config.width // config.heads, config.qk_norm)
        self.k_norm = head_norm(config.width // config.heads, config.qk_norm)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x_BND: Tensor, grid: Shape) -> Tensor:
        windows = Windows.over(grid, self.window, self.shifted)
        qkv = windows.split(torch.unflatten(self.qkv(x_BND), 1, tuple(grid)))
        q, k, v = torch.unflatten(qkv, -1, (3, self.heads, -1)).unbind(-3)
        mask = windows.mask(x_BND.device)
        if mask is not None:
            mask = mask.repeat(len(x_BND), 1, 1)[:, None]
        mixed = attention(self.q_norm(q), self.k_norm(k), v, mask).flatten(-2)
        out: Tensor = self.out(windows.join(mixed).flatten(1, 3))
        return out


class Windows(NamedTuple):
    """A partition of a token grid into windows of `size`, rolled by `shift`, after padding at the end of each axis."""

    grid: Shape
    size: tuple[int, ...]
    shift: tuple[int, ...]

    @classmethod
    def over(cls, grid: Shape, window: tuple[int, int, int], shifted: bool) -> Windows:
        size = tuple(min(most, cells) for most, cells in zip(window, grid, strict=True))
        moves = (w // 2 if shifted and cells > w else 0 for w, cells in zip(size, grid, strict=True))
        return cls(grid, size, tuple(moves))

    @property
    def counts(self) -> tuple[int, ...]:
        """Windows along each axis."""
        return tuple(-(-cells // w) for cells, w in zip(self.grid, self.size, strict=True))

    def split(self, x_BTYXD: Tensor) -> Tensor:
        """Tokens of each window, (B W, V, D)."""
        spare = [n * w - cells for n, w, cells in zip(self.counts, self.size, self.grid, strict=True)]
        x = F.pad(x_BTYXD, (0, 0, 0, spare[2], 0, spare[1], 0, spare[0]))
        x = x.roll([-s for s in self.shift], dims=(1, 2, 3))
        for axis in (3, 2, 1):
            x = torch.unflatten(x, axis, (-1, self.size[axis - 1]))  # in the end B, windows and cells of T, Y, X, D
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(0, 3)

    def join(self, x_VD: Tensor) -> Tensor:
        """Inverse of `split`, (B, T, Y, X, D)."""
        x = torch.unflatten(torch.unflatten(x_VD, 1, self.size), 0, (-1, *self.counts))
        x = x.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)
        x = x.roll(self.shift, dims=(1, 2, 3))
        return x[:, : self.grid.frames, : self.grid.rows, : self.grid.cols]

    def mask(self, device: torch.device) -> Tensor | None:
        """Who sees whom inside each window, (W, V, V); None if all do."""
        tiled = all(n * w == cells for n, w, cells in zip(self.counts, self.size, self.grid, strict=True))
        if tiled and not any(self.shift):
            return None
        names_WV = self.split(self.names(device)[None, ..., None])[..., 0]
        return names_WV[:, :, None] == names_WV[:, None, :]

    def names(self, device: torch.device) -> Tensor:
        """A number for the window of each token of the unrolled grid, from 1, (T, Y, X); `split` gives padding 0."""
        names = torch.zeros((), dtype=torch.long, device=device)
        for cells, w, s, n in zip(self.grid, self.size, self.shift, self.counts, strict=True):
            along = (torch.arange(cells, device=device) + (w - s) % w) // w
            names = names[..., None] * (n + 1) + along
        return names + 1


class SwiGLU(nn.Module):
    """Gated MLP without biases (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BND: Tensor) -> Tensor:
        gate, value = self.up(x_BND).chunk(2, dim=-1)
        out: Tensor = self.out(F.silu(gate) * value)
        return out


class MateBlock(nn.Module):
    """MATE in place of self-attention, attention to text, SwiGLU."""

    def __init__(self, config: LinGenConfig, layer: int) -> None:
        super().__init__()
        make_modulation = Offsets if config.shared_adaln else Modulation
        self.scan, self.layer = config.scan, layer
        self.modulation = make_modulation(config.width, 6)
        self.mixer = BidirectionalMamba(config)
        self.tesa = TemporalSwin(config, layer) if config.tesa else None
        self.cross = CrossAttention(config.width, config.heads, config.qk_norm)
        self.mlp = SwiGLU(config.width, config.hidden)

    def forward(
        self,
        x_BND: Tensor,
        grid: Shape,
        source: Tensor | tuple[Tensor, ...],
        text_BLD: Tensor,
        text_mask_BL: Tensor,
    ) -> Tensor:
        v: tuple[Tensor, ...] = self.modulation(source)
        x_BND = x_BND + v[2] * self.mate(modulate(rms_norm(x_BND), v[0], v[1]), grid)
        x_BND = x_BND + self.cross(rms_norm(x_BND), text_BLD, text_mask_BL)
        hidden_BND: Tensor = self.mlp(modulate(rms_norm(x_BND), v[3], v[4]))
        return x_BND + v[5] * hidden_BND

    def mate(self, x_BND: Tensor, grid: Shape) -> Tensor:
        """Both branches, each on the whole sequence, added."""
        order_N, back_N = (order.to(x_BND.device) for order in scan_order(self.scan, self.layer, grid))
        mixed_BND: Tensor = self.mixer(x_BND[:, order_N])[:, back_N]
        return mixed_BND if self.tesa is None else mixed_BND + self.tesa(x_BND, grid)


class LinGen(VelocityModel):
    """The velocity model of LinGen; see `VelocityModel` for the interface."""

    config: LinGenConfig

    def __init__(self, config: LinGenConfig) -> None:
        super().__init__(config)
        width = config.width
        self.embed_video = nn.Linear(config.token_width, width)
        self.embed_text = mlp_embedder(config.text_width, width)
        self.positions = nn.ParameterList(position_table(length, width) for length in config.largest)
        self.time = embedder(256, width)
        self.modulation = Modulation(width, 6) if config.shared_adaln else None
        self.blocks = nn.ModuleList(MateBlock(config, layer) for layer in range(config.layers))
        self.head = RMSHead(width, config.token_width)

    def forward(self, units: Sequence[Tensor], t_B: Tensor, text: Text, *, stage: int = 0) -> Tensor:
        """The velocity of the one unit.

        Raises:
            ValueError: more than one unit, a stage, a block that does not divide into patches, or one that is larger
                than the position tables.
        """
        unit = only_unit(units, stage)
        grid = self.config.grid(Shape(*unit.shape[2:]))
        x_BND = self.embed_video(patchify(unit, self.config.patch))
        x_BND = x_BND + self.embed_positions(grid).to(x_BND)
        condition_BD: Tensor = self.time(fourier_features(t_B, 256).to(x_BND))
        source = condition_BD if self.modulation is None else self.modulation(condition_BD)
        text_BLD = self.embed_text(text.tokens_BLE)
        for block in self.blocks:
            x_BND = block(x_BND, grid, source, text_BLD, text.mask_BL)
        return unpatchify(self.head(x_BND, condition_BD), grid, self.config.patch)

    def embed_positions(self, grid: Shape) -> Tensor:
        """The sum of a learned vector for the frame, one for the row and one for the column, (N, D) (NaViT)."""
        time, row, col = (table[:size] for table, size in zip(self.positions, grid, strict=True))
        sum_TYXD: Tensor = time[:, None, None] + row[:, None] + col
        return sum_TYXD.flatten(0, 2)


class RMSHead(Head):
    """Last RMS norm and projection to latent patches; starts at zero."""

    def forward(self, x_BND: Tensor, condition_BD: Tensor) -> Tensor:
        out: Tensor = self.linear(modulate(rms_norm(x_BND), *self.modulation(condition_BD)))
        return out


def rms_norm(x: Tensor) -> Tensor:
    """RMS norm over the last axis without parameters."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


def position_table(length: int, width: int) -> nn.Parameter:
    """Learnable positions along one axis; they start as sinusoids, for small random ones never cohere in short runs."""
    return nn.Parameter(sinusoids(torch.arange(length)[:, None], width))


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a cached inference tensor would fail in a later backward pass
def _scan_order(scan: ScanName, layer: int, grid: Shape) -> tuple[Tensor, Tensor]:
    if scan == "raster":
        order_N = raster(*grid)
    else:
        order_N = (zigzag_scan if scan == "zigzag" else rotary_major_scan)(layer, *grid)
    return order_N, inverse(order_N)


def scan_order(scan: ScanName, layer: int, grid: Shape) -> tuple[Tensor, Tensor]:
    """The order in which a layer scans the grid, and its inverse, on the CPU; shared between callers."""
    return _scan_order(scan, layer % len(ROTARY_SCHEDULES), grid)


LINGEN = LinGenConfig()

PRESETS = {
    "lingen-4b": LINGEN,
    "lingen-tiny": LINGEN.but(
        **{name: TINY[name] for name in ("clip", "width", "heads", "layers", "text_tokens", "text_width", "patch")},
        pooled_width=TINY["pooled_width"],
        codec=TINY["codec"],
        review_tokens=2,
        window=(2, 2, 2),
        expand=1,
        state=32,
        head_width=32,
        chunk=64,
        largest=(32, 16, 16),
    ),
}
"""Tiny has the clip and the codec of m4v-tiny (first frame alone), so that one set of latents serves both."""
