"""LinGen against step-by-step recurrences, brute-force windows and the closed forms of its supplement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from m4v.layout import Shape
from m4v.scan import causal_conv1d_flops, ssd_flops
from m4v.variants.base import Text, VelocityModel, example_inputs
from m4v.variants.lingen import PRESETS, BidirectionalMamba, Direction, LinGen, TemporalSwin, Windows

FULL = PRESETS["lingen-4b"]
TINY = PRESETS["lingen-tiny"].but(
    width=32,
    heads=2,
    layers=4,
    state=8,
    head_width=8,
    chunk=16,
    text_tokens=5,
    text_width=8,
    pooled_width=8,
    codec={"channels": 3},
    largest=(6, 8, 8),
)
UNIT = Shape(3, 4, 5)


def awake(model: VelocityModel, seed: int = 3) -> Any:
    """The model with its zero parameters (gates, last projection, biases) filled with noise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3, generator=generator)
    return model


def build(**changes: Any) -> LinGen:
    torch.manual_seed(5)
    return awake(TINY.but(**changes).build())


def mixer(**changes: Any) -> BidirectionalMamba:
    torch.manual_seed(6)
    return BidirectionalMamba(TINY.but(**changes))


def inputs(batch: int = 2, unit: Shape = UNIT) -> tuple[list[Tensor], Tensor, Text]:
    units, t_B, text = example_inputs(TINY, [unit], batch=batch, device="cpu", generator=torch.manual_seed(8))
    return units, torch.linspace(0.2, 0.9, batch).to(t_B), text


def one_direction(part: Direction, xBC_NE: Tensor, dt_NH: Tensor) -> Tensor:
    """A direction token by token: convolution over the last K tokens, then the recurrence of the state."""
    taps, state_size = part.conv_weight_DK.shape[1], part.state
    state_HPS, out = torch.zeros(()), []
    for n in range(len(xBC_NE)):
        past = [xBC_NE[n - k] * part.conv_weight_DK[:, taps - 1 - k] for k in range(min(taps, n + 1))]
        mixed = torch.stack(past).sum(0) + part.conv_bias_D
        x, b, c = (mixed * mixed.sigmoid()).split([len(mixed) - 2 * state_size, state_size, state_size])
        step_H = (dt_NH[n] + part.step_bias_H).exp().log1p()
        decay_H = (-step_H * part.log_decay_H.exp()).exp()
        x_HP = x.view(len(step_H), -1)
        state_HPS = decay_H[:, None, None] * state_HPS + step_H[:, None, None] * x_HP[..., None] * b
        out.append((state_HPS @ c + part.skip_H[:, None] * x_HP).flatten())
    return torch.stack(out)


