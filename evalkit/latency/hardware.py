"""What ran: the hardware's name, and whether two measurements come from the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from evalkit import provenance

IDENTITY = ("gpu", "gpu_memory_bytes", "cpu", "cores")
"""What must agree for two timings to be compared; the host's processor launches a GPU's kernels."""


def describe(device: torch.device) -> dict[str, Any]:
    """The hardware as it goes into the record."""
    found = provenance.hardware(str(device))
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "kind": device.type,
        **found,
        "gpu_memory_bytes": gpu.total_memory if gpu else None,
        "compute_capability": f"{gpu.major}.{gpu.minor}" if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
    }


def name(hardware: Mapping[str, Any]) -> str:
    """One line: what a reader must know to judge a time."""
    host = f"{hardware['cpu']}, {hardware['cores']} cores"
    if not hardware["gpu"]:
        return f"{host} (CPU)"
    return f"{hardware['gpu']} ({hardware['gpu_memory_bytes'] / 2**30:.0f} GiB), host {host}"


def is_a100(hardware: Mapping[str, Any]) -> bool:
    """Whether it is a whole A100, the GPU of M4V's published times; a slice of one (MIG) is not."""
    gpu = hardware["gpu"] or ""
    return re.search(r"\bA100\b", gpu) is not None and "MIG" not in gpu


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Fields in which two pieces of hardware differ, with both values."""
    return [
        f"{field} ({theirs.get(field)} there, {ours.get(field)} here)"
        for field in IDENTITY
        if ours.get(field) != theirs.get(field)
    ]
