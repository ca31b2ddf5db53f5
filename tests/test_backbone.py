"""The velocity model as a whole: what may depend on what, how it starts, and its published sizes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m4v.backbone import Backbone, BackboneConfig, DualBlock, join_equal
from m4v.layers import Attention, Mamba, TemporalBranch
from m4v.layout import Evaluation, Patch, Shape
from m4v.variants import Text, example_inputs, presets
from m4v.variants.base import patchify, unpatchify

CLIP = (25, 32, 48)  # four latent frames of 4 x 6 cells
SMALL: dict[str, Any] = {
    "width": 32,
    "heads": 2,
    "layers": 4,
    "dual_slots": 2,
    "dual_blocks": 2,
    "stages": 2,
    "rotary_axes": (4, 6, 6),
    "mamba": {"state": 16, "chunk": 16},
    "text_tokens": 5,
    "text_width": 12,
    "pooled_width": 10,
    "codec": {"channels": 3},
    "patch": {"spatial": 1},
}
MODELS: dict[str, BackboneConfig] = {
    "pyramidflow": BackboneConfig(**SMALL),
    "m4v": BackboneConfig(**SMALL).but(mixer="mamba", temporal_branch=True),
    "m4v, text before the video alone": BackboneConfig(**SMALL).but(
        mixer="mamba", temporal_branch=True, mamba=SMALL["mamba"] | {"text": "prefix"}
    ),
    "m4v, one Mamba block": BackboneConfig(**SMALL).but(mixer="mamba", temporal_branch=True, dual_blocks=3),
    "mamba only": BackboneConfig(**SMALL).but(mixer="mamba", dual_blocks=0),
    "dual only, sinusoids": BackboneConfig(**SMALL).but(dual_slots=4, dual_blocks=4, positions="sinusoids"),
    "bidirectional": BackboneConfig(**SMALL).but(causal=False),
}
TEXT_HEARS_NO_VIDEO = ["pyramidflow", "m4v, text before the video alone", "dual only, sinusoids"]
CAUSAL = [*TEXT_HEARS_NO_VIDEO, "m4v, one Mamba block"]
LENGTHS = (2, 5, 4)


def awake(config: BackboneConfig, seed: int = 1, dtype: torch.dtype = torch.float32) -> Backbone:
    """The model with what starts at zero (modulations, head, temporal values) filled with noise."""
    torch.manual_seed(seed)
    model = config.build()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, TemporalBranch):
                module.qkv.weight.normal_(std=0.2)
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.to(dtype)


Inputs = tuple[list[Tensor], Tensor, Text]


def make_inputs(
    config: BackboneConfig, units: Sequence[Shape], batch: int = 2, seed: int = 4, dtype: torch.dtype = torch.float32
) -> Inputs:
    """A batch in which every sample has its own time and length of prompt."""
    generator = torch.Generator().manual_seed(seed)
    latents, _, text = example_inputs(config, units, batch=batch, device="cpu", dtype=dtype, generator=generator)
    mask_BL = torch.arange(config.text_tokens) < torch.tensor(LENGTHS[:batch])[:, None]
    return latents, torch.linspace(0.1, 0.9, batch, dtype=dtype), text._replace(mask_BL=mask_BL)


def last_pass(config: BackboneConfig) -> Evaluation:
    return config.evaluations(*CLIP)[-1]


def sample_of(inputs: Inputs, b: int) -> Inputs:
    units, t_B, text = inputs
    return [unit[b : b + 1] for unit in units], t_B[b : b + 1], Text(*(part[b : b + 1] for part in text))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("temporal_pyramid", [True, False])
@pytest.mark.parametrize("spatial_pyramid", [True, False])
def test_every_pass_gives_the_velocity_of_the_last_unit(
    name: str, temporal_pyramid: bool, spatial_pyramid: bool
) -> None:
    config = MODELS[name].but(temporal_pyramid=temporal_pyramid, spatial_pyramid=spatial_pyramid)
    model = awake(config)
    passes = config.evaluations(*CLIP)
    assert len(passes) == (4 if temporal_pyramid else 1) * (2 if spatial_pyramid else 1)
    for evaluation in passes:
        inputs = make_inputs(config, evaluation.units)
        with torch.no_grad():
            velocity = model(*inputs, stage=evaluation.stage)
        assert velocity.shape == inputs[0][-1].shape == (2, 3, *evaluation.units[-1])
        assert velocity.isfinite().all()
        assert velocity.std() > 0.01


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_its_samples(name: str) -> None:
    """With times and prompts of their own; float32, 1e-5."""
    config = MODELS[name]
    model, evaluation = awake(config), last_pass(config)
    inputs = make_inputs(config, evaluation.units, batch=3)
    with torch.no_grad():
        together = model(*inputs)
        for b in range(3):
            alone = model(*sample_of(inputs, b))
            torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_starts_at_zero_velocity_with_closed_gates(name: str) -> None:
    """Before training, blocks are the identity and the velocity is zero (adaLN-zero)."""
    config = MODELS[name]
    torch.manual_seed(0)
    model, inputs = config.build(), make_inputs(config, last_pass(config).units)
    assert not model(*inputs).any()
    blocks_are_identity: list[bool] = []
    for block in model.blocks:
        block.register_forward_hook(
            lambda _, given, out: blocks_are_identity.append(
                torch.equal(given[0], out[0]) and torch.equal(given[1], out[1])
            )
        )
    model(*inputs)
    assert blocks_are_identity == [True] * 4


def normed_by_hand(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift


def block_by_hand(block: Any, text: Tensor, video: Tensor, condition: Tensor, context: Any) -> tuple[Tensor, Tensor]:
    """The equations of MM-DiT (Figure 2b) and of FLUX.1's single-stream block, given the block's mixer and maps."""
    active = condition / (1 + torch.exp(-condition))

    def vectors(modulation: Any) -> list[Tensor]:
        flat = active @ modulation.linear.weight.T + modulation.linear.bias
        return list(flat.view(len(flat), -1, 1, text.shape[-1]).unbind(1))

    def mixed(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        a_mixed, b_mixed = block.mixer(a, b, context)
        return a_mixed, b_mixed if block.temporal is None else b_mixed + block.temporal(b, context)

    if not isinstance(block, DualBlock):
        shift, scale, gate = vectors(block.modulation)
        normed = [normed_by_hand(x, shift, scale) for x in (text, video)]
        paths = [torch.cat([m, block.mlp(n)], dim=-1) for m, n in zip(mixed(*normed), normed, strict=True)]
        joint = torch.cat([block.out.weight, block.mlp_out.weight], dim=1)  # one projection of the concatenated paths
        one, two = (x + gate * (p @ joint.T + block.out.bias) for x, p in zip((text, video), paths, strict=True))
        return one, two
    both = [vectors(m) for m in block.modulation]
    normed = [normed_by_hand(x, v[0], v[1]) for x, v in zip((text, video), both, strict=True)]
    results = []
    for s, (x, v, m) in enumerate(zip((text, video), both, mixed(*normed), strict=True)):
        x = x + v[2] * block.out[s](m)
        results.append(x + v[5] * block.mlp[s](normed_by_hand(x, v[3], v[4])))
    return results[0], results[1]


@pytest.mark.parametrize("name", ["pyramidflow", "m4v", "mamba only"])
def test_blocks_by_hand(name: str) -> None:
    """Norms, shifts, scales, gates, residuals and parallel paths of every block, in float64, 1e-9."""
    config = MODELS[name]
    model = awake(config, dtype=torch.float64)
    pairs: list[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]] = []
    for block in model.blocks:
        block.register_forward_hook(lambda block, given, out: pairs.append((out, block_by_hand(block, *given))))
    with torch.no_grad():
        model(*make_inputs(config, last_pass(config).units, dtype=torch.float64))
    assert len(pairs) == 4
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_padding_of_the_prompt_changes_nothing(name: str) -> None:
    """What stands there: bit by bit. How much there is of it: 1e-5 in float32 (not so with the first copy alone)."""
    config = MODELS[name]
    model = awake(config)
    units, t_B, text = make_inputs(config, last_pass(config).units)
    noise = 100 * torch.randn(text.tokens_BLE.shape, generator=torch.manual_seed(2))
    filled = text._replace(tokens_BLE=torch.where(text.mask_BL[..., None], text.tokens_BLE, noise))
    with torch.no_grad():
        before = model(units, t_B, text)
        assert torch.equal(before, model(units, t_B, filled))
        if config.mamba.text == "prefix":
            return  # there padding stays between text and video, and the state fades while it passes
        short = Text(text.tokens_BLE[:1, : LENGTHS[0]], text.mask_BL[:1, : LENGTHS[0]], text.pooled_BP[:1])
        trimmed = model([unit[:1] for unit in units], t_B[:1], short)
        torch.testing.assert_close(trimmed, before[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_velocity_depends_on_every_input(name: str) -> None:
    """Each unit, the time, a real token of the prompt and the pooled prompt."""
    config = MODELS[name]
    model = awake(config)
    units, t_B, text = make_inputs(config, last_pass(config).units, dtype=torch.float32)
    leaves = [x.requires_grad_() for x in (*units, t_B, text.tokens_BLE, text.pooled_BP)]
    model(units, t_B, text).square().sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.flatten(1).any(dim=1).all() if leaf.ndim > 1 else leaf.grad.all()
    assert text.tokens_BLE.grad is not None
    heard_BL = text.tokens_BLE.grad.any(dim=-1)
    assert torch.equal(heard_BL, text.mask_BL)


def all_features(model: Backbone, inputs: Inputs, stage: int = 0) -> tuple[Tensor, Tensor]:
    """Text and video after the last block."""
    kept: list[tuple[Tensor, Tensor]] = []
    handle = model.blocks[-1].register_forward_hook(lambda _, given, out: kept.append(out))
    with torch.no_grad():
        model(*inputs, stage=stage)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stage", [0, 1])
def test_who_hears_of_the_noisy_frame(name: str, stage: int) -> None:
    """Observed after the last block, in float64: its history only if attention is bidirectional or the text carries it.

    M4V's second copy of the text hears the video and comes first in the next Mamba block: from the second such on,
    history hears (a little) of what comes after it. Attention before that is causal.
    """
    config = MODELS[name]
    evaluation = next(e for e in config.evaluations(*CLIP) if (e.frame, e.stage) == (3, stage))
    model = awake(config, dtype=torch.float64)
    units, t_B, text = make_inputs(config, evaluation.units, dtype=torch.float64)
    changed = [*units[:-1], units[-1] + 1]
    noisy, real = evaluation.units[-1].cells, text.mask_BL
    before, after = (all_features(model, (u, t_B, text), stage) for u in (units, changed))
    assert not torch.allclose(before[1][:, -noisy:], after[1][:, -noisy:], atol=1e-3)
    history_same = torch.allclose(before[1][:, :-noisy], after[1][:, :-noisy], rtol=1e-12, atol=1e-12)
    assert history_same == (name in CAUSAL)
    text_same = torch.allclose(before[0][real], after[0][real], rtol=1e-12, atol=1e-12)
    assert text_same == (name in TEXT_HEARS_NO_VIDEO)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_full_sequence_is_causal_over_frames(name: str) -> None:
    """The velocity of a frame does not depend on later frames of the block, and does on earlier ones; float64."""
    config = MODELS[name].but(temporal_pyramid=False)
    model = awake(config, dtype=torch.float64)
    units, t_B, text = make_inputs(config, last_pass(config).units, dtype=torch.float64)
    changed = units[0].clone()
    changed[:, :, 2] += 1
    with torch.no_grad():
        difference = (model(units, t_B, text) - model([changed], t_B, text)).abs().amax(dim=(0, 1, 3, 4))
    assert (difference[:2] < 1e-12).all()
    assert (difference[2:] > 1e-3).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ssm", ["mamba1", "mamba2"])
def test_gradients_reach_every_parameter(name: str, ssm: str) -> None:
    """From passes at all stages together, so that each stage's register is used.

    In a last dual-stream block nobody reads what text asked for: its queries have a gradient of zero.
    """
    config = MODELS[name].but(mamba={"state": 16, "ssm": ssm})
    model = awake(config)
    for evaluation in config.evaluations(*CLIP)[-2:]:
        model(*make_inputs(config, evaluation.units), stage=evaluation.stage).square().sum().backward()
    silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    ends_dual = config.kinds()[-1][0] == 2
    assert silent == ({"blocks.3.mixer.q_norm.0.weight"} if ends_dual else set())
    if model.registers_SD is not None:
        assert model.registers_SD.grad is not None
        assert model.registers_SD.grad.any(dim=1).all()


@pytest.mark.parametrize(("name", "billions"), [("pyramidflow", 2.0), ("m4v", 2.0), ("pyramidflow-sd3", 2.0)])
def test_published_sizes(name: str, billions: float) -> None:
    """About two billion parameters: SD3 Medium's and miniFLUX's size, and M4V's of the same shape; 12 %."""
    with torch.device("meta"):
        model = presets()[name].build()
    assert model.parameter_count() == pytest.approx(billions * 1e9, rel=0.12)