@pytest.mark.parametrize(("review", "expand"), [(0, 1), (3, 2)])
def test_the_mixer_is_two_recurrences_step_by_step(review: int, expand: int) -> None:
    """Tolerance 1e-5: float32, chunks instead of steps (the sequence is longer than a chunk)."""
    module = mixer(review_tokens=review, expand=expand)
    x_ND = torch.randn(21, 32)
    parts = [x_ND[7 * r : 7 * r + 7].mean(0) for r in range(review)]
    z, xBC, dt = (torch.stack([*parts, *x_ND]) @ module.project.weight.T).split(module.sizes, dim=-1)
    ahead, back = module.directions
    order = [*range(review), *reversed(range(review, review + 21))]
    y = one_direction(ahead, xBC, dt)[review:] + one_direction(back, xBC[order], dt[order])[review:].flip(0)
    y = y * torch.nn.functional.silu(z[review:])
    y = y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * module.norm.weight
    torch.testing.assert_close(module(x_ND[None])[0], y @ module.out.weight.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("review", [0, 1])
def test_reversing_the_sequence_and_swapping_the_directions_reverses_the_output(review: int) -> None:
    module = mixer(review_tokens=review)
    x_BND = torch.randn(2, 19, 32)
    expected = module(x_BND).flip(1)
    module.directions = nn.ModuleList(reversed(list(module.directions)))
    torch.testing.assert_close(module(x_BND.flip(1)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("review", "foreseen"), [(0, False), (2, True)])
def test_one_direction_foresees_later_tokens_only_through_reviews(review: int, foreseen: bool) -> None:
    module = mixer(review_tokens=review)
    module.directions[1].register_forward_hook(lambda _module, _inputs, out: 0 * out)
    x_BND = torch.randn(1, 12, 32)
    later = x_BND.clone()
    later[:, 7:] += 2
    assert torch.equal(module(x_BND)[:, :7], module(later)[:, :7]) != foreseen


def window_of(cell: int, cells: int, window: int, shifted: bool) -> int:
    window = min(window, cells)
    first = window // 2 if shifted and cells > window else window  # cells of the first window
    return 0 if cell < first else 1 + (cell - first) // window


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("grid", "window"),
    [
        ((4, 4, 6), (2, 2, 3)),
        ((5, 3, 7), (2, 2, 3)),
        ((3, 5, 4), (8, 3, 4)),
        ((7, 1, 2), (3, 4, 1)),
        ((6, 4, 4), (4, 2, 2)),
    ],
)
def test_windows_are_full_attention_with_a_brute_force_mask(
    grid: tuple[int, int, int], window: tuple[int, int, int], shifted: bool
) -> None:
    """Tolerance 1e-5: float32, another order of summation."""
    torch.manual_seed(1)
    module = TemporalSwin(TINY.but(window=window, qk_norm=True), layer=int(shifted))
    tokens = Shape(*grid).cells
    x_BND = torch.randn(2, tokens, 32)
    cells = torch.cartesian_prod(*(torch.arange(size) for size in grid)).tolist()
    names = [tuple(window_of(c, n, w, shifted) for c, n, w in zip(cell, grid, window, strict=True)) for cell in cells]
    mask = torch.tensor([[a == b for b in names] for a in names])
    q, k, v = (part.unflatten(-1, (2, -1)) for part in module.qkv(x_BND).chunk(3, dim=-1))
    scores = torch.einsum("bnhk,bmhk->bhnm", module.q_norm(q), module.k_norm(k)) / 4
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    expected = module.out(torch.einsum("bhnm,bmhk->bnhk", weights, v).flatten(-2))
    torch.testing.assert_close(module(x_BND, Shape(*grid)), expected, rtol=1e-5, atol=1e-5)


sizes = st.tuples(*[st.integers(1, 7)] * 3)


@given(sizes, sizes, st.booleans())
def test_joining_windows_undoes_splitting(
    grid: tuple[int, int, int], window: tuple[int, int, int], shifted: bool
) -> None:
    windows = Windows.over(Shape(*grid), window, shifted)
    x_BTYXD = torch.randn(2, *grid, 3)
    split = windows.split(x_BTYXD)
    assert split.shape[1:] == (torch.Size(windows.size).numel(), 3)
    assert torch.equal(windows.join(split), x_BTYXD)


class RunningSum(nn.Module):
    def forward(self, x_BND: Tensor) -> Tensor:
        return x_BND.cumsum(1)


def visited(x_TYX: Tensor, axes: tuple[int, int, int]) -> Tensor:
    """Running sum along the grid permuted to `axes`, slowest first, in the place of each token."""
    permuted = x_TYX.permute(axes)
    back = [axes.index(axis) for axis in range(3)]
    return permuted.flatten().cumsum(0).view(permuted.shape).permute(back)


@pytest.mark.parametrize(
    ("scan", "schedule"),
    [
        ("rotary-major", [(0, 1, 2), (0, 2, 1), (1, 2, 0), (2, 1, 0), (0, 1, 2)]),
        ("raster", [(0, 1, 2)] * 5),
    ],
)
def test_layers_scan_along_rotating_axes(scan: str, schedule: list[tuple[int, int, int]]) -> None:
    """Whole numbers: exact."""
    model = build(scan=scan, layers=5, tesa=False)
    x_TYX = torch.arange(60.0).view(3, 4, 5)
    for block, axes in zip(model.blocks, schedule, strict=True):
        block.mixer = RunningSum()
        found: Tensor = block.mate(x_TYX.view(1, 60, 1), Shape(3, 4, 5))
        assert torch.equal(found.view(3, 4, 5), visited(x_TYX, axes))


def test_the_zigzag_scan_turns_round_at_the_end_of_a_line() -> None:
    block: Any = build(scan="zigzag", tesa=False).blocks[0]
    block.mixer = RunningSum()
    found = block.mate(torch.ones(1, 12, 1), Shape(2, 2, 3)).flatten().tolist()
    assert found == [1, 2, 3, 6, 5, 4, 12, 11, 10, 7, 8, 9]


def test_both_branches_are_added() -> None:
    block: Any = build().blocks[1]
    x_BND = torch.randn(2, UNIT.cells, 32)
    both = block.mate(x_BND, UNIT)
    swin, block.tesa = block.tesa, None
    torch.testing.assert_close(both, block.mate(x_BND, UNIT) + swin(x_BND, UNIT), rtol=1e-6, atol=1e-6)


def test_a_fresh_model_predicts_exactly_zero() -> None:
    assert not TINY.build()(*inputs()).any()


@pytest.mark.parametrize(
    "changes", [{}, {"tesa": False, "review_tokens": 0}, {"shared_adaln": False, "expand": 2}, {"qk_norm": True}]
)
def test_gradients_reach_every_parameter(changes: dict[str, Any]) -> None:
    model = build(largest=UNIT, **changes)
    velocity = model(*inputs())
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


def test_time_and_text_matter_and_padding_and_pooled_text_do_not() -> None:
    model, (units, t_B, text) = build(), inputs()
    mask_BL = torch.tensor([[True, True, False, False, False], [False] * 5])
    plain = model(units, t_B, Text(text.tokens_BLE, mask_BL, text.pooled_BP))
    noisy = Text(text.tokens_BLE + 5 * ~mask_BL[..., None], mask_BL, text.pooled_BP + 1)
    assert plain.isfinite().all()
    assert torch.equal(model(units, t_B, noisy), plain)
    other = Text(text.tokens_BLE + 5 * mask_BL[..., None], mask_BL, text.pooled_BP)
    assert not torch.allclose(model(units, t_B, other)[0], plain[0], atol=1e-3)
    assert not torch.allclose(model(units, 1 - t_B, noisy), plain, atol=1e-3)


def test_a_position_is_the_sum_of_a_frame_a_row_and_a_column() -> None:
    model = build()
    table_TYXD = model.embed_positions(UNIT).view(*UNIT, 32)
    time, row, col = model.positions
    for t, y, x in ((0, 0, 0), (2, 3, 4), (1, 0, 4)):
        torch.testing.assert_close(table_TYXD[t, y, x], time[t] + row[y] + col[x], rtol=1e-6, atol=1e-6)


def test_half_precision_stays_half_precision() -> None:
    """Tolerance 0.1 on values of order 1: bfloat16 has 8 bits."""
    model, (units, t_B, text) = build(), inputs()
    exact = model(units, t_B, text)
    half = Text(text.tokens_BLE.bfloat16(), text.mask_BL, text.pooled_BP.bfloat16())
    found = model.bfloat16()([units[0].bfloat16()], t_B, half)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).square().mean().sqrt() < 0.1 * exact.square().mean().sqrt()


