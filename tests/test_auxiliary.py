"""What prompts say besides their text: every way of writing it leads to the same fields, and what lacks is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.auxiliary import asks, equip, lacking, says_for
from evalkit.backbones.base import FeatureSpec
from evalkit.errors import UserError
from evalkit.metrics.base import MetricSpec
from evalkit.types import Prompt, PromptSuite, Score


def looking(name: str, *fields: str, **more: Any) -> MetricSpec:
    feature = FeatureSpec("nothing", 1, lambda store, runtime: None)  # type: ignore[arg-type, return-value]
    return MetricSpec(name, 1, name, "s.", (feature,), lambda clip, features: Score(1.0), "t", auxiliary=fields, **more)


SCENE = looking("scene", "scene")
PAIR = looking("spatial_relationship", "object_a", "object_b", "relationship")
ANY = looking("imaging_quality")


def read_colour(text: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"object": text.split()[-1], **entry}


COLOUR = looking("color", "color", "object", read_text=read_colour)


def suite(*prompts: Prompt) -> PromptSuite:
    return PromptSuite("mine", prompts, "test")


@pytest.mark.parametrize(
    "entry", ["alley", {"scene": "alley"}, {"scene": {"scene": "alley"}}, {"scene": {"scene": {"scene": "alley"}}}]
)
def test_every_way_of_writing_a_single_field_is_read(entry: object) -> None:
    prompt = Prompt("1", "an alley", ("scene",), {"scene": entry})
    assert equip(suite(prompt), [SCENE]).prompts[0].auxiliary == {"scene": {"scene": "alley"}}


def test_the_official_nesting_of_a_relation_is_undone() -> None:
    facts = {"object_a": "dog", "object_b": "cat", "relationship": "on the left of"}
    prompt = Prompt("1", "x", ("spatial_relationship",), {"spatial_relationship": {"spatial_relationship": facts}})
    assert equip(suite(prompt), [PAIR]).prompts[0].auxiliary["spatial_relationship"] == facts


def test_the_sentence_completes_what_is_not_given() -> None:
    official = Prompt("1", "a red bicycle", ("color",), {"color": {"color": "red"}})
    own = Prompt("2", "two red things", ("color",), {"color": {"color": "red", "object": "kite"}})
    first, second = equip(suite(official, own), [COLOUR]).prompts
    assert first.auxiliary["color"] == {"color": "red", "object": "bicycle"}
    assert second.auxiliary["color"] == {"color": "red", "object": "kite"}


def test_a_prompt_that_names_the_dimension_must_say_what_to_look_for() -> None:
    prompt = Prompt(
        "p7", "a dog left of a cat", ("spatial_relationship",), {"spatial_relationship": {"object_a": "dog"}}
    )
    with pytest.raises(UserError, match=r"'p7' .*spatial_relationship.*lacks `object_b` and `relationship`"):
        equip(suite(prompt), [PAIR])


@pytest.mark.parametrize("wrong", [None, 3, "", "  ", ["alley"], {}])
def test_what_is_no_text_is_no_answer(wrong: object) -> None:
    prompt = Prompt("1", "an alley", ("scene",), {"scene": {"scene": wrong}})
    assert lacking(prompt, SCENE) == ("scene",)
    with pytest.raises(UserError, match="lacks `scene`"):
        equip(suite(prompt), [SCENE])


def test_without_listed_dimensions_a_prompt_is_meant_for_what_it_speaks_of() -> None:
    speaks = Prompt("1", "an alley", (), {"scene": "alley"})
    silent = Prompt("2", "a dog")
    first, second = equip(suite(speaks, silent), [SCENE, ANY]).prompts
    assert asks(first, SCENE)
    assert not asks(second, SCENE)
    assert asks(first, ANY)
    assert asks(second, ANY)


def test_a_dimension_that_no_prompt_speaks_of_is_an_error() -> None:
    with pytest.raises(UserError, match=r"'2' .*scene"):
        equip(suite(Prompt("2", "a dog"), Prompt("3", "a cat")), [SCENE])


def test_prompts_meant_for_other_dimensions_need_not_say_anything() -> None:
    other = Prompt("1", "a dog", ("imaging_quality",))
    assert equip(suite(other), [SCENE]).prompts == (other,)
    assert not asks(other, SCENE)


def test_says_for_looks_through_the_nesting() -> None:
    assert says_for(Prompt("1", "an alley", (), {"scene": {"scene": {"scene": "alley"}}}), SCENE)
    assert says_for(Prompt("1", "an alley", ("imaging_quality",), {"scene": "alley"}), SCENE)
    assert not says_for(Prompt("1", "shapes", (), {"scene": {"count": 2}}), SCENE)


text = st.text(st.characters(categories=["L"]), min_size=1)


@given(a=text, b=text, relationship=text, depth=st.integers(0, 4))
def test_equipping_twice_changes_nothing(a: str, b: str, relationship: str, depth: int) -> None:
    entry: Any = {"object_a": a, "object_b": b, "relationship": relationship}
    for _ in range(depth):
        entry = {"spatial_relationship": entry}
    once = equip(suite(Prompt("1", "x", (), {"spatial_relationship": entry})), [PAIR])
    assert once.prompts[0].auxiliary["spatial_relationship"] == {
        "object_a": a,
        "object_b": b,
        "relationship": relationship,
    }
    assert equip(once, [PAIR]) == once
