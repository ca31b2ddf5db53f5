"""UMT, against a written-out version of its attention, and human_action, against the official rule in other words."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evalkit.auxiliary import equip
from evalkit.backbones import umt
from evalkit.backbones._opencv import resize
from evalkit.backbones.base import Runtime, SelectedFrames
from evalkit.backbones.umt import (
    ACTIONS,
    CHECKPOINT,
    FRAMES,
    PATCHES,
    Umt,
    UmtLogits,
    join_biases,
    positions,
    preprocess,
)
from evalkit.backbones.vit import Linear
from evalkit.errors import UserError
from evalkit.metrics.human_action import METRIC, read_text
from evalkit.types import Clip, Prompt, PromptSuite, Score, VideoInfo
from evalkit.weights import WeightStore
from tests.networks import randomize

RNG = np.random.default_rng(0)
WIDTH, HEADS, DEPTH = 64, 2, 2


def shallow() -> Umt:
    network = Umt(WIDTH, DEPTH, HEADS)
    randomize(network, seed=5)
    return network


def frames(count: int, height: int = 240, width: int = 256) -> np.ndarray:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def clip_of(n_frames: int = 16, action: str = "riding a bike") -> Clip:
    info = VideoInfo(256, 240, n_frames, 8.0, "h264", "yuv420p")
    return Clip(info, f"A person is {action}", {"human_action": {"action": action}})


def published(network: Umt) -> dict[str, Tensor]:
    """The network's tensors as the published file has them: no key biases, half precision."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("qkv.bias"):
            q_D, _, v_D = tensor.chunk(3)
            tensors |= {name.replace("qkv.bias", "q_bias"): q_D, name.replace("qkv.bias", "v_bias"): v_D}
        else:
            tensors[name] = tensor
    return {name: tensor.half() for name, tensor in tensors.items()}


def load(folder: Path, tensors: object) -> SelectedFrames:
    """Through the project's own loader, as a network of the tests' size."""
    path = folder / CHECKPOINT.file
    path.parent.mkdir(exist_ok=True)
    torch.save(tensors, path)
    with mock.patch.object(umt, "Umt", partial(Umt, WIDTH, DEPTH, HEADS)):
        extractor = umt.load(WeightStore(folder, trust_archives=True), Runtime())
    assert isinstance(extractor, SelectedFrames)
    return extractor


def network_of(extractor: SelectedFrames) -> Umt:
    assert isinstance(extractor.embed, UmtLogits)
    return extractor.embed.network


# The network


def test_network_written_out(tmp_path: Path) -> None:
    network = shallow()
    weights = {name: tensor.float() for name, tensor in published(network).items()}
    x_TCHW = preprocess(frames(FRAMES), "cpu")
    patches = x_TCHW.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(FRAMES * PATCHES, -1)
    kernel = weights["patch_embed.proj.weight"].flatten(1)
    x_ND = patches @ kernel.T + weights["patch_embed.proj.bias"] + positions(WIDTH)
    for i in range(DEPTH):
        x_ND = block_written_out(x_ND, {k.removeprefix(f"blocks.{i}."): v for k, v in weights.items()})
    mean_D = F.layer_norm(x_ND.mean(0), (WIDTH,), weights["fc_norm.weight"], weights["fc_norm.bias"], 1e-6)
    expected = weights["head.weight"] @ mean_D + weights["head.bias"]
    loaded = network_of(load(tmp_path, published(network)))
    with torch.inference_mode():
        logits = loaded(x_TCHW.transpose(0, 1)[None])[0]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def block_written_out(x_ND: Tensor, w: dict[str, Tensor]) -> Tensor:
    y_ND = F.layer_norm(x_ND, (WIDTH,), w["norm1.weight"], w["norm1.bias"], 1e-6)
    q_ND, k_ND, v_ND = (y_ND @ part.T for part in w["attn.qkv.weight"].chunk(3))
    heads = []
    for columns in torch.arange(WIDTH).chunk(HEADS):
        q, v = (q_ND + w["attn.q_bias"])[:, columns], (v_ND + w["attn.v_bias"])[:, columns]
        heads.append((q @ k_ND[:, columns].T / math.sqrt(WIDTH / HEADS)).softmax(1) @ v)
    x_ND = x_ND + torch.cat(heads, 1) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    y_ND = F.layer_norm(x_ND, (WIDTH,), w["norm2.weight"], w["norm2.bias"], 1e-6)
    hidden = F.gelu(y_ND @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"])
    return x_ND + hidden @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]


