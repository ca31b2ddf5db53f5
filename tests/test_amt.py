"""AMT-S: correlation and warping against SciPy's interpolation, the blend against a shift known in closed form."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import Tensor

from evalkit.backbones._correlation import CorrelationVolume
from evalkit.backbones.amt import CHECKPOINT, FIELDS, MIN_SIDE, AmtS, Interpolation, load, padding, warp
from evalkit.backbones.base import Runtime
from evalkit.errors import UserError
from evalkit.metrics.motion_smoothness import METRIC
from evalkit.types import Array, Clip, Frames, VideoInfo
from evalkit.weights import WeightStore

RNG = np.random.default_rng(0)
SIDE = 128
# Sampling points are float32 in -1..1: a few 1e-6 pixels off at this size, times steps of up to 1 per pixel and axis.
SAMPLING = 3e-5


def clip_of(frames_THWC: Frames) -> Clip:
    count, height, width, _ = frames_THWC.shape
    return Clip(VideoInfo(width, height, count, 8.0, "h264", "yuv420p"), "")


def moving_texture(count: int, height: int = SIDE, width: int = SIDE) -> Frames:
    texture = np.kron(RNG.integers(0, 256, (height // 8 + 1, (width + 4 * count) // 8 + 1, 3)), np.ones((8, 8, 1)))
    return np.stack([texture[:height, 4 * t : 4 * t + width] for t in range(count)]).astype(np.uint8)


def read(extractor: Interpolation, frames_THWC: Frames, cuts: list[int]) -> Array:
    reader = extractor.open(clip_of(frames_THWC))
    bounds = [0, *sorted(cuts), len(frames_THWC)]
    for start, end in pairwise(bounds):
        reader.push(start, frames_THWC[start:end])
    return reader.close()


def seeded_network() -> AmtS:
    torch.manual_seed(0)
    return AmtS().eval().requires_grad_(False)


def save(folder: Path, tensors: dict[str, Tensor]) -> WeightStore:
    path = folder / CHECKPOINT.file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": tensors}, path)
    return WeightStore(folder, trust_archives=True)


def images(count: int) -> tuple[Tensor, Tensor]:
    frames = torch.from_numpy(moving_texture(2 * count)).permute(0, 3, 1, 2) / 255
    return frames[::2], frames[1::2]


def pooled(volume_NHW: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    count, height, width = volume_NHW.shape
    return volume_NHW[:, : height // 2 * 2, : width // 2 * 2].reshape(count, height // 2, 2, -1, 2).mean(axis=(2, 4))


def windows(volume_NHW: npt.NDArray[np.float64], points_N2: npt.NDArray[np.float64], levels: int, radius: int) -> Array:
    """The definition: average the volume over target cells, then interpolate at each offset, x varying slowest."""
    offsets = np.arange(-radius, radius + 1)
    found = []
    for level in range(levels):
        volume_NHW = pooled(volume_NHW) if level else volume_NHW
        x, y = (points_N2[:, axis, None, None] / 2**level for axis in (0, 1))
        rows, columns = np.broadcast_arrays(y + offsets[None, None, :], x + offsets[None, :, None])
        for map_HW, row, column in zip(volume_NHW, rows, columns, strict=True):
            found.append(map_coordinates(map_HW, [row, column], order=1, mode="grid-constant"))
    return np.reshape(found, (levels, len(points_N2), -1)).transpose(1, 0, 2).reshape(len(points_N2), -1)


@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 2.0, 100.0]))
@settings(max_examples=15, deadline=None)
def test_correlations_are_those_of_the_definition(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    height, width, channels, levels, radius = 5, 8, 6, 3, 2
    maps = rng.standard_normal((2, channels, height, width))
    points = np.indices((height, width))[::-1] + spread * rng.standard_normal((2, 2, height, width))
    volume = CorrelationVolume(levels, radius).fill(*torch.from_numpy(maps).float()[:, None])
    found = volume.lookup(*torch.from_numpy(points).float()[:, None])[0].flatten(1).T.numpy()
    full = np.einsum("cn,cm->nm", *maps.reshape(2, channels, -1)) / np.sqrt(channels)
    wanted = [
        windows(full.reshape(-1, height, width), points[0].reshape(2, -1).T, levels, radius),
        windows(full.T.reshape(-1, height, width), points[1].reshape(2, -1).T, levels, radius),
    ]
    np.testing.assert_allclose(found, np.concatenate(wanted, axis=1), atol=1e-5 * (1 + spread))


def test_a_reused_volume_forgets_the_pair_before() -> None:
    maps = torch.randn(3, 2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    here = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="xy"))[None]
    reused = CorrelationVolume(4, 3)
    for pair in (maps[0], maps[1], maps[2][..., :8], maps[0]):
        at = here[..., : pair.shape[-1]]
        fresh = CorrelationVolume(4, 3).fill(*pair).lookup(at, at)
        assert torch.equal(reused.fill(*pair).lookup(at, at), fresh)


def test_warping_replicates_the_border() -> None:
    image, flow = RNG.random((11, 17)), RNG.normal(0, 6, (2, 11, 17))
    warped = warp(torch.from_numpy(image)[None, None].float(), torch.from_numpy(flow)[None].float())
    rows, columns = np.indices(image.shape)
    wanted = map_coordinates(image, [rows + flow[1], columns + flow[0]], order=1, mode="nearest")
    np.testing.assert_allclose(warped[0, 0].numpy(), wanted, atol=1e-5)


def test_without_flow_the_prediction_is_the_mean_of_both_frames() -> None:
    network = seeded_network()
    for parameter in network.parameters():
        parameter.zero_()
    first, last = images(2)
    torch.testing.assert_close(network(first, last), (first + last) / 2, atol=SAMPLING, rtol=0)


@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
def test_flows_lead_from_the_middle_frame_to_both_neighbours(axis: int) -> None:
    # Content moves by 4 pixels a step of two frames; flows of -2 and 2 must restore the frame in between.
    network = seeded_network()
    for parameter in network.parameters():
        parameter.zero_()
    bias = network.decoder1.convblock[2].bias
    assert isinstance(bias, Tensor)
    bias[: 2 * FIELDS].view(FIELDS, 2)[:, axis] = -2
    bias[2 * FIELDS : 4 * FIELDS].view(FIELDS, 2)[:, axis] = 2
    scene = torch.from_numpy(RNG.random((1, 3, SIDE, SIDE))).float()
    first, middle, last = (scene.roll(shift, dims=3 - axis) for shift in (0, 2, 4))
    inner = slice(4, -4)
    predicted = network(first, last)
    torch.testing.assert_close(predicted[..., inner, inner], middle[..., inner, inner], atol=SAMPLING, rtol=0)


def test_prediction_does_not_depend_on_the_batch() -> None:
    network = seeded_network()
    first, last = images(3)
    together = network(first, last)
    alone = torch.cat([network(a[None], b[None]) for a, b in zip(first, last, strict=True)])
    assert together.std() > 0.05
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_prediction_depends_on_both_frames() -> None:
    network = seeded_network()
    first, last = images(1)
    plain = network(first, last)
    assert (network(last, first) - plain).abs().max() > 1e-3
    assert (network(first, last.flip(3)) - plain).abs().max() > 1e-2


def test_bfloat16_is_close() -> None:
    # 8 bits of mantissa; the network adds corrections to warped float32 images, so most of the frame survives.
    network = seeded_network()
    first, last = images(1)
    full = network(first, last)
    half = network.bfloat16()(first, last)
    assert half.dtype == torch.float32
    assert (half - full).abs().mean() < 2e-3


@given(height=st.integers(1, 2000), width=st.integers(1, 2000))
def test_padding_is_even_and_reaches_the_next_multiple(height: int, width: int) -> None:
    left, right, top, bottom = padding(height, width)
    for side, before, after in ((width, left, right), (height, top, bottom)):
        assert (side + before + after) % 16 == 0
        assert 0 <= before <= after <= before + 1 <= 8


@given(
    count=st.integers(1, 9),
    height=st.integers(MIN_SIDE, MIN_SIDE + 20),
    batch=st.integers(1, 3),
    cuts=st.lists(st.integers(0, 9), max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_each_odd_frame_is_compared_once(count: int, height: int, batch: int, cuts: list[int]) -> None:
    frames = RNG.integers(0, 256, (count, height, MIN_SIDE, 3), dtype=np.uint8)
    half_step = 0.5 / 255  # survives truncation
    for neighbour, choose in ((0, lambda a, b: a + half_step), (2, lambda a, b: b + half_step)):
        errors = read(Interpolation(choose, "cpu", batch), frames, [min(c, count) for c in cuts])
        wanted = [np.abs(frames[t].astype(int) - frames[t - 1 + neighbour]).mean() for t in range(1, count - 1, 2)]
        np.testing.assert_allclose(errors, wanted, rtol=1e-12)


def test_predictions_are_truncated_to_8_bits() -> None:
    frames = np.full((3, SIDE, SIDE, 3), 100, dtype=np.uint8)
    extractor = Interpolation(lambda a, b: torch.full_like(a, 99.9 / 255), "cpu", 1)
    assert read(extractor, frames, []).tolist() == [1.0]


def test_frames_are_read_alike_however_they_are_cut() -> None:
    frames = moving_texture(7, 120, 130)
    extractor = Interpolation(seeded_network(), "cpu", 1)
    whole = read(extractor, frames, [])
    assert whole.shape == (3,)
    assert np.array_equal(whole, read(extractor, frames, [1, 2, 5]))


@pytest.mark.parametrize("shape", [(5, MIN_SIDE - 1, 200), (5, 200, MIN_SIDE - 1), (2, 128, 128), (1, 128, 128)])
def test_too_small_or_too_short_a_clip_is_unscored(shape: tuple[int, int, int]) -> None:
    frames = np.zeros((*shape, 3), dtype=np.uint8)
    errors = read(Interpolation(seeded_network(), "cpu", 1), frames, [])
    score = METRIC.score(clip_of(frames), {"amt": errors})
    assert score.value is None
    assert score.n_terms == 0


def test_the_smallest_clip_is_scored() -> None:
    frames = moving_texture(3, MIN_SIDE, MIN_SIDE)
    score = METRIC.score(clip_of(frames), {"amt": read(Interpolation(seeded_network(), "cpu", 1), frames, [])})
    assert score.value is not None
    assert 0 < score.value < 1


def test_a_checkpoint_is_loaded_as_published(tmp_path: Path) -> None:
    network = seeded_network()
    frames = moving_texture(3)
    extractor = load(save(tmp_path, network.state_dict()), Runtime())
    wanted = read(Interpolation(network, "cpu", 1), frames, [])
    # Channels-last convolutions add in another order; truncation turns that into a step for a few pixels.
    np.testing.assert_allclose(read(extractor, frames, []), wanted, atol=1e-3)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    tensors = seeded_network().state_dict()
    tensors["update4.convc1.weight"] = tensors["update4.convc1.weight"][:, :100]
    with pytest.raises(UserError, match=r"update4\.convc1\.weight is \(64, 100, 1, 1\)"):
        load(save(tmp_path, tensors), Runtime())


def test_an_unvouched_checkpoint_needs_trust(tmp_path: Path) -> None:
    save(tmp_path, seeded_network().state_dict())
    with pytest.raises(UserError, match="sha256"):
        load(WeightStore(tmp_path), Runtime())
