"""The backbone of M4V and PyramidFlow: dual-stream blocks, then single-stream blocks, with either mixer.

Dual-stream blocks (MM-DiT, Esser et al. 2024) keep separate weights for text and video; single-stream blocks (FLUX.1;
MM-DiM in M4V) share them and run the MLP beside the mixer. Replacing the mixer is one field of the configuration.

Axes: B batch, L text tokens, N video tokens, D width, E text features, C latent channels, T frames, Y rows, X columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from m4v.layers import (
    Attention,
    Context,
    Mamba,
    MambaConfig,
    Modulation,
    TemporalBranch,
    TimeAndText,
    mlp,
    stateless_norm,
    token_positions,
)
from m4v.layout import Evaluation, Shape, check_pyramid, full_sequence, temporal_pyramid
from m4v.ops import blockwise_causal, modulate, rotary_angles, sinusoids
from m4v.variants.base import ModelConfig, Text, VelocityModel, patchify, unpatchify

MixerName = Literal["attention", "mamba"]


class BackboneConfig(ModelConfig):
    """A stack of `layers` blocks of width `width`.

    The first `dual_slots` blocks are dual-stream; of all blocks the first `dual_blocks` are dual-stream with attention
    (L of M4V's Table 6) and the others use `mixer`. `positions`: rotary over time, rows and columns (miniFLUX), or
    sinusoids in space and rotary in time (SD3 shape; PyramidFlow Section 4.1), or both over all three, with the
    sinusoids' longest wave set by `position_period`: what a tiny model on a small grid needs, since state-space mixers
    see no rotary positions. Without `temporal_pyramid` it is full-sequence diffusion.
    """

    width: int = 1920
    heads: int = 30
    layers: int = 24
    dual_slots: int = 8
    dual_blocks: int = 8
    mixer: MixerName = "attention"
    mamba: MambaConfig = MambaConfig()
    temporal_branch: bool = False
    temporal_detail: int = 2
    mlp_ratio: float = 4.0
    qk_norm: bool = True
    causal: bool = True
    positions: Literal["rotary", "sinusoids", "both"] = "rotary"
    position_period: float = 10_000.0
    rotary_axes: tuple[int, int, int] = (16, 24, 24)
    stages: int = 3
    spatial_pyramid: bool = True
    temporal_pyramid: bool = True
    first_frame_steps: int = 20
    frame_steps: int = 10

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        head = self.width // self.heads
        if self.positions == "rotary" and (sum(self.rotary_axes) > head or any(n % 2 for n in self.rotary_axes)):
            raise ValueError(
                f"rotary axes {self.rotary_axes} must be even and sum to at most the head's {head} dimensions"
            )
        if self.stages < 1:
            raise ValueError(f"{self.stages} pyramid stages: at least one is needed")
        return self

    def build(self) -> Backbone:
        return Backbone(self)

    def evaluations(self, frames: int, height: int, width: int) -> tuple[Evaluation, ...]:
        """Frame by frame, each from the coarsest stage to full resolution.

        Steps per stage 20 for the first latent frame and 10 after it (PyramidFlow's public sampler); without the
        temporal pyramid all frames are made at once with the steps of the first.
        """
        latent = self.codec.latent_shape(frames, height, width)
        check_pyramid(latent, self.stages, self.patch)
        levels = range(self.stages)[::-1] if self.spatial_pyramid else range(1)
        if not self.temporal_pyramid:
            return tuple(Evaluation(-1, k, full_sequence(latent, k), self.first_frame_steps) for k in levels)
        return tuple(
            Evaluation(
                i, k, temporal_pyramid(latent, i, k, self.stages), self.frame_steps if i else self.first_frame_steps
            )
            for i in range(latent.frames)
            for k in levels
        )

    def kinds(self) -> list[tuple[int, MixerName]]:
        """Streams (2 or 1) and mixer of each block."""
        return [
            (
                2 if i < max(self.dual_slots, self.dual_blocks) else 1,
                "attention" if i < self.dual_blocks else self.mixer,
            )
            for i in range(self.layers)
        ]

    @property
    def single_blocks(self) -> int:
        return sum(streams == 1 for streams, _ in self.kinds())


def join_equal(units: Sequence[Tensor]) -> list[Tensor]:
    """Consecutive units of one resolution as one block of frames; what is computed for them is the same."""
    return [torch.cat(list(run), dim=2) for _, run in groupby(units, key=lambda unit: tuple(map(int, unit.shape[3:])))]


def make_mixer(config: BackboneConfig, layer: int, streams: int, kind: MixerName) -> nn.Module:
    if kind == "attention":
        return Attention(config.width, config.heads, streams, config.qk_norm)
    return Mamba(config.width, config.heads, layer, streams, config.mamba, config.qk_norm)


class DualBlock(nn.Module):
    """Text and video with weights of their own, mixed together, each followed by its MLP (MM-DiT).

    Nobody reads the text after the last layer: there it is mixed in but not carried on (as in SD3).
    """

    def __init__(self, config: BackboneConfig, layer: int, kind: MixerName) -> None:
        super().__init__()
        width = config.width
        self.carried = (0, 1) if layer < config.layers - 1 else (1,)
        self.modulation = nn.ModuleList(Modulation(width, 6 if s in self.carried else 2) for s in range(2))
        self.mixer = make_mixer(config, layer, 2, kind)
        self.temporal = make_temporal(config, kind)
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in self.carried)
        self.mlp = nn.ModuleList(mlp(width, config.mlp_ratio) for _ in self.carried)

    def forward(
        self, text_BLD: Tensor, video_BND: Tensor, condition_BD: Tensor, context: Context
    ) -> tuple[Tensor, Tensor]:
        streams = [text_BLD, video_BND]
        vectors = [modulation(condition_BD) for modulation in self.modulation]
        normed = [modulate(stateless_norm(x), v[0], v[1]) for x, v in zip(streams, vectors, strict=True)]
        mixed = list(self.mixer(*normed, context))
        if self.temporal is not None:
            mixed[1] = mixed[1] + self.temporal(normed[1], context)
        for s, out, feed in zip(self.carried, self.out, self.mlp, strict=True):
            v = vectors[s]
            x = streams[s] + v[2] * out(mixed[s])
            streams[s] = x + v[5] * feed(modulate(stateless_norm(x), v[3], v[4]))
        return streams[0], streams[1]


class SingleBlock(nn.Module):
    """Shared weights, the MLP beside the mixer, one projection for both (FLUX.1 with attention, MM-DiM with Mamba).

    The projection of the concatenated paths is kept as its two halves, `out` for the mixer and `mlp_out`, so that costs
    can be told apart; the sum is the same linear map.
    """

    def __init__(self, config: BackboneConfig, layer: int, kind: MixerName) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.modulation = Modulation(width, 3)
        self.mixer = make_mixer(config, layer, 1, kind)
        self.temporal = make_temporal(config, kind)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"))
        self.mlp_out = nn.Linear(hidden, width, bias=False)

    def forward(
        self, text_BLD: Tensor, video_BND: Tensor, condition_BD: Tensor, context: Context
    ) -> tuple[Tensor, Tensor]:
        text = text_BLD.shape[1]
        x_BMD = torch.cat([text_BLD, video_BND], dim=1)
        shift, scale, gate = self.modulation(condition_BD)
        normed = modulate(stateless_norm(x_BMD), shift, scale)
        mixed_text, mixed_video = self.mixer(normed[:, :text], normed[:, text:], context)
        if self.temporal is not None:
            mixed_video = mixed_video + self.temporal(normed[:, text:], context)
        mixed = torch.cat([mixed_text, mixed_video], dim=1)
        x_BMD = x_BMD + gate * (self.out(mixed) + self.mlp_out(self.mlp(normed)))
        return x_BMD[:, :text], x_BMD[:, text:]


def make_temporal(config: BackboneConfig, kind: MixerName) -> TemporalBranch | None:
    on = config.temporal_branch and kind == "mamba"
    return TemporalBranch(config.width, config.heads, config.temporal_detail) if on else None


class Head(nn.Module):
    """Last norm and projection to latent patches; starts at zero."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, 2)
        self.linear = nn.Linear(width, out)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_BND: Tensor, condition_BD: Tensor) -> Tensor:
        out: Tensor = self.linear(modulate(stateless_norm(x_BND), *self.modulation(condition_BD)))
        return out


class Backbone(VelocityModel):
    """The velocity model of M4V and PyramidFlow; see `VelocityModel` for the interface."""

    config: BackboneConfig

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        width = config.width
        self.embed_video = nn.Linear(config.token_width, width)
        self.embed_text = nn.Linear(config.text_width, width)
        self.condition = TimeAndText(width, config.pooled_width)
        kinds = config.kinds()
        self.registers_SD = (
            nn.Parameter(torch.randn(config.stages, width) * 0.02)
            if config.mamba.registers and any(kind == "mamba" for _, kind in kinds)
            else None
        )
        self.blocks = nn.ModuleList(
            (DualBlock if streams == 2 else SingleBlock)(config, layer, kind)
            for layer, (streams, kind) in enumerate(kinds)
        )
        self.head = Head(width, config.token_width)

    def forward(self, units: Sequence[Tensor], t_B: Tensor, text: Text, *, stage: int = 0) -> Tensor:
        patch = self.config.patch
        runs = join_equal(units)
        grids = [patch.tokens(Shape(*map(int, run.shape[2:]))) for run in runs]
        last = patch.tokens(Shape(*map(int, units[-1].shape[2:])))
        video_BND = self.embed_video(torch.cat([patchify(run, patch) for run in runs], dim=1))
        text_BLD = self.embed_text(text.tokens_BLE)
        positions_NA = token_positions(grids, video_BND.device)
        if self.config.positions != "rotary":
            seen_NA = positions_NA if self.config.positions == "both" else positions_NA[:, 1:]
            fixed_ND = sinusoids(seen_NA, self.config.width, self.config.position_period)
            video_BND = video_BND + fixed_ND.to(video_BND.dtype)
        condition_BD = self.condition(t_B, text.pooled_BP)
        context = self.context(grids, positions_NA, text.mask_BL, stage, noisy=last.frames)
        for block in self.blocks:
            text_BLD, video_BND = block(text_BLD, video_BND, condition_BD, context)
        velocity_BND = self.head(video_BND[:, -last.cells :], condition_BD)
        return unpatchify(velocity_BND, last, patch)

    def context(
        self, grids: list[Shape], positions_NA: Tensor, text_mask_BL: Tensor, stage: int, noisy: int
    ) -> Context:
        last = grids[-1]
        frames = tuple((grid.rows, grid.cols) for grid in grids for _ in range(grid.frames))
        levels = tuple(stage + (last.rows // rows).bit_length() - 1 for rows, _ in frames)
        return Context(
            text_mask_BL=text_mask_BL,
            angles_NR=self.angles(positions_NA, text_mask_BL.shape[1]),
            mask=self.attention_mask(positions_NA, text_mask_BL),
            frames=frames,
            noisy=noisy,
            levels=levels,
            stages=self.config.stages,
            registers_FD=None if self.registers_SD is None else self.registers_SD[list(levels)],
        )

    def angles(self, positions_NA: Tensor, text: int) -> Tensor:
        joint = torch.cat([positions_NA.new_zeros(text, 3), positions_NA])
        if self.config.positions != "sinusoids":
            return rotary_angles(joint, self.config.rotary_axes)
        return rotary_angles(joint[:, :1], (self.config.width // self.config.heads,))

    def attention_mask(self, positions_NA: Tensor, text_mask_BL: Tensor) -> Tensor:
        """Padding hidden from all; with `causal`, text sees text, and a frame sees text, older frames and itself."""
        frame_N = torch.cat([positions_NA.new_zeros(text_mask_BL.shape[1]), positions_NA[:, 0]])
        seen_BN = torch.cat([text_mask_BL, text_mask_BL.new_ones(len(text_mask_BL), len(positions_NA))], dim=1)
        if not self.config.causal:
            return seen_BN[:, None, None]
        return blockwise_causal(frame_N) & seen_BN[:, None, None]
