"""Token counts against the published ones and against a count by loops; refusals that name sizes which work."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4v.backbone import BackboneConfig
from m4v.layout import Codec, Patch, Shape, check_pyramid, count_tokens, full_sequence, temporal_pyramid

PUBLISHED = BackboneConfig()


@pytest.mark.parametrize(
    ("frames", "coarse", "mid", "full"),
    [(57, 1_920, 3_360, 9_840), (121, 3_840, 5_280, 11_760), (241, 7_440, 8_880, 15_360)],
)
def test_published_tokens_of_the_last_frame(frames: int, coarse: int, mid: int, full: int) -> None:
    """768 x 1280 pixels; 15,360 tokens is PyramidFlow's figure for 241 frames, the others follow from its eq. 16-17."""
    last = PUBLISHED.evaluations(frames, 768, 1280)[-3:]
    assert [evaluation.stage for evaluation in last] == [2, 1, 0]
    assert [PUBLISHED.tokens(evaluation) for evaluation in last] == [coarse, mid, full]


def test_published_tokens_of_the_full_sequence() -> None:
    (*_, last) = PUBLISHED.but(temporal_pyramid=False).evaluations(241, 768, 1280)
    assert PUBLISHED.tokens(last) == 119_040


@st.composite
def clips(draw: st.DrawFn) -> tuple[BackboneConfig, int, int, int]:
    """A configuration and a clip that fits it."""
    temporal, spatial = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([1, 4, 8, 16]))
    stages, patch, causal = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.booleans())
    multiple = spatial * patch * 2 ** (stages - 1)
    latents = draw(st.integers(1, 7))
    config = BackboneConfig(
        codec={"temporal": temporal, "spatial": spatial, "causal": causal},
        patch={"spatial": patch},
        stages=stages,
        spatial_pyramid=draw(st.booleans()),
        temporal_pyramid=draw(st.booleans()),
    )
    frames = 1 + (latents - 1) * temporal if causal else latents * temporal
    return config, frames, multiple * draw(st.integers(1, 4)), multiple * draw(st.integers(1, 4))


def pixels_to_tokens(config: BackboneConfig, height: int, width: int, level: int) -> int:
    """Tokens of a frame, counted by stepping over its pixels."""
    step = config.codec.spatial * config.patch.spatial * 2**level
    return sum(1 for _ in range(0, height, step) for _ in range(0, width, step))


def latent_frames(config: BackboneConfig, frames: int) -> int:
    """Latent frames, by walking over the clip."""
    first = 1 if config.codec.causal else config.codec.temporal
    return len(range(first, frames + 1, config.codec.temporal))


