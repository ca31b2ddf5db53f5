"""The four dimensions that read GRiT's detections: properties, and the corner cases of the official code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.backbones.detections import FRAMES, detections
from evalkit.backbones.features import GRIT_CAPTIONS, GRIT_OBJECTS
from evalkit.metrics import color, multiple_objects, object_class, spatial_relationship
from evalkit.metrics.base import MetricSpec
from evalkit.metrics.spatial_relationship import (
    AXES,
    OVERLAP,
    axis_of,
    best_pair,
    intersection_over_union,
    position_score,
)
from evalkit.types import Clip, Score, VideoInfo

METRICS = (object_class.METRIC, multiple_objects.METRIC, color.METRIC, spatial_relationship.METRIC)
NAMES = ("cat", "dog", "sports ball", "ball", "")
ASKED: Mapping[str, Mapping[str, str]] = {
    "object_class": {"object": "cat"},
    "multiple_objects": {"object": "cat and dog"},
    "color": {"object": "cat", "color": "red"},
    "spatial_relationship": {"object_a": "cat", "object_b": "dog", "relationship": "on the left of"},
}
BOX = (10.0, 10.0, 50.0, 40.0)

Row = tuple[int, Sequence[float], float, str, str]


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    left, top, width, height = (draw(st.integers(0, 60)) for _ in range(4))
    return left, top, left + width, top + height


rows = st.lists(
    st.tuples(
        st.integers(0, FRAMES - 1),
        boxes(),
        st.just(0.9),
        st.sampled_from(NAMES),
        st.sampled_from(("a red cat", "tired", "a grey dog", "nothing", "")),
    ),
    max_size=30,
)
axes = st.sampled_from((0, 1))


def judge(metric: MetricSpec, found: Sequence[Row], **asked: str) -> Score:
    """Score detections; names asked for replace those of `ASKED`."""
    entry = {**ASKED[metric.name], **asked}
    clip = Clip(VideoInfo(64, 48, 3, 8.0, "none", "rgb24"), "", {metric.name: entry})
    array = detections(sorted(found, key=lambda row: row[0]))
    return metric.score(clip, {metric.features[0].name: array})


# All four


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@given(found=rows)
def test_a_score_is_a_share_of_the_frames_or_has_a_reason(metric: MetricSpec, found: list[Row]) -> None:
    verdict = judge(metric, found)
    if verdict.value is None:
        assert metric.name == "color"
    else:
        assert 0 <= verdict.value <= 1
        assert 1 <= verdict.n_terms <= FRAMES


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_a_clip_without_detections(metric: MetricSpec) -> None:
    verdict = judge(metric, [])
    if metric.name == "color":
        assert verdict.unscored
        assert "officially" in verdict.unscored
    else:
        assert verdict == Score(0.0, n_terms=FRAMES)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_the_declaration(metric: MetricSpec) -> None:
    assert metric.reads_prompt
    assert set(metric.auxiliary) == set(ASKED[metric.name])
    assert metric.pooling == ("videos" if metric.name == "color" else "frames")
    assert metric.features == ((GRIT_CAPTIONS,) if metric.name == "color" else (GRIT_OBJECTS,))


@pytest.mark.parametrize("metric", [m for m in METRICS if m.name != "color"], ids=lambda m: m.name)
@given(found=rows, more=rows)
def test_more_detections_never_lower_a_score(metric: MetricSpec, found: list[Row], more: list[Row]) -> None:
    fewer, all_of_them = judge(metric, found).value, judge(metric, [*found, *more]).value
    assert fewer is not None
    assert all_of_them is not None
    assert all_of_them >= fewer


# Objects


@given(found=rows)
def test_two_objects_are_found_no_more_often_than_each(found: list[Row]) -> None:
    both = judge(multiple_objects.METRIC, found).value
    each = [judge(object_class.METRIC, found, object=name).value for name in ("cat", "dog")]
    swapped = judge(multiple_objects.METRIC, found, object="dog and cat").value
    assert both is not None
    assert both == swapped
    assert all(one is not None and both <= one for one in each)


def test_names_are_equal_letter_by_letter() -> None:
    found = [(frame, BOX, 0.9, "sports ball", "sports ball") for frame in range(FRAMES)]
    assert judge(object_class.METRIC, found, object="sports ball").value == 1
    for other in ("ball", "sports", "Sports ball", "sports ball ", "sports balls"):
        assert judge(object_class.METRIC, found, object=other).value == 0


def test_one_name_is_no_pair_and_three_are_all_looked_for() -> None:
    found = [(0, BOX, 0.9, name, name) for name in ("cat", "dog", "ball")] + [(1, BOX, 0.9, "cat", "cat")]
    assert judge(multiple_objects.METRIC, found, object="cat").unscored
    assert judge(multiple_objects.METRIC, found, object="cat and dog and ball").value == 1 / FRAMES
    assert judge(multiple_objects.METRIC, found, object="cat and dog and cow").value == 0


# Colour


def described(*frames: Sequence[tuple[str, str]]) -> list[Row]:
    return [(i, BOX, 0.9, name, text) for i, frame in enumerate(frames) for name, text in frame]


def test_a_colour_may_stand_in_any_description_of_a_frame() -> None:
    assert judge(color.METRIC, described([("cat", "a cat"), ("cat", "a red wall")])).value == 1
    assert judge(color.METRIC, described([("cat", "a cat"), ("cat", "a tired man")])).value == 1
    assert judge(color.METRIC, described([("dog", "a red cat")])).unscored


def test_both_spellings_of_gray_are_colours_but_not_the_same() -> None:
    found = described([("cat", "a grey cat")], [("cat", "a gray cat")])
    assert judge(color.METRIC, found, color="gray").value == 0.5
    assert judge(color.METRIC, found, color="grey").value == 0.5


def test_a_colour_outside_the_official_list_counts_as_one() -> None:
    # Officially 2 frames of the right colour over 1 with a colour of the list.
    found = described([("cat", "a brown cat")], [("cat", "a brown cat on red")], [("cat", "a white cat")])
    assert judge(color.METRIC, found, color="brown").value == pytest.approx(2 / 3)


@given(found=rows)
def test_a_frame_without_the_object_or_a_colour_changes_nothing(found: list[Row]) -> None:
    kept = [row for row in found if row[0] > 0]
    idle = [(0, BOX, 0.9, "dog", "a red dog"), (0, BOX, 0.9, "cat", "a cat")]
    assert judge(color.METRIC, kept) == judge(color.METRIC, [*kept, *idle])


@pytest.mark.parametrize(
    ("text", "colour", "expected"),
    [
        ("a red bicycle", "red", "bicycle"),
        ("an orange cat", "orange", "cat"),
        ("a black car", "black", "car"),
        ("a pink banana split", "pink", "banansplit"),  # "a " inside a sentence goes too, officially
    ],
)
def test_the_object_is_what_the_sentence_leaves(text: str, colour: str, expected: str) -> None:
    assert color.read_text(text, {"color": colour}) == {"color": colour, "object": expected}
    given_object = {"color": colour, "object": "thing"}
    assert color.read_text(text, given_object) == given_object


def test_a_sentence_alone_gives_no_object() -> None:
    assert color.read_text("a red bicycle", {}) == {}


# Positions


@given(axis=axes, a=boxes(), b=boxes())
def test_the_order_of_two_boxes_does_not_matter(axis: int, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    assert position_score(axis, a, b) == position_score(axis, b, a)
    assert intersection_over_union(a, b) == intersection_over_union(b, a)


@given(axis=axes, a=boxes(), b=boxes())
def test_axes_are_alike_and_exclude_each_other(axis: int, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    transposed = [(box[1], box[0], box[3], box[2]) for box in (a, b)]
    assert position_score(axis, a, b) == position_score(1 - axis, *transposed)
    assert 0 in (position_score(0, a, b), position_score(1, a, b))


@given(axis=axes, a=boxes(), b=boxes())
def test_position_scores_are_bounded_by_the_overlap(axis: int, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    value, overlap = position_score(axis, a, b), intersection_over_union(a, b)
    assert 0 <= overlap <= 1
    assert value in (0, 1) or (overlap > OVERLAP and value == pytest.approx(OVERLAP / overlap))


@given(a=boxes(), b=boxes(), step=st.integers(1, 60))
def test_moving_apart_never_lowers_a_score(a: tuple[int, ...], b: tuple[int, ...], step: int) -> None:
    if a[0] + a[2] <= b[0] + b[2] and a[2] - a[0] == b[2] - b[0]:
        farther = (b[0] + step, b[1], b[2] + step, b[3])
        assert position_score(0, a, farther) >= position_score(0, a, b)


def test_overlap_by_hand() -> None:
    assert intersection_over_union((0, 0, 20, 20), (10, 0, 30, 20)) == pytest.approx(1 / 3)
    assert intersection_over_union((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert intersection_over_union((0, 0, 2, 2), (2, 0, 4, 2)) == 0


def test_boxes_without_a_whole_pixel_do_not_overlap() -> None:
    assert intersection_over_union((3, 3, 3, 9), (7, 3, 7, 9)) == 0
    assert position_score(0, (3, 3, 3, 9), (7, 3, 7, 9)) == 1
    assert position_score(0, (3, 3, 3, 9), (3, 3, 3, 9)) == 0
    found = [(0, (3.2, 3, 3.9, 9), 0.9, "cat", "cat"), (0, (7.1, 3, 7.9, 9), 0.9, "dog", "dog")]
    assert judge(spatial_relationship.METRIC, found).value == 1 / FRAMES


def test_one_object_alone_has_no_position() -> None:
    assert best_pair(0, []) == 0
    assert best_pair(0, [(0, 0, 9, 9)]) == 0


def test_only_the_two_objects_are_placed() -> None:
    found = [(0, (0, 0, 9, 9), 0.9, "cat", "cat"), (0, (40, 0, 49, 9), 0.9, "ball", "ball")]
    assert judge(spatial_relationship.METRIC, found).value == 0
    assert judge(spatial_relationship.METRIC, found, object_b="ball").value == 1 / FRAMES


@given(found=rows)
def test_left_is_right_and_top_is_bottom(found: list[Row]) -> None:
    values = [judge(spatial_relationship.METRIC, found, relationship=words).value for words in AXES]
    assert values[0] == values[1]
    assert values[2] == values[3]


def test_relationships_by_their_words() -> None:
    assert [axis_of(words) for words in AXES] == [0, 0, 1, 1]
    assert [axis_of(words) for words in ("left", "right", "top", "bottom", "beside")] == [0, 0, 1, 1, None]
    verdict = judge(spatial_relationship.METRIC, [], relationship="inside of")
    assert verdict.unscored
    assert "inside of" in verdict.unscored


def test_corners_are_rounded_down() -> None:
    # Of whole pixels the two share 56 of 64; as given, 49.7 of 72.
    found = [(0, (0.0, 0.0, 8.0, 8.0), 0.9, "cat", "cat"), (0, (1.0, 0.9, 8.8, 8.3), 0.9, "dog", "dog")]
    array = detections(found)
    assert array["box"].dtype == np.float32
    overlap = 7 * 8 / 64
    assert judge(spatial_relationship.METRIC, found).value == pytest.approx(OVERLAP / overlap / FRAMES)
