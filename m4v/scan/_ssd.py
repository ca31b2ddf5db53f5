"""The scan of Mamba-2 as matrix products over chunks of tokens (state space duality), exact.

B batch, N tokens, H heads, P channels of a head, S state, G groups of B and C, J heads of a group (H = G J),
Q and R tokens of a chunk (reading and read). Inside a chunk, token i reads token j through exp(c_i - c_j), where c is
the running sum of dt·A: for j <= i the exponent is never positive; elsewhere it is held at 0 and the result dropped.
Running sums are taken in float64 and subtracted as a rounded part plus its remainder, so that a very fast decay
somewhere in a chunk does not blur the slow ones after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from m4v.scan._backend import SSD, kernel_scans
from m4v.scan._checks import check_groups, check_shapes
from m4v.scan.flops import ssd_backward_flops, ssd_flops

_TILE = 2**18  # scores computed at once: 1 MiB in float32, so that the passes over them stay in cache
# Decays at or below exp of this count as 0: far under the rounding of anything they are added to, and numbers without
# full precision (below 1.2e-38 and 2.2e-308) would make the exponentials and products a hundred times slower.
_LEAST_EXPONENT = {torch.float32: -80.0, torch.float64: -700.0}


def ssd(x_BNHP: Tensor, dt_BNH: Tensor, A_H: Tensor, B_BNGS: Tensor, C_BNGS: Tensor, chunk: int = 256) -> Tensor:
    """Recurrence of Mamba-2, from a zero state: h_n = exp(dt_n A) h_{n-1} + dt_n B_n x_nᵀ, y_n = C_n h_n, per head.

    Head h belongs to group h // (H / G), and reads that group's B and C. The result does not depend on `chunk`, its
    cost does; the last chunk may be shorter. Computed in float32 (float64 if an argument is); y has the type of x.
    Differentiable once, in all tensors.

    Args:
        x_BNHP: the sequence.
        dt_BNH: step sizes, positive (the caller applies softplus).
        A_H: rates, negative, one per head.
        B_BNGS: how the input enters the state.
        C_BNGS: how the state is read.
        chunk: tokens per chunk.

    Returns:
        y_BNHP, without skip connection or gate.

    Raises:
        ValueError: the shapes do not fit each other, or `chunk` is not positive.

    Source: Dao and Gu 2024 (arXiv 2405.21060), Section 6.
    """
    arguments = {"x": (x_BNHP, "BNHP"), "dt": (dt_BNH, "BNH"), "A": (A_H, "H"), "B": (B_BNGS, "BNGS")}
    sizes = check_shapes("ssd", **arguments, C=(C_BNGS, "BNGS"))
    check_groups("ssd", "H", sizes["H"], sizes["G"])
    if chunk < 1:
        raise ValueError(f"ssd: chunk is {chunk}; a chunk has at least one token")
    y_BNHP: Tensor = _ssd_op(x_BNHP, dt_BNH, A_H, B_BNGS, C_BNGS, chunk)[0]
    return y_BNHP


class _Inputs(NamedTuple):
    """Arguments of one sequence, groups apart."""

    x_NGJP: Tensor
    dt_NGJ: Tensor
    A_GJ: Tensor
    B_GNS: Tensor
    C_GNS: Tensor

    def chunk(self, start: int, stop: int) -> _Inputs:
        """The tokens from `start` to `stop`, in the type that the recurrence is computed in."""
        tokens, work = slice(start, stop), self.A_GJ.dtype
        x, dt = self.x_NGJP[tokens].to(work), self.dt_NGJ[tokens].to(work)
        return _Inputs(x, dt, self.A_GJ, self.B_GNS[:, tokens].to(work), self.C_GNS[:, tokens].to(work))

    def folded(self, chunks: int) -> _Inputs:
        """Consecutive chunks of equal length side by side, each with groups of its own: Q tokens, K G groups."""
        if chunks == 1:
            return self
        x, dt = (_beside(t, chunks) for t in (self.x_NGJP, self.dt_NGJ))
        B, C = (torch.unflatten(t, 1, (chunks, -1)).transpose(0, 1).flatten(0, 1) for t in (self.B_GNS, self.C_GNS))
        return _Inputs(x, dt, self.A_GJ.repeat(chunks, 1), B, C)

    @property
    def xdt_GQC(self) -> Tensor:
        """dt·x, the J P channels of a group side by side."""
        return _columns(self.x_NGJP * self.dt_NGJ.unsqueeze(-1))


def _beside(t_NGX: Tensor, chunks: int) -> Tensor:
    """Groups of consecutive chunks side by side: tokens, then K G groups."""
    return torch.unflatten(t_NGX, 0, (chunks, -1)).transpose(0, 1).flatten(1, 2)


def _behind(t_QGX: Tensor, chunks: int) -> Tensor:
    """Inverse of `_beside`."""
    return torch.unflatten(t_QGX, 1, (chunks, -1)).transpose(0, 1).flatten(0, 1)


class _Decays(NamedTuple):
    """Decays within a chunk: between its tokens (as exponents), from its start, to its end, and across it."""

    sum_GJQ: Tensor
    rest_GJQ: Tensor
    start_QGJ: Tensor
    end_QGJ: Tensor
    whole_GJ: Tensor

    def between(self, groups: slice, heads: slice) -> Tensor:
        """exp(c_i - c_j) for j <= i, else 0, of some heads: `GJQR`."""
        c, rest = self.sum_GJQ[groups, heads], self.rest_GJQ[groups, heads]
        exponent_GJQR = c.unsqueeze(-1) - c.unsqueeze(-2)
        exponent_GJQR.add_(rest.unsqueeze(-1)).sub_(rest.unsqueeze(-2))
        least = _LEAST_EXPONENT[c.dtype]
        decay_GJQR = exponent_GJQR.clamp_(least, 0).exp_().tril_()
        return torch.threshold_(decay_GJQR, math.exp(least) * 1.01, 0)


def _decays(part: _Inputs) -> _Decays:
    work = part.A_GJ.dtype
    c_QGJ = (part.dt_NGJ.double() * part.A_GJ.double()).cumsum(0)
    c_GJQ = c_QGJ.permute(1, 2, 0).contiguous()
    rounded = c_GJQ.to(work)
    start, end = c_QGJ.exp(), (c_QGJ[-1] - c_QGJ).exp()
    return _Decays(rounded, (c_GJQ - rounded).to(work), start.to(work), end.to(work), start[-1].to(work))


def _arrange(x_NHP: Tensor, dt_NH: Tensor, A_H: Tensor, B_NGS: Tensor, C_NGS: Tensor) -> _Inputs:
    work = _work(x_NHP, dt_NH, A_H, B_NGS, C_NGS)
    heads = (B_NGS.shape[1], -1)
    x_NGJP, dt_NGJ, A_GJ = (
        torch.unflatten(x_NHP, 1, heads),
        torch.unflatten(dt_NH, 1, heads),
        torch.unflatten(A_H.to(work), 0, heads),
    )
    return _Inputs(x_NGJP, dt_NGJ, A_GJ, B_NGS.transpose(0, 1), C_NGS.transpose(0, 1))


def _work(*tensors: Tensor) -> torch.dtype:
    work = torch.float32
    for tensor in tensors:
        work = torch.promote_types(work, tensor.dtype)
    return work


def _columns(t_QGJP: Tensor) -> Tensor:
    """`GQC`, C = J P: the operand of a product that all heads of a group share."""
    return t_QGJP.flatten(2).transpose(0, 1)


def _per_head(t_GQC: Tensor, like_QGJP: Tensor) -> Tensor:
    """Inverse of `_columns`."""
    return torch.unflatten(t_GQC.transpose(0, 1), 2, like_QGJP.shape[2:])


def _heads(t_QGJP: Tensor, groups: slice, heads: slice) -> Tensor:
    """`GJQP` of some heads."""
    return t_QGJP[:, groups, heads].permute(1, 2, 0, 3)


def _bounds(tokens: int, chunk: int) -> list[tuple[int, int]]:
    return [(start, min(start + chunk, tokens)) for start in range(0, tokens, chunk)]


def _tiles(part: _Inputs) -> Iterator[tuple[slice, slice]]:
    """Groups and heads whose scores fit a tile: several whole groups, or some heads of one."""
    tokens, groups, heads = part.dt_NGJ.shape
    room = max(1, _TILE // tokens**2)
    group_step, head_step = max(1, room // heads), min(room, heads)
    for g in range(0, groups, group_step):
        for j in range(0, heads, head_step):
            yield slice(g, g + group_step), slice(j, j + head_step)


def _output(part: _Inputs, state_GSC: Tensor, chunks: int) -> tuple[Tensor, Tensor]:
    """y_QGJP of folded chunks, and the state before each, `KGSC`; `state_GSC` becomes the state after the last."""
    decays, xdt_GQC = _decays(part), part.xdt_GQC
    xdt_QGJP = _per_head(xdt_GQC, part.x_NGJP)
    added_GSC = part.B_GNS.transpose(1, 2) @ _columns(xdt_QGJP * decays.end_QGJ.unsqueeze(-1))
    whole_GC = decays.whole_GJ.repeat_interleave(part.x_NGJP.shape[-1], dim=-1)
    before_KGSC = _pass_on(state_GSC, torch.unflatten(added_GSC, 0, (chunks, -1)), whole_GC)
    y_QGJP = _per_head(part.C_GNS @ before_KGSC.flatten(0, 1), part.x_NGJP) * decays.start_QGJ.unsqueeze(-1)
    CB_GQR = part.C_GNS @ part.B_GNS.transpose(1, 2)
    for groups, heads in _tiles(part):
        scores_GJQR = decays.between(groups, heads).mul_(CB_GQR[groups].unsqueeze(1))
        _heads(y_QGJP, groups, heads).add_(scores_GJQR @ _heads(xdt_QGJP, groups, heads))
    return y_QGJP, before_KGSC


def _pass_on(state_GSC: Tensor, added_KGSC: Tensor, whole_GC: Tensor) -> Tensor:
    """The state before each chunk, `KGSC`, from what each adds to it and leaves of it."""
    before_KGSC = torch.empty_like(added_KGSC)
    for before, added, whole in zip(
        before_KGSC, added_KGSC, torch.unflatten(whole_GC, 0, (len(added_KGSC), -1)), strict=True
    ):
        before.copy_(state_GSC)
        state_GSC.mul_(whole.unsqueeze(1)).add_(added)
    return before_KGSC


def _forward(
    x_BNHP: Tensor, dt_BNH: Tensor, A_H: Tensor, B_BNGS: Tensor, C_BNGS: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """y_BNHP, and the state before each chunk (none where a kernel runs: it keeps its own)."""
    if kernel_scans("ssd", x_BNHP, dt_BNH, A_H, B_BNGS, C_BNGS):
        return SSD((x_BNHP, dt_BNH, A_H, B_BNGS, C_BNGS), chunk), A_H.new_empty(0)
    if _is_short(x_BNHP):
        y_1NHP, before_1KGSC = _forward(*_folded(x_BNHP, dt_BNH, A_H, B_BNGS, C_BNGS), chunk)
        return _unfolded(y_1NHP, len(x_BNHP)), _unfolded(before_1KGSC, len(x_BNHP))
    y_BNHP = torch.empty_like(x_BNHP, memory_format=torch.contiguous_format)
    bounds = _bounds(x_BNHP.shape[1], chunk)
    before_BKGSC = _states(x_BNHP, dt_BNH, A_H, B_BNGS, C_BNGS, len(bounds))
    for b in range(len(x_BNHP)):
        inputs = _arrange(x_BNHP[b], dt_BNH[b], A_H, B_BNGS[b], C_BNGS[b])
        state_GSC = torch.zeros_like(before_BKGSC[b, 0])
        for k, chunks in _batches(bounds, x_BNHP.shape[2]):
            start, stop = bounds[k][0], bounds[k + chunks - 1][1]
            y_QGJP, before_KGSC = _output(inputs.chunk(start, stop).folded(chunks), state_GSC, chunks)
            before_BKGSC[b, k : k + chunks] = before_KGSC
            y_BNHP[b, start:stop] = _behind(y_QGJP, chunks).flatten(1, 2)
    return y_BNHP, before_BKGSC


def _batches(bounds: Sequence[tuple[int, int]], heads: int) -> Iterator[tuple[int, int]]:
    """First chunk and number of chunks that are worked on at once: as many of equal length as fit a tile."""
    length = bounds[0][1]
    room = max(1, _TILE // (heads * length**2))
    equal = sum(stop - start == length for start, stop in bounds)
    for k in range(0, equal, room):
        yield k, min(room, equal - k)
    if equal < len(bounds):
        yield equal, 1


_SHORT = 1 << 21  # numbers in x up to which a whole batch is worked on at once


def _is_short(x_BNHP: Tensor) -> bool:
    """Whether calls would cost more than arithmetic if each sequence of the batch had its own."""
    return len(x_BNHP) > 1 and x_BNHP.numel() <= _SHORT


def _folded(
    x_BNHP: Tensor, dt_BNH: Tensor, A_H: Tensor, B_BNGS: Tensor, C_BNGS: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The batch as one sequence of B times as many groups: groups do not see each other."""
    x, dt, B, C = (t.transpose(0, 1).flatten(1, 2).unsqueeze(0) for t in (x_BNHP, dt_BNH, B_BNGS, C_BNGS))
    return x, dt, A_H.repeat(len(x_BNHP)), B, C


