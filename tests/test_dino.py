"""DINO ViT-B/16, against timm's own forward pass (square frames) and against bicubic interpolation done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer

from evalkit.backbones.base import Runtime
from evalkit.backbones.dino import Dino, DinoEmbed, resize_positions
from evalkit.backbones.images import center_crop, load_resized, standardize
from tests.networks import randomize

RNG = np.random.default_rng(0)
WIDTH = 128


def shallow() -> Dino:
    network = Dino(width=WIDTH, depth=3, heads=2)
    randomize(network, seed=1)
    return network


def frames(count: int, height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_equals_timm_on_square_frames() -> None:
    # The rebuilt blocks, with their last-block shortcut, against the library's; float32 rounding over three layers.
    reference = VisionTransformer(embed_dim=WIDTH, depth=3, num_heads=2, num_classes=0).eval()
    reference.load_state_dict(shallow().vit.state_dict())
    clip = frames(2, 224, 224)
    x = (torch.from_numpy(clip).permute(0, 3, 1, 2) / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / (
        torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    )
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(reference(x), dim=-1).numpy()
    np.testing.assert_allclose(DinoEmbed(shallow(), Runtime())(clip), expected, atol=2e-6)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (120, 300), (301, 150)])
def test_batches_do_not_change_features(height: int, width: int) -> None:
    embed = DinoEmbed(shallow(), Runtime())
    clip = frames(5, height, width)
    one_by_one = np.concatenate([embed(clip[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(embed(clip), one_by_one, atol=1e-5)
    assert one_by_one.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(one_by_one, axis=1), 1, atol=1e-6)


def test_pixels_beyond_the_last_whole_patch_are_ignored() -> None:
    network = shallow()
    x = torch.randn(1, 3, 224, 255)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), network(x.clone().index_fill_(3, torch.arange(240, 255), 9.0)))


def test_positions_of_almost_square_frames_are_still_interpolated() -> None:
    # 224 x 230 has 14 x 14 patches as in training, yet the official rule resamples: scale 14.1 / 14.
    position = torch.randn(1, 197, 8)
    resized = resize_positions(position, 14, 14)
    assert resized.shape == position.shape
    assert torch.equal(resized[:, 0], position[:, 0])
    assert not torch.allclose(resized, position, atol=1e-2)


@given(rows=st.integers(14, 40), columns=st.integers(14, 40))
@settings(max_examples=20, deadline=None)
def test_positions_reach_every_grid_and_keep_constants(rows: int, columns: int) -> None:
    position = torch.full((1, 197, 3), 0.7)
    resized = resize_positions(position, rows, columns)
    assert resized.shape == (1, 1 + rows * columns, 3)
    torch.testing.assert_close(resized, torch.full_like(resized, 0.7))


def cubic(distance: float) -> float:
    """Keys' kernel with a = -3/4."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def test_positions_by_hand() -> None:
    # Target column j samples the source at (j + 1/2) * 14 / (28 + 0.1) - 1/2: the guard of 0.1 moves every sample.
    source = RNG.normal(size=14)
    grid = torch.tensor(source, dtype=torch.float32).expand(14, 14).reshape(1, 196, 1)
    position = torch.cat([torch.zeros(1, 1, 1), grid], dim=1)
    upright = torch.cat([torch.zeros(1, 1, 1), grid.reshape(14, 14).T.reshape(1, 196, 1)], dim=1)
    row = resize_positions(position, 14, 28)[0, 1:, 0].reshape(14, 28)[5]
    column = resize_positions(upright, 28, 14)[0, 1:, 0].reshape(28, 14)[:, 5]
    torch.testing.assert_close(row, column)
    for j in range(28):
        at = (j + 0.5) * 14 / 28.1 - 0.5
        taps = range(math.floor(at) - 1, math.floor(at) + 3)
        expected = sum(cubic(at - k) * source[min(max(k, 0), 13)] for k in taps)
        assert row[j].item() == pytest.approx(expected, abs=1e-5)


def test_half_precision_stays_close() -> None:
    clip = frames(2, 256, 256)
    exact = DinoEmbed(shallow(), Runtime())(clip)
    rounded = DinoEmbed(shallow(), Runtime(precision="bf16"))(clip)
    assert rounded.dtype == np.float32
    assert (exact * rounded).sum(axis=1).min() > 0.999
    assert not np.array_equal(exact, rounded)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(480, 832, (224, 388)), (832, 480, (388, 224)), (240, 319, (224, 297)), (224, 224, (224, 224))],
)
def test_resizing_rounds_the_longer_side_down(height: int, width: int, expected: tuple[int, int]) -> None:
    assert load_resized(frames(1, height, width), 224, "bilinear", "cpu").shape == (1, 3, *expected)


def test_bilinear_resizing_by_hand() -> None:
    # 4 -> 2 pixels without antialiasing: each output is the mean of the two middle neighbours of its cell.
    row = np.array([0, 10, 50, 200], dtype=np.uint8)
    clip = np.broadcast_to(row[None, None, :, None], (1, 4, 4, 3)).copy()
    np.testing.assert_allclose(load_resized(clip, 2, "bilinear", "cpu")[0, 0, 0], [5, 125])


def test_cropping_rounds_half_a_pixel_to_even() -> None:
    x = torch.arange(9.0).expand(1, 1, 7, 9)
    assert center_crop(x, 4)[0, 0, 0, 0] == 2  # (9 - 4) / 2 = 2.5
    assert center_crop(x, 4).shape[-2:] == (4, 4)
    assert center_crop(x, 2)[0, 0, 0, 0] == 4  # (9 - 2) / 2 = 3.5


def test_standardizing_by_hand() -> None:
    x = torch.full((1, 3, 1, 1), 127.5)
    torch.testing.assert_close(
        standardize(x, (0.5, 0.4, 0.3), (0.5, 0.1, 0.2)).flatten(), torch.tensor([0.0, 1.0, 1.0])
    )
