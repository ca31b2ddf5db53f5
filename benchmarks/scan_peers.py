"""What `benchmarks.scan_speed` compares with: the reference algorithms, stated again in plain PyTorch from the papers.

They follow the published equations and, where that decides the cost, the public reference's order of work: the
selective scan keeps channels before time and computes all decays at once (Gu and Dao 2023, arXiv 2312.00752,
Algorithm 2, as in the package's `selective_scan_ref`); SSD is the paper's Listing 1 (Dao and Gu 2024, arXiv
2405.21060). No code is theirs.
`official` runs the package's own functions from a checkout instead, where there is one.

Axes: B batch, N tokens, D channels, S state, H heads, P channels of a head; K chunks, Q and R tokens of a chunk.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x_BND, dt_BND, A_DS, B_BNS, C_BNS) -> y_BND, B and C shared by all channels."""
Ssd = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x_BNHP, dt_BNH, A_H, B_BNHS, C_BNHS) -> y_BNHP, B and C of each head."""


def reference_scan(x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNS: Tensor, C_BNS: Tensor) -> Tensor:
    """All decays and inputs at once, then one token after the other by index."""
    x_BDN, dt_BDN, B_BSN, C_BSN = (t.transpose(1, 2).contiguous() for t in (x_BND, dt_BND, B_BNS, C_BNS))
    decay_BDNS = torch.exp(torch.einsum("bdn,ds->bdns", dt_BDN, A_DS))
    enter_BDNS = torch.einsum("bdn,bsn,bdn->bdns", dt_BDN, B_BSN, x_BDN)
    h_BDS = A_DS.new_zeros((len(x_BND), *A_DS.shape))
    outputs = []
    for n in range(x_BND.shape[1]):
        h_BDS = decay_BDNS[:, :, n] * h_BDS + enter_BDNS[:, :, n]
        outputs.append(torch.einsum("bds,bs->bd", h_BDS, C_BSN[:, :, n]))
    return torch.stack(outputs, dim=1)


def unbind_scan(x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNS: Tensor, C_BNS: Tensor) -> Tensor:
    """As `reference_scan`, but time is first in memory and taken apart once: no index, whose gradient is all of it."""
    x_NBD, dt_NBD, B_NBS, C_NBS = (t.transpose(0, 1).contiguous() for t in (x_BND, dt_BND, B_BNS, C_BNS))
    decay_NBDS = torch.exp(dt_NBD[..., None] * A_DS)
    enter_NBDS = (dt_NBD * x_NBD)[..., None] * B_NBS[:, :, None]
    h_BDS = A_DS.new_zeros((len(x_BND), *A_DS.shape))
    states = []
    for decay_BDS, enter_BDS in zip(decay_NBDS.unbind(), enter_NBDS.unbind(), strict=True):
        h_BDS = decay_BDS * h_BDS + enter_BDS
        states.append(h_BDS)
    y_NBD: Tensor = (torch.stack(states) @ C_NBS[..., None]).squeeze(-1)
    return y_NBD.transpose(0, 1)


def unbind_tokens_scan(x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNS: Tensor, C_BNS: Tensor) -> Tensor:
    """One token after the other, nothing computed ahead."""
    h_BDS = A_DS.new_zeros((len(x_BND), *A_DS.shape))
    outputs = []
    for x_BD, dt_BD, B_BS, C_BS in zip(*(t.unbind(1) for t in (x_BND, dt_BND, B_BNS, C_BNS)), strict=True):
        h_BDS = torch.exp(dt_BD[..., None] * A_DS) * h_BDS + (dt_BD * x_BD)[..., None] * B_BS[:, None]
        outputs.append((h_BDS @ C_BS[..., None]).squeeze(-1))
    return torch.stack(outputs, dim=1)


def between(a: Tensor) -> Tensor:
    """Sums of a over (r, q], (..., q, r), minus infinity for r > q; summed without subtraction, as in the listing."""
    size = a.shape[-1]
    every = torch.ones(size, size, dtype=torch.bool, device=a.device)
    spread = a[..., None].expand(*a.shape, size).masked_fill(~every.tril(-1), 0)
    return spread.cumsum(-2).masked_fill(~every.tril(), -torch.inf)


def minimal_ssd(chunk: int) -> Ssd:
    """SSD by chunks (Listing 1): within chunks, their states, states carried on and read. N is a multiple of chunk."""

    def run(x_BNHP: Tensor, dt_BNH: Tensor, A_H: Tensor, B_BNHS: Tensor, C_BNHS: Tensor) -> Tensor:
        xdt, B, C = (torch.unflatten(t, 1, (-1, chunk)) for t in (x_BNHP * dt_BNH[..., None], B_BNHS, C_BNHS))
        a_BHKQ = torch.unflatten((dt_BNH * A_H), 1, (-1, chunk)).permute(0, 3, 1, 2)
        sum_BHKQ = a_BHKQ.cumsum(-1)
        within = torch.einsum("bkqhs,bkrhs,bhkqr,bkrhp->bkqhp", C, B, between(a_BHKQ).exp(), xdt)
        to_end = (sum_BHKQ[..., -1:] - sum_BHKQ).exp()
        states = torch.einsum("bkrhs,bhkr,bkrhp->bkhps", B, to_end, xdt)
        states = torch.cat([torch.zeros_like(states[:, :1]), states], dim=1)
        across = between(F.pad(sum_BHKQ[..., -1], (1, 0))).exp()
        before = torch.einsum("bhkj,bjhps->bkhps", across, states)[:, :-1]
        read = torch.einsum("bkqhs,bkhps,bhkq->bkqhp", C, before, sum_BHKQ.exp())
        return (within + read).flatten(1, 2)

    return run


def definitions(file: Path, *names: str, **known: Any) -> dict[str, Any]:
    """Functions of a source file by name, without running the rest of it (which imports CUDA kernels).

    Raises:
        ValueError: the file lacks one of them.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    space: dict[str, Any] = {"torch": torch, "F": F, **known}
    exec(compile(tree, str(file), "exec"), space)
    if missing := [name for name in names if name not in space]:
        raise ValueError(f"{file}: no function {missing[0]}")
    return {name: space[name] for name in names}


