"""What every metric must satisfy, whoever writes it: parametrised over the registry, so new metrics arrive tested."""

from __future__ import annotations

import gc
import weakref
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics import DIMENSIONS, FACTS, registry
from evalkit.metrics.base import Degradation, Example, MetricSpec
from evalkit.types import Clip, Frames, Profile, VideoInfo
from tests.degradations import FPS, PHOTOS, STRENGTHS, clip, degraded, extractors, prompt_for, score_frames

PROFILES: tuple[Profile, ...] = get_args(Profile)
ALL = {f"{profile}-{name}": metric for profile in PROFILES for name, metric in registry(profile).items()}
LITE = registry("lite")
STAND_INS = {name: metric for name, metric in LITE.items() if not metric.reads_scene}
PLANTED: list[tuple[str, Degradation]] = [(name, kind) for name, metric in LITE.items() for kind in metric.degrades]

ROUNDING = 1e-9
"""How far a single clip may move against the declared sign: rounding, nothing else."""

every_metric = pytest.mark.parametrize("metric", ALL.values(), ids=ALL)
every_lite_metric = pytest.mark.parametrize("metric", LITE.values(), ids=LITE)
every_stand_in = pytest.mark.parametrize("metric", STAND_INS.values(), ids=STAND_INS)
every_example = pytest.mark.parametrize(
    ("metric", "example"),
    [pytest.param(m, e, id=f"{key}-{i}") for key, m in ALL.items() for i, e in enumerate(m.examples)],
)


def clip_of(example: Example) -> Clip:
    return Clip(VideoInfo(64, 48, 16, FPS, "none", "rgb24"), example.prompt, example.auxiliary)


# Declarations


@every_metric
def test_the_declaration_is_complete(metric: MetricSpec) -> None:
    assert metric.dimension in (FACTS if metric.reads_scene else DIMENSIONS)
    assert metric.version >= 1
    assert metric.min_frames >= 1
    assert metric.features
    assert metric.examples, "a metric shows at least one worked example"
    for text in (metric.title, metric.summary, metric.source):
        assert text == text.strip() != ""
    assert metric.summary.endswith(".")
    assert set(metric.degrades) <= set(get_args(Degradation))
    assert set(metric.degrades.values()) <= {-1, 1}


@every_metric
def test_the_declared_features_are_distinct_and_versioned(metric: MetricSpec) -> None:
    names = [feature.name for feature in metric.features]
    assert len(set(names)) == len(names)
    assert all(feature.version >= 1 for feature in metric.features)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_feature_name_means_one_extractor(profile: Profile) -> None:
    by_name: dict[str, object] = {}
    for metric in registry(profile).values():
        for feature in metric.features:
            assert by_name.setdefault(feature.name, feature) == feature


def test_official_metrics_bear_the_official_names() -> None:
    assert all(name in DIMENSIONS for name in registry("official"))


def test_stand_ins_say_that_they_are_not_vbench() -> None:
    for name, metric in STAND_INS.items():
        if metric is registry("official").get(name):
            continue  # needs no weights, official in both profiles
        assert name.startswith("lite/")
        assert "(lite)" in metric.title
        assert metric.summary.startswith("Not VBench")


def test_facts_of_a_scene_say_so_and_no_more() -> None:
    assert tuple(name for name, metric in LITE.items() if metric.reads_scene) == FACTS
    for name in FACTS:
        assert LITE[name].name.startswith("truth/")
        assert LITE[name].title.endswith("(truth)")
        assert LITE[name].reads_prompt
        assert LITE[name].auxiliary_key == "scene"


def test_the_lite_profile_needs_no_checkpoint() -> None:
    assert [f.checkpoints for metric in LITE.values() for f in metric.features if f.checkpoints] == []


# The score function


@every_example
def test_a_worked_example_gives_its_value(metric: MetricSpec, example: Example) -> None:
    assert metric.score(clip_of(example), example.features).value == pytest.approx(example.value, abs=1e-9)
    smallest, largest = metric.range
    assert smallest is None or example.value >= smallest
    assert largest is None or example.value <= largest


@every_example
def test_scoring_is_pure(metric: MetricSpec, example: Example) -> None:
    before = {name: array.copy() for name, array in example.features.items()}
    first = metric.score(clip_of(example), example.features)
    assert metric.score(clip_of(example), example.features) == first
    for name, array in example.features.items():
        np.testing.assert_array_equal(array, before[name])


