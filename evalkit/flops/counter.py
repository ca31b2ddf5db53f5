"""Counting the arithmetic of one forward pass on the meta device: no weight is allocated, nothing is computed.

`torch.utils.flop_counter.FlopCounterMode` counts matrix products, convolutions and attention, and the registered
formulas of `m4v.scan` for state-space operators; element-wise work, norms and softmax are not counted, as in the
papers. On the meta device attention is counted in full; on the CPU the fused kernel would count as nothing.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from m4v.layout import Evaluation
    from m4v.variants import ModelConfig

Formula = Callable[..., int]


@dataclass(frozen=True)
class Count:
    """FLOPs of one forward pass at 2 per multiply-add.

    `operators` has for each module what it computes itself, not in its children, by operator: `aten.addmm`, `m4v.ssd`.
    Keys are dotted paths such as `blocks.3.mixer.qkv.0`; the outermost module's own work has the key `""`. `parameters`
    is the number of weights.
    """

    operators: dict[str, dict[str, float]]
    parameters: int

    @property
    def by_module(self) -> dict[str, float]:
        """What each module computes itself; the values add up to `total`."""
        return {path: sum(ops.values()) for path, ops in self.operators.items()}

    @property
    def total(self) -> float:
        return sum(self.by_module.values())

    def of(self, *operators: str, path: str | None = None) -> float:
        """FLOPs of some operators, in one module or in all."""
        modules = self.operators.values() if path is None else [self.operators.get(path, {})]
        return sum(ops.get(operator, 0.0) for ops in modules for operator in operators)


def count_module(
    module: nn.Module,
    inputs: Sequence[Any],
    *,
    formulas: dict[Any, Formula] | None = None,
    keywords: dict[str, Any] | None = None,
) -> Count:
    """Count `module(*inputs, **keywords)`; module and inputs may live on any device, best on meta.

    `formulas` replace the registered FLOP formulas, by operator packet.
    """
    root = type(module).__name__
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with torch.no_grad(), counter, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the counter's own deprecation notes are not the user's business
        module(*inputs, **(keywords or {}))
    counts = counter.get_flop_counts()
    inclusive = {key.removeprefix(root).removeprefix("."): ops for key, ops in counts.items() if key != "Global"}
    named = {key: {str(op): float(n) for op, n in ops.items()} for key, ops in inclusive.items()}
    named[""] = {str(op): float(n) for op, n in counts.get("Global", {}).items()}
    return Count(exclusive(named), sum(p.numel() for p in module.parameters()))


ATTENTION = ("aten.bmm", "aten.baddbmm")
"""The operators that softmax attention's two products are counted as on the meta device."""


def exclusive(inclusive: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """What each module does outside its listed descendants."""
    own = {key: dict(ops) for key, ops in inclusive.items()}
    for key, ops in inclusive.items():
        if key:
            above = own[parent(key, own)]
            for op, flops in ops.items():
                above[op] = above.get(op, 0.0) - flops
    return {key: kept for key, ops in own.items() if (kept := {op: flops for op, flops in ops.items() if flops})}


def parent(key: str, known: Collection[str]) -> str:
    """The nearest listed ancestor of a dotted path; lists of modules do not run and are not listed."""
    while "." in key:
        key = key.rpartition(".")[0]
        if key in known:
            return key
    return ""


class ForwardCounter:
    """Counts forward passes of one configuration: built once on the meta device, equal blocks run once.

    Blocks of the same class and parameter shapes cost the same, so one of each kind runs and its count stands for all;
    that a full run gives the same figures is a test over all systems. `every_block` runs them all, which is needed
    where blocks see different tokens (MaskDiT).
    """

    def __init__(
        self, config: ModelConfig, formulas: dict[Any, Formula] | None = None, *, every_block: bool = False
    ) -> None:
        self.config, self.formulas = config, formulas
        self.model = build_on_meta(config)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.originals = [] if every_block else keep_one_of_each(self.model)

    def __call__(self, evaluation: Evaluation, *, text_tokens: int | None = None, **keywords: Any) -> Count:
        """Count one forward pass, batch 1, without guidance.

        `text_tokens` is the length of the prompt, default the configuration's; `keywords` go to the model's forward.
        """
        from m4v.variants import example_inputs

        inputs = example_inputs(self.config, evaluation.units, text_tokens=text_tokens)
        count = count_module(
            self.model, inputs, formulas=self.formulas, keywords={"stage": evaluation.stage, **keywords}
        )
        return Count(self._all(count.operators), self.parameters)

    def _all(self, operators: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        """Give the count of a representative block to every block that it stands for."""
        out: dict[str, dict[str, float]] = {}
        for key, flops in operators.items():
            head, _, rest = key.partition(".")
            index, _, inner = rest.partition(".")
            if not self.originals or head != BLOCKS or not index.isdigit():
                out[key] = flops
                continue
            out |= {f"{BLOCKS}.{i}{'.' * bool(inner)}{inner}": flops for i in self.originals[int(index)]}
        return out


BLOCKS = "blocks"
"""The attribute that holds a model's repeated blocks."""


def keep_one_of_each(model: nn.Module) -> list[list[int]]:
    """Thin `model.blocks` to one block of each kind, in place; returns which blocks each of them stands for."""
    blocks = getattr(model, BLOCKS, None)
    if not isinstance(blocks, nn.ModuleList):
        return []
    kinds: dict[object, list[int]] = defaultdict(list)
    for index, block in enumerate(blocks):
        kinds[type(block), tuple((name, tuple(p.shape)) for name, p in block.named_parameters())].append(index)
    originals = list(kinds.values())
    setattr(model, BLOCKS, nn.ModuleList(blocks[indices[0]] for indices in originals))
    return originals


def count_forward(config: ModelConfig, evaluation: Evaluation, *, text_tokens: int | None = None) -> Count:
    """Count one forward pass of a configuration, batch 1, without guidance; see `ForwardCounter`."""
    return ForwardCounter(config)(evaluation, text_tokens=text_tokens)


def build_on_meta(config: ModelConfig) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return config.build()
