"""Stateless maths shared by the models: modulation, time embedding, rotary and sinusoidal positions, attention.

Axes: B batch, N tokens, D width, H heads, K head dimension, A position axes (time, row, column).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def modulate(x_BND: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    """Shift and scale normalised tokens by a condition (adaptive layer norm; DiT, Peebles & Xie 2023)."""
    return torch.addcmul(shift_B1D, x_BND, 1 + scale_B1D)


def fourier_features(t_B: Tensor, width: int, scale: float = 1000.0, period: float = 10_000.0) -> Tensor:
    """Cosines and sines of `scale * t` at `width / 2` geometric frequencies, (B, width), in float32."""
    exponents = torch.arange(width // 2, device=t_B.device, dtype=torch.float32) / (width // 2)
    angles = scale * t_B.float()[:, None] * torch.exp(-math.log(period) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotary_angles(positions_NA: Tensor, axes: Sequence[int], theta: float = 10_000.0) -> Tensor:
    """Angles of rotary embedding, one block of `axes[a]` dimensions per position axis, (N, sum(axes) / 2).

    Positions may be fractional: history at lower resolution lies between the tokens of the noisy frame
    (PyramidFlow Section 3.4). Source: RoFormer eq. 15, applied per axis as in FLUX.1.
    """
    blocks = []
    for axis, width in enumerate(axes):
        exponents = torch.arange(0, width, 2, device=positions_NA.device, dtype=torch.float32) / max(width, 1)
        blocks.append(positions_NA[:, axis, None].float() * theta**-exponents)
    return torch.cat(blocks, dim=-1)


def rotate(x_BNHK: Tensor, angles_NR: Tensor) -> Tensor:
    """Rotate consecutive pairs of the first 2R head dimensions by `angles_NR`; the rest passes unchanged.

    Computed in the type of the angles (float32), float64 if x is.
    """
    width = 2 * angles_NR.shape[-1]
    x = x_BNHK[..., :width].to(torch.promote_types(x_BNHK.dtype, angles_NR.dtype))
    even, odd = torch.unflatten(x, -1, (-1, 2)).unbind(-1)
    angles_N1R = angles_NR.to(x.dtype)[:, None]
    cos, sin = angles_N1R.cos(), angles_N1R.sin()
    turned: Tensor = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x_BNHK.dtype)
    return turned if width == x_BNHK.shape[-1] else torch.cat([turned, x_BNHK[..., width:]], dim=-1)


def sinusoids(positions_NA: Tensor, width: int, period: float = 10_000.0) -> Tensor:
    """Fixed sine-cosine embedding of positions, an equal share of `width` per axis, (N, width), in float32."""
    share = width // positions_NA.shape[1] // 2 * 2
    parts = [fourier_features(axis_N, share, scale=1.0, period=period) for axis_N in positions_NA.unbind(1)]
    return F.pad(torch.cat(parts, dim=-1), (0, width - share * positions_NA.shape[1]))


def attention(q_BNHK: Tensor, k_BMHK: Tensor, v_BMHK: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention, (B, N, H, K); `mask` broadcasts to (B, H, N, M), True where a query sees a key.

    A query that sees nothing (text of an empty prompt) reads zeros.
    """
    q, k, v = (x.transpose(1, 2) for x in (q_BNHK, k_BMHK, v_BMHK))
    # The CPU's fused kernel has a slow backward pass in bfloat16; written out it is about twice as fast.
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is None:
            return torch.matmul(scores.softmax(-1), v).transpose(1, 2)
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
        return torch.mul(weights @ v, mask.any(-1, keepdim=True)).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def blockwise_causal(blocks_N: Tensor) -> Tensor:
    """Mask (N, N): a token sees the tokens of its own block and of earlier ones (PyramidFlow Section 3.4)."""
    return torch.ge(blocks_N[:, None], blocks_N[None, :])
