"""Pixels to latents and back: a fixed block transform that needs no weights, and diffusers' autoencoders.

Every codec is linear or frozen, keeps time causal where its `Codec` says so, and takes clips as uint8 RGB.

Axes: B clips, T frames, H height, W width, and a last C for red, green, blue; in latents C latent channels, T latent
frames, Y rows, X columns. Blocks: J pixel values of a block, F coefficients of a block.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from m4v.config import Config
from m4v.layout import Codec


class CodecRecipe(Config):
    """Which codec, and of which shape.

    `blocks` is the block transform of `shape`; `diffusers` loads the autoencoder saved in the folder `path`, whose own
    shape must be `shape`. `tiling` and `chunk` (clips, or frames of an image autoencoder, at a time) bound its memory.
    """

    kind: Literal["blocks", "diffusers"] = "blocks"
    shape: Codec = Codec(channels=64)
    path: str = ""
    tiling: bool = False
    chunk: int = Field(1, ge=1)


class LatentCodec(nn.Module, ABC):
    """Between clips and latents of shape `shape`.

    `encode` and `decode` work on bytes and without gradients. `analyse` and `synthesise` work on pixel values in
    [-1, 1] and can be differentiated (rewards look at decoded pixels).
    """

    shape: Codec

    @abstractmethod
    def analyse(self, pixels_BTHWC: Tensor) -> Tensor:
        """Latents (B, C, T, Y, X) of pixel values in [-1, 1]."""

    @abstractmethod
    def synthesise(self, latents_BCTYX: Tensor) -> Tensor:
        """Pixel values (B, T, H, W, 3) of latents, about [-1, 1], not clamped."""

    @torch.no_grad()
    def encode(self, video_BTHWC: Tensor) -> Tensor:
        """Latents (B, C, T, Y, X) in float32 of clips in uint8.

        Raises:
            ValueError: the clips are not uint8 RGB, or their size does not fit the codec.
        """
        if video_BTHWC.dtype != torch.uint8 or video_BTHWC.ndim != 5 or video_BTHWC.shape[-1] != 3:
            raise ValueError(
                f"clips of shape {tuple(video_BTHWC.shape)} and type {video_BTHWC.dtype}: "
                "a codec takes uint8 of shape (clips, frames, height, width, 3)"
            )
        self.shape.latent_shape(*video_BTHWC.shape[1:4])
        return self.analyse(video_BTHWC.float() / 127.5 - 1).float()

    @torch.no_grad()
    def decode(self, latents_BCTYX: Tensor) -> Tensor:
        """Clips (B, T, H, W, 3) in uint8 of latents; values out of range are clamped.

        Raises:
            ValueError: the latents have another number of channels or axes.
        """
        if latents_BCTYX.ndim != 5 or latents_BCTYX.shape[1] != self.shape.channels:
            raise ValueError(
                f"latents of shape {tuple(latents_BCTYX.shape)}: this codec takes "
                f"(clips, {self.shape.channels}, frames, rows, columns)"
            )
        pixels = self.synthesise(latents_BCTYX).float()
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def fit(self, videos: Iterable[Tensor]) -> None:
        """Measure the statistics that scale the latents on batches of clips (B, T, H, W, 3) in uint8.

        A codec whose scale is given, like an autoencoder's, reads none.
        """


def make_codec(recipe: CodecRecipe) -> LatentCodec:
    """The codec of a recipe; statistics of a block transform still have to be fitted or loaded.

    Raises:
        ValueError: the folder is missing, or holds an autoencoder of another shape than the recipe says.
    """
    if recipe.kind == "blocks":
        return BlockTransform(recipe.shape)
    codec = DiffusersVAE(Path(recipe.path), tiling=recipe.tiling, chunk=recipe.chunk)
    if codec.shape != recipe.shape:
        raise ValueError(
            f"{recipe.path}: an autoencoder of shape {codec.shape!r}, and the recipe says {recipe.shape!r}"
        )
    return codec


class Frequency(NamedTuple):
    """A coefficient of a block: frequencies in half cycles a block along time, rows and columns, and the colour axis.

    Colour 0 is grey (R + G + B), 1 is red against blue, 2 is green against magenta.
    """

    time: int
    row: int
    col: int
    colour: int


def dct(size: int) -> Tensor:
    """Orthonormal DCT-II of `size` points, (frequency, point), in float64 (Ahmed, Natarajan and Rao 1974)."""
    k, n = torch.arange(size).double()[:, None], torch.arange(size).double()
    basis = torch.cos(math.pi / size * (n + 0.5) * k) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def expected_energy(frequency: Frequency) -> float:
    """Energy that a coefficient is expected to hold, up to a constant: the rule that orders the channels.

    The power of natural images falls with the square of spatial frequency (Field 1987), that of video with temporal
    frequency too (Dong and Atick 1995). Most motion is slow: temporal frequency counts double. Colours differ less than
    brightness in photographs but as much among saturated shapes: a colour axis counts a third of grey. The round
    numbers keep the error of 64 coefficients within 0.8 dB of the best choice of 64 on clips of shapes and 1.3 dB on
    panned photographs.
    """
    time, row, col, colour = frequency
    return (1 / 3 if colour else 1.0) / (1 + row**2 + col**2 + 2 * time**2)


def by_energy(frames: int, size: int) -> list[Frequency]:
    """All coefficients of a block of `frames` frames and `size` x `size` pixels, most expected energy first.

    Ties go to the slower, then to the lower row, column and colour.
    """
    every = (Frequency(t, y, x, c) for t in range(frames) for y in range(size) for x in range(size) for c in range(3))
    return sorted(every, key=lambda frequency: (-expected_energy(frequency), frequency))


def aligned(still: list[Frequency], moving: list[Frequency]) -> list[Frequency | None]:
    """Coefficient of the first frame in each channel.

    A constant of the later frames and the same spatial coefficient of the first frame share a channel, so that it means
    one thing in all frames; the other channels take the first frame's remaining coefficients in their order, then None.
    """
    kept = still[: len(moving)]
    rest = iter([frequency for frequency in kept if frequency not in moving])
    return [frequency if frequency in kept else next(rest, None) for frequency in moving]


def basis(frequencies: Iterable[Frequency | None], frames: int, size: int) -> Tensor:
    """Rows of the block transform, (F, frames * size * size * 3), in float64; None is a row of zeros."""
    time, space, colour = dct(frames), dct(size), dct(3)
    rows = [
        torch.zeros(frames * size * size * 3, dtype=torch.float64)
        if f is None
        else torch.einsum("t,y,x,c->tyxc", time[f.time], space[f.row], space[f.col], colour[f.colour]).flatten()
        for f in frequencies
    ]
    return torch.stack(rows)


def to_blocks(pixels_BTHWC: Tensor, frames: int, size: int) -> Tensor:
    """Pixels cut into blocks, (B, T', Y, X, J)."""
    B, T, H, W, C = pixels_BTHWC.shape
    x = pixels_BTHWC.reshape(B, T // frames, frames, H // size, size, W // size, size, C)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


def from_blocks(blocks_BTYXJ: Tensor, size: int) -> Tensor:
    """Inverse of `to_blocks`."""
    B, T, Y, X, J = blocks_BTYXJ.shape
    frames = J // (size * size * 3)
    x = blocks_BTYXJ.reshape(B, T, Y, X, frames, size, size, 3).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(B, T * frames, Y * size, X * size, 3)


class Moments:
    """Running mean and mean square of coefficients, in float64."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sum_C = torch.zeros(channels, dtype=torch.float64)
        self.square_C = torch.zeros(channels, dtype=torch.float64)

    def add(self, latents_BCTYX: Tensor) -> None:
        x_NC = latents_BCTYX.movedim(1, -1).flatten(0, -2).double().cpu()
        self.count += len(x_NC)
        self.sum_C += x_NC.sum(0)
        self.square_C += x_NC.square().sum(0)

    def spread(self, centre_C: Tensor) -> Tensor:
        """Root mean square distance from a centre."""
        variance_C = (self.square_C - 2 * centre_C * self.sum_C) / self.count + centre_C**2
        return variance_C.clamp_min(0).sqrt()


class BlockTransform(LatentCodec):
    """Orthonormal discrete cosine transform of blocks of time, rows, columns and colour; the first frame alone.

    A block of `temporal` frames and `spatial` x `spatial` pixels gives `channels` coefficients, those of most
    expected energy (`by_energy`). A causal codec transforms the first frame by itself, as blocks of one frame, and puts
    its coefficients where the later frames have theirs (`aligned`). Pixel values are counted from the mean colour of
    the data, and coefficient c is divided by sqrt(std_c * rms), rms being that of all kept coefficients: half way, in
    decibels, between keeping the scale and whitening, because whitened noise in the many weak coefficients drowns the
    few that matter. First and later frames have scales of their own. Before `fit` the mean colour is mid-grey and the
    scales are 1, so that the sum of squares is that of the pixels.

    Args:
        shape: the codec; with temporal * spatial**2 * 3 channels the transform loses nothing.

    Raises:
        ValueError: more channels than a block has values.
    """

    colour_3: Tensor
    first_scale_C: Tensor
    later_scale_C: Tensor
    first_CJ: Tensor
    later_CJ: Tensor

    def __init__(self, shape: Codec) -> None:
        super().__init__()
        values = shape.temporal * shape.spatial**2 * 3
        if not 1 <= shape.channels <= values:
            raise ValueError(
                f"{shape.channels} channels: blocks of {shape.temporal} x {shape.spatial} x {shape.spatial} pixels "
                f"have 1 to {values} coefficients"
            )
        self.shape = shape
        later = by_energy(shape.temporal, shape.spatial)[: shape.channels]
        first = aligned(by_energy(1, shape.spatial), later)
        bases = {"first_CJ": basis(first, 1, shape.spatial), "later_CJ": basis(later, shape.temporal, shape.spatial)}
        for name, basis_CJ in bases.items():
            self.register_buffer(name, basis_CJ.float(), persistent=False)
        self.register_buffer("colour_3", torch.zeros(3))
        self.register_buffer("first_scale_C", torch.ones(shape.channels))
        self.register_buffer("later_scale_C", torch.ones(shape.channels))

    def _parts(self, pixels_BTHWC: Tensor) -> list[Tensor]:
        """Unscaled coefficients (B, C, T, Y, X) of the first frame (if it stands alone) and of the later frames."""
        lead, size = int(self.shape.causal), self.shape.spatial
        parts = []
        if lead:
            blocks = to_blocks(pixels_BTHWC[:, :1], 1, size)
            parts.append(blocks @ self.first_CJ.to(blocks.dtype).T)
        blocks = to_blocks(pixels_BTHWC[:, lead:], self.shape.temporal, size)
        parts.append(blocks @ self.later_CJ.to(blocks.dtype).T)
        return [part.movedim(-1, 1) for part in parts]

    def _scales(self) -> list[Tensor]:
        scales = [self.first_scale_C, self.later_scale_C] if self.shape.causal else [self.later_scale_C]
        return [scale_C[:, None, None, None] for scale_C in scales]

    def analyse(self, pixels_BTHWC: Tensor) -> Tensor:
        parts = self._parts(pixels_BTHWC - self.colour_3)
        return torch.cat([part / scale for part, scale in zip(parts, self._scales(), strict=True)], dim=2)

    def synthesise(self, latents_BCTYX: Tensor) -> Tensor:
        frames = latents_BCTYX.shape[2]
        sizes, bases = (
            ([1, frames - 1], [self.first_CJ, self.later_CJ]) if self.shape.causal else ([frames], [self.later_CJ])
        )
        pixels = [
            from_blocks((x * scale).movedim(1, -1) @ basis_CJ.to(x.dtype), self.shape.spatial)
            for x, scale, basis_CJ in zip(torch.split(latents_BCTYX, sizes, 2), self._scales(), bases, strict=True)
        ]
        return torch.cat(pixels, dim=1) + self.colour_3

    @torch.no_grad()
    def fit(self, videos: Iterable[Tensor]) -> None:
        """Measure the mean colour and the spread of each coefficient.

        Args:
            videos: batches of clips (B, T, H, W, 3) in uint8, of any sizes that fit the codec; read once.

        Raises:
            ValueError: there is no clip, no clip longer than the first frame, or all pixels are alike.
        """
        moments = [Moments(self.shape.channels) for _ in self._scales()]
        colours, pixels = torch.zeros(3, dtype=torch.float64), 0
        for video_BTHWC in videos:
            self.shape.latent_shape(*video_BTHWC.shape[1:4])
            x = video_BTHWC.to(self.colour_3.device).float() / 127.5 - 1
            colours, pixels = colours + x.double().sum((0, 1, 2, 3)).cpu(), pixels + x[..., 0].numel()
            for moment, part in zip(moments, self._parts(x), strict=True):
                moment.add(part)
        if not all(moment.count for moment in moments):
            raise ValueError("no clip with frames after the first: a block transform is fitted on whole clips")
        self._set_statistics(colours / pixels, moments)

    def _set_statistics(self, colour_3: Tensor, moments: list[Moments]) -> None:
        frames = 1 + self.shape.temporal if self.shape.causal else self.shape.temporal
        flat = colour_3.float().to(self.colour_3.device).expand(1, frames, self.shape.spatial, self.shape.spatial, 3)
        scales = []
        for moment, centre in zip(moments, self._parts(flat), strict=True):
            scales.append(half_whitening(moment.spread(centre.flatten().double().cpu())))
        self.colour_3.copy_(colour_3)
        self.later_scale_C.copy_(scales[-1])
        self.first_scale_C.copy_(scales[0])


def half_whitening(spread_C: Tensor, least: float = 1e-2) -> Tensor:
    """Divisors sqrt(std_c * rms) of coefficients with the given spreads; channels that are always zero get 1.

    A spread below `least` of the common one counts as `least`, so that no rounding error is blown up.

    Raises:
        ValueError: all spreads are zero.
    """
    used_C = spread_C > 0
    if not used_C.any():
        raise ValueError("all pixels of the clips are alike: nothing to fit a block transform on")
    rms = spread_C[used_C].square().mean().sqrt()
    return torch.where(used_C, (spread_C.clamp_min(least * rms) * rms).sqrt(), 1.0)


def stated(vae: Any, *names: str) -> Any:
    """The first of these that an autoencoder states: in its configuration, or else as a buffer or plain attribute."""
    buffers = dict(vae.named_buffers(recurse=False))
    values = [place.get(name) for name in names for place in (vae.config, buffers, vars(vae))]
    return next((value for value in values if value is not None), None)


def autoencoder_shape(vae: Any) -> Codec:
    """Shape of a diffusers autoencoder; image autoencoders know no time, and those of video here are causal."""
    temporal = stated(vae, "scale_factor_temporal", "temporal_compression_ratio")
    spatial = stated(vae, "scale_factor_spatial", "spatial_compression_ratio")
    return Codec(
        temporal=int(temporal or 1),
        spatial=int(spatial or 2 ** (len(vae.config["block_out_channels"]) - 1)),
        channels=int(stated(vae, "latent_channels", "z_dim")),
        causal=temporal is not None,
    )


def autoencoder_scale(vae: Any, channels: int) -> tuple[Tensor, Tensor]:
    """Centre and scale (C) by which diffusers' pipelines make the latents of an autoencoder about standard."""
    mean, std = stated(vae, "latents_mean", "shift_factor"), stated(vae, "latents_std")
    centre_C = torch.as_tensor(0.0 if mean is None else mean).detach().float().expand(channels).clone()
    std_C = torch.as_tensor(1.0 if std is None else std).detach().float().expand(channels).clone()
    return centre_C, std_C / float(stated(vae, "scaling_factor") or 1)


class DiffusersVAE(LatentCodec):
    """A frozen autoencoder of diffusers: causal video (CogVideoX, LTX-Video, HunyuanVideo, Wan) or image, per frame.

    Latents are the mode of the posterior, made about unit variance by the autoencoder's own numbers: minus the mean and
    divided by the deviation of each channel where it has them (Wan, LTX-Video), otherwise minus `shift_factor`, and
    times `scaling_factor`. Group norms over several frames make the encoders of CogVideoX and HunyuanVideo only nearly
    causal: later frames move the first latent a little. Tested with small random networks of each family; no published
    weights were run.

    Args:
        source: a folder saved by diffusers (nothing is downloaded), or the module itself.
        tiling: let the autoencoder work in overlapping tiles: less memory, seams possible.
        chunk: clips at a time, for an image autoencoder frames at a time; the result does not depend on it.
        dtype: of the weights; latents are float32.

    Raises:
        ValueError: the folder holds no such autoencoder, or diffusers is not installed.
    """

    centre_C: Tensor
    scale_C: Tensor

    def __init__(
        self, source: Path | nn.Module, *, tiling: bool = False, chunk: int = 1, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        vae: Any = source if isinstance(source, nn.Module) else load_autoencoder(source, dtype)
        self.vae: Any = (vae if vae.dtype == dtype else vae.to(dtype)).eval().requires_grad_(False)
        self.shape = autoencoder_shape(vae)
        self.images = not self.shape.causal
        self.chunk = chunk
        for name, value in zip(("centre_C", "scale_C"), autoencoder_scale(vae, self.shape.channels), strict=True):
            self.register_buffer(name, value)
        if tiling:
            self.vae.enable_tiling()

    def _affine(self) -> tuple[Tensor, Tensor]:
        return self.centre_C[:, None, None, None], self.scale_C[:, None, None, None]

    def analyse(self, pixels_BTHWC: Tensor) -> Tensor:
        x_BCTHW = pixels_BTHWC.movedim(-1, 1).to(self.vae.dtype)
        latents = self._in_chunks(lambda x: self.vae.encode(x).latent_dist.mode(), x_BCTHW)
        centre, scale = self._affine()
        return (latents.float() - centre) / scale

    def synthesise(self, latents_BCTYX: Tensor) -> Tensor:
        centre, scale = self._affine()
        latents = (latents_BCTYX * scale + centre).to(self.vae.dtype)
        return self._in_chunks(lambda z: self.vae.decode(z).sample, latents).float().movedim(1, -1)

    def _in_chunks(self, run: Callable[[Tensor], Tensor], x_BCTYX: Tensor) -> Tensor:
        """Apply a half of the autoencoder to `chunk` clips, or frames, at a time."""
        if not self.images:
            return torch.cat([run(part) for part in torch.split(x_BCTYX, self.chunk)])
        frames = x_BCTYX.transpose(1, 2)
        made = torch.cat([run(part) for part in torch.split(frames.flatten(0, 1), self.chunk)])
        return made.reshape(*frames.shape[:2], *made.shape[1:]).transpose(1, 2)


def load_autoencoder(folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The autoencoder that diffusers saved in a folder, of the class named there.

    Raises:
        ValueError: diffusers is missing, or the folder does not hold an autoencoder.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ValueError("diffusers is not installed: pip install 'm4v-eval[real]'") from error
    try:
        name = str(json.loads((folder / "config.json").read_text())["_class_name"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: no autoencoder saved by diffusers ({error})") from error
    kind = getattr(diffusers, name, None)
    if not name.startswith("Autoencoder") or kind is None:
        raise ValueError(f"{folder}: holds a {name}, which is no autoencoder of this diffusers")
    # Without this diffusers asks for accelerate; the weights fit twice in memory.
    options = {"local_files_only": True, "low_cpu_mem_usage": False, "torch_dtype": dtype}
    return cast(nn.Module, kind.from_pretrained(folder, **options))
