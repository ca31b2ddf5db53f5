"""State-space operators against the recurrences they compute, written out and differentiated by autograd.

Tolerances: float64 relative 1e-9; float32 6e-4 relative and 2e-3 absolute; bfloat16 3e-2 and 5e-2.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv1d, pad
from torch.utils.flop_counter import FlopCounterMode

from m4v import scan
from m4v.scan import _backend, _ssd, causal_conv1d, selective_scan, ssd
from m4v.scan_reference import selective_scan_reference, ssd_reference

Tensors = tuple[Tensor, ...]
FLOAT32 = {"rtol": 6e-4, "atol": 2e-3}
BFLOAT16 = {"rtol": 3e-2, "atol": 5e-2}


def selective_inputs(B: int = 1, N: int = 40, D: int = 6, S: int = 3, G: int = 1, seed: int = 0) -> Tensors:
    """x, dt, A, B, C of moderate decay, in float64."""
    r = torch.Generator().manual_seed(seed)
    x, dt, A = (torch.randn(B, N, D, generator=r), torch.rand(B, N, D, generator=r), -3 * torch.rand(D, S, generator=r))
    return tuple(t.double() for t in (x, dt, A, *torch.randn(2, B, N, G, S, generator=r)))


def ssd_inputs(
    B: int = 1, N: int = 40, H: int = 4, P: int = 3, S: int = 3, G: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x, dt, A, B, C of moderate decay, in float64."""
    r = torch.Generator().manual_seed(seed)
    x, dt, A = (torch.randn(B, N, H, P, generator=r), torch.rand(B, N, H, generator=r), -3 * torch.rand(H, generator=r))
    B_BNGS, C_BNGS = torch.randn(2, B, N, G, S, generator=r)
    return x.double(), dt.double(), A.double(), B_BNGS.double(), C_BNGS.double()


def conv_reference(x_BND: Tensor, weight_DK: Tensor, bias_D: Tensor | None = None) -> Tensor:
    padded_BDN = pad(x_BND.transpose(1, 2), (weight_DK.shape[1] - 1, 0))
    return conv1d(padded_BDN, weight_DK.unsqueeze(1), bias_D, groups=len(weight_DK)).transpose(1, 2)


CONV_INPUTS = tuple(
    torch.randn(shape, generator=torch.Generator().manual_seed(5)).double() for shape in ((2, 40, 6), (6, 4), (6,))
)
CASES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], Tensors]] = {
    "selective_scan": (selective_scan, selective_scan_reference, selective_inputs(2, 40, 6, 3, 2)),
    "ssd": (lambda *t: ssd(*t, chunk=16), ssd_reference, ssd_inputs(2, 40, 4, 3, 3, 2)),
    "causal_conv1d": (causal_conv1d, conv_reference, CONV_INPUTS),
}


def value_and_gradients(op: Callable[..., Tensor], inputs: Tensors, dtype: torch.dtype = torch.float64) -> Tensors:
    """y and the gradients of all inputs, for the same random gradient of y whatever the type."""
    leaves = [t.to(dtype).requires_grad_() for t in inputs]
    y = op(*leaves)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))


def assert_same(found: Tensors, expected: Tensors, rtol: float = 1e-9, atol: float | None = None) -> None:
    """Every entry, relative to itself or to the largest of its tensor, since sums of either sign cancel."""
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        floor = rtol * float(other.abs().max()) if atol is None else atol * max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.to(other.dtype), other, rtol=rtol, atol=floor)