@pytest.mark.parametrize(
    ("frame", "earlier", "share"), [(0, 0, 0.0), (1, 0, 0.25), (2, 0, 0.75), (9, 4, 0.25), (14, 6, 0.75), (15, 7, 0.0)]
)
def test_positions_by_hand(frame: int, earlier: int, share: float) -> None:
    # Frame t of 16 lies at (t + 1/2) / 2 - 1/2 of 8 frames, within their ends.
    for patch, channel in ((0, 0), (0, 1), (17, 6), (195, 63)):
        wave = math.cos if channel % 2 else math.sin
        at = [wave((t * PATCHES + patch) / 10000 ** (channel // 2 * 2 / WIDTH)) for t in (earlier, min(earlier + 1, 7))]
        expected = at[0] * (1 - share) + at[1] * share
        assert positions(WIDTH)[frame * PATCHES + patch, channel].item() == pytest.approx(expected, abs=1e-6)


def test_every_token_counts() -> None:
    # A shortcut that drops all but the first token of the last block would lose the other frames' patches.
    embed = UmtLogits(shallow(), Runtime())
    clip = frames(FRAMES)
    changed = clip.copy()
    changed[-1, -64:, -64:] = 255 - changed[-1, -64:, -64:]
    assert np.abs(embed(clip_of(), changed) - embed(clip_of(), clip)).max() > 1e-3


def test_order_of_frames_matters() -> None:
    embed = UmtLogits(shallow(), Runtime())
    clip = frames(FRAMES)
    assert np.abs(embed(clip_of(), clip) - embed(clip_of(), clip[::-1].copy())).max() > 1e-3


def test_half_precision_stays_close() -> None:
    clip = frames(FRAMES)
    exact, rounded = (UmtLogits(shallow(), Runtime(precision=p))(clip_of(), clip) for p in ("fp32", "bf16"))
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, exact, atol=0.1)
    assert not np.array_equal(exact, rounded)


@pytest.mark.parametrize("n_frames", [1, 2, 15, 40])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 301), (300, 3)])
def test_short_and_tiny_clips_get_logits(tmp_path: Path, n_frames: int, height: int, width: int) -> None:
    extractor = load(tmp_path, published(shallow()))
    clip = frames(n_frames, height, width)
    logits = []
    for cut in (n_frames, 7):
        reader = extractor.open(clip_of(n_frames))
        for start in range(0, n_frames, cut):
            reader.push(start, clip[start : start + cut])
        logits.append(reader.close())
    assert logits[0].shape == (len(ACTIONS),)
    assert np.isfinite(logits[0]).all()
    np.testing.assert_array_equal(logits[0], logits[1])


# The checkpoint


def test_weights_published_in_half_stay_so(tmp_path: Path) -> None:
    network = network_of(load(tmp_path, published(shallow())))
    layers = [module for module in network.modules() if isinstance(module, Linear)]
    assert len(layers) == 5 * DEPTH
    assert all(layer.half_OI is not None and layer.half_OI.dtype == torch.float16 for layer in layers)


def test_the_whole_file_is_read_and_nothing_but_the_file() -> None:
    """318 tensors, which in half precision fill the published size but for the names and the table of contents."""
    with torch.device("meta"):
        network = Umt()
    tensors = published(network)
    assert len(tensors) == 318
    assert 0 < CHECKPOINT.size - sum(2 * tensor.numel() for tensor in tensors.values()) < 100_000
    assert join_biases(tensors).keys() == network.state_dict().keys()
    assert network.position_ND.device.type == "cpu"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda t: t.pop("head.bias"), "head.bias is missing"),
        (lambda t: t.pop("blocks.1.attn.v_bias"), "blocks.1.attn.qkv.bias is missing"),
        (lambda t: t.update({"pos_embed": torch.zeros(1, 3136, WIDTH)}), "pos_embed does not belong"),
        (lambda t: t.update({"fc_norm.weight": torch.zeros(3)}), r"fc_norm.weight is \(3,\)"),
        (lambda t: t.clear(), "no table of tensors"),
    ],
)
def test_refuses_a_checkpoint_that_does_not_fit(tmp_path: Path, spoil: object, complaint: str) -> None:
    tensors = published(shallow())
    spoil(tensors)  # type: ignore[operator]
    with pytest.raises(UserError, match=complaint):
        load(tmp_path, tensors)


