"""Which implementation runs: own PyTorch everywhere, or the CUDA kernels of Mamba's authors where they are installed.

B batch, N tokens, D channels, S state, G groups of B and C, K taps of the convolution.
The kernels are imported on their first use, never before.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

_PACKAGES = {"selective_scan": "mamba_ssm", "ssd": "mamba_ssm", "causal_conv1d": "causal_conv1d"}
_KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_KERNEL_TAPS = range(2, 5)


def backend(op: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> str:
    """The implementation that runs `op` on `device`: "torch", "mamba_ssm" or "causal_conv1d".

    Raises:
        ValueError: `op` is not "selective_scan", "ssd" or "causal_conv1d".
    """
    if op not in _PACKAGES:
        raise ValueError(f"no operator {op!r}: there are {', '.join(_PACKAGES)}")
    usable = torch.device(device).type == "cuda" and dtype in _KERNEL_DTYPES and _installed(_PACKAGES[op])
    return _PACKAGES[op] if usable else "torch"


def kernel_scans(op: str, *tensors: Tensor) -> bool:
    """Whether a state-space operator on these tensors runs in a kernel of mamba_ssm."""
    return all(backend(op, tensor.device, tensor.dtype) != "torch" for tensor in tensors)


def kernel_convolves(x: Tensor, weight_DK: Tensor) -> bool:
    """Whether the convolution of `x` runs in the kernel of causal_conv1d, which knows two to four taps."""
    return weight_DK.shape[1] in _KERNEL_TAPS and kernel_scans("causal_conv1d", x, weight_DK)


class _Argument(NamedTuple):
    """How a kernel takes one tensor: its axes in terms of ours, and whether in float32 rather than one type for all."""

    axes: tuple[int, ...]
    float32: bool = False

    def prepared(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return tensor.to(torch.float32 if self.float32 else dtype).permute(self.axes).contiguous()

    def restored(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return tensor.permute(inverse).to(dtype).contiguous()


class Kernel(NamedTuple):
    """A public function of a kernel package, and how it takes our tensors; its output is laid out as its first one."""

    module: str
    name: str
    arguments: tuple[_Argument, ...]

    def __call__(self, tensors: Sequence[Tensor | None], *settings: Any) -> Tensor:
        y: Tensor = self._function()(*self._prepared(tensors), *settings)
        return self.arguments[0].restored(y, _first(tensors).dtype)

    def gradients(self, tensors: Sequence[Tensor | None], dy: Tensor, *settings: Any) -> list[Tensor]:
        """Gradients of the tensors that are there, by the kernel's own backward after running it once more.

        Layouts are changed outside of the differentiated part: inside an operator PyTorch records no operations of its
        own, but it does record the kernel, which is an `autograd.Function`.
        """
        leaves = [None if t is None else t.detach().requires_grad_() for t in self._prepared(tensors)]
        with torch.enable_grad():
            y = self._function()(*leaves, *settings)
        dy = self.arguments[0].prepared(dy, y.dtype)
        found = iter(torch.autograd.grad(y, [leaf for leaf in leaves if leaf is not None], dy))
        pairs = zip(self.arguments, tensors, strict=True)
        return [argument.restored(next(found), tensor.dtype) for argument, tensor in pairs if tensor is not None]

    def _prepared(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        dtype, pairs = _first(tensors).dtype, list(zip(self.arguments, tensors, strict=True))
        for argument, tensor in pairs:
            if tensor is not None and not argument.float32:
                dtype = torch.promote_types(dtype, tensor.dtype)
        return [None if tensor is None else argument.prepared(tensor, dtype) for argument, tensor in pairs]

    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(importlib.import_module(self.module), self.name)
        return function


def _first(tensors: Sequence[Tensor | None]) -> Tensor:
    x = tensors[0]
    assert x is not None
    return x


_TOKENS_LAST, _STATES_LAST = _Argument((0, 2, 1)), _Argument((0, 2, 3, 1))
_AS_HERE = _Argument((0, 1, 2, 3))

# mamba_ssm 2.x: u (B, D, N), delta (B, D, N) of the same type, A (D, S) in float32, B and C (B, G, S, N).
SELECTIVE_SCAN = Kernel(
    "mamba_ssm.ops.selective_scan_interface",
    "selective_scan_fn",
    (_TOKENS_LAST, _TOKENS_LAST, _Argument((0, 1), float32=True), _STATES_LAST, _STATES_LAST),
)
# mamba_ssm 2.x: axes as here, then the chunk; it takes partial last chunks.
SSD = Kernel(
    "mamba_ssm.ops.triton.ssd_combined",
    "mamba_chunk_scan_combined",
    (_AS_HERE, _Argument((0, 1, 2), float32=True), _Argument((0,), float32=True), _AS_HERE, _AS_HERE),
)
# causal_conv1d 1.x: x (B, D, N), weight (D, K), bias (D) of the weight's type; channels last would need multiples of 8.
CAUSAL_CONV1D = Kernel(
    "causal_conv1d", "causal_conv1d_fn", (_TOKENS_LAST, _Argument((0, 1), float32=True), _Argument((0,), float32=True))
)


@cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