@given(
    B=st.integers(1, 3),
    N=st.one_of(st.integers(1, 70), st.sampled_from([31, 32, 33, 64, 65])),
    E=st.integers(1, 4),
    S=st.integers(1, 5),
    G=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_selective_scan_is_the_recurrence(B: int, N: int, E: int, S: int, G: int, seed: int) -> None:
    inputs = selective_inputs(B, N, G * E, S, G, seed)
    assert_same(value_and_gradients(selective_scan, inputs), value_and_gradients(selective_scan_reference, inputs))


@given(
    B=st.integers(1, 2),
    N=st.integers(1, 40),
    J=st.integers(1, 3),
    P=st.integers(1, 4),
    S=st.integers(1, 4),
    G=st.integers(1, 3),
    chunk=st.sampled_from([1, 2, 7, 16, 64]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_ssd_is_the_recurrence(B: int, N: int, J: int, P: int, S: int, G: int, chunk: int, seed: int) -> None:
    inputs = ssd_inputs(B, N, G * J, P, S, G, seed)
    found = value_and_gradients(lambda *t: ssd(*t, chunk=chunk), inputs)
    assert_same(found, value_and_gradients(ssd_reference, inputs))


@given(B=st.integers(1, 2), N=st.integers(1, 9), D=st.integers(1, 5), K=st.integers(1, 6), bias=st.booleans())
@settings(max_examples=25, deadline=None)
def test_causal_conv1d_is_a_padded_convolution(B: int, N: int, D: int, K: int, bias: bool) -> None:
    r = torch.Generator().manual_seed(B + N + D + K)
    inputs = [torch.randn(shape, generator=r) for shape in ((B, N, D), (D, K), (D,))][: 2 + bias]
    found = value_and_gradients(causal_conv1d, tuple(inputs))
    assert_same(found, value_and_gradients(conv_reference, tuple(inputs)))


def stiff(dt: Tensor, A: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """dt·|A| of 1e3, 30 or 1e-6 throughout, or anywhere between from token to token and channel to channel."""
    r = torch.Generator().manual_seed(3)
    exponents = torch.rand(dt.shape, generator=r, dtype=dt.dtype) * 9 - 9
    fixed = {"fast": 1.0, "brisk": 0.03, "slow": 1e-9}
    return torch.full_like(dt, fixed[kind]) if kind in fixed else 10**exponents, torch.full_like(A, -1e3)


@pytest.mark.parametrize("kind", ["fast", "brisk", "slow", "mixed"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, {"rtol": 1e-9}), (torch.float32, FLOAT32)])
def test_stiff_selective_scan(kind: str, dtype: torch.dtype, tolerance: dict[str, float]) -> None:
    x, dt, A, B, C = selective_inputs(2, 75, 6, 3, 2)
    inputs = (x, *stiff(dt, A, kind), B, C)
    expected = value_and_gradients(selective_scan_reference, inputs)
    assert_same(value_and_gradients(selective_scan, inputs, dtype), expected, **tolerance)


@pytest.mark.parametrize("kind", ["fast", "brisk", "slow", "mixed"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, {"rtol": 1e-9}), (torch.float32, FLOAT32)])
def test_stiff_ssd(kind: str, dtype: torch.dtype, tolerance: dict[str, float]) -> None:
    x, dt, A, B, C = ssd_inputs(2, 300, 4, 3, 3, 2)
    inputs = (x, *stiff(dt, A, kind), B, C)
    expected = value_and_gradients(ssd_reference, inputs)
    assert_same(value_and_gradients(lambda *t: ssd(*t, chunk=128), inputs, dtype), expected, **tolerance)


def test_a_fast_decay_does_not_blur_the_slow_ones_after_it() -> None:
    """One step of dt·|A| = 1e5 in a chunk: in float32 the decays after it still agree to 1e-5 with the recurrence."""
    x, dt, A, B, C = ssd_inputs(1, 64, 2, 3, 3)
    dt = (dt * 0.01).index_fill(1, torch.tensor([5]), 1e5)
    y, expected = ssd(*(t.float() for t in (x, dt, A, B, C)), chunk=64), ssd_reference(x, dt, A, B, C)
    torch.testing.assert_close(
        y[:, 6:].double(), expected[:, 6:], rtol=1e-5, atol=1e-5 * float(expected[:, 6:].abs().max())
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16)])
@pytest.mark.parametrize("op", ["selective_scan", "ssd", "causal_conv1d"])
def test_lower_precision(op: str, dtype: torch.dtype, tolerance: dict[str, float]) -> None:
    """Against float64 on the same (rounded) inputs; the type of y and of each gradient is that of its input."""
    run, reference, inputs = CASES[op]
    rounded = tuple(t.to(dtype).double() for t in inputs)
    found = value_and_gradients(run, rounded, dtype)
    assert {t.dtype for t in found} == {dtype}
    assert_same(found, value_and_gradients(reference, rounded), **tolerance)


def test_types_may_differ() -> None:
    """A mixer under autocast: x, B and C in bfloat16, dt and A in float32."""
    x, dt, A, B, C = selective_inputs(2, 40, 6, 3, 2)
    dtypes = [torch.bfloat16, torch.float32, torch.float32, torch.bfloat16, torch.bfloat16]
    mixed = [t.to(d).requires_grad_() for t, d in zip((x, dt, A, B, C), dtypes, strict=True)]
    y = selective_scan(*mixed)
    assert y.dtype == torch.bfloat16
    assert [g.dtype for g in torch.autograd.grad(y.sum(), mixed)] == dtypes
    expected = selective_scan_reference(*(t.detach().double() for t in mixed))
    torch.testing.assert_close(y.double(), expected, **BFLOAT16)


