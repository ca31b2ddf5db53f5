"""Guidance: velocities of several forward passes made into one. Pure functions, one line of mathematics each.

Every function is exact at its neutral scale: guidance 1 returns the conditional velocity bit for bit, self-quality 0
the low-quality one.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cfg(v_cond: Tensor, v_null: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: v_null + scale (v_cond - v_null) (Ho & Salimans 2022, eq. 6, in velocities)."""
    return torch.lerp(v_null, v_cond, scale)


def jit_cfg(v_joint: Tensor, v_null: Tensor, scale: float) -> Tensor:
    """Joint image-text guidance: one scale for both conditions (STIV Section 2.3.2).

    `v_joint` saw the text and the image, `v_null` neither of them; without an image it is `cfg`.
    """
    return cfg(v_joint, v_null, scale)


def renormalise(v: Tensor, v_cond: Tensor) -> Tensor:
    """The direction of the guided velocity with the norm of the conditional one, sample by sample (STIV Appendix D).

    Args:
        v: guided velocity (B, ...).
        v_cond: conditional velocity in the same shape.

    A velocity of zero has no direction and stays zero.
    """
    return v * (_norm(v_cond) / _norm(v).clamp_min(torch.finfo(torch.float32).tiny)).to(v)


def self_quality(v_l: Tensor, v_h: Tensor, weight: float) -> Tensor:
    """Self-quality guidance: v_l + weight (v_h - v_l) (M4V supplement, eq. 10).

    `v_l` is the guided velocity with the condition frames, `v_h` without them, as if an image were made.
    """
    return torch.lerp(v_l, v_h, weight)


def _norm(v: Tensor) -> Tensor:
    """Euclidean norm of each sample, at least in float32, broadcastable to `v`."""
    precise = v.to(torch.promote_types(v.dtype, torch.float32))
    norm: Tensor = torch.linalg.vector_norm(precise, dim=tuple(range(1, v.ndim)), keepdim=True)
    return norm
