"""Optimisers by name, and the moving average of weights; their state is kept by parameter name, not by number.

Names survive what numbers do not: another order of parameters, another split over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from m4v.recipe import TrainConfig

State = dict[str, dict[str, Any]]
"""State of an optimiser: `{parameter name: {entry: tensor or number}}`."""


def make_optimizers(module: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """The optimisers of all trainable parameters: one, or with Muon two.

    Muon (Jordan et al. 2024) updates the hidden matrices, the weights of linear layers inside blocks; AdamW the rest.
    Its update is scaled to AdamW's, so that one learning rate serves both (Liu et al., arXiv 2502.16982).
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if config.optimizer == "adafactor":
        return [torch.optim.Adafactor(named.values(), lr=config.lr, weight_decay=config.weight_decay)]
    hidden = [name for name in named if config.optimizer == "muon" and is_hidden_matrix(name, named[name])]
    rest = [p for name, p in named.items() if name not in hidden]
    fused = all(p.device.type == "cpu" and not isinstance(p, DTensor) for p in rest)  # several times faster there
    adamw = torch.optim.AdamW(
        rest, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=fused
    )
    if not hidden:
        return [adamw]
    muon = torch.optim.Muon(
        [named[name] for name in hidden],
        lr=config.lr,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, adamw]


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """A linear weight inside a block, modulation apart: that one maps the condition, not the tokens."""
    inside = ".blocks." in f".{name}" and name.endswith(".weight")
    return inside and parameter.ndim == 2 and ".modulation" not in name


def set_lr(optimizers: Sequence[Optimizer], lr: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr


def gather_state(module: nn.Module, optimizers: Sequence[Optimizer], whole: Callable[[Tensor], Tensor]) -> State:
    """The optimisers' state by parameter name; `whole` makes a full tensor on the CPU of one that may be sharded."""
    return {
        name: {entry: whole(value) if isinstance(value, Tensor) else value for entry, value in found.state[p].items()}
        for name, p in module.named_parameters()
        for found in optimizers
        if p in found.state
    }


def restore_state(
    module: nn.Module, optimizers: Sequence[Optimizer], state: Mapping[str, Mapping[str, Any]], like: Callable[..., Any]
) -> None:
    """Inverse of `gather_state`; `like(parameter, tensor)` lays a full tensor out as the parameter is."""
    owners = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    for name, p in module.named_parameters():
        if name in state:
            owners[id(p)].state[p] = {
                entry: like(p, value) if isinstance(value, Tensor) else value for entry, value in state[name].items()
            }


class Average:
    """Exponential moving average of all trainable weights, on the device and in the shards of the weights themselves.

    It warms up as (1 + n) / (10 + n), so that a short run is not an average of its random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after step `step`, counted from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        found = dict(module.named_parameters())
        now = [found[name].detach() for name in self.weights]
        merge = get_ema_multi_avg_fn(1 - share)  # type: ignore[no-untyped-call]
        merge(list(self.weights.values()), now, None)
