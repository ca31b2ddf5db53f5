"""The detector of the world of shapes against the scenes that were drawn, and against what should confuse it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from evalkit.metrics import FACTS, find, registry
from evalkit.prompts import load_suite
from evalkit.runner import choose_metrics
from evalkit.truth import _objects
from evalkit.truth._facts import colours_seen, motion_of
from evalkit.truth._objects import FEATURE, find_in_frames, outline
from evalkit.types import Array, Clip, Frames, Prompt, PromptSuite, VideoInfo
from evalkit.video import probe, read
from m4v.data import shapes
from m4v.data.shapes import LEVELS, Level, Scene, Thing, caption, render, scene_at

SIZE, FRAMES = 32, 17
METRICS = {name: registry("lite")[name] for name in FACTS}

Spoil = Callable[[Frames, Path], Frames]


def judged(frames_THWC: Frames, scene: Mapping[str, Any]) -> dict[str, float]:
    """The value of every metric whose fact the scene states."""
    return judged_objects(find_in_frames(frames_THWC), scene)


def judged_objects(objects_TKD: Array, scene: Mapping[str, Any]) -> dict[str, float]:
    clip = Clip(VideoInfo(SIZE, SIZE, len(objects_TKD), 8.0, "none", "rgb24"), "", {"scene": scene})
    scores = {name: metric.score(clip, {FEATURE.name: objects_TKD}) for name, metric in METRICS.items()}
    return {name: score.value for name, score in scores.items() if score.value is not None}


def everything(scene: Scene) -> dict[str, Any]:
    """The facts of a scene, the count of a single shape included."""
    return {"count": scene.count, **scene.facts()}


# Clean, and as spoiled as a video may be


def clean(frames_THWC: Frames, folder: Path) -> Frames:
    return frames_THWC


def h264(crf: int) -> Spoil:
    """Through an MP4 file, 4:2:0, and the decoder that every metric's frames come from."""

    def spoil(frames_THWC: Frames, folder: Path) -> Frames:
        path = folder / "clip.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=8, options={"crf": str(crf), "threads": "1"})
            stream.height, stream.width, stream.pix_fmt = SIZE, SIZE, "yuv420p"
            for frame_HWC in frames_THWC:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
            container.mux(stream.encode())
        return np.concatenate([chunk.frames_THWC for chunk in read(path, probe(path))])

    return spoil


def noise(deviation: float) -> Spoil:
    def spoil(frames_THWC: Frames, folder: Path) -> Frames:
        rng = np.random.default_rng(int(frames_THWC.sum()))
        return (frames_THWC + rng.normal(0, deviation, frames_THWC.shape)).clip(0, 255).astype(np.uint8)

    return spoil


def blur(deviation: float) -> Spoil:
    return lambda frames_THWC, folder: gaussian_filter(frames_THWC, (0, deviation, deviation, 0))


EVERY = 1.0
"""The stated rate: every fact of every scene is found."""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "spoil", [clean, h264(18), h264(23), noise(8), blur(0.7)], ids=["clean", "crf18", "crf23", "noise8", "blur0.7"]
)
def test_the_truth_is_found(level: Level, spoil: Spoil, tmp_path: Path) -> None:
    n = 40 if spoil is clean else 12
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for index in range(n):
        scene = scene_at(level, 20_000, index)
        for name, value in judged(spoil(render(scene, FRAMES, SIZE), tmp_path), everything(scene)).items():
            asked[name] += 1
            right[name] += value == 1.0
    assert set(asked) >= {"truth/colour", "truth/shape", "truth/motion", "truth/count"}
    assert {name: right[name] / asked[name] for name in asked} == dict.fromkeys(asked, EVERY)


@settings(max_examples=25, deadline=None)
@given(index=st.integers(0, 10**9), side=st.sampled_from([24, 32, 48, 64, 96, 128]), frames=st.integers(5, 33))
def test_size_and_length_do_not_matter(index: int, side: int, frames: int) -> None:
    scene = scene_at("default", 3, index)
    values = judged(render(scene, frames, side), everything(scene))
    assert set(values.values()) == {1.0}, (scene, values)


@settings(max_examples=15, deadline=None)
@given(index=st.integers(0, 10**9))
def test_wide_pictures_are_read_as_well(index: int) -> None:
    scene = scene_at("full", 5, index)
    assert set(judged(render(scene, 9, (32, 48)), everything(scene)).values()) == {1.0}


# What is false is called false


