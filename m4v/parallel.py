"""One process or many: data parallel (DDP) and sharded (FSDP2) training under `torchrun`.

Processes share the micro-batches of a step, so that many compute what one would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from m4v.recipe import Recipe, System


class Processes(NamedTuple):
    """This process among all, and where it computes."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, micro_batches: int) -> range:
        """The micro-batches of this process.

        Raises:
            ValueError: they do not divide among the processes.
        """
        if micro_batches % self.size:
            raise ValueError(
                f"{micro_batches} micro-batches do not divide among {self.size} processes: "
                f"set train.micro_batch to the batch divided by a multiple of {self.size}"
            )
        return range(self.rank, micro_batches, self.size)

    def mean(self, *values: float) -> list[float]:
        """The mean over processes of some numbers."""
        if self.size == 1:
            return list(values)
        sum_V = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sum_V)
        return [value / self.size for value in sum_V.tolist()]

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """The processes that `torchrun` started, or this one alone; a group that is already there is used and kept."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device("cuda", local) if kind == "cuda" else torch.device(kind)
    started = size > 1 and not dist.is_initialized()
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if started:
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Processes(rank, size, where)
    finally:
        if started:
            dist.destroy_process_group()


def distribute(system: System, recipe: Recipe, where: Processes) -> nn.Module:
    """The system as it is called in training: itself, its DDP wrapper, or itself with sharded parameters."""
    if where.size == 1:
        return system
    if not recipe.train.shard:
        ids = [where.device.index] if where.device.type == "cuda" else None
        # Parts that some steps leave out (MaskDiT's token, say) have no gradient there.
        return DistributedDataParallel(system, device_ids=ids, find_unused_parameters=True)
    mesh = dist.device_mesh.init_device_mesh(where.device.type, (where.size,))
    for block in blocks(system):
        fully_shard(block, mesh=mesh)
    fully_shard(system, mesh=mesh)
    return system


def blocks(system: System) -> list[nn.Module]:
    """The blocks of the velocity model, the units in which memory is saved."""
    return list(getattr(system.velocity, "blocks", []))


def without_sync(module: nn.Module, last: bool) -> Any:
    """A context in which gradients stay local until the last micro-batch of a step."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on the CPU; all processes must ask together."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu().clone()


def like(parameter: Tensor, full: Tensor) -> Tensor:
    """A full tensor laid out as a parameter is: on its device and, if it has the same shape, in its shards.

    Step counters (of no axes) stay on the CPU, where optimisers keep them.
    """
    if full.ndim == 0:
        return full.clone()
    if isinstance(parameter, DTensor) and full.shape == parameter.shape:
        return distribute_tensor(full.to(parameter.device), parameter.device_mesh, parameter.placements)
    return full.to(parameter.device, copy=True)