@pytest.mark.parametrize("op", CASES)
def test_gradients_by_finite_differences(op: str) -> None:
    run, _, inputs = CASES[op]
    short = [t[:1, :7] if t.ndim > 2 else t for t in inputs]
    assert torch.autograd.gradcheck(run, [t.clone().requires_grad_() for t in short])


def test_ssd_is_a_selective_scan_with_one_rate_per_head() -> None:
    x, dt, A, B, C = ssd_inputs(2, 50, 4, 3, 5, 2)
    as_channels = (x.flatten(2), dt.repeat_interleave(3, 2), A.repeat_interleave(3).unsqueeze(1).expand(-1, 5), B, C)
    assert_same((ssd(x, dt, A, B, C, chunk=16).flatten(2),), (selective_scan(*as_channels),))


def test_chunk_changes_nothing_but_the_cost() -> None:
    inputs = ssd_inputs(1, 50)
    for chunk in (1, 8, 50, 256):
        assert_same((ssd(*inputs, chunk=chunk),), (ssd(*inputs, chunk=13),))


@pytest.mark.parametrize("op", CASES)
def test_a_sequence_does_not_depend_on_its_batch(op: str) -> None:
    """Relative 1e-5 in float32, gradients of the sequence included."""
    run, _, inputs = CASES[op]
    both = [t.float() for t in inputs]
    alone = [t[1:] if t.ndim > 2 else t for t in both]
    sequences = [n for n, t in enumerate(both) if t.ndim > 2]

    def gradients(tensors: list[Tensor]) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in tensors]
        y = run(*leaves)
        return [y, *torch.autograd.grad(y.square().sum(), [leaves[n] for n in sequences])]

    for whole, single in zip(gradients(both), gradients(alone), strict=True):
        torch.testing.assert_close(whole[1:], single, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", CASES)
def test_the_past_does_not_see_the_future(op: str) -> None:
    run, _, (x, *rest) = CASES[op]
    changed = x.clone()
    changed[:, 20:] += 1
    torch.testing.assert_close(run(changed, *rest)[:, :20], run(x, *rest)[:, :20], rtol=0, atol=0)
    assert not torch.equal(run(changed, *rest)[:, 20], run(x, *rest)[:, 20])


@pytest.mark.parametrize("op", CASES)
def test_layout_in_memory_does_not_matter(op: str) -> None:
    """Transposed and expanded inputs, and an expanded gradient (the backward of a sum)."""
    run, reference, inputs = CASES[op]
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) if t.ndim > 1 else t for t in inputs]
    strided[0] = strided[0][:1].expand_as(strided[0])
    results = []
    for each in (run, reference):
        leaves = [t.detach().requires_grad_() for t in strided]
        y = each(*leaves)
        results.append((y.detach(), *torch.autograd.grad(y.sum(), leaves)))
    assert_same(*results)


def on_meta(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.empty(shape, device="meta", requires_grad=True) for shape in shapes]


