"""VBench-Long: how clips are cut into parts, how parts become one score, and a run that does both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evalkit.suites.long
from evalkit import scenes
from evalkit.backbones.base import Extractor, FeatureSpec, PerFrame, Runtime
from evalkit.backbones.parts import FirstFrames, InParts, PartedClip, in_parts
from evalkit.decoding import Decoder, Job
from evalkit.errors import UserError
from evalkit.job import Request
from evalkit.metrics import registry
from evalkit.metrics.base import MetricSpec
from evalkit.metrics.consistency import frame_consistency
from evalkit.records import RunRecord
from evalkit.report.page import compose
from evalkit.suites.base import score
from evalkit.suites.long import BETWEEN, Long, cut, divide, fuse, long_metric, long_metrics, score_parts, seconds_of
from evalkit.types import Array, Clip, FrameChunk, Frames, Prompt, Score, VideoInfo
from evalkit.weights import WeightStore
from tests.clips import gradient_frames, moving_scene, write_clip
from tests.parity import long_i2v

GOLDEN = json.loads(long_i2v.GOLDEN.read_text(encoding="utf-8"))


# Parts


@given(st.integers(0, 50), st.integers(1, 300), st.integers(1, 40))
def test_parts_cover_the_range_in_equal_lengths(start: int, n: int, length: int) -> None:
    parts = cut(start, start + n, length)
    assert {frame for first, end in parts for frame in range(first, end)} == set(range(start, start + n))
    assert {end - first for first, end in parts} == {min(n, length)}
    assert len(parts) == max(1, -(-n // length))
    assert [first for first, _ in parts[:-1]] == [start + i * length for i in range(len(parts) - 1)]


@pytest.mark.parametrize(
    ("fps", "n", "seconds", "cuts", "expected"),
    [
        (5.5, 20, 2, (), (((0, 10), (10, 20)),)),  # the rate is rounded down
        (5.0, 27, 2, (), (((0, 10), (10, 20), (17, 27)),)),
        (5.0, 8, 2, (), (((0, 8),),)),
        (1.0, 27, 10, (4,), (((0, 4),), ((4, 14), (14, 24), (17, 27)))),
        (0.5, 27, 2, (), ()),
    ],
)
def test_how_clips_are_divided(fps: float, n: int, seconds: int, cuts: tuple[int, ...], expected: object) -> None:
    assert divide(VideoInfo(64, 48, n, fps, "none", "rgb24"), seconds, cuts) == expected


def test_a_prompt_sets_the_length_of_its_parts() -> None:
    assert seconds_of(Prompt("1", "x")) == 2
    assert seconds_of(Prompt("1", "x", ("scene", "background_consistency"))) == 2
    assert seconds_of(Prompt("1", "x", ("overall_consistency", "imaging_quality"))) == 10


# Fusion


@pytest.mark.parametrize(("dimension", "within", "between", "expected"), GOLDEN["fused"])
def test_fusion_is_the_official_one(dimension: str, within: float, between: float, expected: float) -> None:
    assert fuse(dimension, within, between) == pytest.approx(expected, rel=1e-12)


@given(st.floats(0, 1), st.floats(0, 1.001), st.sampled_from(sorted(BETWEEN)))
def test_fusion_stays_between_its_halves(within: float, between: float, dimension: str) -> None:
    assert fuse(dimension, within, None) == within
    assert within / 2 <= fuse(dimension, within, between) <= max(within, (within + 1) / 2)


def mean_pixel(name: str = "mean_pixel") -> FeatureSpec:
    def embed(frames_BHWC: Frames) -> Array:
        return frames_BHWC.mean((1, 2)) + 1

    def load(store: WeightStore, runtime: Runtime) -> Extractor:
        return PerFrame(embed, runtime.batch)

    return FeatureSpec(name, 1, load)


def brightness(clip: Clip, features: dict[str, Array]) -> Score:
    if clip.info.n_frames == 3:
        return Score.missing("three frames")
    return Score(float(features["mean_pixel"].mean()), n_terms=clip.info.n_frames)


def a_metric(name: str = "imaging_quality", **changes: object) -> MetricSpec:
    return MetricSpec(name, 1, "t", "s.", (mean_pixel(),), brightness, "x", **changes)  # type: ignore[arg-type]


def parted(*parts_of_scenes: tuple[tuple[int, int], ...]) -> PartedClip:
    n = max(end for parts in parts_of_scenes for _, end in parts)
    return PartedClip(VideoInfo(8, 8, n, 5.0, "none", "rgb24"), "", scenes=parts_of_scenes)


def part_features(*values: float | None) -> dict[str, Array]:
    array = np.full(len(values), None, dtype=object)
    for i, value in enumerate(values):
        array[i] = None if value is None else np.full((2, 3), value)
    return {"long/mean_pixel": array}


def test_parts_count_alike_and_unscored_ones_not_at_all() -> None:
    clip = parted(((0, 4), (4, 8)), ((8, 11),), ((11, 15),))
    found = score_parts(a_metric(), clip, part_features(0.2, 0.4, 0.9, 0.6))
    assert found == Score(pytest.approx(0.4), n_terms=3)
    assert score_parts(a_metric(), parted(((0, 3),)), part_features(0.9)).unscored == "three frames"
    assert "at least 4" in str(score_parts(a_metric(min_frames=4), parted(((0, 2),)), part_features(None)).unscored)
    assert "5 frames a second" in str(score_parts(a_metric(), PartedClip(clip.info, "", scenes=()), {}).unscored)


def test_scenes_compare_their_own_parts() -> None:
    clip = parted(((0, 4), (4, 8)), ((8, 12),))
    first_frames = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]])
    features = part_features(0.5, 0.7, 0.9) | {BETWEEN["subject_consistency"].name: first_frames}
    between = frame_consistency(first_frames[:2]).value
    fused = [fuse("subject_consistency", x, between) for x in (0.5, 0.7)]
    found = score_parts(a_metric("subject_consistency"), clip, features)
    assert found == Score(pytest.approx((sum(fused) + 0.9) / 3), n_terms=3)


def test_every_dimension_has_its_long_form() -> None:
    assert list(long_metrics()) == list(registry("official"))
    for name, metric in long_metrics().items():
        assert metric.name == f"long/{name}"
        assert metric.dimension == name
        assert "(long)" in metric.title
        assert metric.summary.startswith("VBench-Long")
        assert all(feature.name.startswith("long/") for feature in metric.features)
        short = registry("official")[name]
        assert (metric.reads_prompt, metric.auxiliary) == (short.reads_prompt, short.auxiliary)


# Reading


@given(st.sets(st.integers(1, 26)), st.integers(1, 9))
def test_parts_are_read_as_clips_of_their_own(cuts: set[int], batch: int) -> None:
    frames_THWC = moving_scene(27, 24, 24)
    clip = parted(((0, 10), (10, 20), (17, 27)))
    store = WeightStore(Path())
    plain = mean_pixel().load(store, Runtime(batch=batch))
    reader = in_parts(mean_pixel(), 1).load(store, Runtime(batch=batch)).open(clip)
    for chunk in np.split(np.arange(27), sorted(cuts)):
        reader.push(int(chunk[0]), frames_THWC[chunk])
    for (first, end), features in zip(clip.parts, reader.close(), strict=True):
        alone = plain.open(clip.only((first, end)))
        alone.push(0, frames_THWC[first:end])
        np.testing.assert_array_equal(features, alone.close())


def test_short_parts_are_not_read_and_first_frames_are() -> None:
    clip, frames_THWC = parted(((0, 4),), ((4, 5),), ((5, 9), (7, 11))), moving_scene(11, 24, 24)

    def embed(frames_BHWC: Frames) -> Array:
        return frames_BHWC.mean((1, 2))

    parts = InParts(PerFrame(embed, 3), min_frames=2).open(clip)
    firsts = FirstFrames(embed).open(clip)
    for start in range(0, 11, 4):
        parts.push(start, frames_THWC[start : start + 4])
        firsts.push(start, frames_THWC[start : start + 4])
    assert [array if array is None else len(array) for array in parts.close()] == [4, None, 4, 4]
    np.testing.assert_array_equal(firsts.close(), embed(frames_THWC[[0, 4, 5, 7]]))


# Scenes


def test_small_pictures_and_still_ones_have_no_cuts() -> None:
    finder = scenes.CutFinder()
    finder.push(0, np.zeros((40, 4, 4, 3), np.uint8))
    assert finder.cuts == []


@pytest.mark.parametrize("chunk", [1, 7, 80])
def test_a_planted_cut_is_found(chunk: int) -> None:
    frames_THWC = np.concatenate([moving_scene(40, 48, 64, seed=1) // 4, 255 - moving_scene(40, 48, 64, seed=2) // 4])
    finder = scenes.CutFinder()
    for start in range(0, 80, chunk):
        finder.push(start, frames_THWC[start : start + chunk])
    assert finder.cuts == [40]


# A run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clips of 6 frames a second; two metrics without weights: flickering, and subject consistency of plain colours."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "suite.txt").write_text("one\ntwo\nthree\n")
    two_shots = np.concatenate([gradient_frames(20, 48, 64, 10), 255 - gradient_frames(20, 48, 64, 10)])
    write_clip(tmp_path / "videos" / "one-0.mp4", two_shots, fps=6)
    write_clip(tmp_path / "videos" / "two-0.mp4", moving_scene(30), fps=6)
    write_clip(tmp_path / "videos" / "three-0.mp4", moving_scene(1), fps=6)

    def colours(clip: Clip, features: dict[str, Array]) -> Score:
        return frame_consistency(features["mean_pixel"])

    subject = MetricSpec(
        "subject_consistency", 1, "t", "s.", (mean_pixel(),), colours, "x", pooling="frames", min_frames=2
    )
    flickering = registry("official")["temporal_flickering"]
    first_frames = in_parts(mean_pixel(), 1)

    def load(store: WeightStore, runtime: Runtime) -> Extractor:
        return FirstFrames(lambda frames_BHWC: frames_BHWC.mean((1, 2)) + 1)

    monkeypatch.setitem(
        evalkit.suites.long.BETWEEN,  # type: ignore[arg-type]
        "subject_consistency",
        FeatureSpec(first_frames.name + " first", 1, load),
    )
    shortest = {"mean_pixel": 2, flickering.features[0].name: flickering.min_frames}
    metrics = {m.name: long_metric(m, shortest) for m in (subject, flickering)}
    monkeypatch.setattr(evalkit.suites.long, "long_metrics", lambda: metrics)
    return tmp_path


def run(folder: Path, split_scenes: bool = False, *dimensions: str) -> RunRecord:
    names = dimensions or ("subject_consistency", "long/temporal_flickering")
    request = Request(
        folder / "videos", str(folder / "suite.txt"), folder / "run", "official", names, folder, runtime=Runtime()
    )
    return score(Long(split_scenes), request)


def test_a_run_of_long_clips(folder: Path) -> None:
    record = run(folder)
    assert record.summary["schema"] == "m4v-eval/vbench-long/1"
    assert record.summary["profile"] == "vbench-long"
    assert record.summary["comparability"] == []
    rows = {(row.file, row.dimension): row for row in record.results.itertuples()}
    assert {name for _, name in rows} == {"long/subject_consistency", "long/temporal_flickering"}
    assert rows["one-0.mp4", "long/subject_consistency"].n_terms == 4  # 12 + 12 + 12 frames, and the last 12 once more
    assert "at least 2 frames" in rows["three-0.mp4", "long/subject_consistency"].unscored
    terms = [rows[f"{name}-0.mp4", "long/temporal_flickering"] for name in ("one", "two")]
    pooled = sum(row.value * row.n_terms for row in terms) / sum(row.n_terms for row in terms)
    assert record.summary["dimensions"]["long/temporal_flickering"]["score"] == pytest.approx(pooled)
    assert record.summary["aggregate"]["long/quality"] is None
    assert record.summary["aggregate"]["coverage"]["scored"] == ["subject_consistency", "temporal_flickering"]
    page = compose([record], folder / "page.html")
    assert "These are vbench-long scores" in page
    assert "Official profile" not in page


def test_splitting_scenes_keeps_parts_from_reaching_over_cuts(folder: Path) -> None:
    whole, split = run(folder).summary, run(folder, split_scenes=True).summary
    changed, same = (
        [summary["videos"][place]["scores"] for summary in (whole, split)] for place in (0, 1)
    )  # "one" has a cut in the middle of a part, "two" has none
    assert changed[1]["long/temporal_flickering"] > changed[0]["long/temporal_flickering"] + 0.01
    assert same[0] == same[1]
    assert split["provenance"]["config"]["threshold"] == scenes.THRESHOLD


def test_a_second_run_decodes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(folder, True)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(Decoder, "read", refuse)
    assert run(folder, True).summary["videos"] == first.summary["videos"]


def test_a_killed_run_goes_on_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, did = Decoder.read, []

    def read(decoder: Decoder, job: Job) -> Iterator[FrameChunk]:
        did.append(job.path.name)
        if len(did) == 2:
            raise KeyboardInterrupt
        return real(decoder, job)

    monkeypatch.setattr(Decoder, "read", read)
    cut_short = run(folder)
    assert cut_short.summary["interrupted"]
    assert run(folder).summary["videos"] != cut_short.summary["videos"]
    assert did[0] not in did[2:]


def test_the_prompt_decides_the_parts_and_so_the_key(folder: Path) -> None:
    short = run(folder, False, "temporal_flickering")
    prompt = {"text": "two", "dimensions": ["temporal_flickering", "overall_consistency"]}
    (folder / "suite.txt").unlink()
    (folder / "suite.jsonl").write_text(json.dumps(prompt))
    request = Request(
        folder / "videos",
        str(folder / "suite.jsonl"),
        folder / "run",
        "official",
        ("temporal_flickering",),
        folder,
        runtime=Runtime(),
    )
    longer = score(Long(), request)
    keys = [
        record.results.query("file == 'two-0.mp4' and dimension == 'long/temporal_flickering'").iloc[0]
        for record in (short, longer)
    ]
    assert keys[0]["key"] != keys[1]["key"]
    assert [row["n_terms"] for row in keys] == [3, 1]


def test_unknown_dimensions_are_named(folder: Path) -> None:
    with pytest.raises(UserError, match="Did you mean"):
        run(folder, False, "subject_consistence")
