"""MUSIQ: patches against their definition, the transformer against PyTorch's with padding and mask, timm's StdConv."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import StdConv2dSame
from torch import Tensor, nn

from evalkit.backbones.base import PerFrame, Runtime
from evalkit.backbones.musiq import (
    CHECKPOINT,
    GRID,
    PATCH,
    Encoder,
    Musiq,
    MusiqScore,
    StdConv2d,
    cut,
    hashed_positions,
    limit_size,
    load,
    multiscale_patches,
)
from evalkit.errors import UserError
from evalkit.metrics.imaging_quality import METRIC
from evalkit.types import Clip, Frames, VideoInfo
from evalkit.weights import WeightStore

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")
WIDTH, HIDDEN, HEADS, DEPTH = 48, 96, 3, 3


def shallow() -> Musiq:
    torch.manual_seed(1)
    network = Musiq(WIDTH, HIDDEN, HEADS, DEPTH).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith(("_emb", "cls", "head.weight")):
            nn.init.normal_(parameter)
    return network


def some_frames(count: int, height: int, width: int) -> Frames:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def library_encoder(encoder: Encoder) -> nn.TransformerEncoder:
    """The same weights in PyTorch's encoder."""
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, dropout=0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    library = nn.TransformerEncoder(
        layer, DEPTH, norm=nn.LayerNorm(WIDTH, eps=1e-6), enable_nested_tensor=False
    ).requires_grad_(False)
    own = encoder.state_dict()
    tensors = {f"norm.{part}": own[f"encoder_norm.{part}"] for part in ("weight", "bias")}
    names = {
        "self_attn.out_proj": "attention.out",
        "linear1": "mlp.fc1",
        "linear2": "mlp.fc2",
        "norm1": "norm1",
        "norm2": "norm2",
    }
    for i in range(DEPTH):
        block = f"transformer.encoderblock_{i}"
        for part in ("weight", "bias"):
            qkv = [own[f"{block}.attention.{name}.{part}"] for name in ("query", "key", "value")]
            tensors[f"layers.{i}.self_attn.in_proj_{part}"] = torch.cat(qkv)
            tensors |= {f"layers.{i}.{theirs}.{part}": own[f"{block}.{ours}.{part}"] for theirs, ours in names.items()}
    library.load_state_dict(tensors)
    return library.eval()


def test_dropping_padded_tokens_changes_nothing() -> None:
    # Against the published form: tokens padded to 60, padding masked as keys, every token computed to the end.
    encoder = shallow().transformer_encoder
    tokens = torch.randn(2, 40, WIDTH, generator=torch.Generator().manual_seed(0))
    positions, scales = torch.arange(40) % (GRID * GRID), torch.arange(40) // 15
    embedded = (
        tokens + encoder.posembed_input["position_emb"][0, positions] + encoder.scaleembed_input["scale_emb"][scales]
    )
    padded = torch.cat((encoder.cls.expand(2, -1, -1), embedded, torch.full((2, 20, WIDTH), 7.0)), dim=1)
    mask = torch.arange(61).expand(2, -1) > 40
    wanted = library_encoder(encoder)(padded, src_key_padding_mask=mask)[:, 0]
    assert wanted.std() > 0.1
    torch.testing.assert_close(encoder(tokens, positions, scales), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "size"), [(7, 2, 32), (3, 1, 8), (1, 1, 9), (3, 2, 7)])
def test_standardised_convolution_is_timms_but_for_the_unbiased_variance(kernel: int, stride: int, size: int) -> None:
    torch.manual_seed(0)
    own, library = StdConv2d(16, 6, kernel, stride), StdConv2dSame(16, 6, kernel, stride, eps=1e-12)
    library.weight = own.weight
    x = torch.randn(2, 16, size, size)
    n = 16 * kernel**2
    with torch.inference_mode():
        # The rest is the 1e-5 that the standard deviation is raised by, relative to weights of about 0.05.
        torch.testing.assert_close(own(x), library(x) * math.sqrt((n - 1) / n), rtol=2e-3, atol=2e-3)


