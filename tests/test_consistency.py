"""The formula of subject and background consistency, and the two metrics that read it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evalkit.metrics import aesthetic_quality, background_consistency, overall_consistency, subject_consistency
from evalkit.metrics.consistency import cosine, frame_consistency
from evalkit.types import Clip, VideoInfo

CLIP = Clip(VideoInfo(64, 64, 3, 8.0, "h264", "yuv420p"), "a cat")
FEATURES = arrays(np.float32, st.tuples(st.integers(2, 8), st.integers(1, 6)), elements=st.floats(-10, 10, width=32))


def test_by_hand() -> None:
    # Unit vectors at 0, 60, 90 degrees: cos 60 counts twice for frame 1; frame 2 has cos 30 and cos 90.
    degrees = np.radians([0, 60, 90])
    features = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    expected = ((0.5 + 0.5) / 2 + (math.cos(math.pi / 6) + 0) / 2) / 2
    result = frame_consistency(features)
    assert result.value == pytest.approx(expected, rel=1e-12)
    assert result.n_terms == 2


@given(FEATURES)
@settings(deadline=None)
def test_stays_between_zero_and_one(features: np.ndarray) -> None:
    value = frame_consistency(features).value
    assert value is not None
    assert 0 <= value <= 1 + 1e-12


@given(features=FEATURES, scales=st.lists(st.floats(0.1, 10), min_size=8, max_size=8))
@settings(deadline=None)
def test_ignores_the_length_of_each_vector(features: np.ndarray, scales: list[float]) -> None:
    features = features.astype(np.float64)
    features[:, 0] += np.where(np.abs(features).max(axis=1) < 1e-3, 1.0, 0.0)  # a zero vector has no direction
    scaled = features * np.array(scales[: len(features)])[:, None]
    assert frame_consistency(scaled).value == pytest.approx(frame_consistency(features).value, rel=1e-9, abs=1e-12)


@given(arrays(np.float64, 5, elements=st.floats(-5, 5)), st.integers(2, 9))
@settings(deadline=None)
def test_is_one_where_nothing_changes(feature: np.ndarray, count: int) -> None:
    feature[0] = 1  # a zero vector has no direction
    assert frame_consistency(np.tile(feature, (count, 1))).value == pytest.approx(1, abs=1e-12)


def test_a_vector_without_direction_is_like_nothing() -> None:
    assert cosine(np.zeros(3), np.ones(3)) == 0


@pytest.mark.parametrize("module", [subject_consistency, background_consistency])
def test_metrics_weigh_a_clip_by_its_frame_pairs(module: object) -> None:
    metric = module.METRIC  # type: ignore[attr-defined]
    result = metric.score(CLIP, {metric.features[0].name: np.ones((7, 4), np.float32)})
    assert (result.n_terms, metric.pooling, metric.min_frames) == (6, "frames", 2)


@pytest.mark.parametrize(
    "module", [subject_consistency, background_consistency, aesthetic_quality, overall_consistency]
)
def test_worked_examples(module: object) -> None:
    metric = module.METRIC  # type: ignore[attr-defined]
    for example in metric.examples:
        assert metric.score(CLIP, example.features).value == pytest.approx(example.value, abs=1e-12)
