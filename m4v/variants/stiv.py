"""STIV: PixArt-style blocks with factorised attention, first over space, then over time; full-sequence diffusion.

Source: STIV (Lin et al., arXiv 2412.07730): Section 2.1 (factorised attention, singleton condition, RoPE), 2.2
(QK-norm, sandwich norm, MaskDiT), Table 1 (sizes), Table 3 (temporal patch 2, attention over time not causal), Table 5
(attention to the image), Appendix E and F (per-frame VAE, text features of width 1280), Appendix G (VAE with 8
channels, AdaLN shared by all layers).
PixArt-alpha (Chen et al., arXiv 2310.00426, Section 2.3): cross-attention without modulation, a layer's offset table.

Inferred, not stated by the authors: the order space, time, text, MLP inside a block; the spatial patch of 2 (DiT); 128
text tokens; 50 solver steps; that the two blocks behind the unmasking are among the blocks of Table 1 (M then has 8.83
billion parameters against 8.7; with two more it would have 9.2); that masking drops the same places in all frames, so
that attention over time still sees one place through time; how the image is attended to (only that it is by
cross-attention is stated): behind the text, the patches of the clean first latent frame, by place, with a gate. XL and
XXL have their published size without the attention over time, M with it.

Axes: B batch, N video tokens, T token frames, S places of a frame, K head dimension or kept places, D width, H heads,
L text tokens, E text features, P pooled text, M micro-conditions, R rotary angles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from m4v.backbone import Head
from m4v.layers import Modulation, head_norm, mlp, stateless_norm
from m4v.layout import Codec, Evaluation, Patch, Shape, full_sequence
from m4v.ops import attention, blockwise_causal, fourier_features, modulate, rotary_angles, rotate, sinusoids
from m4v.variants.base import Image, ModelConfig, Text, VelocityModel, patchify, unpatchify

MICRO = [2, 2, 1]
"""Values of each micro-condition: resolution (height, width), crop (top, left), sampling stride."""


class StivConfig(ModelConfig):
    """Every stabilising or saving measure of the paper's Tables 2, 3 and 19 is one field.

    `clip` is 20 frames (Table 15 and Appendix M: T2V-256-20, 20 key frames) at 512 x 512, the headline resolution; XXL
    is published at 256 x 256 only, and shares the clip so that sizes compare. `layers` counts all blocks; the last
    `decoder_blocks` of them see all tokens even when the others see a masked frame. `temporal_attention` off is the
    text-to-image model. `frame_stride` is the default of the stride micro-condition (every third frame, Appendix E).
    `image_attention` lets every block attend to the clean first latent frame (CA in Table 5); frame replacement (FR) is
    a field of the flow.
    """

    clip: tuple[int, int, int] = (20, 512, 512)
    codec: Codec = Codec(temporal=1, channels=8, causal=False)
    patch: Patch = Patch(temporal=2)
    text_width: int = 1280
    pooled_width: int = 1280
    width: int = 1152
    heads: int = 18
    layers: int = 28
    decoder_blocks: int = 2
    mlp_ratio: float = 4.0
    temporal_attention: bool = True
    causal: bool = False
    temporal_modulation: bool = False
    qk_norm: bool = True
    sandwich_norm: bool = True
    condition_norm: bool = True
    shared_adaln: bool = True
    micro_conditions: bool = True
    positions: Literal["rotary", "sinusoids"] = "rotary"
    frame_stride: int = 3
    image_attention: bool = False
    steps: int = 50

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % (4 * self.heads):
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads of a multiple of 4 channels")
        if not 0 <= self.decoder_blocks <= self.layers:
            raise ValueError(f"{self.decoder_blocks} decoder blocks do not fit into {self.layers} layers")
        return self

    def build(self) -> Stiv:
        return Stiv(self)

    def evaluations(self, frames: int, height: int, width: int) -> tuple[Evaluation, ...]:
        """All frames at once, `steps` times."""
        latent = self.codec.latent_shape(frames, height, width)
        self.patch.tokens(latent)
        return (Evaluation(-1, 0, full_sequence(latent), self.steps),)

    @property
    def attends_to_image(self) -> bool:
        return self.image_attention

    @property
    def image_patch(self) -> Patch:
        """The patch of a single latent frame."""
        return self.patch.but(temporal=1)


class ImageTokens(NamedTuple):
    """The image as blocks see it: tokens (B, S, D), mask True where given, and the rotary angles of places (S, R)."""

    tokens_BSD: Tensor
    mask_BS: Tensor
    angles: Tensor | None


@dataclass(frozen=True)
class Surroundings:
    """What blocks know besides the video tokens.

    `frames` T; `source` what a block's modulation reads: the condition, or the vectors shared by all layers; rotary
    angles of places (S, R), or (B T, S, R) where samples keep different places, and of frames (T, R); the causal mask
    over frames (T, T); encoded text and its mask; the image, None in a model that does not attend to it.
    """

    frames: int
    source: Tensor | tuple[Tensor, ...]
    space_angles: Tensor | None
    time_angles: Tensor | None
    time_mask: Tensor | None
    text_BLD: Tensor
    text_mask_BL: Tensor
    image: ImageTokens | None = None


class SelfAttention(nn.Module):
    """Softmax self-attention with its output projection."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = head_norm(width // heads, qk_norm), head_norm(width // heads, qk_norm)
        self.out = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, angles: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        q, k, v = torch.unflatten(self.qkv(x_BND), -1, (3, self.heads, -1)).unbind(-3)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = turn(q, angles), turn(k, angles)
        out: Tensor = self.out(attention(q, k, v, mask).flatten(-2))
        return out