@given(rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_positions_are_hashed_to_the_nearest_cell(rows: int, columns: int) -> None:
    found = hashed_positions(rows, columns, CPU).view(rows, columns).numpy()
    wanted_row, wanted_column = (np.arange(count) * GRID // count for count in (rows, columns))
    assert np.array_equal(found, wanted_row[:, None] * GRID + wanted_column)


@given(height=st.integers(1, 130), width=st.integers(1, 130))
@settings(max_examples=40, deadline=None)
def test_patches_are_the_image_padded_evenly(height: int, width: int) -> None:
    image = torch.from_numpy(RNG.random((2, 3, height, width)) + 1)
    patches, positions = cut(image)
    rows, columns = -(-height // PATCH), -(-width // PATCH)
    assert patches.shape == (2, rows * columns, 3, PATCH, PATCH)
    assert len(positions) == rows * columns
    whole = patches.view(2, rows, columns, 3, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5).reshape(2, 3, rows * PATCH, -1)
    top, left = (rows * PATCH - height) // 2, (columns * PATCH - width) // 2
    assert torch.equal(whole[..., top : top + height, left : left + width], image)
    assert torch.isclose(whole.sum(), image.sum())  # all else is zero


@pytest.mark.parametrize(
    ("height", "width", "counts"),
    [
        (256, 256, (49, 144, 64)),
        (295, 512, (5 * 7, 7 * 12, 160)),
        (512, 289, (7 * 4, 12 * 7, 160)),
        (20, 30, (35, 96, 1)),
    ],
)
def test_three_scales(height: int, width: int, counts: tuple[int, ...]) -> None:
    patches, positions, scales = multiscale_patches(torch.rand(1, 3, height, width))
    assert torch.bincount(scales).tolist() == list(counts)
    assert patches.shape[1] == len(positions) == sum(counts)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((512, 512), (512, 512)), ((100, 400), (100, 400)), ((608, 344), (512, 289)), ((480, 832), (295, 512))],
)
def test_only_large_frames_are_scaled_down(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    frames = torch.full((1, 3, *size), 77.0)
    frames[..., 0] += 1e-3
    limited = limit_size(frames)
    assert limited.shape[-2:] == wanted
    assert (limited is frames) == (size == wanted)
    torch.testing.assert_close(limited, torch.full_like(limited, 77.0), atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [(90, 150), (40, 600)], ids=["small", "wide"])
def test_scores_do_not_depend_on_batch_or_cuts(size: tuple[int, int]) -> None:
    score = MusiqScore(shallow(), Runtime())
    frames = some_frames(5, *size)
    alone = np.concatenate([score(frame[None]) for frame in frames])
    assert alone.std() > 1e-3
    clip = Clip(VideoInfo(size[1], size[0], 5, 8.0, "h264", "yuv420p"), "")
    for batch, cuts in ((1, (2,)), (2, (1, 4)), (5, ())):
        reader = PerFrame(score, batch).open(clip)
        for chunk in np.split(np.arange(5), cuts):
            reader.push(int(chunk[0]), frames[chunk])
        np.testing.assert_allclose(reader.close(), alone, atol=1e-5)


def test_scores_see_all_three_scales_and_places() -> None:
    network = shallow()
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = network(image)
        assert abs(float(network(image.flip(3)) - plain)) > 1e-4
        network.transformer_encoder.scaleembed_input["scale_emb"].zero_()
        assert abs(float(network(image) - plain)) > 1e-4


def test_bfloat16_is_close() -> None:
    frames = some_frames(2, 96, 128)
    full, half = (MusiqScore(shallow(), Runtime(precision=p))(frames) for p in ("fp32", "bf16"))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=5e-2 * (1 + np.abs(full).max()))


def test_the_metric_is_a_fraction_of_100() -> None:
    clip = Clip(VideoInfo(64, 64, 2, 8.0, "h264", "yuv420p"), "")
    score = METRIC.score(clip, {"musiq": np.array([50.0, 61.0], dtype=np.float32)})
    assert score.value == pytest.approx(0.555, rel=1e-12)
    assert score.n_terms == 2


def save(folder: Path, tensors: dict[str, Tensor]) -> WeightStore:
    path = folder / CHECKPOINT.file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)
    return WeightStore(folder)


def test_a_checkpoint_is_loaded_as_published(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Musiq().eval().requires_grad_(False)
    frames = some_frames(1, 64, 64)
    wanted = MusiqScore(network, Runtime())(frames)
    extractor = load(save(tmp_path, network.state_dict()), Runtime())
    np.testing.assert_allclose(extractor.embed(frames), wanted, rtol=1e-6)


def test_a_checkpoint_of_another_head_is_refused(tmp_path: Path) -> None:
    # The checkpoint trained on AVA predicts ten classes.
    tensors = Musiq().state_dict() | {"head.weight": torch.zeros(10, 384), "head.bias": torch.zeros(10)}
    with pytest.raises(UserError, match=r"head\.weight is \(10, 384\)"):
        load(save(tmp_path, tensors), Runtime())
