from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evalkit.metrics.temporal_flickering import METRIC, FlickerReader
from evalkit.types import Clip, Frames, VideoInfo
from evalkit.video import probe, read
from tests.clips import moving_scene

DATA = Path(__file__).parent / "data" / "decode"
OFFICIAL = json.loads((DATA / "official.json").read_text())
CLIP = Clip(VideoInfo(64, 48, 12, 16.0, "h264", "yuv420p"), "")


def errors(frames: Frames, chunk: int = 16) -> np.ndarray:
    reader = FlickerReader()
    for start in range(0, len(frames), chunk):
        reader.push(start, frames[start : start + chunk])
    return reader.close()


def value(frames: Frames) -> float:
    score = METRIC.score(CLIP, {"flicker": errors(frames)}).value
    assert score is not None
    return score


@pytest.mark.parametrize("name", sorted(OFFICIAL["clips"]))
def test_equals_the_official_score(name: str) -> None:
    info = probe(DATA / name)
    reader = METRIC.features[0].load(None, None).open(Clip(info, ""))
    for chunk in read(DATA / name, info, chunk=5):
        reader.push(chunk.start, chunk.colours(METRIC.features[0].pixels))
    score = METRIC.score(Clip(info, ""), {"flicker": reader.close()})
    assert score.value == OFFICIAL["clips"][name]["temporal_flickering"]
    assert score.n_terms == info.n_frames - 1


@pytest.mark.parametrize("case", OFFICIAL["noise_mae"], ids=lambda case: f"{case['width']}x{case['height']}")
def test_equals_the_official_rounding_where_float32_is_inexact(case: dict[str, float]) -> None:
    shape = (2, int(case["height"]), int(case["width"]), 3)
    frames = np.random.default_rng(int(case["seed"])).integers(0, 256, shape, dtype=np.uint8)
    assert float(errors(frames)[0]) == case["mae"]


def numpy1_mae(a_HWC: Frames, b_HWC: Frames) -> np.float32:
    """NumPy 1's mean of |a - b| in BGR order, spelled out: float32 runs of 8192, added one after the other."""
    difference_N = np.abs(a_HWC[..., ::-1].astype(np.float32) - b_HWC[..., ::-1].astype(np.float32)).ravel()
    total = np.float32(0)
    for start in range(0, difference_N.size, 8192):
        total += np.sum(difference_N[start : start + 8192], dtype=np.float32)
    return np.float32(total / np.float32(difference_N.size))


@given(st.integers(180, 260), st.integers(180, 260), st.integers(0, 2**32), st.integers(100, 255))
def test_large_sums_round_as_numpy_1_rounds_them(height: int, width: int, seed: int, low: int) -> None:
    rng = np.random.default_rng(seed)
    bright = rng.integers(low, 256, (height, width, 3), dtype=np.uint8)
    dark = rng.integers(0, 256 - low, (height, width, 3), dtype=np.uint8)
    assert errors(np.stack([bright, dark]))[0] == numpy1_mae(bright, dark)


@given(arrays(np.uint8, st.tuples(st.integers(2, 5), st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_is_the_mean_absolute_error(frames: Frames) -> None:
    # Below 2**24 the sum is exact; float32 then rounds the quotient and the mean over pairs (relative 2**-24 each).
    mae = np.abs(np.diff(frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(errors(frames), mae, rtol=1e-7, atol=0)
    assert value(frames) == pytest.approx((255 - mae.mean()) / 255, rel=0, abs=3e-7)


@given(st.integers(1, 13))
def test_does_not_depend_on_the_chunk_size(chunk: int) -> None:
    frames = moving_scene(13)
    assert (errors(frames, chunk) == errors(frames)).all()


def test_extremes() -> None:
    still = np.full((3, 4, 4, 3), 7, np.uint8)
    blinking = np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)] * 2)
    assert value(still) == 1.0
    assert value(blinking) == 0.0


def test_falls_with_the_strength_of_flicker_and_noise() -> None:
    frames = moving_scene(8).astype(float)
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (8, 1, 1, 1))
    noise = rng.normal(size=frames.shape)
    for plant in (lambda a: frames * (1 + a * signs / 100), lambda a: frames + a * noise):
        scores = [value(plant(a).clip(0, 255).astype(np.uint8)) for a in (0, 5, 15, 30)]
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) == 4


def test_worked_examples() -> None:
    for example in METRIC.examples:
        assert METRIC.score(CLIP, example.features).value == pytest.approx(example.value, rel=1e-7)


def test_is_official_in_both_profiles_and_needs_no_torch() -> None:
    code = (
        "import sys; from evalkit.lite.temporal_flickering import METRIC as lite;"
        "from evalkit.metrics.temporal_flickering import METRIC as official;"
        "assert lite is official and not official.features[0].checkpoints; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
