"""VBench-Long: a long video is cut into parts of a few seconds, each part is scored as a video of its own, and for
subject and background the parts are compared with each other as well ("slow-fast").

Huang et al., "VBench++" (arXiv:2411.13503); followed here: the official `vbench2_beta_long` with `--dev_flag`, as its
documentation calls it. What differs, because the official package writes every part to a file and this one does not:

- Parts are ranges of the one decode. Officially each part is encoded anew (H.264, constant rate factor 23, the frame
  rate rounded down), and the first frames of the parts once more: its numbers include that loss.
- temporal_flickering counts all parts. Officially parts with motion are filtered out first.

Scenes are cut first, if asked for; parts never reach over a cut and are compared with those of their own scene.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from evalkit import scenes
from evalkit.backbones.base import FeatureSpec
from evalkit.backbones.parts import FIRST_DINOV2, FIRST_DREAMSIM, PREFIX, Part, PartedClip, in_parts
from evalkit.decoding import Job
from evalkit.identify import video_key
from evalkit.job import Benchmark, Progress, Video
from evalkit.metrics import registry
from evalkit.metrics.base import MetricSpec
from evalkit.metrics.consistency import frame_consistency
from evalkit.prompts import load_suite
from evalkit.runner import choose_metrics
from evalkit.scoring import totals
from evalkit.store import content_key
from evalkit.suites.base import Get, Put, Read
from evalkit.types import Array, Clip, Features, Prompt, PromptSuite, Score, VideoInfo
from evalkit.video import VideoError

VERSION = 1
"""Raise it whenever parts or their fusion come out differently; it is part of every key."""

SECONDS = 2
LONGER_SECONDS: Mapping[str, int] = {"human_action": 10, "temporal_style": 10, "overall_consistency": 10}
"""Length of a part, and of parts of videos whose prompt is meant for one of these (configs/clip_length_mix.yaml)."""

BETWEEN: Mapping[str, FeatureSpec] = {"subject_consistency": FIRST_DINOV2, "background_consistency": FIRST_DREAMSIM}
"""What compares the parts of a scene with each other, by their first frames."""

WITHIN_WEIGHT = 0.5
"""Of the score within a part; the similarity between parts has the rest (configs/slow_fast_params.yaml)."""

QUIRKS = (
    "A part is floor(frame rate) x 2 frames (x 10 where the prompt is meant for human action, temporal style or overall"
    " consistency, for every dimension of that prompt). A last part that is too short begins earlier, so that it"
    " overlaps the one before; a scene shorter than a part is one part.",
    "Every part counts alike, so that long videos weigh more, in all dimensions: the official code means to average the"
    " parts of a video first, but takes every part's file name for a video of its own.",
)
QUIRKS_BETWEEN = (
    "The similarity between parts is mapped to the distribution of similarities within parts by a published table of"
    " 101 points, then averaged with the score within parts. A video of one part, or of a similarity of exactly 0, has"
    " its score within parts; just above 0 the table rises to 0.66 (subject) and 0.87 (background) at 0.01.",
    "If no video has two parts, the official subject consistency is weighted by frames; here by parts as always.",
)


def cut(start: int, stop: int, length: int) -> tuple[Part, ...]:
    """Cut a range of frames into parts of `length`; the last one begins earlier, where the range does not divide."""
    if stop - start < length:
        return ((start, stop),)
    whole = [(first, first + length) for first in range(start, stop - length + 1, length)]
    return tuple(whole if whole[-1][1] == stop else [*whole, (stop - length, stop)])


def divide(info: VideoInfo, seconds: int, cuts: Sequence[int] = ()) -> tuple[tuple[Part, ...], ...]:
    """The parts of every scene; none if the frame rate is below one frame a second."""
    length = int(info.fps) * seconds
    edges = (0, *cuts, info.n_frames)
    return tuple(cut(start, stop, length) for start, stop in pairwise(edges)) if length else ()


def seconds_of(prompt: Prompt) -> int:
    """How long the parts of a prompt's videos are: the longest that one of its dimensions wants."""
    return max((LONGER_SECONDS.get(name, SECONDS) for name in prompt.dimensions), default=SECONDS)


# --- scores -----------------------------------------------------------------------------------------------------------