def test_parameters_of_miniflux_by_hand() -> None:
    """Closed form of its matrices, biases and norms."""
    d, text, pooled, tokens = 1920, 4096, 768, 64

    def linear(i: int, o: int, bias: bool = True) -> int:
        return i * o + o * bias

    norms = 2 * 64
    dual = 2 * (linear(d, 6 * d) + linear(d, 3 * d) + norms + linear(d, d) + linear(d, 4 * d) + linear(4 * d, d))
    single = linear(d, 3 * d) * 2 + norms + linear(d, d) + linear(d, 4 * d) + linear(4 * d, d, bias=False)
    outside = linear(tokens, d) + linear(text, d) + linear(256, d) + linear(pooled, d) + 2 * linear(d, d)
    head = linear(d, 2 * d) + linear(d, tokens)
    with torch.device("meta"):
        model = presets()["pyramidflow"].build()
    assert model.parameter_count() == 8 * dual + 16 * single + outside + head


@pytest.mark.parametrize("name", sorted(presets()))
def test_full_size_passes_run_on_meta(name: str) -> None:
    """Shapes of the largest pass, without weights or data."""
    config = presets()[name]
    with torch.device("meta"):
        model = config.build()
    evaluation = config.evaluations(*config.clip)[-1]
    units, t_B, text = example_inputs(config, evaluation.units)
    with torch.no_grad():
        velocity = model(units, t_B, text, stage=evaluation.stage)
    assert velocity.shape == units[-1].shape
    assert velocity.is_meta


