"""The selective scan of Mamba-1, exact: segments of tokens in place, only the state before each segment kept.

B batch, N tokens, D channels, S state, G groups of B and C, E channels of a group (D = G E), T tokens of a segment,
K segments. Inside, time is the outermost axis and channels the innermost, so that one step of the recurrence is one
multiply-add over a contiguous slab `BGSE`. Nothing is divided by a decay and no logarithm is summed: a decay that
underflows to 0 forgets the past, exactly as it should.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from m4v.scan._backend import SELECTIVE_SCAN, kernel_scans
from m4v.scan._checks import check_groups, check_shapes
from m4v.scan.flops import selective_scan_backward_flops, selective_scan_flops

_SEGMENT = 64  # tokens: decays and states of a segment at D = 256, S = 16 are 1 MiB each, and stay in cache


def selective_scan(x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNGS: Tensor, C_BNGS: Tensor) -> Tensor:
    """State-space recurrence of Mamba-1, from a zero state: h_n = exp(dt_n A) h_{n-1} + dt_n B_n x_n, y_n = C_n·h_n.

    Channel d belongs to group d // (D / G), and reads that group's B and C. Computed in float32 (float64 if an
    argument is); y has the type of x. Differentiable once, in all arguments.

    Args:
        x_BND: the sequence.
        dt_BND: step sizes, positive (the caller applies softplus).
        A_DS: rates, negative.
        B_BNGS: how the input enters the state.
        C_BNGS: how the state is read.

    Returns:
        y_BND, without skip connection or gate.

    Raises:
        ValueError: the shapes do not fit each other.

    Source: Gu and Dao 2023 (arXiv 2312.00752), Algorithm 2, with B discretised as dt·B.
    """
    sizes = check_shapes(
        "selective_scan", x=(x_BND, "BND"), dt=(dt_BND, "BND"), A=(A_DS, "DS"), B=(B_BNGS, "BNGS"), C=(C_BNGS, "BNGS")
    )
    check_groups("selective_scan", "D", sizes["D"], sizes["G"])
    y_BND: Tensor = _scan_op(x_BND, dt_BND, A_DS, B_BNGS, C_BNGS)[0]
    return y_BND


class _Inputs(NamedTuple):
    """Arguments as the recurrence reads them: time first, groups apart, channels last (views wherever possible)."""

    x_NBG1E: Tensor
    dt_NBG1E: Tensor
    A_GSE: Tensor
    B_NBGS: Tensor
    C_NBGS: Tensor

    def segment(self, start: int, stop: int) -> _Inputs:
        """The tokens from `start` to `stop`, in the type that the recurrence is computed in."""
        sequences = (self.x_NBG1E, self.dt_NBG1E, self.B_NBGS, self.C_NBGS)
        x, dt, B, C = (sequence[start:stop].to(self.A_GSE.dtype).contiguous() for sequence in sequences)
        return _Inputs(x, dt, self.A_GSE, B, C)


class _Slabs(NamedTuple):
    """Scratch space of a segment, and its single steps as views made once."""

    whole_TBGSE: Tensor
    steps_BGSE: tuple[Tensor, ...]


def _arrange(x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNGS: Tensor, C_BNGS: Tensor) -> _Inputs:
    groups, work = B_BNGS.shape[2], torch.float32
    for tensor in (x_BND, dt_BND, A_DS, B_BNGS, C_BNGS):
        work = torch.promote_types(work, tensor.dtype)
    A_GSE = torch.unflatten(A_DS.to(work), 0, (groups, -1)).transpose(1, 2).contiguous()
    x_NBG1E, dt_NBG1E = (torch.unflatten(s.transpose(0, 1), 2, (groups, 1, -1)) for s in (x_BND, dt_BND))
    return _Inputs(x_NBG1E, dt_NBG1E, A_GSE, B_BNGS.transpose(0, 1), C_BNGS.transpose(0, 1))


def _bounds(tokens: int) -> list[tuple[int, int]]:
    return [(start, min(start + _SEGMENT, tokens)) for start in range(0, tokens, _SEGMENT)]


def _slabs(inputs: _Inputs) -> _Slabs:
    tokens, batch = inputs.x_NBG1E.shape[:2]
    whole = inputs.A_GSE.new_empty((min(tokens, _SEGMENT), batch, *inputs.A_GSE.shape))
    return _Slabs(whole, whole.unbind(0))


def _run(part: _Inputs, before_BGSE: Tensor, decay: _Slabs, state: _Slabs) -> None:
    """Fills `decay` with exp(dt A) and `state` with h, for one segment that starts from the state `before_BGSE`."""
    tokens = part.x_NBG1E.shape[0]
    torch.mul(part.dt_NBG1E, part.A_GSE, out=decay.whole_TBGSE[:tokens]).exp_()
    torch.mul(part.dt_NBG1E * part.x_NBG1E, part.B_NBGS.unsqueeze(-1), out=state.whole_TBGSE[:tokens])
    for a_BGSE, h_BGSE in zip(decay.steps_BGSE[:tokens], state.steps_BGSE, strict=False):
        before_BGSE = h_BGSE.addcmul_(a_BGSE, before_BGSE)


@torch.library.custom_op("m4v::selective_scan", mutates_args=())
def _scan_op(x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNGS: Tensor, C_BNGS: Tensor) -> tuple[Tensor, Tensor]:
    """y_BND, and the state before each segment (none where a kernel runs: it keeps its own)."""
    if kernel_scans("selective_scan", x_BND, dt_BND, A_DS, B_BNGS, C_BNGS):
        return SELECTIVE_SCAN((x_BND, dt_BND, A_DS, B_BNGS, C_BNGS)), A_DS.new_empty(0)
    inputs = _arrange(x_BND, dt_BND, A_DS, B_BNGS, C_BNGS)
    y_BND = torch.empty_like(x_BND, memory_format=torch.contiguous_format)
    y_NBG1E = torch.unflatten(y_BND.transpose(0, 1), 2, inputs.x_NBG1E.shape[2:])
    decay, state, bounds = _slabs(inputs), _slabs(inputs), _bounds(x_BND.shape[1])
    before_KBGSE = state.whole_TBGSE.new_zeros((len(bounds), *state.whole_TBGSE.shape[1:]))
    for k, (start, stop) in enumerate(bounds):
        part = inputs.segment(start, stop)
        _run(part, before_KBGSE[k], decay, state)
        y_NBG1E[start:stop] = part.C_NBGS.unsqueeze(-2) @ state.whole_TBGSE[: stop - start]
        before_KBGSE[k + 1 : k + 2] = state.steps_BGSE[stop - start - 1]
    return y_BND, before_KBGSE


@_scan_op.register_fake
def _(x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNGS: Tensor, C_BNGS: Tensor) -> tuple[Tensor, Tensor]:
    y_BND = torch.empty_like(x_BND, memory_format=torch.contiguous_format)
    if kernel_scans("selective_scan", x_BND, dt_BND, A_DS, B_BNGS, C_BNGS):
        return y_BND, A_DS.new_empty(0)
    A_GSE = _arrange(x_BND, dt_BND, A_DS, B_BNGS, C_BNGS).A_GSE
    segments = (x_BND.shape[1] + _SEGMENT - 1) // _SEGMENT
    return y_BND, A_GSE.new_empty((segments, x_BND.shape[0], *A_GSE.shape))


@torch.library.custom_op("m4v::selective_scan_backward", mutates_args=())
def _backward_op(
    dy_BND: Tensor, before_KBGSE: Tensor, x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNGS: Tensor, C_BNGS: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B and C, segment by segment from the last one."""
    arguments = (x_BND, dt_BND, A_DS, B_BNGS, C_BNGS)
    if kernel_scans("selective_scan", *arguments):
        dx, ddt, dA, dB, dC = SELECTIVE_SCAN.gradients(arguments, dy_BND)
        return dx, ddt, dA, dB, dC
    inputs = _arrange(*arguments)
    gradients = tuple(torch.empty_like(a, memory_format=torch.contiguous_format) for a in arguments)
    out = _arrange(*gradients)._replace(A_GSE=torch.zeros_like(inputs.A_GSE))
    dy_NBG1E = torch.unflatten(dy_BND.transpose(0, 1), 2, inputs.x_NBG1E.shape[2:])
    slabs = (_slabs(inputs), _slabs(inputs), _slabs(inputs))
    later_BGSE = torch.zeros_like(before_KBGSE[0])
    for k, (start, stop) in reversed(list(enumerate(_bounds(x_BND.shape[1])))):
        dy_T = dy_NBG1E[start:stop].to(inputs.A_GSE.dtype).contiguous()
        found = _segment_gradients(inputs.segment(start, stop), dy_T, before_KBGSE[k], later_BGSE, slabs)
        for target, gradient in zip(out, found, strict=True):
            if target is out.A_GSE:
                target += gradient
            else:
                target[start:stop] = gradient
    gradients[2].copy_(out.A_GSE.transpose(1, 2).flatten(0, 1))
    return gradients  # type: ignore[return-value]


