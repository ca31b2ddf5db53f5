"""Reward learning: a short phase after training that also pulls decoded frames towards what reward models like.

The loss is the flow loss minus `weight` times the rewards of the decoded prediction of the clean frames, on the last
latent frames of the clip. The phase is a training run like any other (`m4v.train`): it resumes, keeps its moving
average, and leaves a checkpoint that `load_system` reads.

Source: M4V supplement, D.1 (weight 0.1, last 8 latent frames, learning rate 1e-5, 10,000 steps on 64 GPUs), and the
M4V slides, "Autoregressive Reward Learning".

Axes: B batch, C latent channels, T latent frames, Y rows, X columns; pixels BTHWC with C red, green and blue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from m4v.checkpoint import LAST, Checkpoint, load_checkpoint
from m4v.config import Config
from m4v.data import Batch, CachedLatents, Source
from m4v.data.clips import VideoSource
from m4v.flow import (
    FlowConfig,
    TrainingPair,
    Window,
    double,
    flow_loss,
    halve,
    per_sample,
    training_pair,
)
from m4v.latents import LatentCodec
from m4v.parallel import Processes, processes
from m4v.recipe import Recipe
from m4v.reward_models import Reward, clip_reward, colourfulness, hpsv2_reward, named_colours, shapes_rewards
from m4v.train import Log, Progress, Run, StepRecord, interruptible, writing_in

__all__ = [
    "PAPER_REWARD",
    "REWARD_LOG",
    "TINY_REWARD",
    "Reward",
    "RewardConfig",
    "RewardRecord",
    "clip_reward",
    "colourfulness",
    "decode_last",
    "hpsv2_reward",
    "named_colours",
    "predicted_clean",
    "reward_learning",
    "shapes_rewards",
]

REWARD_LOG = "rewards.jsonl"


class RewardConfig(Config):
    """The phase: how long, how strongly, and on which frames.

    `weight` multiplies the sum of the rewards, `frames` counts latent frames from the clip's end: the temporal pyramid
    trains only these, a full sequence is rewarded only for these. `context` clean latent frames before them are decoded
    with them, because causal codecs read the past; no gradient and no reward passes through those. Everything else is
    as in the run before: optimiser, precision, moving average, clipping.
    """

    steps: int = Field(default=10_000, ge=1)
    lr: float = Field(default=1e-5, gt=0)
    weight: float = Field(default=0.1, ge=0)
    frames: int = Field(default=8, ge=1)
    context: int = Field(default=1, ge=1)
    batch: int = Field(default=64, ge=1)
    micro_batch: int = Field(default=0, ge=0)
    warmup: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    save_every: int = Field(default=500, ge=1)


PAPER_REWARD = RewardConfig(micro_batch=1)
"""As published; the batch is not: one clip for each of 64 GPUs."""
TINY_REWARD = RewardConfig(steps=200, lr=2e-4, batch=16, save_every=100)
"""For a CPU: about a tenth of the tiny presets' learning rates, the proportion published."""


class RewardRecord(NamedTuple):
    """One line of the reward log: the flow loss alone, and the mean of each reward over clips with a caption."""

    step: int
    flow: float
    rewards: dict[str, float | None]


def reward_learning(
    start: Path,
    out: Path,
    source: Source,
    rewards: Mapping[str, Reward],
    config: RewardConfig,
    *,
    progress: Progress | None = None,
    device: str = "auto",
    cache: Path | None = None,
) -> Path:
    """Tune a trained system towards rewards, or go on where an earlier run in `out` stopped.

    It starts from the averaged weights, those that are sampled and judged without the phase.

    Args:
        start: checkpoint of the training before, a file or a run's folder.
        out: another folder, for checkpoints, the loss log and the log of rewards.
        source: the clips; only whole clips are used, no single images.
        rewards: by name; each maps pixels in [-1, 1] and captions to (B,). Clips whose caption was dropped for
            guidance are not rewarded: their prediction stays what guidance leads away from.
        config: the phase.
        progress: called after each step.
        device: "cpu", "cuda" or "auto".
        cache: folder that keeps the latents of real videos, as in training.

    Returns:
        The last checkpoint. Its recipe is that of the start with the phase's schedule, and its `data` names the
        rewards, their weight, the frames and the start (by SHA-256).

    Raises:
        ValueError: no rewards; `out` is the folder of `start`, or holds another run; a pyramid whose noise is not
            coupled, which leaves the clean frame open; a reward of another shape than (B,).
        TrainingFailed, TrainingInterrupted: as `m4v.train.train`.
    """
    file = start / LAST if start.is_dir() else start
    begun = load_checkpoint(start)
    check_phase(begun.recipe, rewards, file, out)
    recipe = phase_recipe(begun.recipe, config, sorted(rewards))
    labelled = Labelled(source, labels(config, sorted(rewards), file))
    with processes(device) as where, interruptible() as interrupted, writing_in(out):
        return RewardRun(begun, recipe, labelled, out, where, rewards, config, cache).finish(interrupted, progress)


