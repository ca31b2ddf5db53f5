"""The short depthwise causal convolution before a scan: one multiply-add over the sequence per tap.

B batch, N tokens, D channels, K taps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from m4v.scan._backend import CAUSAL_CONV1D, kernel_convolves
from m4v.scan._checks import check_shapes
from m4v.scan.flops import causal_conv1d_backward_flops, causal_conv1d_flops


def causal_conv1d(x_BND: Tensor, weight_DK: Tensor, bias_D: Tensor | None = None) -> Tensor:
    """Depthwise causal convolution: y_n = bias + sum over k of weight_k x_{n-K+1+k}, zeros before the first token.

    The last tap weighs the token itself, as in `torch.nn.Conv1d`. Computed in float32 (float64 if an argument is); y
    has the type of x. Differentiable once, in all arguments. No activation.

    Raises:
        ValueError: the shapes do not fit each other.

    Source: the convolution of the Mamba block, Gu and Dao 2023 (arXiv 2312.00752), Section 3.4.
    """
    bias = {} if bias_D is None else {"bias": (bias_D, "D")}
    check_shapes("causal_conv1d", x=(x_BND, "BND"), weight=(weight_DK, "DK"), **bias)
    y_BND: Tensor = _conv_op(x_BND, weight_DK, bias_D)
    return y_BND


def _work(*tensors: Tensor | None) -> torch.dtype:
    work = torch.float32
    for tensor in tensors:
        work = work if tensor is None else torch.promote_types(work, tensor.dtype)
    return work


def _delays(tokens: int, taps: int) -> list[tuple[int, int]]:
    """(tap, how many tokens back it reads) for the taps that reach a token at all."""
    return [(taps - 1 - delay, delay) for delay in range(min(tokens, taps))]


@torch.library.custom_op("m4v::causal_conv1d", mutates_args=())
def _conv_op(x_BND: Tensor, weight_DK: Tensor, bias_D: Tensor | None) -> Tensor:
    if kernel_convolves(x_BND, weight_DK):
        return CAUSAL_CONV1D((x_BND, weight_DK, bias_D))
    work = _work(x_BND, weight_DK, bias_D)
    x, weight_KD, tokens = x_BND.to(work), weight_DK.to(work).t().contiguous(), x_BND.shape[1]
    y_BND = torch.empty_like(x, memory_format=torch.contiguous_format)
    torch.mul(x, weight_KD[-1], out=y_BND)
    if bias_D is not None:
        y_BND += bias_D
    for tap, delay in _delays(tokens, len(weight_KD))[1:]:
        y_BND[:, delay:].addcmul_(x[:, : tokens - delay], weight_KD[tap])
    return y_BND.to(x_BND.dtype)


@_conv_op.register_fake
def _(x_BND: Tensor, weight_DK: Tensor, bias_D: Tensor | None) -> Tensor:
    return torch.empty_like(x_BND, memory_format=torch.contiguous_format)


@torch.library.custom_op("m4v::causal_conv1d_backward", mutates_args=())
def _backward_op(
    dy_BND: Tensor, x_BND: Tensor, weight_DK: Tensor, bias_D: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (of a bias of zeros if there is none)."""
    if kernel_convolves(x_BND, weight_DK):
        dx, dweight, *dbias = CAUSAL_CONV1D.gradients((x_BND, weight_DK, bias_D), dy_BND)
        return dx, dweight, dbias[0] if dbias else torch.zeros_like(weight_DK[:, 0])
    work = _work(x_BND, weight_DK, bias_D)
    x, dy, tokens = x_BND.to(work), dy_BND.to(work), x_BND.shape[1]
    weight_KD = weight_DK.to(work).t().contiguous()
    dx, dweight_KD = torch.zeros_like(x, memory_format=torch.contiguous_format), torch.zeros_like(weight_KD)
    for tap, delay in _delays(tokens, len(weight_KD)):
        dx[:, : tokens - delay].addcmul_(dy[:, delay:], weight_KD[tap])
        dweight_KD[tap] = (dy[:, delay:] * x[:, : tokens - delay]).sum((0, 1))
    dbias_D = dy.sum((0, 1)).to(weight_DK.dtype if bias_D is None else bias_D.dtype)
    return dx.to(x_BND.dtype), dweight_KD.t().to(weight_DK.dtype).contiguous(), dbias_D


@_backward_op.register_fake
def _(dy_BND: Tensor, x_BND: Tensor, weight_DK: Tensor, bias_D: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x_BND, memory_format=torch.contiguous_format)
    dweight = torch.empty_like(weight_DK, memory_format=torch.contiguous_format)
    return dx, dweight, (weight_DK if bias_D is None else bias_D).new_empty(weight_DK.shape[0])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, dy_BND: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    saved = ctx.saved_tensors  # asked for once: recomputed activations can be unpacked a single time
    dx, dweight, dbias = _backward_op(dy_BND, *saved)
    return dx, dweight, None if saved[2] is None else dbias


_conv_op.register_autograd(_differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.m4v.causal_conv1d)
def _(x: tuple[int, int, int], weight: tuple[int, int], *_: Any, **__: Any) -> int:
    return causal_conv1d_flops(*x, weight[1])


@register_flop_formula(torch.ops.m4v.causal_conv1d_backward)
def _(dy: tuple[int, int, int], x: tuple[int, ...], weight: tuple[int, int], *_: Any, **__: Any) -> int:
    return causal_conv1d_backward_flops(*dy, weight[1])