def counted(op: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[int, int]:
    """FLOPs of forward and of backward, by PyTorch's counter."""
    with FlopCounterMode(display=False) as forward:
        y = op(*inputs)
    with FlopCounterMode(display=False) as backward:
        gradients = torch.autograd.grad(y, inputs, torch.empty_like(y))
    assert [g.shape for g in gradients] == [t.shape for t in inputs]
    assert all(g.device.type == "meta" for g in gradients)
    return forward.get_total_flops(), backward.get_total_flops()


def test_flops_of_the_selective_scan() -> None:
    shape = (2, 15_647, 1_920)
    inputs = on_meta(shape, shape, (1_920, 16), (2, 15_647, 1, 16), (2, 15_647, 1, 16))
    elements = 2 * 15_647 * 1_920 * 16
    assert counted(selective_scan, inputs) == (9 * elements, 20 * elements)
    assert scan.selective_scan_flops(2, 15_647, 1_920, 16) == 9 * elements


def products_of_ssd(q: int, S: int, P: int, H: int, G: int) -> int:
    """FLOPs of one chunk's matrix products, by PyTorch's own counter, plus the state handed on."""
    C, B, x, state, scores = on_meta((G, q, S), (G, S, q), (H, q, P), (H, S, P), (H, q, q))
    CH, BH = on_meta((H, q, S), (H, S, q))
    with FlopCounterMode(display=False) as counter:
        _ = (C @ B, scores @ x, BH @ x, CH @ state)
    return counter.get_total_flops() + 2 * S * P * H


@pytest.mark.parametrize("G", [1, 3, 6])
def test_flops_of_ssd_are_its_matrix_products(G: int) -> None:
    """600 tokens in chunks of 256: two whole ones and one of 88."""
    inputs = on_meta((2, 600, 6, 8), (2, 600, 6), (6,), (2, 600, G, 16), (2, 600, G, 16))
    expected = 2 * (2 * products_of_ssd(256, 16, 8, 6, G) + products_of_ssd(88, 16, 8, 6, G))
    forward, backward = counted(ssd, inputs)
    assert forward == scan.ssd_flops(2, 600, 6, 8, G, 16, 256) == expected
    assert backward == scan.ssd_backward_flops(2, 600, 6, 8, G, 16, 256)


def test_counted_products_are_those_executed() -> None:
    """Inside the operators PyTorch counts the same products; handing a state on is no product and is left out there."""
    inputs, chunk = ssd_inputs(1, 40, 6, 8, 16, 3), 16
    with FlopCounterMode(display=False) as forward:
        y, states = _ssd._forward(*inputs, chunk)
    with FlopCounterMode(display=False) as backward:
        _ssd._backward(torch.ones_like(y), states, *inputs, chunk)
    handed_on = 3 * 2 * 16 * 8 * 6
    assert forward.get_total_flops() == scan.ssd_flops(1, 40, 6, 8, 3, 16, chunk) - handed_on
    assert backward.get_total_flops() == scan.ssd_backward_flops(1, 40, 6, 8, 3, 16, chunk) - handed_on


def test_flops_of_the_convolution() -> None:
    inputs = on_meta((2, 50, 8), (8, 4), (8,))
    assert counted(causal_conv1d, inputs) == (2 * 2 * 50 * 8 * 4, 2 * 2 * 2 * 50 * 8 * 4)
    assert scan.causal_conv1d_flops(2, 50, 8, 4) == 3_200 * 2


def test_recurrent_flops_are_lingens() -> None:
    """LinGen supplement, equation 3: 4 E N d_s d + 2 E N d with E = 2, d = 2560, d_s = 128, 64 channels per head."""
    E, N, d, d_s = 2, 10_000, 2_560, 128
    assert scan.ssd_recurrent_flops(1, N, E * d // 64, 64, d_s) == 4 * E * N * d_s * d + 2 * E * N * d


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("op", [*CASES, "without bias"])
def test_operators_meet_pytorchs_contract(op: str) -> None:
    """Schema, registrations, fake tensors and dynamic shapes, as `torch.library.opcheck` sees them."""
    settings: dict[str, list[Any]] = {"ssd": [16], "without bias": [None]}
    inputs = CASES.get(op, (None, None, CONV_INPUTS[:2]))[2]
    leaves = [t.float().requires_grad_() for t in inputs]
    name = "causal_conv1d" if op == "without bias" else op
    torch.library.opcheck(getattr(torch.ops.m4v, name).default, (*leaves, *settings.get(op, [])))


BAD_SHAPES: list[tuple[Callable[..., Tensor], list[tuple[int, ...]], str]] = [
    (selective_scan, [(1, 5, 4), (1, 6, 4), (4, 2), (1, 5, 1, 2), (1, 5, 1, 2)], r"scan: dt has shape \(1, 6, 4\)"),
    (selective_scan, [(1, 5, 4), (1, 5, 4), (4, 3), (1, 5, 1, 2), (1, 5, 1, 2)], r"B has shape .* S = 3"),
    (selective_scan, [(1, 5, 4), (1, 5, 4), (4, 2), (1, 5, 2), (1, 5, 2)], r"B has shape \(1, 5, 2\); 4 axes \(BNGS"),
    (selective_scan, [(1, 5, 4), (1, 5, 4), (4, 2), (1, 5, 3, 2), (1, 5, 3, 2)], r"G = 3 .* D = 4"),
    (selective_scan, [(1, 0, 4), (1, 0, 4), (4, 2), (1, 0, 1, 2), (1, 0, 1, 2)], r"x has shape \(1, 0, 4\)"),
    (ssd, [(1, 5, 4, 2), (1, 5, 3), (4,), (1, 5, 1, 2), (1, 5, 1, 2)], r"ssd: dt has shape \(1, 5, 3\)"),
    (ssd, [(1, 5, 4, 2), (1, 5, 4), (4,), (1, 5, 3, 2), (1, 5, 3, 2)], r"G = 3 .* H = 4"),
    (causal_conv1d, [(1, 5, 4), (3, 4)], r"conv1d: weight has shape \(3, 4\)"),
    (causal_conv1d, [(1, 5, 4), (4, 4), (3,)], r"bias has shape \(3,\)"),
]


@pytest.mark.parametrize(("op", "shapes", "message"), BAD_SHAPES)
def test_wrong_shapes_are_named(op: Callable[..., Tensor], shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        op(*on_meta(*shapes))


def test_wrong_types_and_chunks_are_named() -> None:
    with pytest.raises(ValueError, match=r"x is torch\.int64"):
        causal_conv1d(torch.ones(1, 5, 4, dtype=torch.int64), torch.ones(4, 4))
    with pytest.raises(ValueError, match="chunk is 0"):
        ssd(*ssd_inputs(), chunk=0)


def test_backend() -> None:
    """PyTorch on the CPU and for float64, the kernels on CUDA where their package is installed."""
    assert {scan.backend(op, "cpu") for op in CASES} == {"torch"}
    assert scan.backend("ssd", "cuda", torch.float64) == "torch"
    with pytest.raises(ValueError, match="no operator 'scan'"):
        scan.backend("scan", "cpu")


def test_kernels_are_not_imported_with_the_module() -> None:
    code = "import sys, m4v.scan; sys.exit(any(m.split('.')[0] in ('mamba_ssm', 'causal_conv1d') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def as_kernel(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that differentiates itself, as compiled kernels do: an `autograd.Function` around `compute`."""

    class Compiled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Tensor:
            ctx.save_for_backward(*(a for a in arguments if isinstance(a, Tensor)))
            ctx.plain = [a for a in arguments if not isinstance(a, Tensor)]
            return compute(*arguments)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            assert gradients[0].is_contiguous()
            _, pullback = torch.func.vjp(lambda *t: compute(*t, *ctx.plain), *ctx.saved_tensors)
            return (*pullback(gradients[0]), *(None for _ in ctx.plain))

    return Compiled.apply


def scan_of_the_package(u_BDN: Tensor, delta_BDN: Tensor, A_DS: Tensor, B_BGSN: Tensor, C_BGSN: Tensor) -> Tensor:
    B_BNGS, C_BNGS = B_BGSN.permute(0, 3, 1, 2), C_BGSN.permute(0, 3, 1, 2)
    y = selective_scan_reference(u_BDN.transpose(1, 2), delta_BDN.transpose(1, 2), A_DS, B_BNGS, C_BNGS)
    return y.transpose(1, 2).contiguous()


def ssd_of_the_package(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int) -> Tensor:
    assert chunk_size == 16
    return ssd_reference(x, dt, A, B, C)


def conv_of_the_package(x_BDN: Tensor, weight_DK: Tensor, bias_D: Tensor | None = None) -> Tensor:
    return conv_reference(x_BDN.transpose(1, 2), weight_DK, bias_D).transpose(1, 2).contiguous()


@pytest.fixture
def installed_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages with the public functions of mamba_ssm and causal_conv1d, in their layouts, and for any device."""
    packages = {
        "mamba_ssm.ops.selective_scan_interface": ("selective_scan_fn", scan_of_the_package),
        "mamba_ssm.ops.triton.ssd_combined": ("mamba_chunk_scan_combined", ssd_of_the_package),
        "causal_conv1d": ("causal_conv1d_fn", conv_of_the_package),
    }
    for path, (name, compute) in packages.items():
        module = ModuleType(path)
        setattr(module, name, as_kernel(compute))
        monkeypatch.setitem(sys.modules, path, module)
    monkeypatch.setattr(_backend, "backend", lambda op, device, dtype=torch.float32: _backend._PACKAGES[op])


@pytest.mark.usefixtures("installed_kernels")
@pytest.mark.parametrize("op", CASES)
def test_kernels_are_called_in_their_layout_and_differentiated_by_themselves(op: str) -> None:
    """The same values and gradients through the packages' layouts (float32: they know no float64)."""
    run, reference, inputs = CASES[op]
    found = value_and_gradients(run, inputs, torch.float32)
    assert_same(found, value_and_gradients(reference, inputs), **FLOAT32)


@pytest.mark.usefixtures("installed_kernels")
def test_the_convolution_kernel_needs_no_bias() -> None:
    found = value_and_gradients(causal_conv1d, CONV_INPUTS[:2], torch.float32)
    assert_same(found, value_and_gradients(conv_reference, CONV_INPUTS[:2]), **FLOAT32)