@pytest.mark.parametrize(("expand", "tolerance"), [(1, 0.03), (2, 0.19)])
def test_parameters_are_near_the_published_four_billion(expand: int, tolerance: float) -> None:
    """4.09 and 4.72 billion: the expansion is not published; 2 is Mamba-2's default."""
    config = FULL.but(expand=expand)
    with torch.device("meta"):
        model = config.build()
    assert model.parameter_count() == pytest.approx(4e9, rel=tolerance)
    matrices = sum(p.numel() for n, p in model.blocks.named_parameters() if n.endswith("weight") and p.ndim == 2)
    d, state = config.width, config.state
    mamba = 3 * expand * d * d + 2 * state * d + expand * d * d // 64
    assert matrices == 32 * (mamba + 8 * d * d + 3 * d * config.hidden)
    assert config.hidden == pytest.approx(8 / 3 * d, abs=16)


def flops(run: Callable[[], object]) -> FlopCounterMode:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter


@pytest.mark.parametrize(("expand", "tokens"), [(1, 1000), (2, 34_816)])
def test_the_mixer_costs_equation_1_and_its_convolution_and_scan_once_for_each_direction(
    expand: int, tokens: int
) -> None:
    config = FULL.but(expand=expand, review_tokens=0)
    with torch.device("meta"):
        module, x_BND = BidirectionalMamba(config), torch.empty(1, tokens, config.width)
    counter = flops(lambda: module(x_BND))
    d, state, channels = config.width, config.state, expand * config.width
    projections = (6 + 2 / 64) * expand * tokens * d**2 + 4 * tokens * state * d
    per_module = counter.get_flop_counts()
    found = [sum(per_module[f"BidirectionalMamba.{name}"].values()) for name in ("project", "out")]
    assert sum(found) == projections
    scan = ssd_flops(1, tokens, channels // 64, 64, 1, state, config.chunk)
    conv = causal_conv1d_flops(1, tokens, channels + 2 * state, config.conv)
    assert counter.get_total_flops() == projections + 2 * (scan + conv)


def test_cost_is_linear_in_the_length_of_the_video() -> None:
    """Four times the frames cost four times as much; 2 % for windows and chunks that the shorter clip does not fill."""
    config = FULL.but(layers=4)
    with torch.device("meta"):
        model = config.build()
    costs = []
    for frames in (272, 1088):
        (evaluation,) = config.evaluations(frames, 512, 512)
        arguments = example_inputs(config, evaluation.units)
        costs.append(flops(lambda given=arguments: model(*given)).get_total_flops())  # type: ignore[misc]
    assert costs[1] / costs[0] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize(("seconds", "tokens"), [(17, 34_816), (68, 139_264)])
def test_published_clips_are_one_evaluation(seconds: int, tokens: int) -> None:
    (evaluation,) = FULL.evaluations(16 * seconds, 512, 512)
    assert evaluation.units == (Shape(2 * seconds, 64, 64),)
    assert (evaluation.frame, evaluation.stage, evaluation.steps) == (-1, 0, 50)
    assert FULL.tokens(evaluation) == tokens


def test_the_full_model_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = FULL.build()
    (evaluation,) = FULL.evaluations(*FULL.clip)
    assert model(*example_inputs(FULL, evaluation.units)).shape == (1, 16, 34, 64, 64)


def test_what_does_not_fit_is_refused() -> None:
    model, (units, t_B, text) = build(), inputs()
    with pytest.raises(ValueError, match="a multiple of 8 frames"):
        FULL.evaluations(270, 512, 512)
    with pytest.raises(ValueError, match="do not divide into patches"):
        FULL.evaluations(272, 520, 512)
    with pytest.raises(ValueError, match="positions end at"):
        FULL.evaluations(4096, 512, 512)
    with pytest.raises(ValueError, match="positions end at"):
        model([torch.zeros(2, 3, 7, 4, 5)], t_B, text)
    with pytest.raises(ValueError, match="2 units at stage 0"):
        model([*units, *units], t_B, text)
    with pytest.raises(ValueError, match="does not divide into 3 attention heads"):
        TINY.but(heads=3)
    with pytest.raises(ValueError, match="sizes are positive"):
        TINY.but(window=(0, 2, 2))
