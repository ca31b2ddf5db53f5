"""Random weights for shallow networks, spread so that the output depends on every part of the input."""

from __future__ import annotations

import torch
from torch import nn


def randomize(network: nn.Module, seed: int) -> None:
    """Draw matrices that keep the variance, embeddings that matter, and small biases; norms stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.dim() >= 2 and "embed" not in name.split(".")[-1]:
            spread = parameter[0].numel() ** -0.5
        elif "bias" in name:
            spread = 0.02
        elif "embed" in name or "token" in name:
            spread = 0.5
        else:
            continue
        nn.init.normal_(parameter, std=spread, generator=generator)
    network.eval().requires_grad_(False)