class CrossAttention(nn.Module):
    """Video attends to text (PixArt-alpha) or to an image.

    An empty prompt or a missing image contributes the bias of the output projection only.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.q_norm, self.k_norm = head_norm(width // heads, qk_norm), head_norm(width // heads, qk_norm)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x_BND: Tensor,
        seen_BLD: Tensor,
        mask_BL: Tensor,
        x_angles: Tensor | None = None,
        seen_angles: Tensor | None = None,
    ) -> Tensor:
        q = self.q_norm(torch.unflatten(self.q(x_BND), -1, (self.heads, -1)))
        k, v = torch.unflatten(self.kv(seen_BLD), -1, (2, self.heads, -1)).unbind(-3)
        k = self.k_norm(k)
        if x_angles is not None and seen_angles is not None:
            q, k = turn(q, x_angles), turn(k, seen_angles)
        any_B1 = mask_BL.any(dim=1, keepdim=True)
        seen_BL = mask_BL | ~any_B1  # softmax over nothing is NaN: an empty prompt attends, and what it read is dropped
        mixed_BND = attention(q, k, v, seen_BL[:, None, None]).flatten(-2)
        out: Tensor = self.out(mixed_BND * any_B1[..., None])
        return out


class Offsets(nn.Module):
    """A layer's own offsets to modulation vectors that all layers share (PixArt-alpha, adaLN-single)."""

    def __init__(self, width: int, n: int) -> None:
        super().__init__()
        self.table_nD = nn.Parameter(torch.zeros(n, width))

    def forward(self, vectors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(vector + row for vector, row in zip(vectors, self.table_nD, strict=True))


class Singleton(nn.Module):
    """The global condition: time, pooled text and micro-conditions, each embedded, normalised, then added.

    Section 2.1 of STIV; the norm has no parameters and can be switched off.
    """

    def __init__(self, config: StivConfig, features: int = 256) -> None:
        super().__init__()
        self.features, self.norm = features, config.condition_norm
        self.time = embedder(features, config.width)
        self.text = embedder(config.pooled_width, config.width)
        sizes = MICRO if config.micro_conditions else []
        self.micro = nn.ModuleList(embedder(n * features, config.width) for n in sizes)

    def forward(self, t_B: Tensor, pooled_BP: Tensor, micro_BM: Tensor) -> Tensor:
        parts: list[Tensor] = [self.time(fourier_features(t_B, self.features).to(pooled_BP)), self.text(pooled_BP)]
        waves_BMF = fourier_features(micro_BM.flatten(), self.features, scale=1.0).view(*micro_BM.shape, -1)
        for embed, values in zip(self.micro, torch.split(waves_BMF.to(pooled_BP), MICRO, dim=1), strict=False):
            parts.append(embed(values.flatten(1)))
        return torch.stack([stateless_norm(part) if self.norm else part for part in parts]).sum(0)


class Block(nn.Module):
    """Attention over space, attention over time, attention to text, attention to the image where asked for, MLP.

    Space and MLP are modulated and gated, time is not (Section 2.1; Table 19 has it as an ablation). Sandwich norm puts
    a stateless norm before and after each part. The gate of the image starts at zero: added to a trained model, the
    attention begins as no change.
    """

    def __init__(self, config: StivConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        make_modulation = Offsets if config.shared_adaln else Modulation
        self.sandwich, self.temporal_modulation = config.sandwich_norm, config.temporal_modulation
        self.modulation = make_modulation(width, vectors(config))
        self.spatial = SelfAttention(width, heads, config.qk_norm)
        self.temporal = SelfAttention(width, heads, config.qk_norm) if config.temporal_attention else None
        self.cross = CrossAttention(width, heads, config.qk_norm)
        self.image = CrossAttention(width, heads, config.qk_norm) if config.image_attention else None
        self.image_gate_D = nn.Parameter(torch.zeros(width)) if config.image_attention else None
        self.mlp = mlp(width, config.mlp_ratio)

    def forward(self, x_BND: Tensor, around: Surroundings) -> Tensor:
        v: tuple[Tensor, ...] = self.modulation(around.source)
        x_BND = x_BND + v[2] * self._after(self._over_space(modulate(stateless_norm(x_BND), v[0], v[1]), around))
        x_BND = self._over_time(x_BND, v, around)
        asking_BND = self._before_cross(x_BND)
        x_BND = x_BND + self._after(self.cross(asking_BND, around.text_BLD, around.text_mask_BL))
        x_BND = self._to_image(x_BND, around)
        hidden_BND: Tensor = self.mlp(modulate(stateless_norm(x_BND), v[-3], v[-2]))
        return x_BND + v[-1] * self._after(hidden_BND)

    def _before_cross(self, x_BND: Tensor) -> Tensor:
        return stateless_norm(x_BND) if self.sandwich else x_BND  # PixArt-alpha has no norm before the text

    def _after(self, x_BND: Tensor) -> Tensor:
        return stateless_norm(x_BND) if self.sandwich else x_BND

    def _over_space(self, x_BND: Tensor, around: Surroundings) -> Tensor:
        x_FSD = torch.unflatten(x_BND, 1, (around.frames, -1)).flatten(0, 1)
        mixed: Tensor = self.spatial(x_FSD, around.space_angles)
        return mixed.view_as(x_BND)

    def _over_time(self, x_BND: Tensor, v: tuple[Tensor, ...], around: Surroundings) -> Tensor:
        if self.temporal is None:
            return x_BND
        normed_BND = stateless_norm(x_BND)
        if self.temporal_modulation:
            normed_BND = modulate(normed_BND, v[3], v[4])
        places_FTD = torch.unflatten(normed_BND, 1, (around.frames, -1)).transpose(1, 2).flatten(0, 1)
        mixed_FTD = self.temporal(places_FTD, around.time_angles, around.time_mask)
        mixed_BND = torch.unflatten(self._after(mixed_FTD), 0, (len(x_BND), -1)).transpose(1, 2).flatten(1, 2)
        return x_BND + (v[5] * mixed_BND if self.temporal_modulation else mixed_BND)

    def _to_image(self, x_BND: Tensor, around: Surroundings) -> Tensor:
        if self.image is None or self.image_gate_D is None or around.image is None:
            return x_BND
        tokens_BSD, mask_BS, angles = around.image
        asking_BND = self._before_cross(x_BND)
        mixed_BND: Tensor = self.image(asking_BND, tokens_BSD, mask_BS, in_all_frames(around), angles)
        return x_BND + self.image_gate_D * self._after(mixed_BND)


class Stiv(VelocityModel):
    """The velocity model of STIV; see `VelocityModel` for the interface.

    The condition is a single one: there is one time a sample, also for frames that were replaced by clean ones.
    """

    config: StivConfig

    def __init__(self, config: StivConfig) -> None:
        super().__init__(config)
        width = config.width
        self.embed_video = nn.Linear(config.token_width, width)
        self.embed_text = mlp_embedder(config.text_width, width)
        self.condition = Singleton(config)
        self.modulation = Modulation(width, vectors(config)) if config.shared_adaln else None
        self.mask_token_D = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = Head(width, config.token_width)
        image_width = config.codec.channels * config.image_patch.cells
        self.embed_image = nn.Linear(image_width, width) if config.image_attention else None

    def forward(
        self,
        units: Sequence[Tensor],
        t_B: Tensor,
        text: Text,
        *,
        stage: int = 0,
        micro_BM: Tensor | None = None,
        mask_ratio: float = 0.0,
        generator: torch.Generator | None = None,
        image: Image | None = None,
    ) -> Tensor:
        """The velocity of the one unit.

        Args:
            units: one block of all latent frames.
            t_B: time of each sample.
            text: the encoded prompts; the pooled embedding is that of the last token.
            stage: 0, there is no pyramid.
            micro_BM: height, width, crop top, crop left and sampling stride; by default this clip's size, uncropped, at
                the configured stride.
            mask_ratio: share of the places of a frame that only the decoder blocks see (MaskDiT); for training.
            generator: draws the places that are kept.
            image: the clean first frame, for a model that attends to it; None is the same as given to no sample.

        Raises:
            ValueError: more than one unit, a stage, frames that do not divide into patches, times that are not one a
                sample, a mask ratio outside [0, 1), or an image that does not fit the unit or the model.
        """
        unit = only_unit(units, stage)
        if t_B.shape != unit.shape[:1]:
            raise ValueError(
                f"times of shape {tuple(t_B.shape)} for a batch of {len(unit)}: one time a sample is needed"
            )
        grid = self.config.patch.tokens(Shape(*unit.shape[2:]))
        micro_BM = self.default_micro(unit) if micro_BM is None else micro_BM
        condition_BD = self.condition(t_B, text.pooled_BP, micro_BM)
        x_BND = self.embed_video(patchify(unit, self.config.patch))
        if self.config.positions == "sinusoids":
            x_BND = x_BND + sinusoids(grid_positions(grid, x_BND.device), self.config.width).to(x_BND)
        around = self.surroundings(grid, condition_BD, text, x_BND.device)
        around = replace(around, image=self.image_tokens(image, unit, around.space_angles))
        x_BND = self.run(x_BND, around, mask_ratio, generator)
        return unpatchify(self.head(x_BND, condition_BD), grid, self.config.patch)

    def default_micro(self, unit_BCTYX: Tensor) -> Tensor:
        spatial = self.config.codec.spatial
        rows, cols = unit_BCTYX.shape[-2:]
        values = [rows * spatial, cols * spatial, 0, 0, self.config.frame_stride]
        return torch.tensor(values, device=unit_BCTYX.device, dtype=torch.float32).expand(len(unit_BCTYX), -1)

    def surroundings(self, grid: Shape, condition_BD: Tensor, text: Text, device: torch.device) -> Surroundings:
        rotary, head = self.config.positions == "rotary", self.config.width // self.config.heads
        frames_T = torch.arange(grid.frames, device=device)
        places_SA = grid_positions(Shape(1, grid.rows, grid.cols), device)[:, 1:]
        return Surroundings(
            frames=grid.frames,
            source=condition_BD if self.modulation is None else self.modulation(condition_BD),
            space_angles=rotary_angles(places_SA, (head // 2, head // 2)) if rotary else None,
            time_angles=rotary_angles(frames_T[:, None], (head,)) if rotary else None,
            time_mask=blockwise_causal(frames_T) if self.config.causal else None,
            text_BLD=self.embed_text(text.tokens_BLE),
            text_mask_BL=text.mask_BL,
        )

    def image_tokens(self, image: Image | None, unit_BCTYX: Tensor, angles: Tensor | None) -> ImageTokens | None:
        """What blocks attend to: the image's patches, or one token that is masked where there is no image.

        Raises:
            ValueError: the model does not attend to images, or the image is not one frame of the unit's size a sample.
        """
        batch, channels, _, rows, cols = unit_BCTYX.shape
        if self.embed_image is None:
            if image is not None:
                raise ValueError("an image for a model that attends to none: switch image_attention on")
            return None
        if image is None:
            nothing_BSD = unit_BCTYX.new_zeros(batch, 1, self.config.width)
            return ImageTokens(nothing_BSD, nothing_BSD[..., 0].bool(), None if angles is None else angles[:1])
        if image.latents_BCTYX.shape != (batch, channels, 1, rows, cols) or image.given_B.shape != (batch,):
            raise ValueError(
                f"an image of shape {tuple(image.latents_BCTYX.shape)}, given by {tuple(image.given_B.shape)} values: "
                f"{(batch, channels, 1, rows, cols)} and {(batch,)} are needed"
            )
        tokens_BSD = self.embed_image(patchify(image.latents_BCTYX, self.config.image_patch))
        if self.config.positions == "sinusoids":
            places_SA = grid_positions(self.config.image_patch.tokens(Shape(1, rows, cols)), tokens_BSD.device)
            tokens_BSD = tokens_BSD + sinusoids(places_SA, self.config.width).to(tokens_BSD)
        return ImageTokens(tokens_BSD, image.given_B[:, None].expand(-1, tokens_BSD.shape[1]), angles)

    def run(
        self, x_BND: Tensor, around: Surroundings, mask_ratio: float, generator: torch.Generator | None = None
    ) -> Tensor:
        """All blocks; with a mask ratio, the first ones see the kept places only."""
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"mask ratio {mask_ratio}: a share in [0, 1) is needed")
        main = len(self.blocks) - self.config.decoder_blocks
        if not mask_ratio:
            return run_blocks(self.blocks, x_BND, around)
        places = x_BND.shape[1] // around.frames
        kept_BK = draw_places(len(x_BND), places, mask_ratio, x_BND.device, generator)
        x_BND = run_blocks(self.blocks[:main], keep(x_BND, kept_BK, around.frames), masked(around, kept_BK))
        return run_blocks(self.blocks[main:], refill(x_BND, kept_BK, around.frames, places, self.mask_token_D), around)


def run_blocks(blocks: nn.ModuleList, x_BND: Tensor, around: Surroundings) -> Tensor:
    for block in blocks:
        x_BND = block(x_BND, around)
    return x_BND


def vectors(config: StivConfig) -> int:
    """Modulation vectors of a block: shift, scale and gate for space, for the MLP and, as an ablation, for time."""
    return 9 if config.temporal_modulation else 6


def embedder(features: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))


def mlp_embedder(features: int, width: int) -> nn.Sequential:
    """Text features to tokens of the model's width (PixArt-alpha)."""
    return nn.Sequential(nn.Linear(features, width), nn.GELU(approximate="tanh"), nn.Linear(width, width))


def only_unit(units: Sequence[Tensor], stage: int) -> Tensor:
    """The unit of a full-sequence model.

    Raises:
        ValueError: there are several, or a pyramid stage is asked for.
    """
    if len(units) != 1 or stage:
        raise ValueError(f"{len(units)} units at stage {stage}: a full-sequence model takes one unit at stage 0")
    return units[0]


def grid_positions(grid: Shape, device: torch.device) -> Tensor:
    """Frame, row and column of each token, (N, 3)."""
    axes = [torch.arange(size, device=device) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def turn(x_BNHK: Tensor, angles: Tensor) -> Tensor:
    """Rotate by angles (N, R), or by angles (B, N, R) that differ between samples."""
    if angles.ndim == 2:
        return rotate(x_BNHK, angles)
    return rotate(x_BNHK.flatten(0, 1)[None], angles.flatten(0, 1))[0].view_as(x_BNHK)


def draw_places(
    batch: int, places: int, ratio: float, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Places of a frame that stay when a share `ratio` is masked, at least one, ascending, (B, K)."""
    kept = max(1, round(places * (1 - ratio)))
    return torch.rand(batch, places, device=device, generator=generator).argsort(dim=1)[:, :kept].sort(dim=1).values


def in_all_frames(around: Surroundings) -> Tensor | None:
    """Rotary angles of the place of every token, (N, R), or (B, N, R) where samples keep different places."""
    angles = around.space_angles
    if angles is None:
        return None
    if angles.ndim == 2:
        return angles.repeat(around.frames, 1)
    return torch.unflatten(angles, 0, (-1, around.frames)).flatten(1, 2)


def keep(x_BND: Tensor, kept_BK: Tensor, frames: int) -> Tensor:
    """The kept places of every frame."""
    x_BTSD = torch.unflatten(x_BND, 1, (frames, -1))
    return x_BTSD.gather(2, _everywhere(kept_BK, frames, x_BND.shape[-1])).flatten(1, 2)


def refill(x_BND: Tensor, kept_BK: Tensor, frames: int, places: int, mask_token_D: Tensor) -> Tensor:
    """Inverse of `keep`, with the mask token at the places that were dropped."""
    batch, _, width = x_BND.shape
    empty_BTSD = mask_token_D.to(x_BND.dtype).expand(batch, frames, places, width)
    index = _everywhere(kept_BK, frames, width)
    return empty_BTSD.scatter(2, index, torch.unflatten(x_BND, 1, (frames, -1))).flatten(1, 2)


def masked(around: Surroundings, kept_BK: Tensor) -> Surroundings:
    """The surroundings of a masked sequence: each sample has the rotary angles of the places that it kept."""
    if around.space_angles is None:
        return around
    angles_BKR = around.space_angles[kept_BK]
    return replace(around, space_angles=angles_BKR.repeat_interleave(around.frames, dim=0))


def _everywhere(kept_BK: Tensor, frames: int, width: int) -> Tensor:
    return kept_BK[:, None, :, None].expand(-1, frames, -1, width)


XL = StivConfig()

PRESETS = {
    "stiv-xl": XL,
    "stiv-xxl": XL.but(layers=38, width=1536, heads=24),
    "stiv-m": XL.but(layers=46, width=3072, heads=48),
    "stiv-tiny": XL.but(
        clip=(16, 32, 32),
        width=96,
        heads=4,
        layers=6,
        decoder_blocks=1,
        frame_stride=1,
        text_tokens=16,
        text_width=64,
        pooled_width=64,
        codec={"temporal": 1, "channels": 64, "causal": False},
        patch={"temporal": 2, "spatial": 1},
    ),
}
"""Sizes of Table 1; tiny is what a CPU trains in minutes, where 64 coefficients of 8 x 8 pixels take the place of the
spatial patch."""
