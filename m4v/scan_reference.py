"""The recurrences of `m4v.scan` written out token by token: slow, differentiated by autograd, and easy to believe.

B batch, N tokens, D channels, H heads, P channels of a head, S state, G groups of B and C, K taps of the convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor


def selective_scan_reference(x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNGS: Tensor, C_BNGS: Tensor) -> Tensor:
    """Mamba-1 (Gu and Dao 2023, Algorithm 2), one token after the other. Shapes as in `m4v.scan.selective_scan`."""
    per_group = x_BND.shape[2] // B_BNGS.shape[2]
    B_BNDS, C_BNDS = (m.repeat_interleave(per_group, dim=2) for m in (B_BNGS, C_BNGS))
    h_BDS = x_BND.new_zeros((x_BND.shape[0], *A_DS.shape))
    outputs = []
    for x_BD, dt_BD, B_BDS, C_BDS in zip(*(t.unbind(1) for t in (x_BND, dt_BND, B_BNDS, C_BNDS)), strict=True):
        h_BDS = torch.exp(dt_BD[..., None] * A_DS) * h_BDS + (dt_BD * x_BD)[..., None] * B_BDS
        outputs.append((h_BDS * C_BDS).sum(-1))
    return torch.stack(outputs, dim=1)


def ssd_reference(x_BNHP: Tensor, dt_BNH: Tensor, A_H: Tensor, B_BNGS: Tensor, C_BNGS: Tensor) -> Tensor:
    """Mamba-2 (Dao and Gu 2024, Section 6), one token after the other. Shapes as in `m4v.scan.ssd`."""
    per_group = x_BNHP.shape[2] // B_BNGS.shape[2]
    B_BNHS, C_BNHS = (m.repeat_interleave(per_group, dim=2) for m in (B_BNGS, C_BNGS))
    h_BHSP = x_BNHP.new_zeros((x_BNHP.shape[0], A_H.shape[0], B_BNGS.shape[3], x_BNHP.shape[3]))
    outputs = []
    for x_BHP, dt_BH, B_BHS, C_BHS in zip(*(t.unbind(1) for t in (x_BNHP, dt_BNH, B_BNHS, C_BNHS)), strict=True):
        entering_BHSP = B_BHS[..., None] * (dt_BH[..., None] * x_BHP)[..., None, :]
        h_BHSP = torch.exp(dt_BH * A_H)[..., None, None] * h_BHSP + entering_BHSP
        outputs.append((C_BHS[..., None] * h_BHSP).sum(-2))
    return torch.stack(outputs, dim=1)