def _unfolded(t_1NG: Tensor, batch: int) -> Tensor:
    """Inverse of `_folded` for what has groups or heads in its third axis."""
    return torch.unflatten(t_1NG[0], 1, (batch, -1)).transpose(0, 1).contiguous()


def _states(x_BNHP: Tensor, dt_BNH: Tensor, A_H: Tensor, B_BNGS: Tensor, C_BNGS: Tensor, chunks: int) -> Tensor:
    (batch, _, heads, width), (groups, state) = x_BNHP.shape, B_BNGS.shape[2:]
    shape = (batch, chunks, groups, state, heads // groups * width)
    return x_BNHP.new_empty(shape, dtype=_work(x_BNHP, dt_BNH, A_H, B_BNGS, C_BNGS))


_ssd_op = torch.library.custom_op("m4v::ssd", _forward, mutates_args=())


@_ssd_op.register_fake
def _(x_BNHP: Tensor, dt_BNH: Tensor, A_H: Tensor, B_BNGS: Tensor, C_BNGS: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    y_BNHP = torch.empty_like(x_BNHP, memory_format=torch.contiguous_format)
    if kernel_scans("ssd", x_BNHP, dt_BNH, A_H, B_BNGS, C_BNGS):
        return y_BNHP, A_H.new_empty(0)
    return y_BNHP, _states(x_BNHP, dt_BNH, A_H, B_BNGS, C_BNGS, (x_BNHP.shape[1] + chunk - 1) // chunk)


class _Within(NamedTuple):
    """Gradients that flow between the tokens of a chunk."""

    dxdt_QGJP: Tensor
    dCB_GQR: Tensor
    dsum_GJQ: Tensor


def _within(part: _Inputs, decays: _Decays, dy_QGJP: Tensor, xdt_QGJP: Tensor) -> _Within:
    """Through the scores: gradients of dt·x, of C Bᵀ, and of c (without the diagonal, where c cancels)."""
    CB_GQR = part.C_GNS @ part.B_GNS.transpose(1, 2)
    out = _Within(torch.empty_like(xdt_QGJP), torch.zeros_like(CB_GQR), torch.empty_like(decays.sum_GJQ))
    for groups, heads in _tiles(part):
        dy, xdt = _heads(dy_QGJP, groups, heads), _heads(xdt_QGJP, groups, heads)
        decay = decays.between(groups, heads)
        scores = decay * CB_GQR[groups].unsqueeze(1)
        _heads(out.dxdt_QGJP, groups, heads).copy_(scores.transpose(-1, -2) @ dy)
        dscores = dy @ xdt.transpose(-1, -2)
        scores.mul_(dscores).diagonal(dim1=-2, dim2=-1).zero_()
        out.dsum_GJQ[groups, heads] = scores.sum(-1) - scores.sum(-2)
        out.dCB_GQR[groups] += dscores.mul_(decay).sum(1)
    return out


def _chunk_gradients(part: _Inputs, dy_QGJP: Tensor, state_GSC: Tensor, dstate_GSC: Tensor) -> _Inputs:
    """Gradients of one chunk's inputs; `dstate_GSC`, the gradient of the state after it, moves before it."""
    decays, xdt_QGJP = _decays(part), _per_head(part.xdt_GQC, part.x_NGJP)
    within = _within(part, decays, dy_QGJP, xdt_QGJP)
    start_QGJ1, end_QGJ1 = decays.start_QGJ.unsqueeze(-1), decays.end_QGJ.unsqueeze(-1)
    read_QGJP = dy_QGJP * start_QGJ1
    to_end_QGJP = _per_head(part.B_GNS @ dstate_GSC, part.x_NGJP) * end_QGJ1
    from_start_GJQ = (_per_head(part.C_GNS @ state_GSC, part.x_NGJP) * read_QGJP).sum(-1).permute(1, 2, 0)
    across_GJ = torch.unflatten((state_GSC * dstate_GSC).sum(1), 1, part.x_NGJP.shape[2:]).sum(-1) * decays.whole_GJ
    into_end_GJQ = (to_end_QGJP * xdt_QGJP).sum(-1).permute(1, 2, 0)
    # dt_k A scales whatever passes token k: from tokens before it to the chunk's end, from the chunk's start to tokens
    # at or after it, from start to end, and between the tokens on either side of it.
    later_GJQ = (within.dsum_GJQ + from_start_GJQ).flip(-1).cumsum(-1).flip(-1)
    da_GJQ = later_GJQ + across_GJ.unsqueeze(-1)
    da_GJQ[..., 1:] += into_end_GJQ[..., :-1].cumsum(-1)
    da_QGJ = da_GJQ.permute(2, 0, 1)
    dxdt_QGJP = within.dxdt_QGJP + to_end_QGJP
    dC = within.dCB_GQR @ part.B_GNS + _columns(read_QGJP) @ state_GSC.transpose(1, 2)
    dB = within.dCB_GQR.transpose(1, 2) @ part.C_GNS + _columns(xdt_QGJP * end_QGJ1) @ dstate_GSC.transpose(1, 2)
    torch.unflatten(dstate_GSC, 2, part.x_NGJP.shape[2:]).mul_(decays.whole_GJ[:, None, :, None])
    dstate_GSC += part.C_GNS.transpose(1, 2) @ _columns(read_QGJP)
    ddt = da_QGJ * part.A_GJ + (dxdt_QGJP * part.x_NGJP).sum(-1)
    return _Inputs(dxdt_QGJP * part.dt_NGJ.unsqueeze(-1), ddt, (da_QGJ * part.dt_NGJ).sum(0), dB, dC)


def _backward(
    dy_BNHP: Tensor,
    before_BKGSC: Tensor,
    x_BNHP: Tensor,
    dt_BNH: Tensor,
    A_H: Tensor,
    B_BNGS: Tensor,
    C_BNGS: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B and C, chunk by chunk from the last one."""
    arguments = (x_BNHP, dt_BNH, A_H, B_BNGS, C_BNGS)
    if kernel_scans("ssd", *arguments):
        dx, ddt, dA, dB, dC = SSD.gradients(arguments, dy_BNHP, chunk)
        return dx, ddt, dA, dB, dC
    if _is_short(x_BNHP):
        dy_1NHP, before_1KGSC = (t.transpose(0, 1).flatten(1, 2).unsqueeze(0) for t in (dy_BNHP, before_BKGSC))
        dx, ddt, dA, dB, dC = _backward(dy_1NHP, before_1KGSC, *_folded(*arguments), chunk)
        dx, ddt, dB, dC = (_unfolded(d, len(x_BNHP)) for d in (dx, ddt, dB, dC))
        return dx, ddt, torch.unflatten(dA, 0, (len(x_BNHP), -1)).sum(0), dB, dC
    dx, ddt, dA, dB, dC = (torch.empty_like(a, memory_format=torch.contiguous_format) for a in arguments)
    dA_GJ = before_BKGSC.new_zeros((B_BNGS.shape[2], A_H.shape[0] // B_BNGS.shape[2]))
    for b in range(len(x_BNHP)):
        inputs = _arrange(x_BNHP[b], dt_BNH[b], A_H, B_BNGS[b], C_BNGS[b])
        out = _arrange(dx[b], ddt[b], dA, dB[b], dC[b])
        dy_NGJP = torch.unflatten(dy_BNHP[b], 1, dA_GJ.shape)
        dstate_GSC = torch.zeros_like(before_BKGSC[b, 0])
        for k, (start, stop) in reversed(list(enumerate(_bounds(x_BNHP.shape[1], chunk)))):
            dy_QGJP = dy_NGJP[start:stop].to(dA_GJ.dtype)
            found = _chunk_gradients(inputs.chunk(start, stop), dy_QGJP, before_BKGSC[b, k], dstate_GSC)
            out.x_NGJP[start:stop], out.dt_NGJ[start:stop] = found.x_NGJP, found.dt_NGJ
            out.B_GNS[:, start:stop], out.C_GNS[:, start:stop] = found.B_GNS, found.C_GNS
            dA_GJ += found.A_GJ
    return dx, ddt, dA.copy_(dA_GJ.flatten()), dB, dC


_backward_op = torch.library.custom_op("m4v::ssd_backward", _backward, mutates_args=())


@_backward_op.register_fake
def _(
    dy_BNHP: Tensor,
    before_BKGSC: Tensor,
    x_BNHP: Tensor,
    dt_BNH: Tensor,
    A_H: Tensor,
    B_BNGS: Tensor,
    C_BNGS: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    arguments = (x_BNHP, dt_BNH, A_H, B_BNGS, C_BNGS)
    dx, ddt, dA, dB, dC = (torch.empty_like(a, memory_format=torch.contiguous_format) for a in arguments)
    return dx, ddt, dA, dB, dC


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1], *inputs[:-1])
    ctx.chunk = inputs[-1]


def _differentiate(ctx: Any, dy_BNHP: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*_backward_op(dy_BNHP, *ctx.saved_tensors, ctx.chunk), None)


_ssd_op.register_autograd(_differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.m4v.ssd)
def _(x: tuple[int, int, int, int], dt: Any, A: Any, B: tuple[int, ...], C: Any, chunk: int, **_: Any) -> int:
    return ssd_flops(*x, groups=B[2], state=B[3], chunk=chunk)


@register_flop_formula(torch.ops.m4v.ssd_backward)
def _(
    dy: tuple[int, int, int, int],
    before: Any,
    x: Any,
    dt: Any,
    A: Any,
    B: tuple[int, ...],
    C: Any,
    chunk: int,
    **_: Any,
) -> int:
    return ssd_backward_flops(*dy, groups=B[2], state=B[3], chunk=chunk)