@every_example
def test_the_prompt_matters_only_where_declared(metric: MetricSpec, example: Example) -> None:
    if not metric.reads_prompt:
        other = Clip(clip_of(example).info, "a dark red horse gallops", {"scene": {"objects": []}})
        assert metric.score(other, example.features) == metric.score(clip_of(example), example.features)


# Extractors without weights


@every_lite_metric
@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, 9)))
def test_chunking_does_not_change_a_bit(metric: MetricSpec, cuts: set[int]) -> None:
    frames_THWC, prompt = clip("cat", n_frames=10, height=47, width=63), prompt_for("cat")
    assert score_frames(metric, frames_THWC, prompt, sorted(cuts)) == score_frames(metric, frames_THWC, prompt)


@every_lite_metric
def test_a_second_run_gives_the_same_score(metric: MetricSpec) -> None:
    first = score_frames(metric, clip("coffee"), prompt_for("coffee"))
    extractors.cache_clear()
    score_frames(metric, clip("rocket"), prompt_for("rocket"))  # another clip in between leaves nothing behind
    assert score_frames(metric, clip("coffee"), prompt_for("coffee")) == first


@every_lite_metric
def test_frames_are_forgotten_once_read(metric: MetricSpec) -> None:
    video = Clip(VideoInfo(63, 47, 12, FPS, "none", "rgb24"), prompt_for("cat"))
    readers = [extractor.open(video) for extractor in extractors(metric.features).values()]
    pushed = []
    for start in range(0, 12, 3):
        chunk_THWC = clip("cat", n_frames=12, height=47, width=63)[start : start + 3].copy()
        pushed.append(weakref.ref(chunk_THWC))
        for reader in readers:
            reader.push(start, chunk_THWC)
    del chunk_THWC
    gc.collect()
    assert sum(chunk() is not None for chunk in pushed) <= 1, "at most the last chunk may still be held"
    assert sum(reader.close().nbytes for reader in readers) <= 12 * 4096, "features are a few kilobytes a frame"


SHAPES = [(1, 2, 2), (1, 120, 160), (2, 2, 2), (3, 1, 1), (4, 16, 16), (5, 33, 47), (3, 7, 201), (3, 1080, 2)]
FILLS = {"black": (0, 0, 0), "white": (255, 255, 255), "gray": (128, 128, 128), "red": (200, 10, 10)}


def _filled(shape_THW: tuple[int, int, int], content: str) -> Frames:
    if content == "random":
        return np.random.default_rng(0).integers(0, 256, (*shape_THW, 3), dtype=np.uint8)
    return np.broadcast_to(np.array(FILLS[content], dtype=np.uint8), (*shape_THW, 3)).copy()


@every_lite_metric
@pytest.mark.parametrize("content", [*FILLS, "random"])
@pytest.mark.parametrize("shape_THW", SHAPES, ids=str)
def test_odd_videos_get_a_score_or_a_reason(metric: MetricSpec, shape_THW: tuple[int, int, int], content: str) -> None:
    verdict = score_frames(metric, _filled(shape_THW, content), "a red horse gallops")
    if shape_THW[0] < metric.min_frames:
        assert verdict.unscored
    elif metric.reads_scene:
        assert verdict.unscored == "the prompt comes without a scene to compare with"
    else:
        assert verdict.value is not None
        assert 0 <= verdict.value <= 1
        assert verdict.n_terms >= 1


# Planted degradations


@pytest.mark.parametrize(("name", "kind"), PLANTED)
def test_a_planted_degradation_moves_the_score_the_declared_way(name: str, kind: Degradation) -> None:
    metric = LITE[name]
    values = [[score_frames(metric, *degraded(p, kind, s)).value for s in STRENGTHS[kind]] for p in PHOTOS]
    scores_PS = np.array(values, dtype=np.float64)
    declared = metric.degrades[kind]
    assert (np.diff(scores_PS.mean(axis=0)) * declared > 0).all(), f"not ordered on the average: {scores_PS}"
    assert (np.diff(scores_PS, axis=1) * declared >= -ROUNDING).all(), f"a clip moved the other way: {scores_PS}"


def test_every_degradation_is_seen_by_some_metric() -> None:
    assert {kind for _, kind in PLANTED} == set(get_args(Degradation))


@every_stand_in
def test_every_stand_in_declares_what_it_sees(metric: MetricSpec) -> None:
    # A score of the prompt's agreement need not fall when the picture gets worse.
    assert len(metric.degrades) >= 2 or set(metric.degrades) == {"wrong_prompt"}
    assert ("wrong_prompt" in metric.degrades) == metric.reads_prompt