def check_phase(recipe: Recipe, rewards: Mapping[str, Reward], start: Path, out: Path) -> None:
    """Refuse a phase that cannot be; see `reward_learning`."""
    if not rewards:
        raise ValueError("reward learning needs at least one reward")
    if out.resolve() == start.parent.resolve():
        raise ValueError(f"{out} holds the checkpoint to start from: reward learning needs a folder of its own")
    if len(recipe.flow.windows) > 1 and not recipe.flow.coupled:
        raise ValueError(
            "flow.coupled is off: without common noise at both ends of a window its velocity does not say what the "
            "clean frame is, and rewards have nothing to look at"
        )


def phase_recipe(recipe: Recipe, config: RewardConfig, names: Sequence[str]) -> Recipe:
    """The recipe of the phase: the schedule is its own; single images and masked tokens are left out."""
    own = config.model_dump(include={"steps", "lr", "batch", "micro_batch", "warmup", "seed", "save_every"})
    train = recipe.train.but(**own, decay=0.0, images=(0, 1), mask_ratio=0.0)
    done = (
        f"Then {config.steps} steps of reward learning: weight {config.weight:g}, last {config.frames} latent frames, "
        f"rewards {', '.join(names)}."
    )
    return recipe.but(train=train).named(f"{recipe.name}-reward", f"{recipe.description} {done}".strip())


def labels(config: RewardConfig, names: Sequence[str], start: Path) -> dict[str, Any]:
    """What tells the phase from training on the same clips, as plain JSON."""
    with start.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    own = {f"reward.{name}": getattr(config, name) for name in ("weight", "frames", "context")}
    return own | {"reward.models": list(names), "reward.start": digest}


class Labelled:
    """A source that also says what is done with its clips, so that checkpoints do."""

    def __init__(self, source: Source, said: Mapping[str, Any]) -> None:
        self.source, self.said = source, dict(said)
        self.frames, self.height, self.width, self.fps = source.frames, source.height, source.width, source.fps

    def batch(self, step: int, size: int, *, seed: int, images: bool = False) -> Batch:
        return self.source.batch(step, size, seed=seed, images=images)

    def describe(self) -> dict[str, Any]:
        return self.source.describe() | self.said


class Seen(NamedTuple):
    """One micro-batch: flow loss, clips that were rewarded, and the sum of each reward over them."""

    flow: float
    clips: int
    sums: dict[str, float]


class RewardRun(Run):
    """A training run whose loss has rewards in it. Data, noise, times and dropped captions are drawn as in `Run`."""

    def __init__(
        self,
        begun: Checkpoint,
        recipe: Recipe,
        source: Labelled,
        out: Path,
        where: Processes,
        rewards: Mapping[str, Reward],
        config: RewardConfig,
        cache: Path | None = None,
    ) -> None:
        self.begun, self.rewards, self.phase = begun, {name: rewards[name] for name in sorted(rewards)}, config
        self.seen: list[Seen] = []
        super().__init__(recipe, source, out, where, begun.model | begun.ema)
        self.codec.requires_grad_(False)
        if cache and isinstance(source.source, VideoSource):
            self.cached = CachedLatents(source.source, self.codec, cache)
        self.reward_log = Log(out / REWARD_LOG, self.step) if where.first else None

    def _codec(self, found: Checkpoint | None) -> LatentCodec:
        """The codec of the training before: statistics are not measured again."""
        return super()._codec(found or self.begun)

    def _advance(self) -> StepRecord:
        self.seen = []
        record = super()._advance()
        noted = self._record(record.step)
        if self.reward_log:
            self.reward_log.write(noted)
        return record

    def _record(self, step: int) -> RewardRecord:
        """Means over all processes."""
        flow = sum(seen.flow for seen in self.seen) / len(self.seen)
        clips = float(sum(seen.clips for seen in self.seen))
        sums = [sum(seen.sums[name] for seen in self.seen) for name in self.rewards]
        flow, clips, *sums = self.where.mean(flow, clips, *sums)
        return RewardRecord(
            step, flow, {n: s / clips if clips else None for n, s in zip(self.rewards, sums, strict=True)}
        )

    def _loss(self, number: int) -> Tensor:
        """Flow loss minus weighted rewards of one micro-batch."""
        config, device, flow = self.config, self.where.device, self.recipe.flow
        latents_BCTYX, captions, generator = self._draw(number, images=False)
        sees_image = self.recipe.model.attends_to_image
        pair = late_pair(latents_BCTYX, flow, self.phase.frames, generator, image=sees_image)
        options = {} if pair.image is None else {"image": pair.image}
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            velocity_BCTYX = self.module(pair.units, pair.t_B, captions, stage=pair.stage, **options)
        plain = flow_loss(velocity_BCTYX, pair)
        clean_BCTYX = clean_frames(velocity_BCTYX.float(), pair, flow)
        return plain - self.phase.weight * self._reward(clean_BCTYX, latents_BCTYX, pair, captions, plain.item())

    def _reward(
        self, clean_BCTYX: Tensor, latents_BCTYX: Tensor, pair: TrainingPair, captions: Sequence[str], plain: float
    ) -> Tensor:
        """Sum of all rewards, each averaged over the clips that have a caption; 0 if none has."""
        kept = [i for i, caption in enumerate(captions) if caption]
        total, sums = clean_BCTYX.new_zeros(()), dict.fromkeys(self.rewards, 0.0)
        if kept:
            pixels_BTHWC = self._pixels(clean_BCTYX[kept], latents_BCTYX[kept], pair)
            for name, reward in self.rewards.items():
                value_B = checked(name, reward(pixels_BTHWC, [captions[i] for i in kept]), len(kept))
                total, sums[name] = total + value_B.mean(), value_B.sum().item()
        self.seen.append(Seen(plain, len(kept), sums))
        return total

    def _pixels(self, clean_BCTYX: Tensor, latents_BCTYX: Tensor, pair: TrainingPair) -> Tensor:
        """The predicted frames that count, decoded at the resolution of their level, in [-1, 1]."""
        count, context = self.phase.frames, self.phase.context
        if self.recipe.flow.temporal_pyramid:
            frame, count = len(pair.units) - 1, 1
            past = halve(latents_BCTYX[:, :, max(0, frame - context) : frame], pair.stage) if frame else None
            clean_BCTYX = clean_BCTYX if past is None else torch.cat([past, clean_BCTYX], dim=2)
        return decode_last(self.codec, clean_BCTYX, count, context).clamp(-1, 1)


