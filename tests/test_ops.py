"""The shared maths against complex numbers, explicit softmax and closed forms. B batch, N queries, M keys, H heads."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m4v.ops import attention, blockwise_causal, fourier_features, modulate, rotary_angles, rotate, sinusoids

AXES = (4, 6, 6)
HEAD = 20  # four dimensions more than are rotated


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_modulate() -> None:
    x, shift, scale = drawn(2, 5, 3), drawn(2, 1, 3, seed=1), drawn(2, 1, 3, seed=2)
    torch.testing.assert_close(modulate(x, shift, scale), x * (scale + 1) + shift, rtol=1e-12, atol=1e-12)


@given(positions=st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=1, max_size=6))
def test_rotary_is_multiplication_by_a_unit_complex_number(positions: list[tuple[float, ...]]) -> None:
    """RoFormer eq. 15 on each pair, one base frequency series an axis; float32, 1e-4 for angles up to 50."""
    x = drawn(1, len(positions), 2, HEAD).float()
    turned = rotate(x, rotary_angles(torch.tensor(positions), AXES))
    for n, position in enumerate(positions):
        frequencies = [
            p * 10_000 ** (-2 * i / width) for p, width in zip(position, AXES, strict=True) for i in range(width // 2)
        ]
        for h in range(2):
            for i, angle in enumerate(frequencies):
                pair = complex(*x[0, n, h, 2 * i : 2 * i + 2].tolist()) * cmath.exp(1j * angle)
                assert turned[0, n, h, 2 * i : 2 * i + 2].tolist() == pytest.approx([pair.real, pair.imag], abs=1e-4)
            assert torch.equal(turned[0, n, h, 16:], x[0, n, h, 16:])


@given(
    q_at=st.tuples(*[st.floats(-30, 30)] * 3),
    k_at=st.tuples(*[st.floats(-30, 30)] * 3),
    by=st.tuples(*[st.floats(-30, 30)] * 3),
)
def test_rotary_products_depend_on_the_difference_only(
    q_at: tuple[float, ...], k_at: tuple[float, ...], by: tuple[float, ...]
) -> None:
    """Fractional positions included; float32, 1e-3 for dot products of twenty standard normal pairs."""
    q, k = drawn(1, 1, 1, HEAD).float(), drawn(1, 1, 1, HEAD, seed=1).float()

    def product(a: Tensor, b: Tensor) -> float:
        return float((rotate(q, rotary_angles(a[None], AXES)) * rotate(k, rotary_angles(b[None], AXES))).sum())

    q_A, k_A, by_A = torch.tensor(q_at), torch.tensor(k_at), torch.tensor(by)
    assert product(q_A + by_A, k_A + by_A) == pytest.approx(product(q_A, k_A), abs=1e-3)


def test_rotary_at_zero_changes_nothing_and_keeps_the_type() -> None:
    x = drawn(2, 3, 2, HEAD).bfloat16()
    turned = rotate(x, rotary_angles(torch.zeros(3, 3), AXES))
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, x)


def test_a_fractional_position_lies_between_its_neighbours() -> None:
    """Turning by half a position twice is turning by a whole one; float32, 1e-5."""
    half, whole = (rotary_angles(torch.full((1, 3), p), AXES) for p in (0.5, 1.0))
    x = drawn(1, 1, 1, HEAD).float()
    torch.testing.assert_close(rotate(rotate(x, half), half), rotate(x, whole), rtol=1e-5, atol=1e-5)


def test_fourier_features_one_by_one() -> None:
    """DDPM's features, cosines first: float32 at angles up to a thousand, 2e-4."""
    features = fourier_features(torch.tensor([0.0, 0.3, 1.0]), 8)
    for t, row in zip([0.0, 0.3, 1.0], features.tolist(), strict=True):
        angles = [1000 * t * 10_000 ** (-i / 4) for i in range(4)]
        assert row == pytest.approx([math.cos(a) for a in angles] + [math.sin(a) for a in angles], abs=2e-4)
    assert fourier_features(torch.tensor([0.5], dtype=torch.bfloat16), 8).dtype == torch.float32