def official_scan(checkout: Path) -> Scan:
    """The `selective_scan_ref` of a checkout of state-spaces/mamba."""
    file = checkout / "mamba_ssm" / "ops" / "selective_scan_interface.py"
    reference = definitions(file, "selective_scan_ref")["selective_scan_ref"]

    def run(x_BND: Tensor, dt_BND: Tensor, A_DS: Tensor, B_BNS: Tensor, C_BNS: Tensor) -> Tensor:
        x, dt, B, C = (t.transpose(1, 2).contiguous() for t in (x_BND, dt_BND, B_BNS, C_BNS))
        return cast(Tensor, reference(x, dt, A_DS, B, C)).transpose(1, 2)

    return run


def official_ssd(checkout: Path, chunk: int) -> Ssd:
    """The `ssd_minimal_discrete` of a checkout of state-spaces/mamba; needs einops."""
    einops = importlib.import_module("einops")
    file = checkout / "mamba_ssm" / "modules" / "ssd_minimal.py"
    minimal = definitions(file, "segsum", "ssd_minimal_discrete", rearrange=einops.rearrange, repeat=einops.repeat)[
        "ssd_minimal_discrete"
    ]

    def run(x_BNHP: Tensor, dt_BNH: Tensor, A_H: Tensor, B_BNHS: Tensor, C_BNHS: Tensor) -> Tensor:
        return cast(Tensor, minimal(x_BNHP * dt_BNH[..., None], dt_BNH * A_H, B_BNHS, C_BNHS, chunk)[0])

    return run