def test_refuses_a_file_that_is_not_the_published_one(tmp_path: Path) -> None:
    load(tmp_path, published(shallow()))
    with pytest.raises(UserError, match="sha256"):
        umt.load(WeightStore(tmp_path), Runtime())
    (tmp_path / CHECKPOINT.file).write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="not the umt checkpoint"):
        umt.load(WeightStore(tmp_path, trust_archives=True), Runtime())


# Scaling by OpenCV's rules; tests/test_parity_styles_actions.py compares with OpenCV itself

sides = st.integers(1, 90)


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, target_height=sides, target_width=sides, seed=st.integers(0, 9))
def test_scaling_is_bilinear_up_to_a_step(
    height: int, width: int, target_height: int, target_width: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = resize(image, target_height, target_width, slice(None), slice(None))
    x = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    exact = F.interpolate(x, (target_height, target_width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    assert np.abs(whole - exact.numpy()).max() < 1
    rows, columns = slice(target_height // 3, None), slice(0, (target_width + 1) // 2)
    np.testing.assert_array_equal(resize(image, target_height, target_width, rows, columns), whole[rows, columns])


@given(height=sides, width=sides)
def test_scaling_to_the_same_size_changes_nothing(height: int, width: int) -> None:
    image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize(image, height, width, slice(None), slice(None)), image)


def test_preprocessing_takes_the_centre() -> None:
    clip = np.zeros((1, 256, 512, 3), dtype=np.uint8)
    clip[:, :, 144:368] = 255  # the central 224 of 512 columns
    x = preprocess(clip, "cpu")
    assert x.shape == (1, 3, 224, 224)
    torch.testing.assert_close(x[0, 0], torch.full((224, 224), (1 - 0.485) / 0.229))


# The verdict


def verdict(logits_K: np.ndarray, action: str = "riding a bike") -> Score:
    return METRIC.score(clip_of(action=action), {"umt": logits_K.astype(np.float32)})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.floats(0.3, 3), label=st.integers(0, len(ACTIONS) - 1))
def test_verdict_is_that_of_the_official_rule(seed: int, spread: float, label: int) -> None:
    """The five largest sigmoids, rounded to four digits; those of at least 0.85 are what was recognised."""
    logits_K = torch.randn(len(ACTIONS), generator=torch.Generator().manual_seed(seed)) * spread
    values, indices = torch.topk(torch.sigmoid(logits_K), 5)
    recognised = [i for v, i in zip(values.tolist(), indices.tolist(), strict=True) if round(v, 4) >= 0.85]
    for index in (label, *indices.tolist()):
        assert verdict(logits_K.numpy(), ACTIONS[index]) == Score(float(index in recognised))


def test_unknown_actions_are_unscored_not_missed() -> None:
    score = verdict(np.full(len(ACTIONS), 9.0), "reading minds")
    assert score.value is None
    assert "'reading minds' is none of the 400" in str(score.unscored)


def test_no_verdict_on_logits_that_are_not_finite() -> None:
    assert verdict(np.full(len(ACTIONS), np.nan)).unscored == "UMT's logits are not finite"


def test_actions_are_told_apart_without_regard_to_case() -> None:
    logits_K = np.full(len(ACTIONS), -5.0)
    logits_K[ACTIONS.index("passing American football (in game)")] = 5
    for action in ("passing american football (in game)", "passing American football (in game) "):
        assert verdict(logits_K, action).value == 1


def test_the_list_of_actions() -> None:
    assert len(set(ACTIONS)) == 400
    assert (ACTIONS[0], ACTIONS[33], ACTIONS[370]) == ("riding a bike", "making sushi", "yoga")
    assert not any(mark in action for action in ACTIONS for mark in "-_")  # the official rule would cut them


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("A person is riding a bike", "riding a bike"),
        ("A person is Passing American football (in game)-0.mp4", "passing american football (in game)"),
        ("a young person is yoga_2", "yoga"),
        ("A person is told that a person is marching", "marching"),
    ],
)
def test_the_action_is_read_from_the_sentence(text: str, action: str) -> None:
    assert read_text(text, {}) == {"action": action}
    assert read_text(text, {"action": "archery"}) == {"action": "archery"}


def test_official_prompts_need_no_auxiliary_entry() -> None:
    prompts = (Prompt("1", "A person is air drumming", ("human_action",)),)
    (prompt,) = equip(PromptSuite("official", prompts, "test"), [METRIC]).prompts
    assert prompt.auxiliary == {"human_action": {"action": "air drumming"}}
    with pytest.raises(UserError, match="lacks `action`"):
        equip(PromptSuite("own", (Prompt("2", "two dogs", ("human_action",)),), "test"), [METRIC])