@cache
def quantile_map(dimension: str) -> tuple[Array, Array]:
    """Similarity between parts, ascending from 0 to 1, and the value within parts that ranks as high."""
    path = Path(__file__).with_name("quantile_maps.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([float(row["between"]) for row in rows]), np.array([float(row[dimension]) for row in rows])


def fuse(dimension: str, within: float, between: float | None) -> float:
    """The score of a part from that within it and the similarity between its scene's parts (None: it is alone)."""
    if between is None:
        return within
    mapped = float(np.interp(between, *quantile_map(dimension)))
    if mapped == 0:
        return within
    return WITHIN_WEIGHT * within + (1 - WITHIN_WEIGHT) * mapped


def score_parts(metric: MetricSpec, clip: Clip, features: Features) -> Score:
    """The mean over all parts that have a score.

    Args:
        metric: scores one part.
        clip: a `PartedClip`.
        features: of every part, and of the parts' first frames where those are compared.
    """
    assert isinstance(clip, PartedClip), "the suite divides the clip"
    if not clip.parts:
        return Score.missing(f"cannot be cut into parts of some seconds at {clip.info.fps:g} frames a second")
    values, reasons, first = [], [], 0
    for parts in clip.scenes:
        last = first + len(parts)
        between = _similarity(metric, features, first, last)
        for index, part in enumerate(parts, first):
            found = _score_part(metric, clip.only(part), features, index)
            if found.value is None:
                reasons.append(str(found.unscored))
            else:
                values.append(fuse(metric.name, found.value, between))
        first = last
    if not values:
        return Score.missing(Counter(reasons).most_common(1)[0][0])
    return Score(sum(values) / len(values), n_terms=len(values))


def _similarity(metric: MetricSpec, features: Features, first: int, last: int) -> float | None:
    """How alike the parts `first .. last - 1` are; None if there is one, or if the dimension does not compare parts."""
    between = BETWEEN.get(metric.name)
    if between is None or last - first < 2:
        return None
    return frame_consistency(features[between.name][first:last]).value


def _score_part(metric: MetricSpec, part: Clip, features: Features, index: int) -> Score:
    found = {feature.name: features[PREFIX + feature.name][index] for feature in metric.features}
    if part.info.n_frames < metric.min_frames or any(array is None for array in found.values()):
        return Score.missing(f"needs parts of at least {metric.min_frames} frames")
    return metric.score(part, found)


def long_metric(metric: MetricSpec, min_frames: Mapping[str, int]) -> MetricSpec:
    """A dimension of VBench, scored in parts; `min_frames` says how short a part each feature takes."""
    features = tuple(in_parts(feature, min_frames[feature.name]) for feature in metric.features)
    between = BETWEEN.get(metric.name)
    compared = f" Between parts: {between.name.rpartition('/')[2]} features of first frames." if between else ""
    return replace(
        metric,
        name=PREFIX + metric.name,
        title=f"{metric.title} (long)",
        summary=f"VBench-Long, mean over parts of some seconds. {metric.summary}{compared}",
        features=features + ((between,) if between else ()),
        score=partial(score_parts, metric),
        source=f"VBench++ (arXiv:2411.13503), vbench2_beta_long/{metric.name}.py; in parts: {metric.source}",
        pooling="frames",  # n_terms is the number of parts
        min_frames=1,
        degrades={},
        quirks=QUIRKS + (QUIRKS_BETWEEN if between else ()) + metric.quirks,
        examples=(),
    )


@cache
def long_metrics() -> dict[str, MetricSpec]:
    """All dimensions of VBench in their long form, by VBench's name."""
    known = registry("official").values()
    readers: dict[str, list[int]] = {}
    for metric in known:
        for feature in metric.features:
            readers.setdefault(feature.name, []).append(metric.min_frames)
    min_frames = {name: min(found) for name, found in readers.items()}
    return {metric.name: long_metric(metric, min_frames) for metric in known}


def headlines(scores: Mapping[str, float]) -> dict[str, Any]:
    """VBench-Long is totalled with VBench's bounds and weights."""
    found = totals({name.removeprefix(PREFIX): score for name, score in scores.items()})
    return {
        "long/quality": found.quality,
        "long/semantic": found.semantic,
        "long/total": found.total,
        "coverage": found.coverage,
    }


# --- the suite --------------------------------------------------------------------------------------------------------


class Long:
    """VBench-Long.

    Args:
        split_scenes: cut at scene changes first. Off, as in the official commands; in its standard mode the official
            package does not find the parts of videos that it has split.
        threshold: of the scene detector.
    """

    def __init__(self, split_scenes: bool = False, threshold: float = scenes.THRESHOLD) -> None:
        self.split_scenes = split_scenes
        self.threshold = threshold
        settings = {"split_scenes": split_scenes, "threshold": threshold if split_scenes else None}
        self.benchmark = Benchmark("vbench-long", "VBench-Long", headlines, settings)
        self._cuts: dict[str, tuple[int, ...]] = {}

    def read_prompts(self, subset: str) -> PromptSuite:
        """As for VBench."""
        return load_suite(subset)

    def choose(self, names: Sequence[str], prompts: PromptSuite) -> tuple[MetricSpec, ...]:
        """As for VBench, in the long form."""
        chosen = choose_metrics([name.removeprefix(PREFIX) for name in names], prompts, "official")
        return tuple(long_metrics()[metric.name] for metric in chosen)

    def prepare(self, videos: Sequence[Video], read: Read, get: Get, put: Put, progress: Progress) -> None:
        """Find the scene cuts, once for every file."""
        if not self.split_scenes:
            return
        progress.start("looking for scene cuts", sum(video.info.n_frames for video in videos))
        for video in videos:
            key = content_key(video=video_key(video.sha256), scenes=[scenes.VERSION, self.threshold])
            if get(key) is None:
                cuts = self._find_cuts(video, read, progress)
                if cuts is None:
                    continue
                put(key, {"cuts": cuts})
            else:
                progress.advance(video.info.n_frames)
            self._cuts[video.sha256] = tuple((get(key) or {})["cuts"])

    def _find_cuts(self, video: Video, read: Read, progress: Progress) -> list[int] | None:
        """None for a damaged video: the scoring pass says what is wrong with it."""
        finder = scenes.CutFinder(self.threshold)
        try:
            for chunk in read(Job(video.sample.path, video.info)):
                finder.push(chunk.start, chunk.colours("opencv"))
                progress.advance(len(chunk.frames_THWC))
        except VideoError:
            return None
        return finder.cuts

    def clip(self, video: Video) -> PartedClip:
        """A clip that knows its parts."""
        prompt = video.sample.prompt
        return PartedClip(video.info, prompt.text, prompt.auxiliary, scenes=self._divide(video))

    def key(self, key: str, video: Video, metric: MetricSpec) -> str:
        """The same video is cut otherwise for another prompt."""
        return content_key(result=key, long=VERSION, parts=[[list(p) for p in s] for s in self._divide(video)])

    def _divide(self, video: Video) -> tuple[tuple[Part, ...], ...]:
        return divide(video.info, seconds_of(video.sample.prompt), self._cuts.get(video.sha256, ()))
