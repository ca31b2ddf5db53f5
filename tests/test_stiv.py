"""STIV against full attention with a mask, closed forms of its parameters and FLOPs, and properties of its norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from m4v.layout import Shape
from m4v.variants.base import Text, VelocityModel, example_inputs
from m4v.variants.stiv import PRESETS, SelfAttention, Stiv, StivConfig, Surroundings, draw_places, keep, refill

TINY = PRESETS["stiv-tiny"].but(
    width=32,
    heads=2,
    layers=3,
    text_tokens=5,
    text_width=8,
    pooled_width=8,
    codec={"temporal": 1, "channels": 3, "causal": False},
)
UNIT = Shape(6, 3, 5)


def awake(model: VelocityModel, seed: int = 3) -> Any:
    """The model with its zero parameters (gates, last projection, biases of norms) filled with noise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3, generator=generator)
    return model


def build(**changes: Any) -> Stiv:
    torch.manual_seed(5)
    return awake(TINY.but(**changes).build())


def inputs(batch: int = 2, unit: Shape = UNIT) -> tuple[list[Tensor], Tensor, Text]:
    units, t_B, text = example_inputs(TINY, [unit], batch=batch, device="cpu", generator=torch.manual_seed(8))
    return units, torch.linspace(0.2, 0.9, batch).to(t_B), text