def checked(name: str, value_B: Tensor, clips: int) -> Tensor:
    """The reward's values, if they are what they must be.

    Raises:
        ValueError: another shape than (clips,).
    """
    if value_B.shape != (clips,):
        raise ValueError(
            f"reward {name}: values of shape {tuple(value_B.shape)} for {clips} clips; one a clip is needed"
        )
    return value_B.float()


def late_pair(
    latents_BCTYX: Tensor, flow: FlowConfig, frames: int, generator: torch.Generator, *, image: bool = False
) -> TrainingPair:
    """A training pair, whose frame in the temporal pyramid is one of the last `frames`; `image` as there.

    Drawn again until it is: that is a draw from the path's own distribution given the frame.
    """
    while True:
        pair = training_pair(latents_BCTYX, flow, generator, image=image)
        if not flow.temporal_pyramid or len(pair.units) > latents_BCTYX.shape[2] - frames:
            return pair


def clean_frames(velocity_BCTYX: Tensor, pair: TrainingPair, flow: FlowConfig) -> Tensor:
    """The prediction of a training pair's clean frames; frames that were given stay as they were given."""
    noisy_BCTYX = pair.units[-1].float()
    clean_BCTYX = predicted_clean(noisy_BCTYX, velocity_BCTYX, pair.t_B, flow.windows[pair.stage])
    return clean_BCTYX if pair.mask_BCTYX is None else torch.where(pair.mask_BCTYX > 0, clean_BCTYX, noisy_BCTYX)


def predicted_clean(noisy_BCTYX: Tensor, velocity_BCTYX: Tensor, t_B: Tensor, window: Window) -> Tensor:
    """The clean latents x, at the window's resolution, that a velocity stands for.

    With u the share of the window that has passed, the window's ends are S = x_t - u v and E = x_t + (1 - u) v. At full
    resolution E is x; with a window of [0, 1] this is x = x_t + (1 - t) v. Elsewhere S = s M x + (1 - s) n and
    E = e x + (1 - e) n with common noise n and M the mean over 2 x 2 blocks (PyramidFlow eq. 9-10). Without n,
    K = E - r S = e x - r s M x with r = (1 - e) / (1 - s); as M M = M, M K = (e - r s) M x, and
    e - r s = (e - s) / (1 - s), so that x = K / e + M K ((1 - s) / (e - s) - 1 / e).

    Args:
        noisy_BCTYX: x_t.
        velocity_BCTYX: v, predicted.
        t_B: global time of each sample, within the window.
        window: its data times s and e.
    """
    s, e = window
    share = per_sample((t_B - s) / (e - s), noisy_BCTYX)
    end = noisy_BCTYX + (1 - share) * velocity_BCTYX
    if e == 1:
        return end
    known = end - (1 - e) / (1 - s) * (noisy_BCTYX - share * velocity_BCTYX)
    if s == 0:  # the coarsest level starts from pure noise and need not divide once more
        return known / e
    return known / e + double(halve(known)) * ((1 - s) / (e - s) - 1 / e)


def decode_last(codec: LatentCodec, latents_BCTYX: Tensor, frames: int, context: int) -> Tensor:
    """Pixels of the last `frames` latent frames, about [-1, 1], decoded after `context` frames that get no gradient.

    Returns:
        (B, T, H, W, 3), all frames if there are no more.
    """
    before = max(0, latents_BCTYX.shape[2] - frames)
    past, last = latents_BCTYX[:, :, max(0, before - context) : before].detach(), latents_BCTYX[:, :, before:]
    pixels_BTHWC = codec.synthesise(torch.cat([past, last], dim=2))
    return pixels_BTHWC[:, -codec.shape.temporal * last.shape[2] :]
