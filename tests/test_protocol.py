"""VBench's protocol for its own prompts: five videos a prompt, still clips for flickering, and what is said aloud.

The networks here are pixel statistics, so that the tests can see which video was looked at for what; the real static
filter has tests of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evalkit.flickering
import evalkit.runner
from evalkit.backbones.base import FeatureSpec, PerFrame
from evalkit.errors import UserError
from evalkit.job import Request
from evalkit.matching import match
from evalkit.metrics.base import MetricSpec
from evalkit.prompts import read_suite
from evalkit.protocol import surplus
from evalkit.records import RunRecord
from evalkit.runner import score_folder
from evalkit.types import Clip, Features, Score
from tests.clips import gradient_frames, write_clip

FLICKERING, IMAGING = "temporal_flickering", "imaging_quality"


class Looked:
    """Metrics on the mean pixel; `static_filter` calls a dark clip static and remembers each clip it saw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames = 0
        self.fault: Callable[[], None] = lambda: None
        registered = {name: self.metric(name, self.level) for name in (FLICKERING, IMAGING)}
        monkeypatch.setattr(evalkit.runner, "registry", lambda profile: registered)
        monkeypatch.setattr(evalkit.runner, "find", lambda name, profile: registered[name])
        static = self.metric("static_filter", self.is_dark, feature="static")
        monkeypatch.setattr(evalkit.runner, "STATIC_FILTER", static)
        monkeypatch.setattr(evalkit.flickering, "STATIC_FILTER", static)

    def metric(self, name: str, score: Callable[[Clip, Features], Score], feature: str = "mean") -> MetricSpec:
        def embed(frames_BHWC: np.ndarray) -> np.ndarray:
            if feature == "static":
                self.fault()
                self.frames += len(frames_BHWC)
            return np.asarray(frames_BHWC.mean(axis=(1, 2, 3))[:, None] / 255)

        spec = FeatureSpec(feature, 1, lambda store, runtime: PerFrame(embed, runtime.batch))
        return MetricSpec(name, 1, name, "a test metric", (spec,), score, "test")

    @staticmethod
    def level(clip: Clip, features: Features) -> Score:
        return Score(float(features["mean"].mean()))

    @staticmethod
    def is_dark(clip: Clip, features: Features) -> Score:
        return Score(float(features["static"].mean() < 0.4))


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Looked:
    return Looked(monkeypatch)


DARK, BRIGHT = 30, 160
FRAMES = 4


def make_videos(folder: Path, levels: Mapping[str, int], n_frames: int = FRAMES, fps: int = 16) -> None:
    folder.mkdir(exist_ok=True)
    for name, level in levels.items():
        write_clip(folder / f"{name}.mp4", gradient_frames(n_frames, 48, 64, level), fps=fps)


def info(path: Path, prompts: Mapping[str, Sequence[str]]) -> Path:
    """A file in the form of VBench's own list."""
    entries = [{"prompt_en": text, "dimension": list(dimensions)} for text, dimensions in prompts.items()]
    path.write_text(json.dumps(entries))
    return path


def job(tmp_path: Path, prompts: Mapping[str, Sequence[str]], **more: Any) -> Request:
    suite = info(tmp_path / "info.json", prompts)
    return Request(tmp_path / "videos", str(suite), tmp_path / "run", "official", weights=tmp_path, **more)


def scored(record: RunRecord, dimension: str) -> list[str]:
    return sorted(v["file"] for v in record.summary["videos"] if dimension in v["scores"])


def kinds(record: RunRecord) -> set[str]:
    return {caveat["kind"] for caveat in record.summary["comparability"]}


