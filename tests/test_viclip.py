"""ViCLIP, against a plain written-out version of its space-time attention, and its tokens against known ids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from evalkit.backbones.base import ReadsPrompts, Runtime
from evalkit.backbones.viclip import (
    FRAMES,
    MAX_TOKENS,
    Shape,
    ViClip,
    ViClipEmbed,
    ViClipReader,
    middle_frames,
    preprocess,
)
from evalkit.metrics.overall_consistency import METRIC
from evalkit.types import Clip, VideoInfo
from tests.networks import randomize

RNG = np.random.default_rng(0)
SHAPE = Shape(patch=32, video_width=128, video_layers=2, text_width=64, text_layers=2, output=48)
START, END = 49406, 49407


def shallow() -> ViClip:
    network = ViClip(SHAPE)
    randomize(network, seed=3)
    return network


def clip_of(n_frames: int, prompt: str = "a cat") -> Clip:
    return Clip(VideoInfo(256, 240, n_frames, 8.0, "h264", "yuv420p"), prompt)


def frames(count: int, height: int = 240, width: int = 256) -> np.ndarray:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_video_tower_written_out() -> None:
    # Token by token: patch embedding + place + time for frame t; class token first; all attend to all.
    network = shallow()
    tower = network.vision_encoder
    x_TCHW = preprocess(frames(FRAMES), "cpu")
    tokens = [tower.class_embedding + tower.positional_embedding[0]]
    weight = tower.conv1.weight[:, :, 0].flatten(1)
    for t in range(FRAMES):
        for row in range(7):
            for column in range(7):
                patch = x_TCHW[t, :, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
                place = tower.positional_embedding[1 + 7 * row + column]
                tokens.append(weight @ patch.flatten() + place + tower.temporal_positional_embedding[0, t])
    x = tower.ln_pre(torch.stack(tokens)[None])
    for block in tower.transformer.resblocks:
        x = block(x)
    expected = nn.functional.normalize(tower.ln_post(x)[0, 0] @ tower.proj, dim=0)
    embed = ViClipEmbed(network, Runtime())
    with torch.inference_mode():
        actual = nn.functional.normalize(embed.network.vision_encoder(x_TCHW.transpose(0, 1)[None])[0], dim=0)
    torch.testing.assert_close(actual, expected, atol=5e-6, rtol=0)


def test_frames_are_resized_as_uint8() -> None:
    # Noise between black and white overshoots on both sides and lands between the levels.
    clip = RNG.choice(np.array([0, 100, 255], dtype=np.uint8), size=(1, 301, 420, 3))
    levels = (preprocess(clip, "cpu")[0, 0] * 0.26862954 + 0.48145466) * 255
    assert levels.min().item() == pytest.approx(0, abs=1e-4)
    assert levels.max().item() == pytest.approx(255, abs=1e-4)
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_order_of_frames_matters() -> None:
    embed = ViClipEmbed(shallow(), Runtime())
    clip = frames(FRAMES)
    assert not np.allclose(embed.video(clip), embed.video(clip[::-1].copy()), atol=1e-3)


def test_prompts_are_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embed = ViClipEmbed(shallow(), Runtime())
    calls: list[str] = []
    original = embed.text
    monkeypatch.setattr(embed, "text", lambda prompt: (calls.append(prompt), original(prompt))[1])
    first, second, third = (embed(clip_of(8, p), frames(8)) for p in ("a cat", "a cat", "a dog"))
    assert calls == ["a cat", "a dog"]
    assert first.shape == (2, SHAPE.output)
    assert np.array_equal(first[1], second[1])
    assert not np.allclose(first[1], third[1], atol=1e-3)


def test_prompts_read_in_advance_need_no_text_tower_afterwards() -> None:
    expected = ViClipEmbed(shallow(), Runtime())(clip_of(8, "a dog"), frames(8))
    embed = ViClipEmbed(shallow(), Runtime())
    extractor = ViClipReader(embed)
    assert isinstance(extractor, ReadsPrompts)
    extractor.read_prompts(["a cat", "a dog", "a cat"])
    assert not hasattr(embed.network, "text_encoder")
    np.testing.assert_array_equal(embed(clip_of(8, "a dog"), frames(8))[1], expected[1])


def test_tokens_of_a_prompt() -> None:
    # Ids of the published vocabulary: "a photo of a cat" is 320, 1125, 539, 320, 2368.
    tokens = ViClipEmbed(shallow(), Runtime()).tokenize("A  photo of\ta &amp;lt;CAT")[0].tolist()
    assert len(tokens) == MAX_TOKENS
    assert tokens[:4] == [START, 320, 1125, 539]
    plain = ViClipEmbed(shallow(), Runtime()).tokenize("a photo of a cat")[0].tolist()
    assert plain == [START, 320, 1125, 539, 320, 2368, END] + [0] * (MAX_TOKENS - 7)


def test_long_prompts_are_cut_before_the_end_mark() -> None:
    embed = ViClipEmbed(shallow(), Runtime())
    short, long = embed.tokenize(" ".join(["cat"] * 30)), embed.tokenize(" ".join(["cat"] * 90))
    assert torch.equal(short, long)
    assert short[0].tolist() == [START] + [2368] * 30 + [END]


@given(n_frames=st.integers(1, 500), count=st.integers(1, 32))
@settings(deadline=None)
def test_middle_frames_are_in_order_and_inside_their_interval(n_frames: int, count: int) -> None:
    indices = middle_frames(n_frames, count)
    assert len(indices) == count
    assert indices == sorted(indices)
    assert indices[0] >= 0
    assert indices[-1] <= n_frames - 1
    for k, index in enumerate(indices[: min(count, n_frames)]):
        used = min(count, n_frames)
        assert k * n_frames // used <= index < -((-(k + 1) * n_frames) // used)


@pytest.mark.parametrize(
    ("n_frames", "expected"),
    [
        (32, [1, 5, 9, 13, 17, 21, 25, 29]),
        (33, [1, 5, 9, 13, 17, 21, 25, 30]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (3, [0, 1, 2, 2, 2, 2, 2, 2]),
        (1, [0] * 8),
    ],
)
def test_middle_frames_by_hand(n_frames: int, expected: list[int]) -> None:
    # 33 frames: interval edges 0, 4, 8, 12, 16, 20, 24, 28, 33 (4.125 steps, rounded down).
    assert middle_frames(n_frames) == expected


def test_score_is_the_cosine_of_the_two_vectors() -> None:
    features = ViClipEmbed(shallow(), Runtime())(clip_of(8), frames(8))
    assert features.dtype == np.float32
    value = METRIC.score(clip_of(8), {"viclip": features}).value
    assert value == pytest.approx(float(features[0] @ features[1]), abs=1e-6)
    assert METRIC.score(clip_of(8), {"viclip": features[[0, 0]]}).value == pytest.approx(1)


def test_half_precision_stays_close() -> None:
    clip = frames(8)
    exact, rounded = (ViClipEmbed(shallow(), Runtime(precision=p))(clip_of(8), clip) for p in ("fp32", "bf16"))
    assert rounded.dtype == np.float32
    assert (exact * rounded).sum(axis=1).min() > 0.999
    assert not np.array_equal(exact, rounded)
