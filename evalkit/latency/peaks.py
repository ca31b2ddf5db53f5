"""What a device could do at best: published figures of a GPU, else measured with a large matmul and a large copy.

Published figures are dense (without structured sparsity). `fp32` is without tensor cores, PyTorch's default for
matmuls; `tf32` counts where a program has allowed it. bf16 and fp16 accumulate in float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

from evalkit.latency.clock import Clock, time_call

TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True, slots=True)
class Peak:
    """FLOP/s and bytes/s of a device at one dtype, and where the two figures come from."""

    flops: float
    bandwidth: float
    source: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A published data sheet: TFLOP/s by dtype, GB/s; `half` stands for bf16 and fp16."""

    gpu: str
    half: float
    tf32: float
    fp32: float
    bandwidth: float
    source: str


A100 = "NVIDIA A100 Tensor Core GPU data sheet"
H100 = "NVIDIA H100 Tensor Core GPU data sheet, dense"
H200 = "NVIDIA H200 Tensor Core GPU data sheet, dense"
SHEETS = (
    Sheet(r"A100-(SXM4|PCIE)-40GB", 312, 156, 19.5, 1555, A100),
    Sheet(r"A100-SXM4-80GB", 312, 156, 19.5, 2039, A100),
    Sheet(r"A100 80GB PCIe", 312, 156, 19.5, 1935, A100),
    Sheet(r"H100 80GB HBM3", 989, 494, 67, 3350, H100),
    Sheet(r"H100 PCIe", 756, 378, 51, 2000, H100),
    Sheet(r"H200", 989, 494, 67, 4800, H200),
    Sheet(r"L40S", 362, 183, 91.6, 864, "NVIDIA L40S data sheet, dense"),
    Sheet(r"A10", 125, 62.5, 31.2, 600, "NVIDIA A10 data sheet, dense"),
    Sheet(r"GeForce RTX 4090", 165.2, 82.6, 82.6, 1008, "NVIDIA Ada GPU Architecture white paper, dense"),
    Sheet(r"GeForce RTX 3090", 71, 35.6, 35.6, 936, "NVIDIA Ampere GA102 white paper, dense"),
)
"""By the whole name that `torch.cuda.get_device_name` gives: a slice of a GPU (MIG) has another, and is measured."""


def published(gpu: str, dtype: torch.dtype, *, tf32: bool = False) -> Peak | None:
    """The figures of a data sheet, or None for a GPU that is not in the table."""
    for sheet in SHEETS:
        if re.fullmatch(rf"(NVIDIA )?{sheet.gpu}", gpu):
            single = sheet.tf32 if tf32 else sheet.fp32
            tflops = single if dtype == torch.float32 else sheet.half
            return Peak(tflops * TERA, sheet.bandwidth * GIGA, f"published: {sheet.source}")
    return None


def peak_of(device: torch.device, dtype: torch.dtype, clock: Clock) -> Peak:
    """The published peak of a GPU that is known by name, else the measured one."""
    if device.type == "cuda":
        tf32 = torch.get_float32_matmul_precision() != "highest"
        known = published(torch.cuda.get_device_name(device), dtype, tf32=tf32)
        if known:
            return known
    return measured(device, dtype, clock)


def measured(device: torch.device, dtype: torch.dtype, clock: Clock) -> Peak:
    """The fastest of several square matmuls, and of several copies of 256 MiB (each byte read and written)."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.ones(side, side, device=device, dtype=dtype).normal_() for _ in range(2))
    flops = 2 * side**3 / _fastest(lambda: a @ b, clock)
    source = torch.ones(2**28, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    bandwidth = 2 * source.numel() / _fastest(lambda: target.copy_(source), clock)
    return Peak(flops, bandwidth, f"measured matmul peak ({side} x {side}) and copy of 256 MiB")


def _fastest(run: Callable[[], object], clock: Clock, warmup: int = 2, repeats: int = 5) -> float:
    return min([time_call(clock, run) for _ in range(warmup + repeats)][warmup:])