def full_attention(
    module: SelfAttention, x_BND: Tensor, positions_NA: Tensor, axes: tuple[int, ...], mask: Tensor
) -> Tensor:
    """Softmax over all tokens with a mask; rotary positions as complex multiplication."""
    q, k, v = (part.unflatten(-1, (module.heads, -1)) for part in module.qkv(x_BND).chunk(3, dim=-1))
    angles = [positions_NA[:, a, None] / 10_000 ** (torch.arange(0, n, 2) / n) for a, n in enumerate(axes)]
    turn_N1R = torch.polar(torch.tensor(1.0), torch.cat(angles, dim=-1))[:, None]

    def rotated(y: Tensor, norm: Any) -> Tensor:
        y = y * (y.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * norm.weight
        return torch.view_as_real(torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous()) * turn_N1R).flatten(-2)

    q, k = rotated(q, module.q_norm), rotated(k, module.k_norm)
    scores = torch.einsum("bnhk,bmhk->bhnm", q, k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return module.out(torch.einsum("bhnm,bmhk->bnhk", weights, v).flatten(-2))


def coordinates(grid: Shape) -> Tensor:
    return torch.cartesian_prod(*(torch.arange(float(size)) for size in grid))


def around(model: Stiv, grid: Shape) -> Surroundings:
    _, _, text = inputs()
    return model.surroundings(grid, torch.zeros(2, model.config.width), text, torch.device("cpu"))


def test_attention_over_space_is_full_attention_masked_to_the_frame() -> None:
    """Tolerance 1e-5: float32, another order of summation."""
    model, grid = build(), Shape(3, 4, 5)
    x_BND = torch.randn(2, grid.cells, 32)
    frame_N = coordinates(grid)[:, 0]
    block: Any = model.blocks[0]
    expected = full_attention(
        block.spatial, x_BND, coordinates(grid)[:, 1:], (8, 8), frame_N[:, None] == frame_N[None, :]
    )
    torch.testing.assert_close(block._over_space(x_BND, around(model, grid)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_over_time_is_full_attention_masked_to_the_place(causal: bool) -> None:
    model, grid = build(causal=causal, sandwich_norm=False), Shape(4, 2, 3)
    x_BND = torch.randn(2, grid.cells, 32)
    frame_N, place_N = coordinates(grid)[:, 0], (coordinates(grid)[:, 1:] * torch.tensor([10.0, 1.0])).sum(1)
    mask = place_N[:, None] == place_N[None, :]
    if causal:
        mask = mask & (frame_N[:, None] >= frame_N[None, :])
    block: Any = model.blocks[1]
    normed = torch.nn.functional.layer_norm(x_BND, (32,), eps=1e-6)
    expected = x_BND + full_attention(block.temporal, normed, frame_N[:, None], (16,), mask)
    torch.testing.assert_close(block._over_time(x_BND, (), around(model, grid)), expected, rtol=1e-5, atol=1e-5)


def test_a_fresh_model_predicts_exactly_zero() -> None:
    assert not TINY.build()(*inputs()).any()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temporal_attention": False},
        {"temporal_modulation": True},
        {"shared_adaln": False},
        {"positions": "sinusoids"},
        {"qk_norm": False, "sandwich_norm": False, "condition_norm": False, "micro_conditions": False},
        {"patch": {"temporal": 1, "spatial": 1}},
    ],
)
def test_gradients_reach_every_parameter(changes: dict[str, Any]) -> None:
    model = build(**changes)
    velocity = model(*inputs(), mask_ratio=0.5, generator=torch.Generator().manual_seed(0))
    velocity.square().sum().backward()
    assert velocity.shape == (2, 3, *UNIT)
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_samples_do_not_depend_on_their_batch() -> None:
    """Tolerance 1e-5: kernels may sum in another order for another batch."""
    model, (units, t_B, text) = build(), inputs(batch=3)
    together = model(units, t_B, text)
    for i in range(3):
        one = slice(i, i + 1)
        alone = model([units[0][one]], t_B[one], Text(*(part[one] for part in text)))
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_only_causal_attention_hides_later_frames(causal: bool) -> None:
    model, (units, t_B, text) = build(causal=causal), inputs()
    later = units[0].clone()
    later[:, :, 4:] += 1
    before, after = model(units, t_B, text), model([later], t_B, text)
    assert torch.equal(before[:, :, :4], after[:, :, :4]) == causal
    assert not torch.allclose(before[:, :, 4:], after[:, :, 4:], atol=1e-3)


def test_a_mask_that_drops_nothing_changes_nothing() -> None:
    """A ratio too small to drop a place still gathers, turns by angles of each sample's own, and puts back."""
    model, arguments = build(), inputs()
    torch.testing.assert_close(model(*arguments, mask_ratio=0.01), model(*arguments), rtol=1e-6, atol=1e-6)
    assert torch.equal(model(*arguments, mask_ratio=0.0), model(*arguments))


def test_masked_places_have_no_influence_on_the_main_blocks() -> None:
    model, (units, t_B, text) = build(decoder_blocks=0), inputs()
    kept_BK = draw_places(2, 15, 0.5, torch.device("cpu"), torch.Generator().manual_seed(4))
    dropped = torch.ones(2, 15, dtype=torch.bool).scatter(1, kept_BK, False).view(2, 1, 1, 3, 5)
    outputs = [
        model([unit], t_B, text, mask_ratio=0.5, generator=torch.Generator().manual_seed(4))
        for unit in (units[0], units[0] + 9 * dropped, units[0] + 9 * ~dropped)
    ]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-3)


def test_decoder_blocks_see_every_place_again() -> None:
    """With all blocks behind the unmasking, only the mask token stands for what was dropped, in all frames."""
    model, (units, t_B, text) = build(decoder_blocks=3), inputs()
    with torch.no_grad():
        model.mask_token_D.zero_()
    kept_BK = draw_places(2, 15, 0.5, torch.device("cpu"), torch.Generator().manual_seed(4))
    stays = torch.zeros(2, 15, dtype=torch.bool).scatter(1, kept_BK, True)[:, None, :, None]
    silent = build(decoder_blocks=3)
    silent.embed_video.register_forward_hook(lambda _m, _i, out: (out.view(2, 3, 15, -1) * stays).view_as(out))
    expected = silent(units, t_B, text)
    found = model(units, t_B, text, mask_ratio=0.5, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.floats(0, 0.99), st.integers(0, 99))