@pytest.mark.parametrize("dual_blocks", [0, 2, 4, 8, 24])
def test_kinds_of_table_6(dual_blocks: int) -> None:
    """24 blocks, at least eight of them dual-stream; the first L use attention, the others Mamba."""
    config = presets()["m4v"].but(dual_blocks=dual_blocks)
    kinds = config.kinds()
    assert [kind for _, kind in kinds] == ["attention"] * dual_blocks + ["mamba"] * (24 - dual_blocks)
    assert [streams for streams, _ in kinds] == [2] * max(8, dual_blocks) + [1] * (24 - max(8, dual_blocks))
    assert config.single_blocks == 24 - max(8, dual_blocks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "width 32 does not divide into 3 heads"),
        ({"heads": 0}, "width 32 does not divide into 0 heads"),
        ({"rotary_axes": (4, 8, 8)}, r"rotary axes \(4, 8, 8\) .* 16"),
        ({"rotary_axes": (5, 5, 6)}, r"rotary axes \(5, 5, 6\) .* 16"),
        ({"stages": 0}, "0 pyramid stages"),
    ],
)
def test_shapes_that_cannot_be_built_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODELS["m4v"].but(**change)


def test_rotary_axes_may_leave_dimensions_unturned() -> None:
    config = MODELS["pyramidflow"].but(rotary_axes=(2, 4, 4))
    inputs = make_inputs(config, last_pass(config).units)
    assert awake(config)(*inputs).isfinite().all()