@settings(max_examples=25, deadline=None)
@given(index=st.integers(0, 10**9), other=st.integers(0, 10**9))
def test_of_another_scene_only_what_they_share_is_true(index: int, other: int) -> None:
    shown, asked = scene_at("default", 6, index), scene_at("default", 6, other)
    values = judged(render(shown, FRAMES, SIZE), asked.facts())
    everything_right = values.pop("truth/all")
    assert everything_right == float(set(values.values()) == {1.0})
    assert values == {
        "truth/colour": shown.things[0].colour == asked.things[0].colour,
        "truth/shape": shown.things[0].shape == asked.things[0].shape,
        "truth/motion": shown.motion == asked.motion,
    }


def noisy_clips() -> list[Frames]:
    rng = np.random.default_rng(1)
    white = [rng.integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8) for _ in range(10)]
    soft = [gaussian_filter(rng.normal(0, 1, (FRAMES, SIZE, SIZE, 3)), (2, 2, 2, 0)) for _ in range(10)]
    return white + [(128 + 128 * s / np.abs(s).max()).clip(0, 255).astype(np.uint8) for s in soft]


def test_noise_satisfies_no_prompt_more_often_than_chance() -> None:
    """20 clips of white and of smooth noise against 50 prompts: chance is 1/5, 1/3 and 1/6, all three 1/90."""
    scenes = [prompt.auxiliary["scene"] for prompt in load_suite("shapes50").prompts]
    found = [find_in_frames(video) for video in noisy_clips()]
    values = [judged_objects(objects_TKD, scene) for objects_TKD in found for scene in scenes]
    rate = {name: np.mean([value[name] for value in values]) for name in values[0]}
    assert rate["truth/colour"] <= 0.25
    assert rate["truth/shape"] <= 0.40
    assert rate["truth/motion"] <= 0.20
    assert np.mean([min(value.values()) for value in values]) <= 0.05


@pytest.mark.parametrize("grey", [0, 100, 255])
def test_an_empty_picture_satisfies_nothing(grey: int) -> None:
    scene = {"objects": [{"colour": "red", "shape": "circle"}], "motion": "still", "count": 1}
    empty = np.full((FRAMES, SIZE, SIZE, 3), grey, np.uint8)
    assert set(judged(empty, scene).values()) == {0.0}


def test_a_picture_full_of_colour_holds_no_object() -> None:
    full = np.broadcast_to(np.array([225, 45, 45], np.uint8), (FRAMES, SIZE, SIZE, 3)).copy()
    assert judged(full, {"objects": [{"colour": "red", "shape": "square"}], "motion": "still"})["truth/motion"] == 0.0


def test_frames_out_of_order_are_no_motion() -> None:
    order = np.random.default_rng(0).permutation(FRAMES)
    for index in range(40):
        scene = scene_at("default", 9, index)
        seen = motion_of(find_in_frames(render(scene, FRAMES, SIZE)[order]))
        assert seen == ("still" if scene.motion == "still" else None) or (scene.motion, seen) == ("grows", "still")


def test_backwards_is_the_other_direction() -> None:
    turned = {"left": "right", "right": "left", "up": "down", "down": "up", "still": "still", "grows": None}
    for index in range(30):
        scene = scene_at("default", 10, index)
        assert motion_of(find_in_frames(render(scene, FRAMES, SIZE)[::-1])) == turned[scene.motion]


def test_of_a_pair_the_half_that_is_right_counts_half() -> None:
    red, blue = Thing("red", "circle", 0.3, 0.5, 0.12), Thing("blue", "square", 0.7, 0.5, 0.12)
    scene = Scene((red, blue), "still", 0.0, shapes.Background(20), position="left of")
    facts = {
        **scene.facts(),
        "objects": [{"colour": "red", "shape": "circle"}, {"colour": "green", "shape": "square"}],
    }
    values = judged(render(scene, FRAMES, SIZE), facts)
    assert values == {
        "truth/colour": 0.5,
        "truth/shape": 0.5,
        "truth/motion": 1.0,
        "truth/count": 1.0,
        "truth/position": 0.0,
        "truth/all": 0.0,
    }


# Parts


def test_the_detector_knows_the_worlds_colours_and_forms() -> None:
    assert _objects.COLOURS == shapes.PALETTE
    assert _objects.FORMS == shapes.FORMS


@pytest.mark.parametrize("form", shapes.FORMS)
def test_outlines_have_their_area_and_centroid(form: str) -> None:
    """Closed form, within 2 % of the area and a tenth of a pixel: four points a pixel side."""
    cover_HW = outline(form, 16.3, 15.8, 120.0, 32, 32)
    rows, cols = np.mgrid[:32, :32] + 0.5
    assert cover_HW.sum() == pytest.approx(120, rel=0.02)
    assert (cover_HW * cols).sum() / cover_HW.sum() == pytest.approx(16.3, abs=0.1)
    assert (cover_HW * rows).sum() / cover_HW.sum() == pytest.approx(15.8, abs=0.1)


