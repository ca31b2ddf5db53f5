"""LinGen's closed forms for a bidirectional Mamba-2 module (LinGen supplement, eq. 1 to 3).

Symbols: E expansion, N tokens, d width, d_s state size, d_h head dimension, K kernel size. All are counted at 2 FLOPs
for each multiply-add.
"""

from __future__ import annotations

from dataclasses import dataclass


def bimamba_flops(tokens: int, width: int, expand: int, state: int, head_dim: int) -> float:
    """Eq. 1 without its O(Nd): (6 + 2 / d_h) E N d^2 + 4 N d_s d, the projections, shared by both directions."""
    return (6 + 2 / head_dim) * expand * tokens * width**2 + 4 * tokens * state * width


def conv_flops(tokens: int, width: int, expand: int, kernel: int, directions: int = 2) -> float:
    """Eq. 2, 2 E K (N + K - 1) d for each direction: the convolution of x, its padding counted."""
    return directions * 2 * expand * kernel * (tokens + kernel - 1) * width


def ssm_flops(tokens: int, width: int, expand: int, state: int, directions: int = 2) -> float:
    """Eq. 3, 4 E N d_s d + 2 E N d for each direction: the recurrence."""
    return directions * (4 * expand * tokens * state * width + 2 * expand * tokens * width)


@dataclass(frozen=True, slots=True)
class ClosedForms:
    """The three terms for one module, in FLOPs."""

    projections: float
    convolution: float
    ssm: float

    @property
    def total(self) -> float:
        return self.projections + self.convolution + self.ssm


def closed_forms(tokens: int, width: int, expand: int, state: int, head_dim: int, kernel: int) -> ClosedForms:
    """All three for a bidirectional module."""
    return ClosedForms(
        bimamba_flops(tokens, width, expand, state, head_dim),
        conv_flops(tokens, width, expand, kernel),
        ssm_flops(tokens, width, expand, state),
    )
