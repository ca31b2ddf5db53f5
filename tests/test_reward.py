"""Reward learning against algebra done by hand, plain training, PIL, transformers and open_clip themselves.

Training is bit for bit reproducible on a CPU, so losses are compared without tolerance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

from m4v.checkpoint import load_checkpoint, load_system
from m4v.data import Batch
from m4v.data.shapes import PALETTE, ShapesWorld
from m4v.flow import FlowConfig, Window, halve, training_pair
from m4v.latents import BlockTransform, LatentCodec
from m4v.layout import Codec
from m4v.presets import recipe
from m4v.recipe import Recipe
from m4v.reward import (
    PAPER_REWARD,
    REWARD_LOG,
    Reward,
    RewardConfig,
    clean_frames,
    clip_reward,
    colourfulness,
    decode_last,
    hpsv2_reward,
    late_pair,
    named_colours,
    phase_recipe,
    predicted_clean,
    reward_learning,
    shapes_rewards,
)
from m4v.reward_models import CLIP_MEAN, CLIP_STD, ClipReward, View, spread
from m4v.train import LOG, TrainingFailed, fit_codec, train

WORLD = ShapesWorld("easy")
SMALL = {
    "model.width": 64,
    "model.heads": 2,
    "model.layers": 2,
    "model.dual_slots": 1,
    "model.dual_blocks": 1,
    "train.steps": 3,
    "train.batch": 4,
    "train.ema": 0.5,
    "train.precision": "float32",
    "flow.time_mean": 0.0,
}
SHORT = RewardConfig(steps=4, batch=4, lr=1e-3, save_every=2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=["m4v", "pyramidflow"])
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to start from: all frames at once, or both pyramids."""
    return train(recipe("tiny", request.param).changed(SMALL), WORLD, tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def full_sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe("tiny", "m4v").changed(SMALL), WORLD, tmp_path_factory.mktemp("full"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def losses(run: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in lines(run / LOG)]


# --- The clean frame that a velocity stands for ---------------------------------------------------------------------


def block_means(x: np.ndarray) -> np.ndarray:
    means = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return means.repeat(2, axis=-1).repeat(2, axis=-2)


@settings(deadline=None)
@given(s=st.floats(0, 0.6), width=st.floats(0.1, 0.4), share=st.floats(0, 1), seed=st.integers(0, 2**16))
def test_the_true_velocity_of_a_window_gives_back_the_clean_frame(
    s: float, width: float, share: float, seed: int
) -> None:
    """Ends written out in numpy (float64, atol 1e-9 for values of order 1 and factors up to 10)."""
    e = min(1.0, s + width)
    draw = np.random.default_rng(seed)
    x, n = draw.standard_normal((2, 2, 3, 1, 4, 6))
    first, last = s * block_means(x) + (1 - s) * n, e * x + (1 - e) * n
    noisy, velocity = (torch.from_numpy(v) for v in ((1 - share) * first + share * last, last - first))
    t_B = torch.full((2,), s + share * (e - s), dtype=torch.float64)
    found = predicted_clean(noisy, velocity, t_B, Window(s, e))
    np.testing.assert_allclose(found.numpy(), x, atol=1e-9, rtol=0)


def test_plain_flow_is_one_step_to_the_end() -> None:
    """x + (1 - t) v, each clip at its own time (float32, exact up to 1e-6)."""
    noisy, velocity = torch.randn(2, 4, 3, 2, 4, 4, generator=seeded(0))
    t_B = torch.tensor([0.0, 0.25, 0.5, 1.0])
    found = predicted_clean(noisy, velocity, t_B, Window(0, 1))
    for b, t in enumerate(t_B.tolist()):
        torch.testing.assert_close(found[b], noisy[b] + (1 - t) * velocity[b], atol=1e-6, rtol=0)


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_targets_of_training_pairs_stand_for_the_halved_frames(seed: int, temporal: bool) -> None:
    """Every level, drawn as in training; float32, errors grow by at most 1 / (e - s) (atol 2e-5)."""
    flow = FlowConfig(temporal_pyramid=temporal)
    latents = torch.randn(2, 3, 4, 8, 8, generator=seeded(seed))
    pair = training_pair(latents, flow, seeded(seed))
    frames = latents[:, :, [len(pair.units) - 1]] if temporal else latents
    torch.testing.assert_close(
        clean_frames(pair.target_BCTYX, pair, flow), halve(frames, pair.stage), atol=2e-5, rtol=0
    )


def test_all_levels_were_among_them() -> None:
    latents = torch.zeros(1, 1, 1, 8, 8)
    assert {training_pair(latents, FlowConfig(), seeded(seed)).stage for seed in range(6)} == {0, 1, 2}


def test_given_frames_stay_as_given() -> None:
    """STIV's first frame is clean already: whatever is predicted there has no say."""
    flow = FlowConfig(spatial_pyramid=False, temporal_pyramid=False, frame_replacement=True, image_dropout=0.0)
    latents = torch.randn(2, 3, 3, 4, 4, generator=seeded(0))
    pair = training_pair(latents, flow, seeded(1))
    velocity = torch.full_like(pair.target_BCTYX, 7.0).requires_grad_()
    clean = clean_frames(velocity, pair, flow)
    torch.testing.assert_close(clean[:, :, 0], latents[:, :, 0], atol=0, rtol=0)
    clean.sum().backward()
    assert velocity.grad is not None
    assert not velocity.grad[:, :, 0].any()
    assert velocity.grad[:, :, 1:].all()


# --- Which frames count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("frames", "context"), [(1, 1), (2, 1), (2, 2), (5, 1), (9, 1)])
def test_the_last_frames_decode_as_in_the_whole_clip(frames: int, context: int, causal: bool) -> None:
    """The block transform remembers nothing but whether a frame is the first (float32, atol 1e-6)."""
    codec = BlockTransform(Codec(temporal=4, spatial=4, channels=8, causal=causal))
    codec.first_scale_C.uniform_(1, 3, generator=seeded(0))
    latents = torch.randn(2, 8, 5, 2, 2, generator=seeded(1)).requires_grad_()
    found = decode_last(codec, latents, frames, context)
    whole = codec.synthesise(latents)
    assert found.shape[1] == min(frames * 4, whole.shape[1])
    torch.testing.assert_close(found, whole[:, -found.shape[1] :], atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(found.square().sum(), latents)
    moved = gradient.abs().amax((0, 1, 3, 4)) > 0
    assert moved.tolist() == [5 - i <= frames for i in range(5)]


class Remembering(LatentCodec):
    """One pixel a latent: the sum of all latents up to its frame."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = Codec(temporal=1, spatial=1, channels=3, causal=True)

    def analyse(self, pixels_BTHWC: Tensor) -> Tensor:
        return pixels_BTHWC.diff(dim=1, prepend=torch.zeros_like(pixels_BTHWC[:, :1])).movedim(-1, 1)

    def synthesise(self, latents_BCTYX: Tensor) -> Tensor:
        return latents_BCTYX.cumsum(2).movedim(1, -1)


def test_the_past_is_read_and_gets_no_gradient() -> None:
    """Frames 1, 2, 4, 8, 16, the last two after one frame: 4 + 8 and 4 + 8 + 16; frame 3 is in both, frame 4 in one."""
    latents = (2.0 ** torch.arange(5)).view(1, 1, 5, 1, 1).repeat(1, 3, 1, 1, 1).requires_grad_()
    pixels = decode_last(Remembering(), latents, frames=2, context=1)
    assert pixels[0, :, 0, 0, 0].tolist() == [12, 28]
    (gradient,) = torch.autograd.grad(pixels.sum(), latents)
    assert gradient[0, 0, :, 0, 0].tolist() == [0, 0, 0, 2, 1]


def test_the_temporal_pyramid_trains_the_last_frames_only() -> None:
    latents, flow = torch.randn(1, 2, 6, 4, 4), FlowConfig(stages=2)
    drawn = {len(late_pair(latents, flow, 2, seeded(seed)).units) - 1 for seed in range(40)}
    assert drawn == {4, 5}


@pytest.mark.parametrize("temporal", [False, True])
def test_a_clip_that_is_short_enough_is_drawn_as_in_training(temporal: bool) -> None:
    latents, flow = torch.randn(2, 2, 3, 4, 4), FlowConfig(stages=2, temporal_pyramid=temporal)
    found, plain = late_pair(latents, flow, 3, seeded(5)), training_pair(latents, flow, seeded(5))
    assert found.stage == plain.stage
    assert torch.equal(found.t_B, plain.t_B)
    assert all(torch.equal(a, b) for a, b in zip(found.units, plain.units, strict=True))


@pytest.mark.parametrize(("frames", "seen"), [(1, 8), (2, 16), (8, 17)])
def test_rewards_see_the_last_frames_of_captioned_clips(
    full_sequence: Path, tmp_path: Path, frames: int, seen: int
) -> None:
    """17 frames are three latent ones, of one, eight and eight frames."""
    calls: list[tuple[tuple[int, ...], list[str]]] = []

    def spy(pixels_BTHWC: Tensor, captions: Sequence[str]) -> Tensor:
        assert pixels_BTHWC.abs().max() <= 1
        calls.append((tuple(pixels_BTHWC.shape), list(captions)))
        return pixels_BTHWC.mean((1, 2, 3, 4))

    reward_learning(full_sequence, tmp_path, WORLD, {"spy": spy}, SHORT.but(frames=frames, batch=8))
    assert len(calls) == 4
    for step, (shape, captions) in enumerate(calls):
        assert shape == (len(captions), seen, 32, 32, 3)
        assert set(captions) <= set(WORLD.batch(step, 8, seed=0).captions)
    assert any(len(captions) < 8 for _, captions in calls)  # some captions are dropped for guidance


def test_a_frame_of_the_pyramid_is_seen_alone_at_its_level(tmp_path: Path) -> None:
    begun = train(recipe("tiny", "pyramidflow").changed(SMALL), WORLD, tmp_path / "a")
    shapes: list[tuple[int, ...]] = []

    def spy(pixels_BTHWC: Tensor, captions: Sequence[str]) -> Tensor:
        shapes.append(tuple(pixels_BTHWC.shape[1:3]))
        return pixels_BTHWC.mean((1, 2, 3, 4))

    reward_learning(begun, tmp_path / "b", WORLD, {"spy": spy}, SHORT.but(steps=8, frames=1))
    assert set(shapes) == {(8, 16), (8, 32)}


# --- The phase ------------------------------------------------------------------------------------------------------


def test_weight_zero_is_plain_training(start: Path, tmp_path: Path) -> None:
    config = SHORT.but(weight=0.0)
    reward_learning(start, tmp_path / "reward", WORLD, shapes_rewards(), config)
    begun = load_checkpoint(start)
    plain = phase_recipe(begun.recipe, config, [])
    train(plain, WORLD, tmp_path / "plain", init=begun.model | begun.ema)
    assert losses(tmp_path / "reward") == losses(tmp_path / "plain")
    assert [line["flow"] for line in lines(tmp_path / "reward" / REWARD_LOG)] == [
        loss for loss, _ in losses(tmp_path / "plain")
    ]


def test_the_loss_is_flow_minus_weighted_rewards(start: Path, tmp_path: Path) -> None:
    """Of every logged step (float32 sums, atol 1e-5)."""
    reward_learning(start, tmp_path, WORLD, shapes_rewards(), SHORT.but(weight=0.5))
    for line, (loss, _) in zip(lines(tmp_path / REWARD_LOG), losses(tmp_path), strict=True):
        assert set(line["rewards"]) == {"aesthetic", "text"}
        assert loss == pytest.approx(line["flow"] - 0.5 * sum(line["rewards"].values()), abs=1e-5)


def test_micro_batches_are_parts_of_the_batch(full_sequence: Path, tmp_path: Path) -> None:
    """A step of three parts logs the mean over all rewarded clips (float32, rel 1e-5)."""
    seen: list[float] = []

    def spy(pixels_BTHWC: Tensor, captions: Sequence[str]) -> Tensor:
        value_B = pixels_BTHWC.mean((1, 2, 3, 4))
        seen.extend(value_B.tolist())
        return value_B

    reward_learning(full_sequence, tmp_path, WORLD, {"spy": spy}, SHORT.but(steps=1, micro_batch=2, batch=6))
    (line,) = lines(tmp_path / REWARD_LOG)
    assert 4 <= len(seen) <= 6
    assert line["rewards"]["spy"] == pytest.approx(np.mean(seen), rel=1e-5)


def test_clips_without_caption_are_not_rewarded(full_sequence: Path, tmp_path: Path) -> None:
    begun = load_checkpoint(full_sequence)
    dropped = begun.recipe.changed({"flow.text_dropout": 1.0})
    path = train(dropped, WORLD, tmp_path / "a")
    reward_learning(path, tmp_path / "b", WORLD, shapes_rewards(), SHORT)
    for line, (loss, _) in zip(lines(tmp_path / "b" / REWARD_LOG), losses(tmp_path / "b"), strict=True):
        assert line["rewards"] == {"aesthetic": None, "text": None}
        assert loss == line["flow"]


class FixedBatch(ShapesWorld):
    """The same clips at every step."""

    def batch(self, step: int, size: int, *, seed: int, images: bool = False) -> Batch:
        return super().batch(0, size, seed=0, images=images)


def mean_reward(path: Path, reward: Reward, draws: int = 8) -> float:
    """Of one batch at eight fixed draws of noise and time, with the weights that training left."""
    recipe_, system, codec = load_system(path, ema=False)
    batch = FixedBatch("easy").batch(0, 4, seed=0)
    values = []
    for seed in range(draws):
        pair = training_pair(codec.encode(batch.video_BTHWC), recipe_.flow, seeded(seed))
        with torch.no_grad():
            velocity = system(pair.units, pair.t_B, batch.captions, stage=pair.stage)
        pixels = decode_last(codec, clean_frames(velocity, pair, recipe_.flow), 8, 1).clamp(-1, 1)
        values.append(reward(pixels, batch.captions).mean().item())
    return float(np.mean(values))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows its one batch: what more it learns of it hardly moves the rewards."""
    longer = recipe("tiny", "m4v").changed({**SMALL, "train.steps": 100})
    return train(longer, FixedBatch("easy"), tmp_path_factory.mktemp("fitted"))


@pytest.mark.parametrize("name", ["aesthetic", "text"])
def test_thirty_steps_raise_a_reward(fitted: Path, tmp_path: Path, name: str) -> None:
    """By a quarter of what it was (aesthetic), or of what is missing to 1 (text); without rewards it does not."""
    reward = shapes_rewards()[name]
    config = RewardConfig(steps=30, batch=4, lr=3e-3, weight=3.0)
    source = FixedBatch("easy")
    with_it = reward_learning(fitted, tmp_path / "with", source, {name: reward}, config)
    before, after = mean_reward(fitted, reward), mean_reward(with_it, reward)
    room = before if name == "aesthetic" else 1 - before
    assert after - before > room / 4
    without = reward_learning(fitted, tmp_path / "without", source, {name: reward}, config.but(weight=0.0))
    assert mean_reward(without, reward) - before < (after - before) / 2


def test_a_killed_phase_goes_on_as_if_nothing_had_happened(start: Path, tmp_path: Path) -> None:
    def killed(record: Any, steps: int) -> None:
        if record.step == 2:
            raise RuntimeError("killed")

    whole = reward_learning(start, tmp_path / "whole", WORLD, shapes_rewards(), SHORT)
    with pytest.raises(RuntimeError, match="killed"):
        reward_learning(start, tmp_path / "cut", WORLD, shapes_rewards(), SHORT, progress=killed)
    assert [line["step"] for line in lines(tmp_path / "cut" / REWARD_LOG)] == [0, 1, 2]  # a checkpoint is after step 1
    cut = reward_learning(start, tmp_path / "cut", WORLD, shapes_rewards(), SHORT)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert lines(tmp_path / "cut" / REWARD_LOG) == lines(tmp_path / "whole" / REWARD_LOG)
    for a, b in zip(load_checkpoint(cut).model.values(), load_checkpoint(whole).model.values(), strict=True):
        assert torch.equal(a, b)


def test_the_checkpoint_says_what_was_done(start: Path, tmp_path: Path) -> None:
    before, after = (
        load_checkpoint(path)
        for path in (start, reward_learning(start, tmp_path, WORLD, shapes_rewards(), SHORT.but(weight=0.2, frames=2)))
    )
    assert after.step == 4
    assert after.recipe.train.lr == SHORT.lr
    assert "weight 0.2, last 2 latent frames, rewards aesthetic, text" in after.recipe.description
    assert {path.split(".")[0] for path in before.recipe.different(after.recipe)} == {"train"}
    own = {"reward.weight": 0.2, "reward.frames": 2, "reward.context": 1, "reward.models": ["aesthetic", "text"]}
    assert {name: after.data[name] for name in own} == own
    assert {name: after.data[name] for name in before.data} == before.data
    assert all(torch.equal(before.codec[name], after.codec[name]) for name in before.codec)


class Dimmed(ShapesWorld):
    """Clips of half the brightness."""

    def batch(self, step: int, size: int, *, seed: int, images: bool = False) -> Batch:
        video_BTHWC, captions = super().batch(step, size, seed=seed, images=images)
        return Batch(video_BTHWC // 2, captions)


def test_other_clips_do_not_change_the_codec(full_sequence: Path, tmp_path: Path) -> None:
    """Latents must go on meaning what the model learned."""
    after = load_checkpoint(reward_learning(full_sequence, tmp_path, Dimmed("easy"), shapes_rewards(), SHORT))
    before = load_checkpoint(full_sequence)
    fitted = fit_codec(before.recipe, Dimmed("easy")).state_dict()
    assert any(not torch.equal(before.codec[name], value) for name, value in fitted.items())
    assert all(torch.equal(before.codec[name], after.codec[name]) for name in before.codec)


def test_the_first_step_starts_from_the_averaged_weights(full_sequence: Path, tmp_path: Path) -> None:
    """At a learning rate of nearly nothing the weights stay the average's (a step of Adam is about the rate)."""
    begun = load_checkpoint(full_sequence)
    assert any(not torch.equal(begun.ema[name], begun.model[name]) for name in begun.ema)
    after = load_checkpoint(
        reward_learning(full_sequence, tmp_path, WORLD, shapes_rewards(), SHORT.but(lr=1e-12, steps=1))
    )
    for name, value in begun.ema.items():
        torch.testing.assert_close(after.model[name], value, atol=1e-9, rtol=1e-6)


def test_published_schedule() -> None:
    """M4V supplement, D.1."""
    config = PAPER_REWARD
    assert (config.weight, config.frames, config.lr, config.steps, config.batch) == (0.1, 8, 1e-5, 10_000, 64)


# --- What is refused ------------------------------------------------------------------------------------------------


def test_a_folder_of_another_phase_is_refused(full_sequence: Path, tmp_path: Path) -> None:
    reward_learning(full_sequence, tmp_path, WORLD, shapes_rewards(), SHORT)
    with pytest.raises(ValueError, match=r"reward\.weight is 0\.1 there and 0\.3 here"):
        reward_learning(full_sequence, tmp_path, WORLD, shapes_rewards(), SHORT.but(weight=0.3))
    with pytest.raises(ValueError, match=r"reward\.models"):
        reward_learning(full_sequence, tmp_path, WORLD, {"text": named_colours}, SHORT)


def test_the_folder_of_the_start_is_refused(full_sequence: Path) -> None:
    for given_start in (full_sequence, full_sequence.parent):
        with pytest.raises(ValueError, match="a folder of its own"):
            reward_learning(given_start, full_sequence.parent, WORLD, shapes_rewards(), SHORT)


def test_a_phase_without_rewards_is_refused(full_sequence: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one reward"):
        reward_learning(full_sequence, tmp_path, WORLD, {}, SHORT)


def test_independent_noise_leaves_the_clean_frame_open(tmp_path: Path) -> None:
    begun = train(recipe("tiny", "pyramidflow").changed(SMALL | {"flow.coupled": False}), WORLD, tmp_path / "a")
    with pytest.raises(ValueError, match=r"flow\.coupled"):
        reward_learning(begun, tmp_path / "b", WORLD, shapes_rewards(), SHORT)


@pytest.mark.parametrize("shape", [(), (4, 2), (1,)])
def test_a_reward_of_another_shape_is_refused(full_sequence: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    def odd(pixels_BTHWC: Tensor, captions: Sequence[str]) -> Tensor:
        return pixels_BTHWC.mean().expand(shape)

    with pytest.raises(ValueError, match="reward odd: values of shape"):
        reward_learning(full_sequence, tmp_path, WORLD, {"odd": odd}, SHORT)


def test_a_reward_that_is_not_a_number_stops_the_phase(full_sequence: Path, tmp_path: Path) -> None:
    def broken(pixels_BTHWC: Tensor, captions: Sequence[str]) -> Tensor:
        return pixels_BTHWC.mean((1, 2, 3, 4)) * math.nan

    with pytest.raises(TrainingFailed, match="at step 0"):
        reward_learning(full_sequence, tmp_path, WORLD, {"broken": broken}, SHORT)


# --- Rewards of the world of shapes ---------------------------------------------------------------------------------


def clip_of(*rgb: tuple[float, float, float]) -> Tensor:
    """One clip of two frames of 4 x 4 pixels; the colours, in [0, 1], side by side."""
    columns = [torch.tensor(colour).expand(2, 4, 4 // len(rgb), 3) for colour in rgb]
    return torch.cat(columns, dim=2)[None] * 2 - 1


def test_colourfulness_by_hand() -> None:
    """Grey: 0. Red beside green: opponents (1, 1/2) and (-1, 1/2), sigma 1, mu 1/2. Black beside white: contrast 1/2.

    The root's rounding at 0 adds up to 1e-3 a term.
    """
    for clip, value in [
        (clip_of((0.5, 0.5, 0.5)), 0.0),
        (clip_of((1, 0, 0), (0, 1, 0)), 1 + 0.3 * 0.5),
        (clip_of((0, 0, 0), (1, 1, 1)), 0.5),
        (clip_of((0, 0, 1)), 0.3),
    ]:
        assert colourfulness(clip, [""]).item() == pytest.approx(value, abs=3e-3)


@pytest.mark.parametrize("name", PALETTE)
def test_the_named_colour_is_rewarded_and_no_other(name: str) -> None:
    """A clip of one colour on grey: at least 0.95 if named, and all names together make 1 (atol 1e-4)."""
    colour = tuple(value / 255 for value in PALETTE[name])
    clip = clip_of((0.1, 0.1, 0.1), colour)  # type: ignore[arg-type]
    values = {other: named_colours(clip, [f"A {other} square."]).item() for other in PALETTE}
    assert values[name] > 0.95
    assert sum(values.values()) == pytest.approx(1, abs=1e-4)
    assert named_colours(clip, ["a square moves left"]).item() == 0
    assert named_colours(clip, [" and ".join(PALETTE)]).item() == pytest.approx(1, abs=1e-4)


def test_true_captions_are_rewarded_more_than_those_of_other_clips() -> None:
    batch = ShapesWorld().batch(0, 32, seed=3)
    pixels = batch.video_BTHWC.float() / 127.5 - 1
    other = [*batch.captions[1:], batch.captions[0]]
    assert named_colours(pixels, batch.captions).mean() > 0.85
    assert named_colours(pixels, batch.captions).mean() > named_colours(pixels, other).mean() + 0.3


@pytest.mark.parametrize("name", ["aesthetic", "text"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_clips_are_rewarded_one_by_one_and_gradients_are_right(name: str, seed: int) -> None:
    """Values do not depend on the batch (float64, rtol 1e-9); gradients against differences (gradcheck)."""
    reward, captions = shapes_rewards()[name], ["a red circle", "two blue squares", "stays"]
    clips = torch.rand(3, 2, 4, 4, 3, generator=seeded(seed), dtype=torch.float64) * 2 - 1
    alone = torch.cat([reward(clip[None], [caption]) for clip, caption in zip(clips, captions, strict=True)])
    torch.testing.assert_close(reward(clips, captions), alone, rtol=1e-9, atol=0)
    assert torch.autograd.gradcheck(lambda x: reward(x, captions[:1]), clips[:1, :1].clone().requires_grad_())


@pytest.mark.parametrize("reward", [colourfulness, named_colours])
def test_flat_grey_has_a_finite_gradient(reward: Reward) -> None:
    clip = clip_of((0.5, 0.5, 0.5)).requires_grad_()
    (gradient,) = torch.autograd.grad(reward(clip, ["a red square"]).sum(), clip)
    assert gradient.isfinite().all()


# --- Rewards with networks ------------------------------------------------------------------------------------------

SIDE = 32
VOCABULARY = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<s>": 3, "a": 4, "red": 5, "square": 6, "moves": 7, "blue": 8}


def save_clip(folder: Path) -> transformers.CLIPModel:
    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 9, "max_position_embeddings": 6, "bos_token_id": 3, "eos_token_id": 1, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config=layers | text, vision_config=layers | {"image_size": SIDE, "patch_size": 8}, projection_dim=12
    )
    network = transformers.CLIPModel(config).eval()
    network.save_pretrained(folder)
    raw = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 3), ("</s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=6
    )
    tokenizer.save_pretrained(folder)
    return network


def pixels_of(frames: int, height: int, width: int) -> Tensor:
    """Two smooth clips, bytes as values in [-1, 1]."""
    coarse = torch.rand(2 * frames, 3, 4, 4, generator=seeded(0))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear").mul(255).round() / 127.5 - 1
    return smooth.movedim(1, -1).unflatten(0, (2, frames))


def test_clip_reward_is_the_cosine_of_transformers(tmp_path: Path) -> None:
    """Frames that need no resizing; padding of captions makes no difference (atol 1e-5)."""
    network = save_clip(tmp_path)
    pixels, captions = pixels_of(3, SIDE, SIDE), ["a red square", "blue square moves a lot too far"]
    found = clip_reward(tmp_path, looks=3)(pixels, captions)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    for b, ids in enumerate([[3, 4, 5, 6, 1], [3, 8, 6, 7, 4, 1]]):
        images = ((pixels[b].movedim(-1, 1) + 1) / 2 - mean) / std
        with torch.no_grad():
            out = network(input_ids=torch.tensor([ids]), pixel_values=images)
        expected = (out.image_embeds @ out.text_embeds.T).mean()
        torch.testing.assert_close(found[b], expected, atol=1e-5, rtol=0)


def test_gradients_reach_the_pixels_and_not_the_network(tmp_path: Path) -> None:
    save_clip(tmp_path)
    reward = clip_reward(tmp_path, looks=2)
    pixels = pixels_of(4, 40, 48).requires_grad_()
    reward.train()(pixels, ["a red square", "a blue square"]).sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad.abs().amax((0, 2, 3, 4)) > 0).tolist() == [False, True, False, True]
    assert all(p.grad is None and not p.requires_grad for p in reward.parameters())
    assert not any(module.training for module in reward.network.modules())


def test_a_network_rewards_the_velocity_and_stays_as_it_is(full_sequence: Path, tmp_path: Path) -> None:
    """A step's gradient differs with the reward, and neither codec nor reward model learns."""
    save_clip(tmp_path / "clip")
    reward = clip_reward(tmp_path / "clip", looks=2)
    kept = {name: value.clone() for name, value in reward.state_dict().items()}
    config = SHORT.but(steps=1, weight=10.0)
    path = reward_learning(full_sequence, tmp_path / "with", WORLD, {"clip": reward}, config)
    plain = reward_learning(full_sequence, tmp_path / "plain", WORLD, {"clip": reward}, config.but(weight=0.0))
    assert losses(path.parent)[0][1] != losses(plain.parent)[0][1]
    assert all(torch.equal(kept[name], value) for name, value in reward.state_dict().items())
    assert all(p.grad is None for p in reward.parameters())
    before, after = load_checkpoint(full_sequence), load_checkpoint(path)
    assert all(torch.equal(before.codec[name], after.codec[name]) for name in before.codec)
    moved = [name for name in before.ema if not torch.equal(after.model[name], before.ema[name])]
    assert any(name.startswith("velocity.") for name in moved)


def test_means_and_deviations_stated_in_the_folder_are_used(tmp_path: Path) -> None:
    save_clip(tmp_path)
    stated = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 1.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated), encoding="utf-8")
    assert clip_reward(tmp_path).view == View(SIDE, "crop", [0.5, 0.5, 0.5], [0.25, 0.5, 1.0])


@pytest.mark.parametrize(("height", "width"), [(48, 64), (90, 50), (20, 24)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_views_are_those_of_pil(height: int, width: int, fit: Any) -> None:
    """Bicubic resizing by PIL rounds to bytes: within 1.5 bytes everywhere, the black border exact."""
    clip = pixels_of(1, height, width)[:1, 0]
    found = View(SIDE, fit, (0, 0, 0), (1, 1, 1)).of(clip)[0].movedim(0, -1)
    scale = SIDE / (min if fit == "crop" else max)(height, width)
    rows, cols = round(height * scale), round(width * scale)
    image = Image.fromarray(((clip[0] + 1) * 127.5).round().byte().numpy())
    resized = np.asarray(image.resize((cols, rows), Image.Resampling.BICUBIC)) / 255
    top, left = (rows - SIDE) // 2, (cols - SIDE) // 2
    if fit == "crop":
        top, left = math.ceil((rows - SIDE) / 2), math.ceil((cols - SIDE) / 2)
        expected = resized[top : top + SIDE, left : left + SIDE]
    else:
        expected = np.zeros((SIDE, SIDE, 3))
        y, x = (SIDE - rows) // 2, (SIDE - cols) // 2
        expected[y : y + rows, x : x + cols] = resized
    np.testing.assert_allclose(found.numpy(), expected, atol=1.5 / 255)
    assert (found.numpy()[expected.sum(-1) == 0] == 0).all()


@settings(deadline=None)
@given(frames=st.integers(1, 200), looks=st.integers(1, 40))
def test_looks_are_spread_evenly(frames: int, looks: int) -> None:
    chosen = spread(frames, looks)
    assert len(chosen) == len(set(chosen)) == min(frames, looks)
    assert all(0 <= i < frames for i in chosen)
    gaps = np.diff([-1 - chosen[0], *chosen]) if len(chosen) < 2 else np.diff(chosen)
    assert len(chosen) < 2 or gaps.max() - gaps.min() <= 1
    assert abs(chosen[0] - (frames - 1 - chosen[-1])) <= 1


TOWER = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture
def tower(tmp_path: Path) -> str:
    """A small architecture that open_clip knows by name."""
    (tmp_path / "tiny-reward-tower.json").write_text(json.dumps(TOWER), encoding="utf-8")
    open_clip.add_model_config(tmp_path / "tiny-reward-tower.json")
    return "tiny-reward-tower"


def test_hpsv2_reward_is_the_cosine_of_open_clip(tower: str, tmp_path: Path) -> None:
    """A checkpoint as the authors save theirs; frames wider than high are padded with black (atol 1e-5)."""
    torch.manual_seed(1)
    network = open_clip.create_model(tower, pretrained=None).eval()
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, tmp_path / "HPS_v2.1_tiny.pt")
    pixels, captions = pixels_of(2, SIDE // 2, SIDE), ["a red square", "blue"]
    found = hpsv2_reward(tmp_path, looks=2, architecture=tower)(pixels, captions)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    padded = torch.zeros(4, 3, SIDE, SIDE)
    padded[:, :, SIDE // 4 : 3 * SIDE // 4] = (pixels.flatten(0, 1).movedim(-1, 1) + 1) / 2
    with torch.no_grad():
        image = network.encode_image((padded - mean) / std, normalize=True)
        text = network.encode_text(open_clip.get_tokenizer(tower)(captions), normalize=True)
    expected = (image.unflatten(0, (2, 2)) * text[:, None]).sum(-1).mean(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_folders_without_networks_are_named(tower: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no CLIP model"):
        clip_reward(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}', encoding="utf-8")
    with pytest.raises(ValueError, match="no CLIP model with a tokenizer"):
        clip_reward(tmp_path)
    with pytest.raises(ValueError, match="there are none"):
        hpsv2_reward(tmp_path, architecture=tower)
    for name in ("HPS_v2.pt", "HPS_v2.1.pt"):
        torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / name)
    with pytest.raises(ValueError, match="give the file itself"):
        hpsv2_reward(tmp_path, architecture=tower)
    with pytest.raises(ValueError, match=f"no weights of {tower}"):
        hpsv2_reward(tmp_path / "HPS_v2.pt", architecture=tower)
    with pytest.raises(ValueError, match="one at least"):
        ClipReward(nn.Identity(), None, View(SIDE), looks=0)


def test_recipes_of_a_phase_are_recipes() -> None:
    """The published phase fits the published recipe, and survives its own text."""
    made = phase_recipe(recipe("paper", "m4v"), PAPER_REWARD, ["hpsv2", "clip"])
    assert Recipe.model_validate_json(made.canonical_json()) == made
    assert made.train.micro_batches == 64
    assert made.train.images == (0, 1)