@settings(max_examples=20, deadline=None)
@given(index=st.integers(0, 10**9))
def test_area_and_place_are_measured(index: int) -> None:
    """Against the scene: area within 6 %, place within 0.15 pixels."""
    scene = scene_at("default", 12, index)
    area, _, x, y = find_in_frames(render(scene, FRAMES, SIZE))[-1, 0, :4]
    thing, way = scene.things[0], {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    dx, dy = way.get(scene.motion, (0, 0))
    assert area == pytest.approx(math.pi * thing.size**2, rel=0.06)
    assert x == pytest.approx(thing.x + dx * scene.travel, abs=0.15 / SIZE)
    assert y == pytest.approx(thing.y + dy * scene.travel, abs=0.15 / SIZE)


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 1, 1), (4, 9, 300), (3, 270, 2), (2, 8, 8), (5, 33, 47)], ids=str)
def test_odd_videos_get_a_verdict(shape: tuple[int, int, int]) -> None:
    frames_THWC = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scene = {"objects": [{"colour": "red", "shape": "circle"}], "motion": "left", "count": 1}
    assert all(0 <= value <= 1 for value in judged(frames_THWC, scene).values())


def test_colours_are_listed_by_size() -> None:
    large, small = Thing("green", "circle", 0.3, 0.5, 0.15), Thing("red", "square", 0.75, 0.5, 0.11)
    frames = render(Scene((small, large), "still", 0.0, shapes.Background(20)), 3, SIZE)
    assert colours_seen(find_in_frames(frames)) == ["green", "red"]


# What is not stated is not scored


@pytest.mark.parametrize("name", FACTS)
def test_what_the_prompt_does_not_state_is_unscored(name: str) -> None:
    features = {FEATURE.name: find_in_frames(render(scene_at("easy", 0, 0), FRAMES, SIZE))}
    info = VideoInfo(SIZE, SIZE, FRAMES, 8.0, "none", "rgb24")
    without = METRICS[name].score(Clip(info, "a red circle moves left"), features)
    assert (without.value, without.unscored) == (None, "the prompt comes without a scene to compare with")
    silent = METRICS[name].score(Clip(info, "a red circle", {"scene": {}}), features)
    assert silent.unscored == f"the prompt's scene does not state {METRICS[name].fact}"


def test_metrics_are_found_by_name_in_the_lite_profile_only() -> None:
    assert find("truth/motion", "lite").name == "truth/motion"
    assert not set(FACTS) & set(registry("official"))


def test_suites_with_scenes_are_judged_by_the_facts_they_state() -> None:
    chosen = [metric.name for metric in choose_metrics((), load_suite("shapes50"), "lite")]
    assert chosen[-4:] == ["truth/colour", "truth/shape", "truth/motion", "truth/all"]
    assert "lite/overall_consistency" in chosen
    assert not any(m.reads_scene for m in choose_metrics((), load_suite("custom50"), "lite"))
    everything = PromptSuite("full", load_suite("custom50").prompts, "")
    assert not any(m.reads_scene for m in choose_metrics((), everything, "lite"))
    counted = PromptSuite("mine", (Prompt("1", "two", auxiliary={"scene": {"count": 2}}),), "")
    assert choose_metrics((), counted, "lite")[-1].name == "truth/count"


# The suite


def test_shapes50_states_what_its_prompts_say() -> None:
    prompts = load_suite("shapes50").prompts
    assert [p.id for p in prompts] == [f"shapes50-{n:02d}" for n in range(1, 51)]
    for prompt in prompts:
        scene = prompt.auxiliary["scene"]
        (thing,) = scene["objects"]
        drawn = Scene(
            (Thing(thing["colour"], thing["shape"], 0.5, 0.5, 0.2),), scene["motion"], 0.3, shapes.Background(9)
        )
        assert prompt.text == caption(drawn)
        assert drawn.facts() == scene


def test_shapes50_is_balanced() -> None:
    scenes = [p.auxiliary["scene"] for p in load_suite("shapes50").prompts]
    triples = [(s["objects"][0]["colour"], s["objects"][0]["shape"], s["motion"]) for s in scenes]
    assert len(set(triples)) == 50
    counts = [sorted(Counter(column).values()) for column in zip(*triples, strict=True)]
    assert counts == [[10] * 5, [16, 17, 17], [8, 8, 8, 8, 9, 9]]


def test_the_readme_states_the_suites_identity() -> None:
    table = (Path(__file__).parent.parent / "prompts" / "README.md").read_text(encoding="utf-8")
    assert f"| `shapes50` | 50 | `{load_suite('shapes50').sha256}` |" in table