def test_the_first_five_videos_of_a_prompt_count(looked: Looked, tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", {f"a dog-{k}": DARK + k for k in range(12)})
    record = score_folder(job(tmp_path, {"a dog": [IMAGING]}))
    assert scored(record, IMAGING) == [f"a dog-{k}.mp4" for k in range(5)]
    assert len(record.results) == 5
    assert kinds(record) == {"suite", "surplus-samples"}
    assert "7 videos" in next(c["text"] for c in record.summary["comparability"] if c["kind"] == "surplus-samples")


def test_a_prompt_of_two_dimensions_has_its_own_number_for_each(looked: Looked, tmp_path: Path) -> None:
    suite = read_suite(info(tmp_path / "info.json", {"a dog": [IMAGING, FLICKERING]}))
    make_videos(tmp_path / "videos", {f"a dog-{k}": DARK for k in range(27)}, n_frames=1)
    found = surplus(match(tmp_path / "videos", suite).samples, evalkit.runner.choose_metrics((), suite, "official"))
    by_rank = {int(file.split("-")[1].removesuffix(".mp4")): names for file, names in found.items()}
    assert by_rank == {
        **{k: frozenset({IMAGING}) for k in range(5, 25)},
        **{k: frozenset({IMAGING, FLICKERING}) for k in (25, 26)},
    }


def test_flickering_counts_the_first_five_still_clips_by_name(looked: Looked, tmp_path: Path) -> None:
    """Names in alphabetical order: 0, 1, 10, 11, 12, 2, 3, ...; the bright ones move."""
    moving = {0, 11, 3}
    levels = {f"a dog-{k}": BRIGHT + k if k in moving else DARK + k for k in range(13)}
    make_videos(tmp_path / "videos", levels)
    record = score_folder(job(tmp_path, {"a dog": [FLICKERING]}))
    assert scored(record, FLICKERING) == [f"a dog-{k}.mp4" for k in (1, 10, 12, 2, 4)]
    assert record.summary["protocol"]["static_filter"] == {
        "candidates": 13,
        "looked_at": 8,  # 0 1 10 11 12 2 3 4
        "undecided": 0,
        "kept": 5,
        "short_prompts": [],
    }
    assert looked.frames == 8 * FRAMES, "once five are found the rest is not looked at"
    assert not any(video["unscored"] for video in record.summary["videos"])


def test_a_second_run_looks_at_nothing_and_selects_the_same(looked: Looked, tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", {f"a dog-{k}": DARK + 20 * k for k in range(7)})
    request = job(tmp_path, {"a dog": [FLICKERING]})
    first = score_folder(request)
    looked.frames = 0
    second = score_folder(request)
    assert looked.frames == 0
    assert scored(second, FLICKERING) == scored(first, FLICKERING)
    assert second.summary["protocol"] == first.summary["protocol"]


def test_ctrl_c_in_the_filter_keeps_what_was_found(looked: Looked, tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", {f"a dog-{k}": DARK + k for k in range(5)})

    def stop() -> None:
        if looked.frames >= 2 * FRAMES:
            raise KeyboardInterrupt

    looked.fault = stop
    request = job(tmp_path, {"a dog": [FLICKERING]})
    assert score_folder(request).summary["interrupted"]
    looked.fault = lambda: None
    done = score_folder(request)
    assert looked.frames == 5 * FRAMES
    assert scored(done, FLICKERING) == [f"a dog-{k}.mp4" for k in range(5)]


def test_too_few_still_clips_are_said_aloud(looked: Looked, tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", {f"a dog-{k}": BRIGHT if k else DARK for k in range(6)})
    record = score_folder(job(tmp_path, {"a dog": [FLICKERING]}))
    assert scored(record, FLICKERING) == ["a dog-0.mp4"]
    assert record.summary["protocol"]["static_filter"]["short_prompts"] == ["001"]
    assert kinds(record) == {"suite", "missing-samples", "few-static-clips"}


def test_a_clip_the_filter_cannot_judge_does_not_count_and_is_counted(looked: Looked, tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", {f"a dog-{k}": DARK + k for k in range(3)})
    calls = iter([False, True, False])

    def fail() -> None:
        if next(calls):
            raise RuntimeError("out of memory")

    looked.fault = fail
    record = score_folder(job(tmp_path, {"a dog": [FLICKERING]}))
    assert scored(record, FLICKERING) == ["a dog-0.mp4", "a dog-2.mp4"]
    assert record.summary["protocol"]["static_filter"]["undecided"] == 1
    assert "undecided" in kinds(record)


def test_the_filter_can_be_left_out_and_that_is_said_aloud(looked: Looked, tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", {f"a dog-{k}": BRIGHT for k in range(5)})
    record = score_folder(job(tmp_path, {"a dog": [FLICKERING]}, static_filter=False))
    assert len(scored(record, FLICKERING)) == 5
    assert looked.frames == 0
    assert "unfiltered-flickering" in kinds(record)


def test_the_filter_can_be_asked_for_on_prompts_of_ones_own(looked: Looked, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("a dog\n")
    make_videos(tmp_path / "videos", {"001-0": DARK, "001-1": BRIGHT})
    request = replace(job(tmp_path, {}, static_filter=True), subset=str(tmp_path / "own.txt"))
    record = score_folder(request)
    assert scored(record, FLICKERING) == ["001-0.mp4"]
    assert scored(record, IMAGING) == ["001-0.mp4", "001-1.mp4"]


def test_the_filter_needs_something_to_filter(looked: Looked, tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", {"a dog-0": DARK})
    with pytest.raises(UserError, match="needs the official profile and temporal_flickering"):
        score_folder(job(tmp_path, {"a dog": [IMAGING]}, dimensions=(IMAGING,), static_filter=True))


def test_an_interval_does_not_leave_the_scores_there_can_be(looked: Looked, tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", {"a dog-0": 0, "a cat-0": 230, "a fox-0": 240})
    record = score_folder(job(tmp_path, {text: [IMAGING] for text in ("a dog", "a cat", "a fox")}))
    assert record.summary["dimensions"][IMAGING]["ci95"] == [0.0, 1.0]


# What keeps scores from being comparable


def own(tmp_path: Path, levels: Mapping[str, int], n_frames: int = FRAMES, fps: int = 16) -> Request:
    (tmp_path / "own.txt").write_text("a dog\na cat\n")
    make_videos(tmp_path / "videos", levels, n_frames, fps)
    return replace(job(tmp_path, {}), subset=str(tmp_path / "own.txt"))


def test_short_clips_on_prompts_of_ones_own_raise_no_doubts(looked: Looked, tmp_path: Path) -> None:
    assert kinds(score_folder(own(tmp_path, {"001-0": DARK, "002-0": DARK}))) == set()


@pytest.mark.parametrize(("n_frames", "long"), [(79, False), (80, True)])
def test_clips_of_five_seconds_are_long(looked: Looked, tmp_path: Path, n_frames: int, long: bool) -> None:
    record = score_folder(own(tmp_path, {"001-0": DARK}, n_frames))
    assert ("long-clips" in kinds(record)) == long


def test_slow_and_mixed_frame_rates(looked: Looked, tmp_path: Path) -> None:
    request = own(tmp_path, {"001-0": DARK}, fps=4)
    make_videos(tmp_path / "videos", {"002-0": DARK}, fps=24)
    record = score_folder(request)
    assert kinds(record) == {"frame-rates", "slow-clips"}
    assert "4 (1), 24 (1)" in next(c["text"] for c in record.summary["comparability"] if c["kind"] == "frame-rates")


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ({"prompt_id": "001"}, None),
        ({"prompt": "a dog"}, None),
        ({"prompt_id": "001", "prompt": " a dog "}, None),
        ({"prompt_id": "001", "generation_prompt": "a dog"}, None),
        ({"prompt_id": "001", "prompt": "a fluffy dog, 4k"}, "a fluffy dog, 4k"),
        ({"prompt": "a dog", "generation_prompt": "a fluffy dog, 4k"}, "a fluffy dog, 4k"),
    ],
)
def test_generation_prompts_are_recorded(looked: Looked, tmp_path: Path, line: dict[str, str], other: str) -> None:
    request = own(tmp_path, {"v": DARK})
    (tmp_path / "videos" / "manifest.jsonl").write_text(json.dumps({"file": "v.mp4", "seed": 0, **line}))
    record = score_folder(request)
    assert record.summary["videos"][0].get("generation_prompt") == other
    assert ("generation-prompts" in kinds(record)) == (other is not None)


def test_the_lite_profile_is_comparable_with_no_leaderboard(looked: Looked, tmp_path: Path) -> None:
    request = replace(own(tmp_path, {"001-0": DARK}, 80), profile="lite")
    assert kinds(score_folder(request)) == set()