def test_refilling_puts_tokens_back_and_the_mask_token_elsewhere(
    batch: int, frames: int, places: int, ratio: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x_BND = torch.randn(batch, frames * places, 2, generator=generator)
    kept_BK = draw_places(batch, places, ratio, torch.device("cpu"), generator)
    out = refill(keep(x_BND, kept_BK, frames), kept_BK, frames, places, torch.tensor([7.0, 8.0]))
    assert kept_BK.shape[1] == max(1, round(places * (1 - ratio)))
    for b in range(batch):
        for n in range(frames * places):
            stays = n % places in kept_BK[b].tolist()
            assert out[b, n].tolist() == (x_BND[b, n].tolist() if stays else [7.0, 8.0])


def _scaled(model: Stiv, name: str, factor: float) -> Stiv:
    with torch.no_grad():
        for full, parameter in model.named_parameters():
            if full.startswith(name):
                parameter.mul_(factor)
    return model


@pytest.mark.parametrize(
    ("norm", "name"),
    [
        ("qk_norm", "blocks.0.cross.q."),
        ("sandwich_norm", "blocks.0.spatial.out."),
        ("sandwich_norm", "blocks.1.temporal.out."),
        ("sandwich_norm", "blocks.1.cross.out."),
        ("sandwich_norm", "blocks.2.mlp.2."),
        ("condition_norm", "condition.text.2."),
        ("condition_norm", "condition.micro.1.2."),
    ],
)
def test_a_norm_takes_out_the_scale_of_what_it_follows(norm: str, name: str) -> None:
    """Tolerance 1e-3: the norms' epsilons."""
    for on in (True, False):
        plain = build(**{norm: on})(*inputs())
        scaled = _scaled(build(**{norm: on}), name, 20.0)(*inputs())
        assert torch.allclose(plain, scaled, rtol=1e-3, atol=1e-3) == on


def test_shared_modulation_is_a_projection_that_all_layers_share() -> None:
    """A model with a projection in each layer, all equal, computes the same as the shared one without offsets."""
    shared, own = build(), build(shared_adaln=False)
    weights = shared.state_dict()
    for layer in range(3):
        weights[f"blocks.{layer}.modulation.table_nD"].zero_()
        for part in ("weight", "bias"):
            weights[f"blocks.{layer}.modulation.linear.{part}"] = weights[f"modulation.linear.{part}"]
    own.load_state_dict({name: weights[name] for name in own.state_dict()})
    shared.load_state_dict({name: weights[name] for name in shared.state_dict()})
    assert torch.equal(shared(*inputs()), own(*inputs()))
    vectors = 6 * (32 * 32 + 32)
    assert own.parameter_count() - shared.parameter_count() == (3 - 1) * vectors - 3 * 6 * 32


def test_micro_conditions_default_to_the_clip_itself() -> None:
    model, arguments = build(), inputs()
    explicit = torch.tensor([[3 * 8.0, 5 * 8.0, 0, 0, 1]]).expand(2, -1)
    assert torch.equal(model(*arguments), model(*arguments, micro_BM=explicit))
    for value in range(5):
        other = explicit + 3 * (torch.arange(5) == value)
        assert not torch.allclose(model(*arguments), model(*arguments, micro_BM=other), atol=1e-4)


def test_padding_of_the_text_has_no_influence() -> None:
    model, (units, t_B, text) = build(), inputs()
    mask_BL = torch.tensor([[True, True, False, False, False], [False] * 5])
    noisy = text.tokens_BLE + 5 * ~mask_BL[..., None]
    outputs = [model(units, t_B, Text(tokens, mask_BL, text.pooled_BP)) for tokens in (text.tokens_BLE, noisy)]
    assert outputs[0].isfinite().all()
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("preset", "published", "temporal"),
    [("stiv-xl", 600e6, False), ("stiv-xxl", 1.5e9, False), ("stiv-m", 8.7e9, True)],
)
def test_parameters_are_those_of_table_1(preset: str, published: float, temporal: bool) -> None:
    """XL and XXL without the attention over time, M with it; tolerance 4 % (embedders and heads are not published)."""
    config = PRESETS[preset].but(temporal_attention=temporal)
    with torch.device("meta"):
        model = config.build()
    assert model.parameter_count() == pytest.approx(published, rel=0.04)
    matrices = sum(p.numel() for n, p in model.blocks.named_parameters() if n.endswith("weight") and p.ndim == 2)
    assert matrices == config.layers * (20 if temporal else 16) * config.width**2


