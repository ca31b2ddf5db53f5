"""Attention weights in Mamba mixers: the linear-attention limit against a loop over tokens, and what is carried over.

Axes: B batch, L text tokens, N video tokens, M all tokens, D width, H heads, K head dimension.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from m4v.backbone import Backbone, BackboneConfig
from m4v.layers import Attention, Context, Mamba
from m4v.presets import recipe
from m4v.recipe import attention_twin, build_system
from m4v.transplant import carry_over, transplant

WIDTH, HEADS, TEXT, FRAMES = 16, 2, 3, 5
SOURCE = BackboneConfig(
    width=WIDTH,
    heads=HEADS,
    layers=3,
    dual_slots=2,
    dual_blocks=2,
    rotary_axes=(4, 2, 2),
    stages=2,
    text_width=6,
    pooled_width=6,
    codec={"channels": 4},
    patch={"spatial": 1},
)
MAMBA = {"state": 8, "chunk": 4, "registers": False, "text": "prefix", "gate": "sum"}
CLOSE: dict[str, float] = {"rtol": 1e-9, "atol": 1e-9}  # float64, another order of summation


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(config: BackboneConfig) -> dict[str, Tensor]:
    """Weights of which none is zero, one or alike."""
    state = Backbone(config).double().state_dict()
    return {name: value + 0.3 * drawn(*value.shape, seed=i) for i, (name, value) in enumerate(state.items())}


def to_mamba(**changes: Any) -> BackboneConfig:
    mamba = MAMBA | changes.pop("mamba", {})
    return SOURCE.but(mixer="mamba", mamba=mamba, **changes)


def row_of_frames() -> Context:
    """Frames of one token, so that every scan path is the order of time; all text is real."""
    mask_BL = torch.ones(2, TEXT, dtype=torch.bool)
    return Context(mask_BL, None, None, ((1, 1),) * FRAMES, 1, (0,) * FRAMES, 2, None)


def linear_attention(attention: Attention, x_BMD: Tensor, *, activation: bool, order: str = "kqv") -> Tensor:
    """y_t = sum over s <= t of (C_t . B_s) x_s, token by token, from the attention's own weights."""
    q, k, v = attention.qkv[0](x_BMD).unflatten(-1, (3, HEADS, -1)).unbind(-3)
    if activation:
        q, k, v = F.silu(q), F.silu(k), F.silu(v)
    q, k = attention.q_norm[0](q), attention.k_norm[0](k)
    parts = {"q": q, "k": k, "v": v}
    B, C, x = (parts[letter] for letter in order)
    y = torch.zeros_like(v)
    for t in range(x.shape[1]):
        for s in range(t + 1):
            y[:, t] += (C[:, t] * B[:, s]).sum(-1, keepdim=True) * x[:, s]
    return y.flatten(-2)


@pytest.mark.parametrize("activation", [False, True])
@pytest.mark.parametrize("order", ["kqv", "qkv"])
@pytest.mark.parametrize("ssm", ["mamba2", "mamba1"])
def test_in_the_limit_the_mixer_is_causal_linear_attention(activation: bool, order: Any, ssm: str) -> None:
    target = to_mamba(mamba={"activation": activation, "ssm": ssm})
    weights = awake(SOURCE)
    model = Backbone(target).double()
    carried = transplant(weights, SOURCE, target, order=order, dynamics="linear")
    model.load_state_dict(carried)
    teacher = Backbone(SOURCE).double()
    teacher.load_state_dict(weights)
    text_BLD, video_BND = drawn(2, TEXT, WIDTH, seed=100), drawn(2, FRAMES, WIDTH, seed=101)
    text, video = model.blocks[2].mixer(text_BLD, video_BND, row_of_frames())
    expected = linear_attention(
        teacher.blocks[2].mixer, torch.cat([text_BLD, video_BND], dim=1), activation=activation, order=order
    )
    torch.testing.assert_close(torch.cat([text, video], dim=1), expected, **CLOSE)


def test_printed_order_is_another_map() -> None:
    weights = awake(SOURCE)
    first, second = (transplant(weights, SOURCE, to_mamba(), order=order) for order in ("kqv", "qkv"))
    assert not torch.equal(first["blocks.2.mixer.project.0.weight"], second["blocks.2.mixer.project.0.weight"])


def test_everything_but_the_replaced_mixers_is_copied() -> None:
    weights, target = awake(SOURCE), to_mamba(temporal_branch=True, mamba={"registers": True})
    carried = transplant(weights, SOURCE, target)
    assert all(torch.equal(carried[name], weights[name]) for name in weights if "blocks.2.mixer" not in name)
    left_out = Backbone(target).state_dict().keys() - carried.keys()
    assert left_out == {"registers_SD", "blocks.2.temporal.qkv.weight", "blocks.2.temporal.qkv.bias"}


def test_a_dual_stream_block_keeps_its_streams_apart() -> None:
    weights, target = awake(SOURCE), to_mamba(dual_blocks=0)
    carried = transplant(weights, SOURCE, target)
    for stream in range(2):
        q, k, v = weights[f"blocks.0.mixer.qkv.{stream}.weight"].chunk(3)
        _, x, B, C, _ = carried[f"blocks.0.mixer.project.{stream}.weight"].split([16, 16, 16, 16, 2])
        torch.testing.assert_close(torch.stack([x, B, C]), torch.stack([v, k, q]), rtol=0, atol=0)


def test_what_starts_fresh_depends_on_the_seed_and_the_block_alone() -> None:
    weights = awake(SOURCE)
    plain, branched = to_mamba(), to_mamba(temporal_branch=True, dual_blocks=1)
    name = "blocks.2.mixer.log_decay"
    first = transplant(weights, SOURCE, plain, seed=1)[name]
    torch.manual_seed(5)
    torch.testing.assert_close(transplant(weights, SOURCE, branched, seed=1)[name], first, rtol=0, atol=0)
    assert not torch.equal(transplant(weights, SOURCE, plain, seed=2)[name], first)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": 32, "heads": 4}, r"width \(16, 32\), heads \(2, 4\)"),
        ({"dual_blocks": 3}, "dual-stream blocks"),
        ({"mamba": {"state": 4}}, "state 4"),
        ({"mamba": {"groups": 1}}, "1 groups"),
        ({"mamba": {"expand": 2}}, "expand 2"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        transplant(awake(SOURCE), SOURCE, to_mamba(**change))


def test_a_source_with_mamba_is_refused() -> None:
    with pytest.raises(ValueError, match="must be attention"):
        transplant({}, to_mamba(), to_mamba())


def test_a_recipe_is_carried_over_with_its_text_encoder() -> None:
    target = recipe("tiny", "m4v").changed({"model.width": 32, "model.heads": 1, "model.layers": 3})
    twin = attention_twin(target)
    weights = build_system(twin, seed=3).state_dict()
    carried = carry_over(weights, twin, target)
    system = build_system(target)
    assert carried.keys() <= system.state_dict().keys()
    text = [name for name in carried if name.startswith("text.")]
    assert text
    assert all(torch.equal(carried[name], weights[name]) for name in text)
    assert isinstance(system.velocity.blocks[2].mixer, Mamba)


def test_systems_without_that_backbone_are_refused() -> None:
    stiv = recipe("tiny", "stiv")
    with pytest.raises(ValueError, match="exchange their mixers"):
        carry_over({}, stiv, stiv)
