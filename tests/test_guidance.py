"""Guidance against closed forms in float64 (relative tolerance 1e-12) and at its neutral scales (bit for bit)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m4v import guidance


def velocities(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    first, second = torch.randn(2, 3, 4, 2, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return first, second


@given(st.integers(0, 1000), st.floats(-2, 20))
def test_cfg_is_the_line_through_both(seed: int, scale: float) -> None:
    """(1 - s) null + s cond, written the other way round in numpy; atol 1e-12 for values of order 10."""
    cond, null = velocities(seed)
    expected = (1 - scale) * null.numpy() + scale * cond.numpy()
    np.testing.assert_allclose(guidance.cfg(cond, null, scale), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(guidance.jit_cfg(cond, null, scale), expected, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 1000), st.floats(0, 2))
def test_self_quality_is_equation_10(seed: int, weight: float) -> None:
    low, high = velocities(seed)
    expected = low.numpy() + weight * (high.numpy() - low.numpy())
    np.testing.assert_allclose(guidance.self_quality(low, high, weight), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_neutral_scales_are_exact(dtype: torch.dtype) -> None:
    cond, null = velocities(0, dtype)
    assert torch.equal(guidance.cfg(cond, null, 1), cond)
    assert torch.equal(guidance.cfg(cond, null, 0), null)
    assert torch.equal(guidance.jit_cfg(cond, null, 1), cond)
    assert torch.equal(guidance.self_quality(cond, null, 0), cond)
    assert torch.equal(guidance.self_quality(cond, null, 1), null)


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_renormalise_keeps_direction_and_takes_the_norm(seed: int, factor: float) -> None:
    v, cond = velocities(seed)
    scaled = guidance.renormalise(factor * v, cond).numpy().reshape(3, -1)
    flat, target = v.numpy().reshape(3, -1), cond.numpy().reshape(3, -1)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), np.linalg.norm(target, axis=1), rtol=1e-12)
    cosine = (scaled * flat).sum(1) / np.linalg.norm(scaled, axis=1) / np.linalg.norm(flat, axis=1)
    np.testing.assert_allclose(cosine, 1, rtol=1e-12)


def test_renormalise_by_hand() -> None:
    """Two samples apart: (3, 4) to norm 10, and zero stays zero."""
    v = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    cond = torch.tensor([[0.0, 10.0], [1.0, 1.0]])
    torch.testing.assert_close(guidance.renormalise(v, cond), torch.tensor([[6.0, 8.0], [0.0, 0.0]]), rtol=1e-6, atol=0)


def test_renormalise_in_bfloat16_measures_in_float32() -> None:
    """Summed in bfloat16, the squares of 4096 ones would stop growing at 256; tolerance one bfloat16 rounding."""
    v = torch.full((1, 4096), 2.0, dtype=torch.bfloat16)
    out = guidance.renormalise(v, torch.ones_like(v))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, torch.ones_like(v), rtol=2**-8, atol=0)
