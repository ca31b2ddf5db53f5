"""The static filter and dynamic_degree as declarations, and the choice of clips against the official script's order."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.backbones.features import MOVING, STATIC
from evalkit.metrics import registry
from evalkit.metrics.base import Example
from evalkit.metrics.dynamic_degree import METRIC
from evalkit.static_filter import KEPT, STATIC_FILTER, keep
from evalkit.types import Clip, VideoInfo


def clip_of(n_frames: int = 16, fps: float = 8.0, width: int = 64, height: int = 48) -> Clip:
    return Clip(VideoInfo(width, height, n_frames, fps, "none", "rgb24"), "")


@pytest.mark.parametrize("example", STATIC_FILTER.examples)
def test_a_worked_example_gives_its_value(example: Example) -> None:
    assert STATIC_FILTER.score(clip_of(), example.features).value == example.value


def test_the_filter_is_no_dimension() -> None:
    assert STATIC_FILTER.name not in registry("official")
    assert METRIC.name in registry("official")


def test_unknown_pairs_leave_a_clip_unscored() -> None:
    for metric, feature, n_pairs in ((METRIC, MOVING, 15), (STATIC_FILTER, STATIC, 17)):
        score = metric.score(clip_of(), {feature.name: np.full(n_pairs, np.nan, np.float32)})
        assert score.value is None
        assert "121 x 121" in (score.unscored or "")


def test_very_short_clips_are_judged_by_their_length() -> None:
    nothing = np.empty(0, np.float32)
    assert METRIC.score(clip_of(2, fps=16.0), {MOVING.name: nothing}).value == 0.0, "one frame is looked at"
    assert METRIC.score(clip_of(2), {MOVING.name: np.full(1, np.nan, np.float32)}).value == 1.0, (
        "of two, none need move"
    )


def test_ends_that_differ_move_a_clip_of_four_frames() -> None:
    for ends, value in (([0.0, 0.0], 1.0), ([0.0, 0.01], 0.0)):
        magnitudes_P = np.array([0.0, 0.0, 0.0, *ends], np.float32)
        assert STATIC_FILTER.score(clip_of(4), {STATIC.name: magnitudes_P}).value == value


FILES = [f"a harbour-{k}.mp4" for k in range(25)]
verdicts = st.fixed_dictionaries({file: st.sampled_from([True, False, None]) for file in FILES})


@given(verdicts=verdicts, n_files=st.integers(0, 25), shuffled=st.randoms(use_true_random=False))
def test_clips_are_kept_as_by_going_through_the_sorted_files(
    verdicts: dict[str, bool | None], n_files: int, shuffled: Random
) -> None:
    """The official loop, which looks at no clip once it has five; later verdicts make no difference."""
    there = FILES[:n_files]
    known: dict[str, bool | None] = {}
    kept: list[str] = []
    for file in sorted(there):
        if len(kept) < 5:
            known[file] = verdicts[file]
            kept += [file] if verdicts[file] else []
    shuffled.shuffle(there)
    assert keep({"a harbour": there}, known) == keep({"a harbour": there}, verdicts) == {"a harbour": tuple(kept)}


def test_order_is_that_of_text_and_prompts_do_not_mix() -> None:
    files = {"a": [f"a-{k}.mp4" for k in range(12)], "b": ["b-0.mp4", "b-1.mp4"], "c": []}
    every = {file: file != "a-0.mp4" for candidates in files.values() for file in candidates}
    kept = keep(files, every)
    assert kept == {
        "a": ("a-1.mp4", "a-10.mp4", "a-11.mp4", "a-2.mp4", "a-3.mp4"),
        "b": ("b-0.mp4", "b-1.mp4"),
        "c": (),
    }
    assert len(kept["a"]) == KEPT
