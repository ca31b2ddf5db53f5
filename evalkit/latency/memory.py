"""Peak memory of one forward pass: weights, inputs, and the most that the pass holds at any one time.

On a GPU the caching allocator keeps the figure (`torch.cuda.max_memory_allocated`): what tensors occupy, without what
the allocator holds in reserve, the CUDA context or other processes. On a CPU PyTorch keeps no such figure; there the
allocations and releases of one pass are recorded by `torch.profiler` and summed up. Neither sees memory that a library
takes without PyTorch's allocator.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

CUDA_METHOD = "torch.cuda.max_memory_allocated, other variants' share taken off"
CPU_METHOD = "weights and inputs, plus the highest sum of torch.profiler's allocation records of one pass"


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, and how they were found."""

    peak_bytes: int
    method: str


def occupied(device: torch.device) -> int:
    """Bytes of all tensors that are on a GPU now; 0 for a CPU, whose figure is built up from one pass."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def peak_memory(run: Callable[[], object], device: torch.device, *, resident: int, before: int) -> Memory:
    """Peak of `run`, whose weights and inputs take `resident` bytes; `before` them, so much was `occupied`."""
    if device.type != "cuda":
        return Memory(resident + _profiled_peak(run), CPU_METHOD)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return Memory(torch.cuda.max_memory_allocated(device) - before, CUDA_METHOD)


def _profiled_peak(run: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = run()
    del result  # held until here: what a pass returns counts
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    records = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    return highest(size for _, size in records)


def highest(changes: Iterable[int]) -> int:
    """The highest running sum of allocations (positive) and releases (negative), at least 0."""
    return max(accumulate(changes, initial=0))


def available() -> int | None:
    """Bytes that this process may still take on the host, by the kernel and the control group; None if unknown."""
    found = [size for size in (_kernel_available(), _group_available()) if size is not None]
    return min(found) if found else None


def _kernel_available() -> int | None:
    info = Path("/proc/meminfo")
    lines = info.read_text(encoding="ascii").splitlines() if info.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _group_available(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    limit, current = group / "memory.max", group / "memory.current"
    if not (limit.is_file() and current.is_file()):
        return None
    most = limit.read_text(encoding="ascii").strip()
    return int(most) - int(current.read_text(encoding="ascii")) if most.isdigit() else None
