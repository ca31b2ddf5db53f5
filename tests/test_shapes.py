"""The world of shapes: what it draws is what it says, to the bit and at any time."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m4v.data import Source
from m4v.data.shapes import (
    COLOURS,
    FORMS,
    LEVELS,
    MOTIONS,
    PALETTE,
    PHRASINGS,
    RELATIONS,
    VERSION,
    Background,
    Colour,
    Form,
    Level,
    Scene,
    ShapesWorld,
    Thing,
    caption,
    render,
    render_batch,
    scene_at,
    vocabulary,
)

every_level = pytest.mark.parametrize("level", LEVELS)
any_index = st.integers(0, 10**12)


def one(form: Form, size: float = 0.3, colour: Colour = "red", x: float = 0.5, y: float = 0.5) -> Scene:
    return Scene((Thing(colour, form, x, y, size),), "still", 0.0, Background(0.0))


def red_share(video_THWC: np.ndarray) -> np.ndarray:
    """Coverage `(T, H, W)` of a single red shape on black."""
    return video_THWC[..., 0] / PALETTE["red"][0]


# Determinism


@every_level
def test_a_batch_is_a_pure_function_of_its_arguments(level: Level) -> None:
    world = ShapesWorld(level)
    first = world.batch(7, 6, seed=3)
    world.batch(1, 2, seed=9)
    again = ShapesWorld(level).batch(7, 6, seed=3)
    assert torch.equal(first.video_BTHWC, again.video_BTHWC)
    assert first.captions == again.captions


def test_another_process_draws_the_same_bits() -> None:
    script = (
        "import hashlib; from m4v.data.shapes import ShapesWorld;"
        "b = ShapesWorld('full').batch(2, 8, seed=5);"
        "print(hashlib.sha256(b.video_BTHWC.numpy().tobytes() + '|'.join(b.captions).encode()).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout for _ in range(2)]
    assert runs[0] == runs[1]


@every_level
@settings(max_examples=10, deadline=None)
@given(step=st.integers(0, 1000), seed=st.integers(0, 1000))
def test_a_clip_does_not_depend_on_its_batch(level: Level, step: int, seed: int) -> None:
    world = ShapesWorld(level, frames=9)
    together = world.batch(step, 4, seed=seed)
    for n in range(4):
        alone = world.batch(step * 4 + n, 1, seed=seed)
        assert torch.equal(alone.video_BTHWC[0], together.video_BTHWC[n])
        assert alone.captions[0] == together.captions[n]


def test_seeds_steps_and_streams_differ() -> None:
    world = ShapesWorld()
    batches = [world.batch(step, 8, seed=seed).captions for step in (0, 1) for seed in (0, 1)]
    batches.append(world.batch(0, 8, seed=0, images=True).captions)
    assert len({tuple(captions) for captions in batches}) == len(batches)


# What is drawn


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [0.1, 0.2, 0.3])
def test_every_form_covers_the_area_of_its_disc(form: Form, size: float) -> None:
    cover_HW = red_share(render(one(form, size), 1, 64))[0]
    # Rounding to 255 levels, and strips with straight sides: under 0.5 % of the area at a radius of 6 pixels.
    assert cover_HW.sum() == pytest.approx(math.pi * (size * 64) ** 2, rel=0.005)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30, deadline=None)
@given(x=st.floats(0.4, 0.6), y=st.floats(0.4, 0.6))
def test_the_centroid_is_where_the_scene_says(form: Form, x: float, y: float) -> None:
    cover_HW = red_share(render(one(form, 0.2, x=x, y=y), 1, 32))[0]
    rows, cols = np.mgrid[:32, :32] + 0.5
    assert (cover_HW * cols).sum() / cover_HW.sum() == pytest.approx(x * 32, abs=0.02)
    assert (cover_HW * rows).sum() / cover_HW.sum() == pytest.approx(y * 32, abs=0.02)


@pytest.mark.parametrize("form", FORMS)
def test_coverage_agrees_with_brute_force(form: Form) -> None:
    """Against inside-or-outside at 32 x 32 points a pixel; tolerance: 8-bit rounding and the grid of points."""
    scene = one(form, 0.27, x=0.487, y=0.513)
    points = (np.arange(16 * 32) + 0.5) / 32
    x, y = points[None] - 0.487 * 16, points[:, None] - 0.513 * 16
    r = 0.27 * 16
    side = math.sqrt(math.pi) * r / 2
    edge = math.sqrt(4 * math.pi / math.sqrt(3)) * r
    below, above = edge / math.sqrt(12), edge / math.sqrt(3)
    inside = {
        "circle": x**2 + y**2 < r**2,
        "square": np.maximum(abs(x), abs(y)) < side,
        "triangle": (y < below) & (abs(x) < (y + above) / math.sqrt(3)),
    }[form]
    brute_HW = inside.reshape(16, 32, 16, 32).mean(axis=(1, 3))
    drawn_HW = red_share(render(scene, 1, 16))[0]
    assert np.abs(drawn_HW - brute_HW).max() < 0.05
    assert np.abs(drawn_HW - brute_HW).mean() < 0.004


@every_level
@settings(max_examples=60, deadline=None)
@given(index=any_index)
def test_no_shape_leaves_the_picture_or_touches_another(level: Level, index: int) -> None:
    """Every shape shows its whole area in every frame, and no pixel is covered twice."""
    scene = scene_at(level, 11, index)
    areas_KT = []
    for thing in scene.things:
        red = Thing("red", thing.shape, thing.x, thing.y, thing.size)
        alone = Scene((red,), scene.motion, scene.travel, Background(0.0))
        cover_THW = red_share(render(alone, 5, 64))
        areas_KT.append(cover_THW)
        grown = np.linspace(0.5, 1, 5) if scene.motion == "grows" else np.ones(5)
        expected = math.pi * (thing.size * 64 * grown) ** 2
        np.testing.assert_allclose(cover_THW.sum(axis=(1, 2)), expected, rtol=0.03)
    assert np.sum(areas_KT, axis=0).max() < 1.02


@every_level
@settings(max_examples=40, deadline=None)
@given(index=any_index)
def test_things_move_as_told(level: Level, index: int) -> None:
    scene = scene_at(level, 0, index)
    first, last = (np.array(c) for c in zip(*[_centre_and_area(scene, k) for k in range(scene.count)], strict=True))
    moved_K2, growth_K = (last - first)[:, :2], last[:, 2] / first[:, 2]
    # In pixels; a tenth is what 8 bits a pixel and the strips at a triangle's point leave.
    direction = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(scene.motion, (0, 0))
    np.testing.assert_allclose(moved_K2, np.array([direction]) * scene.travel * 64 + 0 * moved_K2, atol=0.1)
    np.testing.assert_allclose(growth_K, 4.0 if scene.motion == "grows" else 1.0, rtol=0.06)


def _centre_and_area(scene: Scene, k: int) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    thing = scene.things[k]
    red = Thing("red", thing.shape, thing.x, thing.y, thing.size)
    cover_THW = red_share(render(Scene((red,), scene.motion, scene.travel, Background(0.0)), 17, 64))
    rows, cols = np.mgrid[:64, :64]
    areas = cover_THW.sum(axis=(1, 2))
    (fx, fy), (lx, ly) = (
        ((cover_THW[t] * cols).sum() / areas[t], (cover_THW[t] * rows).sum() / areas[t]) for t in (0, -1)
    )
    return (fx, fy, areas[0]), (lx, ly, areas[-1])


def test_the_camera_moves_the_background_against_its_direction() -> None:
    ground = Background(40, wave=20, phase=0.1)
    for pan, sign in (("left", 1), ("right", -1)):
        scene = Scene((Thing("red", "circle", 0.5, 0.8, 0.1),), "still", 0.0, ground, pan=pan)  # type: ignore[arg-type]
        row_TW = render(scene, 17, 64)[:, 0, :, 2].astype(float)
        eighth = np.roll(row_TW[0], sign * 8)  # half a width over the clip: 8 of 64 pixels after a quarter
        np.testing.assert_allclose(row_TW[4], eighth, atol=1.0)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 48), (64, 32)])
def test_any_multiple_of_eight_will_do(height: int, width: int) -> None:
    batch = ShapesWorld("full", frames=9, height=height, width=width).batch(0, 3, seed=0)
    assert batch.video_BTHWC.shape == (3, 9, height, width, 3)
    assert batch.video_BTHWC.dtype == torch.uint8


def test_images_are_single_frames_without_motion_in_the_caption() -> None:
    batch = ShapesWorld("full").batch(0, 40, seed=0, images=True)
    assert batch.video_BTHWC.shape == (40, 1, 32, 32, 3)
    assert not any(word in text for text in batch.captions for word in ("move", "stay", "grow", "bigger", "camera"))


def test_a_scene_looks_the_same_in_any_batch() -> None:
    scenes = [scene_at("full", 4, n) for n in range(12)]
    np.testing.assert_array_equal(render_batch(scenes, 5, 32, 32)[7], render(scenes[7], 5, 32))


# Captions and facts


@every_level
def test_captions_use_a_closed_vocabulary(level: Level) -> None:
    known = set(vocabulary())
    for index in range(500):
        for still in (False, True):
            text = caption(scene_at(level, 2, index), still=still)
            assert set(text.replace(",", "").split()) <= known, text


def test_the_vocabulary_holds_no_word_in_vain() -> None:
    used: set[str] = set()
    for index in range(4000):
        used |= set(caption(scene_at("full", 3, index)).replace(",", "").split())
    assert used == set(vocabulary())


def test_captions_read_like_english() -> None:
    red = Thing("red", "circle", 0.5, 0.5, 0.1)
    blue = Thing("blue", "square", 0.8, 0.5, 0.1)
    ground = Background(20)
    assert caption(Scene((red,), "left", 0.2, ground)) == "a red circle moves left"
    assert caption(Scene((red,), "still", 0.0, ground, phrasing=3)) == "in this video a red circle does not move"
    assert caption(Scene((red, red), "grows", 0.0, ground)) == "two red circles grow"
    pair = Scene((red, blue), "up", 0.2, ground, position="left of", pan="right")
    assert caption(pair) == "a red circle to the left of a blue square, both move up, the camera pans right"
    assert caption(pair, still=True) == "a red circle to the left of a blue square"


def test_the_levels_hold_what_they_promise() -> None:
    easy = [scene_at("easy", 0, n) for n in range(3000)]
    assert len({(s.things[0].colour, s.things[0].shape, s.motion) for s in easy}) == 90
    assert {s.things[0].size for s in easy} == {5 / 32}
    assert all((8 * c).is_integer() for s in easy for c in (s.things[0].x, s.things[0].y, s.travel))
    default = [scene_at("default", 0, n) for n in range(300)]
    assert {s.count for s in default} == {1}
    assert {s.phrasing for s in default} == set(range(PHRASINGS))
    full = [scene_at("full", 0, n) for n in range(600)]
    assert {s.count for s in full} == {1, 2, 3}
    assert {s.position for s in full} == {None, *RELATIONS}
    assert {s.pan for s in full} == {None, "left", "right"}
    assert all(len({t.colour for t in s.things}) == (2 if s.position else 1) for s in full)


def test_everything_is_equally_likely() -> None:
    """6000 clips, 5 colours: a count lies within 5 standard deviations (31 around 1200) of its mean."""
    scenes = [scene_at("default", 1, n) for n in range(6000)]
    counts = (
        Counter(s.things[0].colour for s in scenes),
        Counter(s.things[0].shape for s in scenes),
        Counter(s.motion for s in scenes),
    )
    for found, known in zip(counts, (COLOURS, FORMS, MOTIONS), strict=True):
        mean = 6000 / len(known)
        assert set(found) == set(known)
        assert all(abs(n - mean) < 5 * math.sqrt(mean * (1 - 1 / len(known))) for n in found.values())


@settings(max_examples=60, deadline=None)
@given(index=any_index)
def test_positions_are_as_captioned(index: int) -> None:
    scene = scene_at("full", 8, index)
    facts = scene.facts()
    assert len(facts["objects"]) == (2 if scene.position else 1)
    if scene.position:
        a, b = scene.things
        apart = {"left of": b.x - a.x, "right of": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}
        assert apart[scene.position] > 0.2
        assert facts["position"] == scene.position
    assert facts.get("count", 1) == scene.count


# The source


def test_the_world_is_a_source_and_says_what_it_is() -> None:
    world = ShapesWorld("easy", frames=9, height=16, width=24, fps=4.0)
    assert isinstance(world, Source)
    assert world.describe() == {
        "source": "shapes",
        "version": 1,
        "level": "easy",
        "frames": 9,
        "height": 16,
        "width": 24,
        "fps": 4.0,
    }


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"level": "hard"}, "no level 'hard'; choose from easy, default, full"),
        ({"height": 30}, "height 30: must be a positive multiple of 8"),
        ({"width": 0}, "width 0"),
        ({"frames": 0}, "0 frames"),
        ({"fps": 0.0}, "0 frames a second"),
    ],
)
def test_impossible_worlds_are_refused(settings_: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ShapesWorld(**settings_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "size", "seed", "said"),
    [(-1, 4, 0, "step -1"), (0, 0, 0, "batch size 0"), (0, 4, -1, "seed -1")],
)
def test_impossible_batches_are_refused(step: int, size: int, seed: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ShapesWorld().batch(step, size, seed=seed)


def test_version_1_stays_as_it_is() -> None:
    """Pins the sequence of scenes: whoever changes it raises `VERSION`, since checkpoints name their data by it."""
    texts = [
        repr((level, caption(scene_at(level, 1, n)), scene_at(level, 1, n).facts()))
        for level in LEVELS
        for n in range(99)
    ]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    assert (VERSION, digest[:16]) == (1, "1fd4f6d4e626443d")
