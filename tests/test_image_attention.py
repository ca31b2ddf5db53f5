"""Attention to the image (STIV's CA): the network against full attention, training pairs, sampling, and a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evalkit.flops.counter import ForwardCounter
from m4v.checkpoint import load_checkpoint, load_system
from m4v.flow import FlowConfig, TrainingPair, flow_loss, training_pair
from m4v.layout import Shape
from m4v.ops import sinusoids
from m4v.recipe import build_system
from m4v.sample import SamplerConfig, sample
from m4v.train import train
from m4v.variants.base import Image, ModelConfig, Text, attends_to_image, patchify
from m4v.variants.stiv import PRESETS, CrossAttention, ImageTokens, Stiv, Surroundings, draw_places, keep, masked
from tests.test_stiv import TINY, UNIT, around, awake, coordinates, inputs
from tests.test_train import small, world

CONFIG = TINY.but(image_attention=True)
PLAIN = FlowConfig(spatial_pyramid=False, temporal_pyramid=False, corruption="none")
SIZE = Shape(4, 2, 3)
"""A clip of four latent frames; its image is the first."""


def build(**changes: Any) -> Stiv:
    torch.manual_seed(5)
    model: Stiv = awake(CONFIG.but(**changes).build())
    return model


def picture(batch: int = 2, given: bool | list[bool] = True, seed: int = 21) -> Image:
    latents = torch.randn(batch, 3, 1, UNIT.rows, UNIT.cols, generator=torch.Generator().manual_seed(seed))
    return Image(latents, torch.tensor([given] * batch if isinstance(given, bool) else given))


def close_gates(model: Stiv) -> None:
    with torch.no_grad():
        for block in model.blocks:
            block.image_gate_D.zero_()


# The network


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_have_no_attention_to_the_image(name: str) -> None:
    """Off, there is no weight of it; on, weights are its closed form (exact)."""
    with torch.device("meta"):
        off, on = PRESETS[name].build(), PRESETS[name].but(image_attention=True).build()
    assert not [key for key in off.state_dict() if "image" in key]
    assert off.state_dict().keys() == {key for key in on.state_dict() if "image" not in key}
    config = PRESETS[name]
    d, features = config.width, config.codec.channels * config.patch.spatial**2
    a_layer = 4 * (d * d + d) + 2 * (d // config.heads) + d
    assert on.parameter_count() - off.parameter_count() == config.layers * a_layer + (features + 1) * d
    assert not attends_to_image(off)
    assert attends_to_image(on)


@pytest.mark.parametrize("positions", ["rotary", "sinusoids"])
@pytest.mark.parametrize("sandwich_norm", [True, False])
def test_gradients_reach_every_parameter(positions: str, sandwich_norm: bool) -> None:
    model = build(positions=positions, sandwich_norm=sandwich_norm)
    image = picture(given=[True, False])
    model(*inputs(), mask_ratio=0.5, generator=torch.Generator().manual_seed(0), image=image).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("positions", ["rotary", "sinusoids"])
def test_no_image_is_an_image_given_to_no_sample(positions: str) -> None:
    """Tolerance 1e-6: one masked token or fifteen, nothing of them is read."""
    model = build(positions=positions)
    without, none_given = model(*inputs()), model(*inputs(), image=picture(given=False))
    torch.testing.assert_close(without, none_given, rtol=1e-6, atol=1e-6)
    assert without.isfinite().all()


def test_closed_gates_are_the_model_without_attention_to_the_image() -> None:
    """Bit for bit, with and without an image; open ones change the output by more than 1e-2."""
    model, (units, t_B, text) = build(), inputs()
    off: Stiv = awake(TINY.build())
    off.load_state_dict({name: value for name, value in model.state_dict().items() if "image" not in name})
    expected = off(units, t_B, text)
    assert (model(units, t_B, text, image=picture()) - model(units, t_B, text)).abs().max() > 1e-2
    close_gates(model)
    assert torch.equal(model(units, t_B, text), expected)
    assert torch.equal(model(units, t_B, text, image=picture()), expected)


def test_a_fresh_gate_is_closed() -> None:
    model: Any = CONFIG.build()
    assert not any(block.image_gate_D.any() for block in model.blocks)
    assert all(block.image.out.weight.any() for block in model.blocks)


def reference(module: CrossAttention, x_BND: Tensor, seen_BSD: Tensor, places_NA: Tensor, seen_SA: Tensor) -> Tensor:
    """Softmax over the image's tokens, scores by einsum, rotary positions as complex multiplication."""

    def heads(y: Tensor, norm: Any, places: Tensor) -> Tensor:
        y = y.unflatten(-1, (module.heads, -1))
        y = y * (y.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * norm.weight
        angles = [places[:, a, None] / 10_000 ** (torch.arange(0, 8, 2) / 8) for a in range(2)]
        turns = torch.polar(torch.tensor(1.0), torch.cat(angles, dim=-1))[:, None]
        return torch.view_as_real(torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous()) * turns).flatten(-2)

    keys, values = module.kv(seen_BSD).chunk(2, dim=-1)
    q, k = heads(module.q(x_BND), module.q_norm, places_NA), heads(keys, module.k_norm, seen_SA)
    weights = (torch.einsum("bnhk,bshk->bhns", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    values = values.unflatten(-1, (module.heads, -1))
    return module.out(torch.einsum("bhns,bshk->bnhk", weights, values).flatten(-2))  # type: ignore[no-any-return]


def beside_an_image(model: Stiv, grid: Shape) -> tuple[Surroundings, ImageTokens]:
    unit = torch.zeros(2, 3, 6, UNIT.rows, UNIT.cols)
    plain = around(model, grid)
    tokens = model.image_tokens(picture(), unit, plain.space_angles)
    assert tokens is not None
    return Surroundings(**(vars(plain) | {"image": tokens})), tokens


def test_it_is_full_attention_by_place() -> None:
    """A token of any frame asks from its own place, a patch of the image answers from its own. Tolerance 1e-5."""
    model = build(sandwich_norm=False, patch={"temporal": 2, "spatial": 1})
    grid = Shape(3, UNIT.rows, UNIT.cols)
    surroundings, tokens = beside_an_image(model, grid)
    x_BND = torch.randn(2, grid.cells, 32, generator=torch.manual_seed(1))
    block: Any = model.blocks[1]
    places_NA = coordinates(grid)[:, 1:]
    expected = x_BND + block.image_gate_D * reference(
        block.image, x_BND, tokens.tokens_BSD, places_NA, places_NA[: grid.rows * grid.cols]
    )
    torch.testing.assert_close(block._to_image(x_BND, surroundings), expected, rtol=1e-5, atol=1e-5)


def test_tokens_are_the_patches_of_the_first_frame() -> None:
    """A spatial patch of 2 and no temporal one: by hand, the values of a patch through the linear layer (1e-6)."""
    model = build(patch={"temporal": 2, "spatial": 2}).eval()
    image = Image(torch.arange(2.0 * 3 * 4 * 6).view(2, 3, 1, 4, 6) / 100, torch.tensor([True, False]))
    tokens = model.image_tokens(image, torch.zeros(2, 3, 6, 4, 6), None)
    assert tokens is not None
    assert model.embed_image is not None
    last = image.latents_BCTYX[0, :, 0, 2:, 4:].flatten()
    expected = last @ model.embed_image.weight.T + model.embed_image.bias
    assert tokens.tokens_BSD.shape == (2, 6, 32)
    torch.testing.assert_close(tokens.tokens_BSD[0, 5], expected, rtol=1e-6, atol=1e-6)
    assert tokens.mask_BS.tolist() == [[True] * 6, [False] * 6]
    assert torch.equal(patchify(image.latents_BCTYX, model.config.image_patch)[0, 5], last)


def test_tokens_know_their_places_by_sinusoids_too() -> None:
    """Without rotary positions, patches have the sinusoids of the video's first frame added (1e-6)."""
    model, image = build(positions="sinusoids"), picture()
    tokens = model.image_tokens(image, torch.zeros(2, 3, 6, UNIT.rows, UNIT.cols), None)
    assert tokens is not None
    assert model.embed_image is not None
    added = tokens.tokens_BSD - model.embed_image(image.latents_BCTYX.flatten(2).transpose(1, 2))
    expected = sinusoids(coordinates(Shape(1, UNIT.rows, UNIT.cols)), 32).expand(2, -1, -1)
    torch.testing.assert_close(added, expected, rtol=1e-6, atol=1e-6)


def test_masked_places_ask_from_where_they_are() -> None:
    """What kept tokens read is what they read among all tokens (1e-6): every sample keeps places of its own."""
    model, grid = build(), Shape(3, UNIT.rows, UNIT.cols)
    surroundings, _ = beside_an_image(model, grid)
    x_BND = torch.randn(2, grid.cells, 32, generator=torch.manual_seed(1))
    kept_BK = draw_places(2, 15, 0.6, torch.device("cpu"), torch.Generator().manual_seed(4))
    assert not torch.equal(kept_BK[0], kept_BK[1])
    block: Any = model.blocks[0]
    found = block._to_image(keep(x_BND, kept_BK, 3), masked(surroundings, kept_BK))
    expected = keep(block._to_image(x_BND, surroundings), kept_BK, 3)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_samples_do_not_depend_on_their_batch() -> None:
    """Tolerance 1e-5: kernels may sum in another order for another batch. The third sample is given no image."""
    model, (units, t_B, text), image = build(), inputs(batch=3), picture(3, [True, True, False])
    together = model(units, t_B, text, image=image)
    for i in range(3):
        one = slice(i, i + 1)
        some = Text(*(part[one] for part in text))
        alone = model([units[0][one]], t_B[one], some, image=Image(*(part[one] for part in image)))
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-5)


def test_a_dropped_sample_ignores_the_image() -> None:
    """Bit for bit; the sample that keeps its image moves by more than 1e-2, and in every frame."""
    model, arguments = build(), inputs()
    first, other = (model(*arguments, image=picture(2, [True, False], seed)) for seed in (1, 2))
    assert torch.equal(first[1], other[1])
    moved_T = (first[0] - other[0]).abs().amax(dim=(0, 2, 3))
    assert moved_T.min() > 1e-2


@pytest.mark.parametrize(
    ("config", "image", "says"),
    [
        (TINY, picture(), "attends to none"),
        (CONFIG, picture(3), r"shape \(3, 3, 1, 3, 5\)"),
        (CONFIG, Image(torch.zeros(2, 3, 2, 3, 5), torch.ones(2, dtype=torch.bool)), r"shape \(2, 3, 2, 3, 5\)"),
        (CONFIG, Image(torch.zeros(2, 3, 1, 3, 5), torch.ones(1, dtype=torch.bool)), r"\(1,\) values"),
    ],
)
def test_images_that_do_not_fit_are_refused(config: Any, image: Image, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config.build()(*inputs(), image=image)


def test_costs_are_their_closed_form() -> None:
    """At full size: 4 N d^2 for queries and output, 4 S d^2 for keys and values, 4 N S d for scores and their use.

    Text to video has one masked token in place of the S patches; the patches cost 2 S d for each of their values.
    """
    off = PRESETS["stiv-xl"]
    on = off.but(image_attention=True)
    (evaluation,) = off.evaluations(*off.clip)
    tokens, places, d, layers = 10_240, 1024, off.width, off.layers
    with torch.device("meta"):
        image = Image(torch.empty(1, 8, 1, 64, 64), torch.empty(1, dtype=torch.bool))

    def added(seen: int) -> int:
        return layers * (4 * tokens * d**2 + 4 * seen * d**2 + 4 * tokens * seen * d)

    plain, counter = ForwardCounter(off)(evaluation).total, ForwardCounter(on)
    assert counter(evaluation).total - plain == added(1)
    assert counter(evaluation, image=image).total - plain == added(places) + 2 * places * d * 8 * 4


# Training


def pair(image: bool, seed: int = 5, batch: int = 2000, **changes: Any) -> tuple[Tensor, TrainingPair]:
    x1 = torch.randn(batch, 2, *SIZE, generator=torch.Generator().manual_seed(3))
    flow = PLAIN.but(image_dropout=0.25, **changes)
    return x1, training_pair(x1, flow, torch.Generator().manual_seed(seed), image=image)


@pytest.mark.parametrize("replaced", [True, False])
def test_the_image_is_the_clean_first_frame(replaced: bool) -> None:
    """Dropped in a quarter of the clips, within five standard errors; with frame replacement in the same ones."""
    x1, found = pair(True, frame_replacement=replaced)
    assert found.image is not None
    assert torch.equal(found.image.latents_BCTYX, x1[:, :, :1])
    assert float(found.image.given_B.float().mean()) == pytest.approx(0.75, abs=5 * (0.25 * 0.75 / 2000) ** 0.5)
    clean_B = (found.units[0][:, :, 0] == x1[:, :, 0]).flatten(1).all(1)
    if replaced:
        assert found.mask_BCTYX is not None
        assert torch.equal(clean_B, found.image.given_B)
        assert torch.equal(found.mask_BCTYX[:, :, 0].flatten(1).any(1), ~found.image.given_B)
    else:
        assert not clean_B.any()
        assert found.mask_BCTYX is None


def test_variants_see_the_same_noise_and_times() -> None:
    """FR, CA and both: bit for bit, but for the replaced frame; without either no image is drawn."""
    both, only_fr, only_ca = (
        pair(ca, frame_replacement=fr)[1] for ca, fr in ((True, True), (False, True), (True, False))
    )
    assert only_fr.image is None
    assert both.image is not None
    assert only_ca.image is not None
    assert torch.equal(both.image.given_B, only_ca.image.given_B)
    assert torch.equal(both.units[0], only_fr.units[0])
    for other in (only_fr, only_ca):
        assert torch.equal(both.t_B, other.t_B)
        assert torch.equal(both.target_BCTYX, other.target_BCTYX)
        assert torch.equal(both.units[0][:, :, 1:], other.units[0][:, :, 1:])
    neither = pair(False)[1]
    assert neither.image is None
    assert torch.equal(neither.units[0], only_ca.units[0])


def test_a_single_frame_has_no_image() -> None:
    assert training_pair(torch.zeros(2, 3, 1, 2, 2), PLAIN, torch.Generator(), image=True).image is None
    with pytest.raises(ValueError, match="full sequence"):
        training_pair(torch.zeros(2, 3, 2, 8, 8), FlowConfig(), torch.Generator(), image=True)


def test_the_image_is_halved_with_the_clip() -> None:
    """At the coarser of two levels it is the mean over 2 x 2 blocks (1e-6)."""
    flow = PLAIN.but(spatial_pyramid=True, stages=2, stage_weights=(0, 1))
    x1 = torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    found = training_pair(x1, flow, torch.Generator().manual_seed(1), image=True)
    assert found.image is not None
    expected = x1[:, :, :1].unflatten(-1, (2, 2)).unflatten(-3, (2, 2)).mean(dim=(-1, -3))
    torch.testing.assert_close(found.image.latents_BCTYX, expected, rtol=1e-6, atol=1e-6)


# Sampling


class Recorder:
    """The velocity that leads to 1 plus what is seen of the image, as a model that attends or not; keeps its calls."""

    def __init__(self, config: ModelConfig) -> None:
        self.config, self.units, self.images = config, list[Tensor](), list[Image | None]()

    def __call__(
        self, units: list[Tensor], t_B: Tensor, text: Text, *, stage: int = 0, image: Image | None = None
    ) -> Tensor:
        (unit,) = units
        self.units.append(unit)
        self.images.append(image)
        end = torch.ones_like(unit)
        if image is not None:
            end = end + image.latents_BCTYX * image.given_B.view(-1, 1, 1, 1, 1)
        return (end - unit) / (1 - t_B.view(-1, 1, 1, 1, 1))


def prompts(batch: int, width: int = 8, tokens: int = 5) -> Text:
    draw = torch.Generator().manual_seed(6)
    mask_BL = torch.ones(batch, tokens, dtype=torch.bool)
    return Text(torch.randn(batch, tokens, width, generator=draw), mask_BL, torch.randn(batch, width, generator=draw))


def run(model: Any, image: Tensor | None, *, batch: int = 2, replaced: bool = False, **options: Any) -> Tensor:
    sampler = SamplerConfig(first_frame_steps=3, image_guidance=3.0, **options.pop("sampler", {}))
    text = prompts(batch)
    generators = [torch.Generator().manual_seed(i) for i in range(batch)]
    flow = PLAIN.but(frame_replacement=replaced)
    return sample(model, text, prompts(1), SIZE, 3, flow, sampler, generators=generators, image=image, **options)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("replaced", [True, False])
def test_passes_are_shown_the_image_where_it_is_given(joint: bool, batched: bool, replaced: bool) -> None:
    """The conditional pass always, the null pass unless guidance is joint. Ends by hand (1e-5).

    Guidance 3 between ends 1 + image and, if joint, 1: the clip becomes 1 + 3 image, else 1 + image. The first frame is
    the image itself under frame replacement only.
    """
    model, image = Recorder(CONFIG), torch.randn(2, 3, 1, 2, 3, generator=torch.Generator().manual_seed(2))
    clip = run(model, image, replaced=replaced, batched=batched, sampler={"joint": joint})
    given = [call.given_B.tolist() for call in model.images if call is not None]
    null = [not joint] * 2
    assert given == ([[True] * 2 + null] * 3 if batched else [[True] * 2, null] * 3)
    for call in model.images:
        assert call is not None
        assert torch.equal(call.latents_BCTYX, image.repeat(2 if batched else 1, 1, 1, 1, 1))
    made = (1 + (3 if joint else 1) * image).expand(-1, -1, SIZE.frames, -1, -1)
    expected = torch.cat([image, made[:, :, 1:]], dim=2) if replaced else made
    torch.testing.assert_close(clip, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(model.units[0][:2, :, :1], image) == replaced


def test_text_to_video_and_other_models_are_not_shown_an_image() -> None:
    model = Recorder(CONFIG)
    torch.testing.assert_close(run(model, None), torch.ones(2, 3, *SIZE), rtol=1e-5, atol=1e-5)
    assert model.images == [None] * 3
    blind = Recorder(TINY)
    image = torch.zeros(2, 3, 1, 2, 3)
    run(blind, image, replaced=True)
    assert blind.images == [None] * 3
    with pytest.raises(ValueError, match="attention to the image"):
        run(blind, image)


def test_a_clip_from_an_image_does_not_depend_on_its_batch() -> None:
    """Alone or in a batch, in one pass or two: 1e-4 of clips of spread about 1, as steps magnify rounding."""
    model, image = build(), torch.randn(2, 3, 1, 2, 3, generator=torch.Generator().manual_seed(2))
    together = run(model, image)
    torch.testing.assert_close(run(model, image, batched=False), together, rtol=1e-4, atol=1e-4)
    text = Text(*(part[:1] for part in prompts(2)))
    alone = sample(
        model,
        text,
        prompts(1),
        SIZE,
        3,
        PLAIN,
        SamplerConfig(first_frame_steps=3, image_guidance=3.0),
        generators=[torch.Generator().manual_seed(0)],
        image=image[:1],
    )
    torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-4)
    assert (run(model, image.flip(0)) - together).abs().max() > 1e-2


# A whole run


@pytest.mark.parametrize("replaced", [True, False])
def test_a_run_trains_saves_and_samples_both_ways(replaced: bool, tmp_path: Path) -> None:
    """Three steps open the gates and, with images alone, move what reads them; the loaded model makes all clips."""
    changes = {"model.image_attention": True, "flow.frame_replacement": replaced, "train.steps": 3}
    recipe = small("stiv").changed(changes)
    train(recipe, world("stiv"), tmp_path, device="cpu")
    saved, (loaded, system, codec) = load_checkpoint(tmp_path), load_system(tmp_path, ema=False)
    assert (saved.step, loaded) == (3, recipe)
    gates = {name: value for name, value in system.state_dict().items() if "image_gate" in name}
    assert len(gates) == 2
    assert all(value.any() and torch.equal(value, saved.model[name]) for name, value in gates.items())
    fresh, trained = build_system(recipe).state_dict(), system.state_dict()
    assert not any(torch.equal(fresh[name], trained[name]) for name in trained if ".image.kv" in name)
    assert not torch.equal(fresh["velocity.embed_image.weight"], trained["velocity.embed_image.weight"])

    batch = world("stiv").batch(0, 2, seed=1)
    latents = codec.encode(batch.video_BTHWC)
    shown = training_pair(latents, recipe.flow, torch.Generator().manual_seed(1), image=True)
    with torch.no_grad():
        velocity = system(shown.units, shown.t_B, batch.captions, image=shown.image)
        blind = system(shown.units, shown.t_B, batch.captions)
        assert flow_loss(velocity, shown).isfinite()
        assert not torch.equal(velocity, blind)
        text, null = system.text(batch.captions), system.text([""])
        clips = [
            sample(
                system.velocity,
                text,
                null,
                recipe.codec.shape.latent_shape(*recipe.model.clip),
                recipe.codec.shape.channels,
                recipe.flow,
                recipe.sampler.but(first_frame_steps=2),
                generators=[torch.Generator().manual_seed(i) for i in range(2)],
                image=image,
            )
            for image in (None, latents[:, :, :1], latents[:, :, 1:2] + 1)
        ]
    assert all(clip.isfinite().all() and clip.shape == latents.shape for clip in clips)
    assert torch.equal(clips[1][:, :, :1], latents[:, :, :1]) == replaced
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[1][:, :, 1:], clips[2][:, :, 1:])


def test_variants_start_alike() -> None:
    """Weights of the network that both have are the same bit for bit: only the attention tells them apart."""
    recipe = small("stiv")
    off, on = (build_system(recipe.changed({"model.image_attention": value})).state_dict() for value in (False, True))
    network = [name for name in off if name.startswith("velocity.")]
    assert [name for name in on.keys() - off.keys() if not name.startswith("velocity.")] == []
    assert [name for name in network if not torch.equal(off[name], on[name])] == []