@pytest.mark.parametrize("dual_blocks", [0, 1, 2, 3, 4])
def test_blocks_are_what_kinds_says(dual_blocks: int) -> None:
    config = MODELS["m4v"].but(dual_blocks=dual_blocks)
    for block, (streams, kind) in zip(config.build().blocks, config.kinds(), strict=True):
        assert isinstance(block, DualBlock) == (streams == 2)
        assert isinstance(block.mixer, Mamba if kind == "mamba" else Attention)
        assert (block.temporal is not None) == (kind == "mamba")


def test_replacing_the_mixer_is_one_field() -> None:
    """All else keeps its name and shape, so that weights carry over."""
    attention, mamba = MODELS["pyramidflow"], MODELS["pyramidflow"].but(mixer="mamba")
    assert attention.differences(mamba) == {"mixer": ("attention", "mamba")}
    shapes = [
        {name: p.shape for name, p in config.build().named_parameters() if "mixer" not in name}
        for config in (attention, mamba)
    ]
    assert shapes[1].keys() - shapes[0].keys() == {"registers_SD"}
    assert shapes[0].items() <= shapes[1].items()


@given(sizes=st.lists(st.tuples(st.integers(1, 3), st.sampled_from([2, 4])), min_size=1, max_size=6))
def test_join_equal_keeps_frames_and_order(sizes: list[tuple[int, int]]) -> None:
    units = [torch.full((1, 2, frames, side, side), float(i)) for i, (frames, side) in enumerate(sizes)]
    joined = join_equal(units)
    split = [frame for block in joined for frame in block.unbind(2)]
    expected = [frame for unit in units for frame in unit.unbind(2)]
    assert all(torch.equal(a, b) for a, b in zip(split, expected, strict=True))
    assert all(a.shape[3:] != b.shape[3:] for a, b in pairwise(joined))


