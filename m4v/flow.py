"""Probability paths: plain flow matching, the spatial pyramid, the temporal pyramid, frame replacement.

Time runs from 0 (noise) to 1 (data): x_t = t x1 + (1 - t) n, and the velocity is x1 - n. The spatial pyramid cuts
[0, 1] into one window [s_k, e_k] a level, coarse to fine; within a window the path is a straight line from a blurred,
noisier start to a sharp, cleaner end, and the velocity is end - start, so that one unit of the window's own time t'
crosses it. The model is told the global time t = s_k + t' (e_k - s_k).

Source: PyramidFlow (Jin et al., arXiv 2410.05954), eq. 5-17 and Appendix A; M4V supplement, A.3 (linear corruption);
STIV (Lin et al., arXiv 2412.07730), Section 2.3 (frame replacement, image dropout) and A.4.1 (attention to the image).

Axes: B batch, C latent channels, T frames, Y rows, X columns.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, NamedTuple, Self, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from m4v.config import Config
from m4v.layout import Patch, Shape, check_pyramid, temporal_pyramid
from m4v.variants.base import Image

Share = TypeVar("Share", float, Tensor)


class Window(NamedTuple):
    """Data time at which a pyramid level starts and ends."""

    start: float
    end: float

    def at(self, share: Share) -> Share:
        """Global time at `share` of the window."""
        return share * (self.end - self.start) + self.start


def stage_windows(stages: int, gamma: float = -1 / 3) -> tuple[Window, ...]:
    """Windows of a pyramid of `stages` levels, index 0 being full resolution.

    The ends divide [0, 1] evenly. Renoising with 2 x 2 blocks of correlation `gamma` rolls the time back at a jump
    (PyramidFlow eq. 25 solved for the start): with a = sqrt(-gamma) and b = sqrt(1 - gamma),
    s_k = e a / (b (1 - e) + e a) at e = e_(k+1). Three stages at -1/3: [0, 1/3], [1/5, 2/3], [1/2, 1].
    """
    a, b = math.sqrt(-gamma), math.sqrt(1 - gamma)
    ends = [(stages - k) / stages for k in range(stages + 1)]
    return tuple(Window(below * a / (b * (1 - below) + below * a), end) for end, below in pairwise(ends))


class FlowConfig(Config):
    """Which path the model learns and which conditions it sees in training.

    Attributes:
        spatial_pyramid: `stages` levels of resolution; off, one level.
        temporal_pyramid: one latent frame is made at a time, from history at decreasing resolution; off, all at once.
        stages: levels of either pyramid.
        gamma: correlation within the 2 x 2 blocks of the corrective noise, in [-1/3, 0).
        coupled: start and end of a window share their noise (PyramidFlow eq. 9-10); off, they are drawn independently.
        corruption: noise on the history in training: of one strength sigma ~ U[0, corruption_max] (PyramidFlow), or
            rising linearly from the oldest frame to the newest (M4V supplement A.3). Without history it has no effect.
        time: distribution of the window's own time; logit-normal is the logistic function of a normal with mean
            `time_mean` and unit variance (SD3, Esser et al. 2024, eq. 19).
        time_mean: below 0 the noisy end is seen more often, where it is decided what is where.
        stage_weights: how often each level is trained, full resolution first; empty for evenly.
        frame_replacement: the first latent frame is clean and without loss, except where the image is dropped.
        image_dropout: share of clips without the image, for frame replacement and attention to the image alike.
        text_dropout: share of captions replaced by the null prompt.

    Raises:
        ValueError: a value out of range, weights that are not one a level, a mean that the time's distribution does not
            have, or frame replacement within the temporal pyramid, where the first frame is history anyway.
    """

    spatial_pyramid: bool = True
    temporal_pyramid: bool = True
    stages: int = Field(default=3, ge=1)
    gamma: float = Field(default=-1 / 3, ge=-1 / 3, lt=0)
    coupled: bool = True
    corruption: Literal["none", "constant", "linear"] = "linear"
    corruption_max: float = Field(default=1 / 3, ge=0, le=1)
    time: Literal["uniform", "logit-normal"] = "uniform"
    time_mean: float = Field(default=0.0, ge=-5, le=5)
    stage_weights: tuple[float, ...] = ()
    frame_replacement: bool = False
    image_dropout: float = Field(default=0.08, ge=0, le=1)
    text_dropout: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        weights = self.stage_weights
        if weights and (len(weights) != self.stages or min(weights) < 0 or not 0 < sum(weights) < math.inf):
            raise ValueError(
                f"stage weights {weights}: {self.stages} numbers that are not negative are needed, not all of them zero"
            )
        if self.time_mean and self.time != "logit-normal":
            raise ValueError(f"a mean of {self.time_mean} is one of the logit-normal time: set time to logit-normal")
        if self.frame_replacement and self.temporal_pyramid:
            raise ValueError("frame replacement needs a full sequence: switch the temporal pyramid off")
        return self

    @property
    def windows(self) -> tuple[Window, ...]:
        """The window of each level that is generated, index 0 being full resolution."""
        return stage_windows(self.stages if self.spatial_pyramid else 1, self.gamma)


class TrainingPair(NamedTuple):
    """One batch of regression: `units` (oldest first, the last one noisy) and `t_B` go in, `target_BCTYX` comes out.

    `mask_BCTYX` is 1 where the loss counts and 0 on frames that were given; None where all of it counts. `image` is the
    clean first frame for a model that attends to it.
    """

    units: list[Tensor]
    t_B: Tensor
    stage: int
    target_BCTYX: Tensor
    mask_BCTYX: Tensor | None
    image: Image | None = None


def training_pair(
    latents_BCTYX: Tensor, flow: FlowConfig, generator: torch.Generator, *, image: bool = False
) -> TrainingPair:
    """Draw level, frame, time and noise, and make the model's input and target (PyramidFlow eq. 9-11 and 16).

    All samples of a batch share level and frame, hence shapes; time, noise and corruption are their own. Draws are in
    an order that lets variants of corruption, coupling or weights share the others. Frame replacement and attention to
    the image share one draw: a clip has both or neither.

    Args:
        latents_BCTYX: clean latents; a single frame is an image.
        flow: the path.
        generator: the only source of randomness.
        image: the model attends to the clean first frame. A clip of one latent frame has none: it would be the answer.

    Raises:
        ValueError: the latents cannot be halved down to the coarsest level, or an image within the temporal pyramid.
    """
    if image and flow.temporal_pyramid:
        raise ValueError("attention to the image needs a full sequence: switch the temporal pyramid off")
    latent = Shape(*map(int, latents_BCTYX.shape[2:]))
    check_latent(latent, flow)
    level = draw_level(flow, generator)
    frame = int(torch.randint(latent.frames, (), generator=generator, device=generator.device))
    clean = latents_BCTYX[:, :, frame : frame + 1] if flow.temporal_pyramid else latents_BCTYX
    share_B, start, end = draw_line(clean, level, flow, generator)
    noisy, mask, shown = torch.lerp(start, end, per_sample(share_B, clean)), None, None
    if (flow.frame_replacement or image) and latent.frames > 1:
        first = Image(halve(clean[:, :, :1], level), draw_images(len(clean), flow, generator).to(clean.device))
        shown = first if image else None
        if flow.frame_replacement:
            noisy, mask = replace_first_frame(noisy, first)
    history = make_history(latents_BCTYX, frame, level, flow, generator) if flow.temporal_pyramid else []
    return TrainingPair([*history, noisy], flow.windows[level].at(share_B), level, end - start, mask, shown)


def draw_line(
    clean_BCTYX: Tensor, level: int, flow: FlowConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """How far each sample is through its window (B,), and where its line through the window starts and ends."""
    share_B = draw_share(len(clean_BCTYX), flow, generator).to(clean_BCTYX.device)
    noise = normal_like(clean_BCTYX, generator)
    start_noise = noise if flow.coupled else normal_like(clean_BCTYX, generator)
    return share_B, *endpoints(clean_BCTYX, level, flow.windows[level], noise, start_noise)


def flow_loss(velocity_BCTYX: Tensor, pair: TrainingPair) -> Tensor:
    """Mean squared error in float32 over what counts (PyramidFlow eq. 11; STIV Section 2.3.1 for the mask)."""
    error = (velocity_BCTYX.float() - pair.target_BCTYX.float()).square()
    if pair.mask_BCTYX is None:
        return error.mean()
    return (error * pair.mask_BCTYX).sum() / pair.mask_BCTYX.sum().clamp_min(1)


def draw_text_dropout(batch: int, flow: FlowConfig, generator: torch.Generator) -> Tensor:
    """Which captions of a batch become the null prompt, bool (B,), independent of everything else."""
    return torch.lt(torch.rand(batch, generator=generator, device=generator.device), flow.text_dropout)


def draw_images(batch: int, flow: FlowConfig, generator: torch.Generator) -> Tensor:
    """Which clips of a batch keep their image, bool (B,), independent of the captions (STIV Appendix E)."""
    return torch.ge(torch.rand(batch, generator=generator, device=generator.device), flow.image_dropout)


def check_latent(latent: Shape, flow: FlowConfig) -> None:
    """Refuse latents that a pyramid in use cannot halve; see `layout.check_pyramid`."""
    if flow.spatial_pyramid or flow.temporal_pyramid:
        check_pyramid(latent, flow.stages, Patch(spatial=1))


def draw_level(flow: FlowConfig, generator: torch.Generator) -> int:
    """The pyramid level of a batch; one draw, whether or not there is a choice."""
    weights = flow.stage_weights if flow.stage_weights and flow.spatial_pyramid else [1.0] * len(flow.windows)
    chances = torch.tensor(weights, dtype=torch.float64, device=generator.device)
    return int(torch.multinomial(chances, 1, generator=generator))


def draw_share(batch: int, flow: FlowConfig, generator: torch.Generator) -> Tensor:
    """How far each sample is through its window, (B,) in [0, 1]."""
    if flow.time == "logit-normal":
        normal_B = torch.randn(batch, generator=generator, device=generator.device)
        return (normal_B + flow.time_mean).sigmoid()
    return torch.rand(batch, generator=generator, device=generator.device)


def endpoints(
    clean_BCTYX: Tensor, level: int, window: Window, noise_BCTYX: Tensor, start_noise_BCTYX: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Start and end of a window at `level` (PyramidFlow eq. 9-10).

    Args:
        clean_BCTYX: data at full resolution.
        level: times that it is halved.
        window: its data times.
        noise_BCTYX: standard normal noise at full resolution.
        start_noise_BCTYX: noise of the start, by default the same (coupled).
    """
    noise = halve_noise(noise_BCTYX, level)
    start_noise = noise if start_noise_BCTYX is None else halve_noise(start_noise_BCTYX, level)
    end = window.end * halve(clean_BCTYX, level) + (1 - window.end) * noise
    if window.start == 0:  # the coarsest level starts from pure noise and need not divide once more
        return start_noise, end
    blurred = double(halve(clean_BCTYX, level + 1))
    return window.start * blurred + (1 - window.start) * start_noise, end


