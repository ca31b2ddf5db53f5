"""Configurations: one text and one hash, whatever the order of fields; nothing unknown, nothing unchecked."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from m4v.backbone import BackboneConfig
from m4v.config import Config
from m4v.variants import presets


class Inner(Config):
    size: int = Field(default=4, ge=1)


class Outer(Config):
    """One field of each kind that configurations have."""

    name: str = "é"
    rate: float = 0.1
    on: bool = True
    limit: int | None = None
    axes: tuple[int, int] = (1, 2)
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()


class Twin(Outer):
    """The same fields under another name."""


CHANGES = {"name": "other", "rate": 0.2, "on": False, "limit": 3, "axes": (2, 1), "kind": "b", "inner": {"size": 5}}


def test_canonical_json_is_the_compact_sorted_text() -> None:
    expected = (
        r'{"axes":[1,2],"inner":{"size":4},"kind":"a","limit":null,"name":"\u00e9","on":true,"rate":0.1}'  # by hand
    )
    assert Outer().canonical_json() == expected


def test_hash_is_sha256_of_class_and_text() -> None:
    assert Outer().config_hash() == hashlib.sha256(b"Outer:" + Outer().canonical_json().encode()).hexdigest()


@given(order=st.permutations(sorted(CHANGES)))
def test_text_and_hash_do_not_depend_on_the_order_of_fields(order: list[str]) -> None:
    config = Outer(**{name: CHANGES[name] for name in order})
    assert config.canonical_json() == Outer(**CHANGES).canonical_json()
    assert config.config_hash() == Outer(**CHANGES).config_hash()


@given(rate=st.floats(allow_nan=False, allow_infinity=False), limit=st.none() | st.integers(), name=st.text())
def test_the_text_alone_rebuilds_the_configuration(rate: float, limit: int | None, name: str) -> None:
    config = Outer(rate=rate, limit=limit, name=name)
    assert Outer.model_validate_json(config.canonical_json()) == config


def test_every_field_and_the_class_change_the_hash() -> None:
    hashes = {Outer().config_hash(), Twin().config_hash()} | {
        Outer().but(**{name: value}).config_hash() for name, value in CHANGES.items()
    }
    assert len(hashes) == 2 + len(CHANGES)


def test_hash_of_a_full_size_preset_is_the_same_in_another_process() -> None:
    code = "from m4v.variants import presets; print(presets()['m4v'].config_hash())"
    options = {"capture_output": True, "text": True, "check": True, "timeout": 60}
    printed: str = subprocess.run([sys.executable, "-c", code], **options).stdout  # type: ignore[call-overload]
    assert printed.strip() == presets()["m4v"].config_hash()


def test_presets_have_hashes_of_their_own() -> None:
    hashes = {name: config.config_hash() for name, config in presets().items()}
    assert len(set(hashes.values())) == len(hashes)


@pytest.mark.parametrize(
    "change", [{"limit": "many"}, {"kind": "c"}, {"inner": {"size": 0}}, {"axes": (1, 2, 3)}, {"limits": 3}]
)
def test_but_validates(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"1 validation error for Outer\n{next(iter(change))}"):
        Outer().but(**change)


def test_but_leaves_the_original_and_keeps_the_class() -> None:
    before = Twin(rate=0.5)
    after = before.but(limit=7, inner={"size": 9})
    assert (before.limit, before.inner.size) == (None, 4)
    assert isinstance(after, Twin)
    assert (after.rate, after.limit, after.inner) == (0.5, 7, Inner(size=9))


def test_unknown_fields_are_refused_at_any_depth() -> None:
    with pytest.raises(ValueError, match="widht"):
        BackboneConfig(widht=128)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"codec\.chanels"):
        BackboneConfig(codec={"chanels": 4})


def test_configurations_are_frozen_and_hashable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().rate = 1.0  # type: ignore[misc]
    assert {Outer(): "found"}[Outer()] == "found"


def test_differences() -> None:
    changed = Outer().but(rate=0.2, inner={"size": 5})
    expected = {"rate": (0.1, 0.2), "inner": ({"size": 4}, {"size": 5})}
    assert Outer().differences(changed) == expected
    assert changed.differences(Outer()) == {name: (b, a) for name, (a, b) in expected.items()}
    assert Outer().differences(Outer()) == {}


def test_differences_of_two_classes_name_fields_that_one_lacks() -> None:
    found = Inner().differences(Outer())
    assert found["size"] == (4, None)
    assert found["axes"] == (None, (1, 2))


def test_m4v_is_pyramidflow_with_another_mixer_and_a_temporal_branch() -> None:
    difference = presets()["pyramidflow"].differences(presets()["m4v"])
    assert difference == {"mixer": ("attention", "mamba"), "temporal_branch": (False, True)}
    assert json.loads(presets()["m4v"].canonical_json())["mamba"]["registers"] is True