def _segment_gradients(
    part: _Inputs, dy_TBG1E: Tensor, before_BGSE: Tensor, later_BGSE: Tensor, slabs: tuple[_Slabs, _Slabs, _Slabs]
) -> _Inputs:
    """Gradients of one segment's inputs; `later_BGSE`, what the next segment asks of the state, moves one segment back.

    With g the gradient of h: g_n = C_n dy_n + a_{n+1} g_{n+1}, and g_n a_n h_{n-1} is the gradient of dt_n A.
    """
    tokens = part.x_NBG1E.shape[0]
    decay, state, grad = slabs
    _run(part, before_BGSE, decay, state)
    a, h, g = (slab.whole_TBGSE[:tokens] for slab in slabs)
    torch.mul(dy_TBG1E, part.C_NBGS.unsqueeze(-1), out=g)
    ahead_BGSE = grad.steps_BGSE[tokens - 1].add_(later_BGSE)
    for a_BGSE, g_BGSE in zip(decay.steps_BGSE[tokens - 1 : 0 : -1], grad.steps_BGSE[: tokens - 1][::-1], strict=True):
        ahead_BGSE = g_BGSE.addcmul_(a_BGSE, ahead_BGSE)
    dC = (dy_TBG1E @ h.transpose(-1, -2)).squeeze(-2)
    dB = ((part.dt_NBG1E * part.x_NBG1E) @ g.transpose(-1, -2)).squeeze(-2)
    ddtx = part.B_NBGS.unsqueeze(-2) @ g
    torch.mul(a[0], g[0], out=later_BGSE)
    g.mul_(a)
    g[0].mul_(before_BGSE)
    g[1:].mul_(h[:-1])
    dA = torch.mul(g, part.dt_NBG1E, out=a).sum((0, 1))
    ddt = torch.mul(g, part.A_GSE, out=h).sum(-2, keepdim=True).addcmul_(ddtx, part.x_NBG1E)
    return _Inputs(ddtx * part.dt_NBG1E, ddt, dA, dB, dC)


@_backward_op.register_fake
def _(
    dy_BND: Tensor, before_KBGSE: Tensor, x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNGS: Tensor, C_BNGS: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    arguments = (x_BND, dt_BND, A_DS, B_BNGS, C_BNGS)
    return tuple(torch.empty_like(a, memory_format=torch.contiguous_format) for a in arguments)  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1], *inputs)


def _differentiate(ctx: Any, dy_BND: Tensor, _: Tensor | None) -> tuple[Tensor, ...]:
    gradients: tuple[Tensor, ...] = _backward_op(dy_BND, *ctx.saved_tensors)
    return gradients


_scan_op.register_autograd(_differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.m4v.selective_scan)
def _(x: tuple[int, ...], dt: tuple[int, ...], A: tuple[int, ...], *_: Any, **__: Any) -> int:
    return selective_scan_flops(x[0], x[1], A[0], A[1])


@register_flop_formula(torch.ops.m4v.selective_scan_backward)
def _(dy: tuple[int, ...], before: Any, x: Any, dt: Any, A: tuple[int, ...], *_: Any, **__: Any) -> int:
    return selective_scan_backward_flops(dy[0], dy[1], A[0], A[1])