def make_history(
    latents_BCTYX: Tensor, frame: int, level: int, flow: FlowConfig, generator: torch.Generator
) -> list[Tensor]:
    """Condition frames of latent frame `frame`, pooled, then corrupted at their own resolution (PyramidFlow eq. 16).

    A corruption of strength sigma is the path's own: (1 - sigma) x + sigma n.
    """
    pooled = pool_history(latents_BCTYX, frame, level, flow.stages)
    if flow.corruption == "none":
        return pooled
    sigma_BF = draw_corruption(len(latents_BCTYX), frame, flow, generator).to(latents_BCTYX.device)
    return [
        torch.lerp(unit, normal_like(unit, generator), per_sample(sigma_B, unit))
        for unit, sigma_B in zip(pooled, sigma_BF.unbind(1), strict=True)
    ]


def pool_history(latents_BCTYX: Tensor, frame: int, level: int, stages: int) -> list[Tensor]:
    """Clean condition frames of latent frame `frame` while it is made at `level`, oldest first (PyramidFlow eq. 17).

    `latents_BCTYX` holds at least the frames before `frame`, at full resolution.
    """
    rows, cols = map(int, latents_BCTYX.shape[3:])
    shapes = temporal_pyramid(Shape(frame + 1, rows, cols), frame, level, stages)[:-1]
    return [
        halve(latents_BCTYX[:, :, i : i + 1], (rows // shape.rows).bit_length() - 1) for i, shape in enumerate(shapes)
    ]


def draw_corruption(batch: int, frames: int, flow: FlowConfig, generator: torch.Generator) -> Tensor:
    """Strength of the noise on each condition frame, oldest first, (B, frames).

    `constant`: one sigma ~ U[0, max] a sample (PyramidFlow Section 4.1). `linear`: top ~ U[0, max], bottom ~ U[0, top],
    the oldest frame at the bottom and the newest at the top (M4V supplement A.3); a single frame counts as the newest.
    """
    top_B1, low_B1 = torch.rand(2, batch, 1, generator=generator, device=generator.device).unbind()
    top_B1 = top_B1 * flow.corruption_max
    if flow.corruption == "constant":
        return top_B1.expand(batch, frames)
    age_F = torch.arange(frames, device=top_B1.device).flip(0) / max(frames - 1, 1)
    return torch.lerp(top_B1, top_B1 * low_B1, age_F)


def replace_first_frame(noisy_BCTYX: Tensor, image: Image) -> tuple[Tensor, Tensor]:
    """The clean first frame in place of the noisy one, and the loss mask; neither where the image is dropped.

    STIV Section 2.3.1 and 2.3.2.
    """
    kept = per_sample(image.given_B, noisy_BCTYX)
    first, rest = noisy_BCTYX[:, :, :1], noisy_BCTYX[:, :, 1:]
    mask = torch.cat([(1 - kept).expand_as(first), torch.ones_like(rest)], dim=2)
    return torch.cat([torch.lerp(first, image.latents_BCTYX, kept), rest], dim=2), mask


def halve(x_BCTYX: Tensor, times: int = 1) -> Tensor:
    """Average of blocks of 2^times rows and columns; for one halving this is bilinear resampling."""
    if not times:
        return x_BCTYX
    pooled: Tensor = F.avg_pool3d(x_BCTYX, (1, 1 << times, 1 << times))
    return pooled


def double(x_BCTYX: Tensor) -> Tensor:
    """Twice the rows and columns by nearest neighbour, which the corrective noise of eq. 14 relies on."""
    return x_BCTYX.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


def halve_noise(noise_BCTYX: Tensor, times: int = 1) -> Tensor:
    """White noise down the pyramid: an average of 4^times values times 2^times has unit variance again."""
    return halve(noise_BCTYX, times) * float(1 << times)


def normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal values in the shape of `x`, drawn on the generator's device, so that they are the same on all."""
    return torch.randn(x.shape, generator=generator, device=generator.device).to(x)


def per_sample(values_B: Tensor, like_BCTYX: Tensor) -> Tensor:
    """One value a sample, broadcastable over a block of latents."""
    return values_B.to(like_BCTYX).view(-1, 1, 1, 1, 1)