@pytest.mark.parametrize("width", [8, 12, 13, 15])
def test_sinusoids_give_each_axis_its_share(width: int) -> None:
    """Two axes, half each (in whole pairs), zeros for what is left; 1e-6."""
    positions = torch.tensor([[0.0, 0.0], [1.0, 2.5], [7.0, 3.0]])
    share, found = width // 4 * 2, sinusoids(positions, width)
    assert found.shape == (3, width)
    for row, position in zip(found.tolist(), positions.tolist(), strict=True):
        expected: list[float] = []
        for p in position:
            angles = [p * 10_000 ** (-2 * i / share) for i in range(share // 2)]
            expected += [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert row == pytest.approx(expected + [0.0] * (width - 2 * share), abs=1e-6)


def softmax_by_loops(q: Tensor, k: Tensor, v: Tensor, seen: Callable[[int, int, int], bool]) -> Tensor:
    """Attention one query at a time; `seen(b, n, m)`; zeros where a query sees nothing."""
    out = torch.zeros_like(q)
    for b, n, h in [(b, n, h) for b in range(len(q)) for n in range(q.shape[1]) for h in range(q.shape[2])]:
        keys = [m for m in range(k.shape[1]) if seen(b, n, m)]
        weights = [math.exp(float(q[b, n, h] @ k[b, m, h]) / math.sqrt(q.shape[-1])) for m in keys]
        for weight, m in zip(weights, keys, strict=True):
            out[b, n, h] += weight / sum(weights) * v[b, m, h]
    return out


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    rows = st.lists(st.booleans(), min_size=6, max_size=6)
    return torch.tensor(draw(st.lists(st.lists(rows, min_size=5, max_size=5), min_size=2, max_size=2)))[:, None]


@given(mask=masks())
def test_attention_by_loops(mask: Tensor) -> None:
    q, k, v = drawn(2, 5, 2, 4), drawn(2, 6, 2, 4, seed=1), drawn(2, 6, 2, 4, seed=2)
    expected = softmax_by_loops(q, k, v, lambda b, n, m: bool(mask[b, 0, n, m]))
    torch.testing.assert_close(attention(q, k, v, mask), expected, rtol=1e-9, atol=1e-9)
    everything = softmax_by_loops(q, k, v, lambda b, n, m: True)
    torch.testing.assert_close(attention(q, k, v), everything, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mask", [None, torch.ones(7, 7).tril().bool(), (torch.arange(7) < 4)[None]])
def test_bfloat16_on_a_cpu_while_training(mask: Tensor | None) -> None:
    """Written out while gradients are recorded, fused otherwise: values and gradients agree with float64, 3e-2/5e-2."""
    exact = [drawn(2, 7, 3, 8, seed=s).bfloat16().double().requires_grad_() for s in range(3)]
    rough = [x.detach().bfloat16().requires_grad_() for x in exact]
    weights = drawn(2, 7, 3, 8, seed=3)
    expected, found = attention(*exact, mask), attention(*rough, mask)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    with torch.no_grad():
        fused = attention(*rough, mask)
    assert found.dtype == fused.dtype == torch.bfloat16
    for pair in [(found, expected), (fused, expected), (found, fused)]:
        torch.testing.assert_close(*(x.double() for x in pair), rtol=3e-2, atol=5e-2)
    for a, b in zip(rough, exact, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=3e-2, atol=5e-2)  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_that_sees_nothing_reads_zeros_and_has_finite_gradients(dtype: torch.dtype) -> None:
    q, k, v = (drawn(1, 4, 2, 8, seed=s).to(dtype).requires_grad_() for s in range(3))
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 2, :] = False
    out = attention(q, k, v, mask)
    out.square().sum().backward()
    assert not out[:, 2].any()
    assert out[:, [0, 1, 3]].all()
    with torch.no_grad():
        assert not attention(q, k, v, mask)[:, 2].any()
    assert not torch.autograd.grad(attention(q, k, v, mask).sum(), q)[0][:, 2].any()
    for leaf in (q, k, v):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.any()


@given(blocks=st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_blockwise_causal_one_by_one(blocks: list[int]) -> None:
    expected = [[theirs <= ours for theirs in blocks] for ours in blocks]
    assert blockwise_causal(torch.tensor(blocks)).tolist() == expected