@pytest.mark.parametrize("name", MODELS)
def test_joined_units_are_separate_units(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block of frames a resolution, or one a frame: the same velocity; float32, 1e-5."""
    config = MODELS[name]
    model, inputs = awake(config), make_inputs(config, last_pass(config).units)
    with torch.no_grad():
        joined = model(*inputs)
        grouped = model([torch.cat(inputs[0][:2], dim=2), *inputs[0][2:]], *inputs[1:])
        monkeypatch.setattr("m4v.backbone.join_equal", list)
        separate = model(*inputs)
    torch.testing.assert_close(joined, separate, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(joined, grouped, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_an_image_is_a_video_of_one_frame(name: str) -> None:
    config = MODELS[name]
    passes, full = config.evaluations(1, 32, 48), config.but(temporal_pyramid=False).evaluations(1, 32, 48)
    assert [e.units for e in passes] == [e.units for e in full]
    model = awake(config)
    inputs = make_inputs(config, passes[-1].units)
    with torch.no_grad():
        assert model(*inputs).shape == (2, 3, 1, 4, 6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("lengths", [(2, 5), (0, 5)])
def test_training_under_bfloat16_autocast(name: str, lengths: tuple[int, int]) -> None:
    """Within 5e-2 of the velocity's spread (root mean square); gradients are finite, also without a prompt."""
    config = MODELS[name]
    model = awake(config)
    units, t_B, text = make_inputs(config, last_pass(config).units)
    text = text._replace(mask_BL=torch.arange(5) < torch.tensor(lengths)[:, None])
    exact = model(units, t_B, text)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(units, t_B, text)
    rough.float().square().sum().backward()
    error = (rough.float() - exact).square().mean().sqrt()
    assert 0 < error < 5e-2 * exact.std()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_weights_travel(name: str) -> None:
    config = MODELS[name]
    first, second = awake(config, seed=1), awake(config, seed=2)
    inputs = make_inputs(config, last_pass(config).units)
    with torch.no_grad():
        expected = first(*inputs)
        assert not torch.allclose(second(*inputs), expected)
        second.load_state_dict(first.state_dict())
        assert torch.equal(second(*inputs), expected)


@given(data=st.data(), f=st.integers(1, 2), s=st.integers(1, 3))
def test_patches_are_cut_in_order_and_put_back(data: st.DataObject, f: int, s: int) -> None:
    frames, rows, cols = (data.draw(st.integers(1, 3)) for _ in range(3))
    unit = torch.randn(2, 3, frames * f, rows * s, cols * s, generator=torch.manual_seed(0))
    patch = Patch(temporal=f, spatial=s)
    tokens = patchify(unit, patch)
    expected = [
        unit[:, :, t * f : (t + 1) * f, y * s : (y + 1) * s, x * s : (x + 1) * s].flatten(1)
        for t in range(frames)
        for y in range(rows)
        for x in range(cols)
    ]
    assert torch.equal(tokens, torch.stack(expected, dim=1))
    assert torch.equal(unpatchify(tokens, patch.tokens(Shape(frames * f, rows * s, cols * s)), patch), unit)