def by_loops(config: BackboneConfig, frames: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(frame, stage, tokens, steps) of every forward pass.

    PyramidFlow eq. 16-17: the newest condition is as fine as the noisy frame, each older one half as fine, until the
    coarsest.
    """
    coarsest, passes = config.stages - 1, []
    levels = list(range(coarsest, -1, -1)) if config.spatial_pyramid else [0]
    for frame in range(latent_frames(config, frames)):
        for stage in levels:
            tokens, level = pixels_to_tokens(config, height, width, stage), stage
            for _ in range(frame):  # from the newest condition to the oldest
                tokens += pixels_to_tokens(config, height, width, level)
                level = level if level == coarsest else level + 1
            passes.append((frame, stage, tokens, 10 if frame else 20))
    return passes


@given(clip=clips())
def test_evaluations_by_loops(clip: tuple[BackboneConfig, int, int, int]) -> None:
    config, *size = clip
    found = [(e.frame, e.stage, config.tokens(e), e.steps) for e in config.evaluations(*size)]
    if config.temporal_pyramid:
        assert found == by_loops(config, *size)
    else:
        levels = range(config.stages - 1, -1, -1) if config.spatial_pyramid else [0]
        frames = latent_frames(config, size[0])
        assert found == [(-1, k, frames * pixels_to_tokens(config, *size[1:], k), 20) for k in levels]


@given(clip=clips())
def test_history_is_oldest_first_and_never_gets_coarser(clip: tuple[BackboneConfig, int, int, int]) -> None:
    config, *size = clip
    latent = config.codec.latent_shape(*size)
    for evaluation in config.evaluations(*size):
        rows = [unit.rows for unit in evaluation.units]
        assert rows == sorted(rows)
        assert rows[-1] == latent.rows / 2**evaluation.stage
        assert {unit.rows * latent.cols for unit in evaluation.units} == {
            unit.cols * latent.rows for unit in evaluation.units
        }  # the aspect ratio stays
        if evaluation.frame >= 0:
            assert [unit.frames for unit in evaluation.units] == [1] * (evaluation.frame + 1)


def test_evaluations_go_frame_by_frame_from_coarse_to_fine() -> None:
    """57 frames are 8 latent frames; three stages each."""
    passes = PUBLISHED.evaluations(57, 768, 1280)
    assert [(e.frame, e.stage) for e in passes] == [(i, k) for i in range(8) for k in (2, 1, 0)]
    assert [e.steps for e in passes] == [20] * 3 + [10] * 21


def test_steps_are_fields() -> None:
    passes = PUBLISHED.but(first_frame_steps=7, frame_steps=3).evaluations(9, 64, 64)
    assert [e.steps for e in passes] == [7, 7, 7, 3, 3, 3]


def test_units_of_m4v_equation_7() -> None:
    """c_i = [K2(x_0), ..., K2(x_{i-3}), K1(x_{i-2}), x_{i-1}] and the noisy frame, at full resolution."""
    rows = [unit.rows for unit in temporal_pyramid(Shape(9, 96, 160), frame=5, stage=0, stages=3)]
    assert rows == [24, 24, 24, 48, 96, 96]


def test_an_image_is_a_video_of_one_frame() -> None:
    passes = PUBLISHED.evaluations(1, 768, 1280)
    assert [PUBLISHED.tokens(e) for e in passes] == [240, 960, 3_840]
    assert {len(e.units) for e in passes} == {1}


@given(temporal=st.integers(1, 9), causal=st.booleans(), frames=st.integers(-20, 200))
def test_bad_frames_name_frames_that_work(temporal: int, causal: bool, frames: int) -> None:
    codec = Codec(temporal=temporal, spatial=1, causal=causal)
    fits = frames >= 1 and (frames - 1 if causal else frames) % temporal == 0
    if fits:
        assert codec.latent_shape(frames, 4, 4).frames == len(range(1 if causal else temporal, frames + 1, temporal))
        return
    with pytest.raises(ValueError, match=f"^{frames} frames") as refused:
        codec.latent_shape(frames, 4, 4)
    named = named_sizes(refused)
    for size in named:
        assert codec.latent_shape(size, 4, 4).frames >= 1
    assert min(named) < frames < max(named) or frames < min(named)


@given(spatial=st.integers(1, 32), size=st.integers(-10, 300), name=st.sampled_from(["height", "width"]))
def test_bad_pixels_name_pixels_that_work(spatial: int, size: int, name: str) -> None:
    codec = Codec(spatial=spatial)
    good: dict[str, Any] = {"frames": 9, "height": spatial, "width": spatial}
    if size >= 1 and size % spatial == 0:
        assert codec.latent_shape(**(good | {name: size})).cells == 2 * size // spatial
        return
    with pytest.raises(ValueError, match=f"^{name} {size}") as refused:
        codec.latent_shape(**(good | {name: size}))
    for works in named_sizes(refused):
        assert codec.latent_shape(**(good | {name: works})).cells == 2 * works // spatial


@given(clip=clips(), change=st.integers(1, 63), name=st.sampled_from(["height", "width"]))
def test_sizes_that_the_pyramid_refuses(clip: tuple[BackboneConfig, int, int, int], change: int, name: str) -> None:
    """The latents divide into patches at the coarsest stage exactly if the clip is accepted."""
    config, frames, height, width = clip
    size = {"frames": frames, "height": height, "width": width}
    size[name] += change
    multiple = config.codec.spatial * config.patch.spatial * 2 ** (config.stages - 1)
    if change % multiple == 0:
        assert config.evaluations(**size)
        return
    with pytest.raises(ValueError, match=r"multiple of|this model's codec takes") as refused:
        config.evaluations(**size)
    if "latent" in str(refused.value):
        for works in named_sizes(refused):
            assert config.evaluations(**(size | {name: works * config.codec.spatial}))


@pytest.mark.parametrize(
    ("unit", "patch"),
    [
        (Shape(1, 3, 4), Patch()),
        (Shape(1, 4, 3), Patch()),
        (Shape(3, 4, 4), Patch(temporal=2)),
        (Shape(1, 0, 4), Patch()),
    ],
)
def test_units_that_are_no_patches(unit: Shape, patch: Patch) -> None:
    with pytest.raises(ValueError, match=f"^{unit.frames} x {unit.rows} x {unit.cols} latents do not divide"):
        patch.tokens(unit)
    with pytest.raises(ValueError, match="do not divide"):
        count_tokens((Shape(2, 4, 4), unit), patch)


@pytest.mark.parametrize(("frame", "stage"), [(-1, 0), (4, 0), (0, -1), (0, 3)])
def test_passes_that_are_not_there(frame: int, stage: int) -> None:
    with pytest.raises(ValueError, match=f"frame {frame} of 4, stage {stage} of 3"):
        temporal_pyramid(Shape(4, 16, 16), frame, stage, 3)


def test_halving() -> None:
    assert Shape(5, 48, 80).halved(2) == Shape(5, 12, 20)
    assert full_sequence(Shape(5, 48, 80), 1) == (Shape(5, 24, 40),)
    assert Shape(5, 48, 80).cells == 5 * 48 * 80
    check_pyramid(Shape(1, 24, 16), 3, Patch())
    with pytest.raises(
        ValueError, match=r"20 latent rows: 3 pyramid stages with patches of 2 need a multiple of 8 \(say 16 or 24"
    ):
        check_pyramid(Shape(1, 20, 16), 3, Patch())


def named_sizes(refused: pytest.ExceptionInfo[ValueError]) -> list[int]:
    """The sizes that a message of the form "say 8 or 16" names."""
    named = re.search(r"\(say (\d+) or (\d+)\)", str(refused.value))
    assert named is not None, f"no size that works in: {refused.value}"
    return [int(n) for n in named.groups()]
