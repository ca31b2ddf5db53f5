"""Recipes: one text, one hash, dotted changes; systems drawn from a seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from m4v.backbone import BackboneConfig
from m4v.presets import SYSTEMS, recipe, recipe_names
from m4v.recipe import Recipe, TrainConfig, attention_twin, build_system, derived_seed

TINY = recipe("tiny", "m4v")
EVERY = pytest.mark.parametrize(("preset", "system"), recipe_names())


def test_every_system_has_both_presets() -> None:
    assert set(recipe_names()) == {(preset, system) for preset in ("tiny", "paper") for system in SYSTEMS}


@EVERY
def test_a_recipe_survives_its_text(preset: str, system: str) -> None:
    first = recipe(preset, system)
    again = Recipe.model_validate_json(first.canonical_json())
    assert again == first
    assert type(again.model) is type(first.model)
    assert again.config_hash() == first.config_hash()


@EVERY
def test_clip_fits_codec_pyramid_and_patch(preset: str, system: str) -> None:
    model = recipe(preset, system).model
    assert model.evaluations(*model.clip)


@pytest.mark.parametrize("system", SYSTEMS)
def test_tiny_systems_predict_a_velocity(system: str) -> None:
    made = recipe("tiny", system)
    latent = made.model.codec.latent_shape(*made.model.clip)
    units = [torch.randn(2, made.model.codec.channels, *latent, generator=torch.Generator().manual_seed(0))]
    velocity = build_system(made)(units, torch.tensor([0.2, 0.8]), ["a red circle moves left", ""])
    assert velocity.shape == units[0].shape


@pytest.mark.parametrize("system", SYSTEMS)
def test_paper_systems_have_the_size_of_the_published(system: str) -> None:
    published = {"m4v": 2e9, "pyramidflow": 2e9, "stiv": 0.6e9, "lingen": 4e9}
    # STIV's Table 1 counts XL without the attention over time; see m4v/variants/stiv.py.
    still = {"temporal_attention": False} if system == "stiv" else {}
    with torch.device("meta"):
        count = recipe("paper", system).model.but(**still).build().parameter_count()
    assert count == pytest.approx(published[system], rel=0.25)


@pytest.mark.parametrize(("preset", "system", "said"), [("tinny", "m4v", "tiny"), ("tiny", "pyramid", "pyramidflow")])
def test_unknown_recipes_have_near_names(preset: str, system: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"perhaps {said}"):
        recipe(preset, system)


def test_changes_reach_into_the_recipe() -> None:
    changed = TINY.changed({"model.mamba.registers": False, "train.images": [1, 8], "flow.text_dropout": 0.2})
    assert isinstance(changed.model, BackboneConfig)
    assert not changed.model.mamba.registers
    assert changed.train.images == (1, 8)
    assert changed.different(TINY) == {
        "flow.text_dropout": (0.2, 0.1),
        "model.mamba.registers": (False, True),
        "train.images": ((1, 8), (0, 1)),
    }


@given(st.lists(st.sampled_from(["model.mamba.registers", "model.temporal_branch", "model.qk_norm"]), unique=True))
def test_changes_undone_give_the_same_hash(paths: list[str]) -> None:
    before = dict.fromkeys(paths, True)
    there = TINY.changed(dict.fromkeys(paths, False))
    assert (there.config_hash() == TINY.config_hash()) == (not paths)
    assert there.changed(before).config_hash() == TINY.config_hash()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.mamba.register": False}, "perhaps model.mamba.registers"),
        ({"registers": False}, "perhaps model.mamba.registers"),
        ({"model.dual_bocks": 4}, "perhaps model.dual_blocks"),
        ({"model.width": 190}, "width 190 does not divide into 4 heads"),
        ({"model.temporal_pyramid": True}, "model.temporal_pyramid is True, but flow.temporal_pyramid is False"),
        ({"codec.shape.channels": 16}, "model.codec is .* but codec.shape"),
        ({"text.width": 32}, "model.text_width is 64, but text.width is 32"),
        ({"train.mask_ratio": 0.5}, "m4v-tiny has no masked training"),
        ({"train.micro_batch": 5}, "does not divide into micro-batches of 5"),
        ({"train.images": [0, 0]}, "a ratio of image to video batches"),
        ({"train.optimizer": "muon", "train.shard": True}, "muon needs whole matrices"),
        ({"train.optimizer": "adafactor", "train.shard": True}, "adafactor needs whole matrices"),
        ({"train.lr": -1}, "train.lr"),
        ({"system": "m4w"}, "no system 'm4w'; perhaps m4v"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        TINY.changed(changes)
    assert "\n" not in str(caught.value)


def test_labels_are_no_part_of_the_hash() -> None:
    assert TINY.named("another", "words").config_hash() == TINY.config_hash()


def test_the_sampler_is_no_part_of_the_training() -> None:
    sampled = TINY.changed({"sampler.guidance": 4.0, "train.save_every": 7})
    assert sampled.training_hash() == TINY.training_hash()
    assert sampled.config_hash() != TINY.config_hash()
    assert TINY.changed({"train.seed": 1}).training_hash() != TINY.training_hash()


@pytest.mark.parametrize(
    "path", ["model.mamba.registers", "model.temporal_branch", "model.dual_blocks", "model.mamba.gate"]
)
def test_variants_of_the_mixer_share_their_attention_twin(path: str) -> None:
    value = {"model.dual_blocks": 1, "model.mamba.gate": "sum"}.get(path, False)
    variant = TINY.changed({path: value})
    assert variant.config_hash() != TINY.config_hash()
    assert attention_twin(variant).training_hash() == attention_twin(TINY).training_hash()


def test_a_twin_is_attention_throughout() -> None:
    twin = attention_twin(TINY).model
    assert isinstance(twin, BackboneConfig)
    assert {kind for _, kind in twin.kinds()} == {"attention"}


def test_systems_without_a_mixer_field_have_no_twin() -> None:
    with pytest.raises(ValueError, match="stiv-tiny has no mixer to replace"):
        attention_twin(recipe("tiny", "stiv"))


def weights(made: Recipe, seed: int | None = None) -> dict[str, torch.Tensor]:
    return build_system(made, seed).state_dict()


@pytest.mark.parametrize("system", SYSTEMS)
def test_weights_depend_on_the_seed_alone(system: str) -> None:
    made = recipe("tiny", system)
    torch.manual_seed(1)
    first = weights(made)
    after = torch.rand(1)
    torch.manual_seed(2)
    second = weights(made)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after), "the global generator was moved"
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = weights(made, seed=1)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_variants_start_alike_in_the_linear_layers_that_they_share() -> None:
    first, second = weights(TINY), weights(TINY.changed({"model.mamba.registers": False}))
    linear = [name for name, module in build_system(TINY).named_modules() if isinstance(module, nn.Linear)]
    assert linear
    assert all(torch.equal(first[f"{name}.weight"], second[f"{name}.weight"]) for name in linear)


def test_layers_that_start_at_zero_still_do() -> None:
    system = build_system(TINY)
    zero = {name for name, value in system.state_dict().items() if not value.any()}
    plain = TINY.model.build()
    assert {f"velocity.{name}" for name, value in plain.state_dict().items() if not value.any()} <= zero


def test_linear_layers_keep_pytorch_s_distribution() -> None:
    weight = weights(TINY)[
        "velocity.blocks.3.mlp.0.weight"
    ]  # uniform in +-1/sqrt(fan in): standard deviation b/sqrt(3)
    bound = weight.shape[1] ** -0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)  # 147,456 draws: 0.2 % is one sigma


def test_learning_rate_rises_stays_and_falls() -> None:
    config = TrainConfig(steps=100, lr=1.0, warmup=10, decay=0.3)
    assert [config.lr_at(step) for step in (0, 4, 9, 50, 70)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [config.lr_at(step) for step in (85, 99)] == pytest.approx([0.5, 1 / 30])


@given(st.integers(0, 5), st.integers(0, 20))
def test_image_steps_keep_their_ratio(images: int, videos: int) -> None:
    if images + videos:
        config = TrainConfig(images=(images, videos))
        steps = [config.is_images(step) for step in range(3 * (images + videos))]
        assert sum(steps) == 3 * images
        for start in range(2 * (images + videos)):
            assert sum(steps[start : start + images + videos]) == images


@given(st.tuples(st.integers(0, 9), st.integers(0, 9)), st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_seeds_of_different_parts_differ(first: tuple[int, int], second: tuple[int, int]) -> None:
    assert (derived_seed(*first) == derived_seed(*second)) == (first == second)
    assert 0 <= derived_seed(*first) < 2**63
