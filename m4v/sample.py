"""Sampling: from a prompt and a seed to latents, over the spatial pyramid, the temporal pyramid, or neither.

Each window of the path is crossed by Euler steps in its own time t'; between levels the latents are doubled and
renoised so that their distribution is that of the next start. With the temporal pyramid, latent frames are made one by
one from clean history. Every sample has a generator of its own and does not depend on its batch.

Source: PyramidFlow (Jin et al., arXiv 2410.05954), algorithm 1 and eq. 12-17; M4V supplement, E.2 and E.3; STIV (Lin
et al., arXiv 2412.07730), Section 2.3 and Appendix D. Steps and guidance by default are those of PyramidFlow's public
sampler.

Axes: B batch, C latent channels, T frames, Y rows, X columns, L text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from m4v import guidance
from m4v.config import Config
from m4v.flow import FlowConfig, Window, check_latent, double, endpoints, halve, halve_noise, pool_history
from m4v.layout import Shape
from m4v.variants.base import Image, Text, attends_to_image

Velocity = Callable[..., Tensor]
"""A `VelocityModel`, or anything that is called like one; attention to the image asks for its `config` too."""


class SamplerConfig(Config):
    """How latents are sampled.

    Attributes:
        steps: Euler steps a level for each latent frame after the first.
        first_frame_steps: steps a level for the first latent frame, and for all frames when they are made at once.
        guidance: scale for video; 1 needs no pass with the null prompt.
        first_frame_guidance: scale for the first latent frame, and for an image.
        image_guidance: scale for video from a given image.
        joint: with frame replacement or attention to the image, the null pass drops the image too (STIV's JIT-CFG).
        renormalise: the guided velocity keeps the norm of the conditional one (STIV Appendix D).
        corrective_noise: off, latents are only rescaled at a jump (ablation in PyramidFlow's Appendix C.2).
        self_quality: weight of self-quality guidance, 0 for none (M4V supplement E.3).
        self_quality_from: the first latent frame that it acts on, counted from one.
        self_quality_stages: the finest levels that it acts on; never the coarsest of several.
        precision: type of the model's products; latents stay in float32.
    """

    steps: int = Field(default=10, ge=1)
    first_frame_steps: int = Field(default=20, ge=1)
    guidance: float = 5.0
    first_frame_guidance: float = 7.0
    image_guidance: float = 4.0
    joint: bool = True
    renormalise: bool = False
    corrective_noise: bool = True
    self_quality: float = 0.0
    self_quality_from: int = Field(default=8, ge=1)
    self_quality_stages: int = Field(default=2, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"


class Block(NamedTuple):
    """Latent frames made together: number `frame` alone, or all of them (-1).

    `self_quality` is the number of finest levels that are guided by passes without history.
    """

    frame: int
    steps: int
    scale: float
    self_quality: int = 0

    def passes(self, level: int) -> int:
        """Forward passes a sample and step at a level: one or two, twice with self-quality guidance."""
        return (1 if self.scale == 1 else 2) * (2 if level < self.self_quality else 1)


class Step(NamedTuple):
    """Progress after a step: `done` of `total` steps, the latent frame (-1: all), the level, passes of the step."""

    done: int
    total: int
    frame: int
    stage: int
    passes: int


def plan(
    latent: Shape, flow: FlowConfig, sampler: SamplerConfig, *, image: bool = False, attended: bool = False
) -> tuple[Block, ...]:
    """Blocks of a clip in the order of sampling; a given image leaves out the first latent frame.

    `attended` says that the model attends to the image: without frame replacement it then makes all frames.

    Raises:
        ValueError: an image for one latent frame, or for a full-sequence model that can see none.
    """
    video = sampler.image_guidance if image else sampler.guidance
    if latent.frames < 1:
        raise ValueError("a clip of no latent frames")
    if image and latent.frames < 2:
        raise ValueError("an image is the first latent frame: a clip of one latent frame leaves nothing to make")
    if not flow.temporal_pyramid:
        if image and not (flow.frame_replacement or attended):
            raise ValueError(
                "an image needs a model with a temporal pyramid, with frame replacement or with attention to the image"
            )
        scale = video if latent.frames > 1 else sampler.first_frame_guidance
        return (Block(-1, sampler.first_frame_steps, scale),)
    finest = min(sampler.self_quality_stages, max(len(flow.windows) - 1, 1)) if sampler.self_quality else 0
    first = () if image else (Block(0, sampler.first_frame_steps, sampler.first_frame_guidance),)
    late = sampler.self_quality_from - 1
    rest = (Block(i, sampler.steps, video, finest if i >= late else 0) for i in range(1, latent.frames))
    return (*first, *rest)


def count_passes(
    latent: Shape, flow: FlowConfig, sampler: SamplerConfig, *, image: bool = False, attended: bool = False
) -> int:
    """Forward passes of the model that one clip takes; see `plan`."""
    blocks = plan(latent, flow, sampler, image=image, attended=attended)
    return sum(block.steps * block.passes(level) for block in blocks for level in range(len(flow.windows)))


@torch.no_grad()
def sample(
    model: Velocity,
    text: Text,
    null: Text,
    latent: Shape,
    channels: int,
    flow: FlowConfig,
    sampler: SamplerConfig,
    *,
    generators: Sequence[torch.Generator],
    image: Tensor | None = None,
    batched: bool = True,
    progress: Callable[[Step], None] | None = None,
) -> Tensor:
    """Latents (B, C, T, Y, X) in float32, one clip a prompt.

    Args:
        model: see `VelocityModel`; on the device of the text.
        text: B encoded prompts.
        null: the encoded empty prompt, one or B times.
        latent: frames, rows and columns of the clip in latents.
        channels: latent channels.
        flow: the path that the model was trained on.
        sampler: steps and guidance.
        generators: one for each sample; noise is drawn on the generator's device.
        image: first latent frame (B, C, 1, Y, X) of image-to-video. The clip begins with it, unless the model only
            attends to it: such a model makes a first frame of its own.
        batched: conditional and null pass as one batch; off, one after the other with half the memory.
        progress: called after every step.

    Raises:
        ValueError: latents that the pyramid does not fit, an image that the model or clip has no place for, or numbers
            of prompts, null prompts, images and generators that disagree.
    """
    check_latent(latent, flow)
    check_batch(text, null, generators, image, (channels, 1, latent.rows, latent.cols))
    attended = attends_to_image(model)
    blocks = plan(latent, flow, sampler, image=image is not None, attended=attended)
    null = Text(*(part.expand(len(generators), *part.shape[1:]) for part in null))
    given = None if image is None else image.to(text.tokens_BLE.device, torch.float32)
    report, shown = _reporter(blocks, flow, progress), given if attended else None
    run = _Run(model, text, null, latent, channels, flow, sampler, generators, batched, report, shown)
    if not flow.temporal_pyramid:
        return run.make(blocks[0], None, given if flow.frame_replacement else None)
    made = [] if given is None else [given]
    for block in blocks:
        made.append(run.make(block, torch.cat(made, dim=2) if made else None, None))
    return torch.cat(made, dim=2)


def check_batch(
    text: Text, null: Text, generators: Sequence[torch.Generator], image: Tensor | None, frame: tuple[int, ...]
) -> None:
    """Refuse prompts, null prompts, generators and images whose numbers or shapes disagree.

    Raises:
        ValueError: naming the numbers.
    """
    prompts, nulls = len(text.mask_BL), len(null.mask_BL)
    if prompts != len(generators) or not prompts or nulls not in (1, prompts):
        raise ValueError(
            f"{prompts} prompts, {nulls} null prompts and {len(generators)} generators: one generator a prompt and "
            f"one null prompt, or as many as prompts, are needed"
        )
    if image is not None and image.shape != (prompts, *frame):
        raise ValueError(f"an image of shape {tuple(image.shape)}: {(prompts, *frame)} is needed")


def renoise(x_BCTYX: Tensor, before: Window, after: Window, gamma: float, white_BCTYX: Tensor | None) -> Tensor:
    """The start of the next finer level from the end of a level (PyramidFlow eq. 13-15 and 25).

    s / e Up(x) + (1 - s) / sqrt(1 - gamma) n' has the mean and covariance of the start: s Up(Down(x1)) and (1 - s)^2 I.

    Args:
        x_BCTYX: latents at the end of the coarser level.
        before: the coarser level's window.
        after: the finer level's window.
        gamma: correlation within the blocks of the noise.
        white_BCTYX: standard normal noise at the finer level; None leaves the noise out.
    """
    rescaled = after.start / before.end * double(x_BCTYX)
    if white_BCTYX is None:
        return rescaled
    return rescaled + (1 - after.start) / math.sqrt(1 - gamma) * block_noise(white_BCTYX, gamma)


def block_noise(white_BCTYX: Tensor, gamma: float) -> Tensor:
    """Noise of unit variance whose 2 x 2 blocks have correlation `gamma`, from white noise (PyramidFlow eq. 14).

    The block's covariance has the eigenvalue 1 + 3 gamma at its mean and 1 - gamma across it.
    """
    mean = double(halve(white_BCTYX))
    return math.sqrt(1 - gamma) * (white_BCTYX - mean) + math.sqrt(max(1 + 3 * gamma, 0.0)) * mean


def join_texts(first: Text, second: Text) -> Text:
    """Two batches of prompts as one; the shorter is padded with masked tokens."""
    length = max(first.mask_BL.shape[1], second.mask_BL.shape[1])
    padded = [_pad(text, length - text.mask_BL.shape[1]) for text in (first, second)]
    return Text(*(torch.cat(parts) for parts in zip(*padded, strict=True)))


def _pad(text: Text, tokens: int) -> Text:
    return Text(F.pad(text.tokens_BLE, (0, 0, 0, tokens)), F.pad(text.mask_BL, (0, tokens)), text.pooled_BP)


class _Given(NamedTuple):
    """The image of frame replacement at one level: clean, and where its own path starts and ends."""

    clean: Tensor
    start: Tensor
    end: Tensor

    def noisy(self, share: float) -> Tensor:
        return torch.lerp(self.start, self.end, share)


@dataclass(frozen=True)
class _Run:
    """What stays the same while a batch of clips is sampled; `shown` is the image that the model attends to."""

    model: Velocity
    text: Text
    null: Text
    latent: Shape
    channels: int
    flow: FlowConfig
    sampler: SamplerConfig
    generators: Sequence[torch.Generator]
    batched: bool
    report: Callable[[Block, int], None]
    shown: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.text.tokens_BLE.device

    @cached_property
    def both(self) -> Text:
        return join_texts(self.text, self.null)

    def noise(self, shape: Shape) -> Tensor:
        """Standard normal noise, each sample from its own generator."""
        return torch.stack(
            [torch.randn(self.channels, *shape, generator=g, device=g.device).to(self.device) for g in self.generators]
        )

    def make(self, block: Block, made: Tensor | None, image: Tensor | None) -> Tensor:
        """One block from noise at the coarsest level to data at full resolution (PyramidFlow algorithm 1)."""
        frames = self.latent.frames if block.frame < 0 else 1
        white = self.noise(self.latent._replace(frames=frames))
        windows, lead = self.flow.windows, 0 if image is None else 1
        x = halve_noise(white[:, :, lead:], len(windows) - 1)
        for level in reversed(range(len(windows))):
            if level < len(windows) - 1:
                x = self.jump(x, level)
            history = [] if made is None else pool_history(made, block.frame, level, self.flow.stages)
            given = None if image is None else self.given(image, level, white[:, :, :1])
            x = self.cross(x, block, level, history, given)
        return x if image is None else torch.cat([image, x], dim=2)

    def given(self, image: Tensor, level: int, white: Tensor) -> _Given:
        return _Given(halve(image, level), *endpoints(image, level, self.flow.windows[level], white))

    def jump(self, x: Tensor, level: int) -> Tensor:
        before, after = self.flow.windows[level + 1], self.flow.windows[level]
        white = self.noise(Shape(x.shape[2], 2 * x.shape[3], 2 * x.shape[4])) if self.sampler.corrective_noise else None
        return renoise(x, before, after, self.flow.gamma, white)

    def cross(self, x: Tensor, block: Block, level: int, history: list[Tensor], given: _Given | None) -> Tensor:
        """Euler steps through the window of a level."""
        for step in range(block.steps):
            x = x + self.velocity(x, step / block.steps, block, level, history, given) / block.steps
            self.report(block, level)
        return x

    def velocity(
        self, x: Tensor, share: float, block: Block, level: int, history: list[Tensor], given: _Given | None
    ) -> Tensor:
        """The guided velocity of the frames that are made."""
        t = self.flow.windows[level].at(share)
        seen, unseen = x, x
        if given is not None:
            seen = torch.cat([given.clean, x], dim=2)
            unseen = torch.cat([given.noisy(share), x], dim=2) if self.sampler.joint else seen
        v = self.pair([*history, seen], [*history, unseen], t, block.scale, level, x.shape[2])
        if level >= block.self_quality:
            return v
        return guidance.self_quality(
            v, self.pair([x], [x], t, block.scale, level, x.shape[2]), self.sampler.self_quality
        )

    def pair(self, cond: list[Tensor], null: list[Tensor], t: float, scale: float, level: int, frames: int) -> Tensor:
        """Guided velocity of the last `frames` frames from a conditional and a null pass."""
        kept = not self.sampler.joint
        if scale == 1:
            return self.evaluate(cond, t, self.text, level, True)[:, :, -frames:]
        if self.batched:
            joined = [torch.cat(units) for units in zip(cond, null, strict=True)]
            v_cond, v_null = self.evaluate(joined, t, self.both, level, True, kept)[:, :, -frames:].chunk(2)
        else:
            v_cond = self.evaluate(cond, t, self.text, level, True)[:, :, -frames:]
            v_null = self.evaluate(null, t, self.null, level, kept)[:, :, -frames:]
        rule = guidance.jit_cfg if self.sampler.joint else guidance.cfg
        v = rule(v_cond, v_null, scale)
        return guidance.renormalise(v, v_cond) if self.sampler.renormalise else v

    def evaluate(self, units: list[Tensor], t: float, text: Text, level: int, *given: bool) -> Tensor:
        """The velocity of one pass, or of several as one batch; `given` says of each whether it is shown the image."""
        t_B = torch.full((len(units[-1]),), t, device=self.device)
        image = {} if self.shown is None else {"image": shown_to(halve(self.shown, level), given)}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.sampler.precision == "bfloat16"):
            return self.model(units, t_B, text, stage=level, **image).float()


def shown_to(latents_BCTYX: Tensor, given: Sequence[bool]) -> Image:
    """The image of each sample, once for every pass of a batch, shown in the passes where it is given."""
    given_P = torch.tensor(given, device=latents_BCTYX.device)
    return Image(latents_BCTYX.repeat(len(given), 1, 1, 1, 1), given_P.repeat_interleave(len(latents_BCTYX)))


def _reporter(
    blocks: Sequence[Block], flow: FlowConfig, progress: Callable[[Step], None] | None
) -> Callable[[Block, int], None]:
    """Counts steps and tells `progress` about each."""
    steps = count(1)
    total = sum(block.steps for block in blocks) * len(flow.windows)

    def report(block: Block, level: int) -> None:
        if progress is not None:
            progress(Step(next(steps), total, block.frame, level, block.passes(level)))

    return report