def count(model: Stiv, config: StivConfig, unit: Shape, **options: float) -> int:
    with FlopCounterMode(display=False) as counter:
        model(*example_inputs(config, [unit]), **options)
    return counter.get_total_flops()


def test_the_attention_over_time_costs_its_closed_form() -> None:
    """8 N d^2 for the projections and 4 N T d for the scores and their use, in every layer, at full size."""
    with torch.device("meta"):
        config = PRESETS["stiv-m"]
        still = config.but(temporal_attention=False)
        costs = [count(c.build(), c, Shape(20, 64, 64)) for c in (config, still)]
    tokens, width = 10 * 32 * 32, config.width
    assert costs[0] - costs[1] == config.layers * (8 * tokens * width**2 + 4 * tokens * 10 * width)


def test_masking_half_of_the_places_saves_half_of_the_main_blocks() -> None:
    """What is linear in the tokens halves, the scores within a frame quarter; text keys and the decoder stay."""
    with torch.device("meta"):
        config = PRESETS["stiv-xl"].but(layers=4)
        costs = [count(config.build(), config, Shape(20, 64, 64), mask_ratio=ratio) for ratio in (0.0, 0.5)]
    tokens, places, frames, d, text = 10_240, 1024, 10, config.width, config.text_tokens
    linear = tokens * (2 * 18 * d**2 + 4 * frames * d + 4 * text * d)  # 20 d^2 less the keys and values of the text
    scores = 4 * tokens * places * d
    assert costs[0] - costs[1] == 2 * (linear // 2 + scores * 3 // 4)


def test_a_published_clip_is_one_evaluation_of_ten_thousand_tokens() -> None:
    config = PRESETS["stiv-m"]
    (evaluation,) = config.evaluations(*config.clip)
    assert evaluation.units == (Shape(20, 64, 64),)
    assert (evaluation.frame, evaluation.stage, evaluation.steps) == (-1, 0, 50)
    assert config.tokens(evaluation) == 10 * 32 * 32
    with torch.device("meta"):
        model = config.build()
    assert model(*example_inputs(config, evaluation.units)).shape == (1, 8, 20, 64, 64)


def test_half_precision_stays_half_precision() -> None:
    """Tolerance 0.1 on values of order 1: bfloat16 has 8 bits."""
    model, (units, t_B, text) = build(), inputs()
    exact = model(units, t_B, text)
    half = Text(text.tokens_BLE.bfloat16(), text.mask_BL, text.pooled_BP.bfloat16())
    found = model.bfloat16()([units[0].bfloat16()], t_B, half, mask_ratio=0.01)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).square().mean().sqrt() < 0.1 * exact.square().mean().sqrt()


def test_what_does_not_fit_is_refused() -> None:
    model, (units, t_B, text) = build(), inputs()
    with pytest.raises(ValueError, match="do not divide into patches of 2 x"):
        PRESETS["stiv-xl"].evaluations(21, 512, 512)
    with pytest.raises(ValueError, match="do not divide into patches of 2 x"):
        model([units[0][:, :, :5]], t_B, text)
    with pytest.raises(ValueError, match="2 units at stage 0"):
        model([*units, *units], t_B, text)
    with pytest.raises(ValueError, match="1 units at stage 1"):
        model(units, t_B, text, stage=1)
    with pytest.raises(ValueError, match=r"times of shape \(2, 6\)"):
        model(units, t_B[:, None].expand(-1, 6), text)
    for ratio in (1.0, -0.1):
        with pytest.raises(ValueError, match="a share in"):
            model(units, t_B, text, mask_ratio=ratio)
    with pytest.raises(ValueError, match="does not divide into 5 heads"):
        TINY.but(heads=5)
    with pytest.raises(ValueError, match="4 decoder blocks do not fit into 3 layers"):
        TINY.but(decoder_blocks=4)
