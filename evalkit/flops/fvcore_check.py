"""fvcore beside our count: an optional cross-check, with what it does not see.

fvcore traces the module and counts a multiply-add as one; it knows linear layers, convolutions, products and norms, and
has no rule for fused attention (`scaled_dot_product_attention`) nor for state-space operators, which it leaves out. Its
figure is therefore a lower bound, equal to ours on the linear layers.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.flops.counter import build_on_meta

if TYPE_CHECKING:
    from m4v.layout import Evaluation
    from m4v.variants import ModelConfig

HEAVY = ("scaled_dot_product_attention", "m4v::", "einsum", "conv", "matmul", "bmm")
"""Operators whose absence from a count matters; the others are element-wise or move data."""


@dataclass(frozen=True, slots=True)
class FvcoreCount:
    """fvcore's figure at 2 FLOPs per multiply-add, and how often it met heavy operators that it has no rule for."""

    by_operator: Mapping[str, float]
    missed: Mapping[str, int]

    @property
    def total(self) -> float:
        return sum(self.by_operator.values())

    @property
    def linear(self) -> float:
        return self.by_operator.get("linear", 0.0)


class _Positional(nn.Module):
    """The model with its inputs as a flat list of tensors, which is what tracing takes."""

    def __init__(self, model: nn.Module, units: int, stage: int) -> None:
        super().__init__()
        self.model, self.units, self.stage = model, units, stage

    def forward(self, *tensors: Tensor) -> Tensor:
        from m4v.variants import Text

        t_B, *text = tensors[self.units :]
        out: Tensor = self.model(list(tensors[: self.units]), t_B, Text(*text), stage=self.stage)
        return out


def fvcore_forward(config: ModelConfig, evaluation: Evaluation, *, text_tokens: int | None = None) -> FvcoreCount:
    """Count one forward pass of a configuration with fvcore, on the meta device."""
    from m4v.variants import example_inputs

    units, t_B, text = example_inputs(config, evaluation.units, text_tokens=text_tokens)
    return fvcore_module(_Positional(build_on_meta(config), len(units), evaluation.stage), (*units, t_B, *text))


def fvcore_module(module: nn.Module, inputs: tuple[Any, ...]) -> FvcoreCount:
    """Count any module with fvcore.

    Raises:
        UserError: fvcore is not installed.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every shape that it takes as a constant
        try:
            from fvcore.nn import FlopCountAnalysis
        except ImportError:
            raise UserError(
                "--counter fvcore: fvcore is not installed.", "Run pip install 'm4v-eval[fvcore]'."
            ) from None
        logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
        analysis = FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counted = {name: 2.0 * flops for name, flops in analysis.by_operator().items()}
        missed = {name.removeprefix("aten::"): n for name, n in analysis.unsupported_ops().items()}
    return FvcoreCount(counted, {name: n for name, n in missed.items() if any(heavy in name for heavy in HEAVY)})
