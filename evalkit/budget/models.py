"""Training and sampling: FLOPs over what a GPU reaches of its peak, on so many GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from evalkit.budget.stated import UTILISATION
from evalkit.errors import UserError, unknown
from evalkit.flops.work import ModelWork

BYTES_PER_PARAMETER = 16
"""Weights, their moving average and two moments of the optimiser, float32."""
CHECKPOINTS = 2
"""`last.pt` and `previous.pt`."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by its data sheet.

    Args:
        name: as asked for.
        peak: FLOP/s in bfloat16.
        source: of the figure.
        utilisation: the share of it that training and sampling reach.
    """

    name: str
    peak: float
    source: str
    utilisation: float = UTILISATION

    def seconds(self, flops: float) -> float:
        return flops / (self.peak * self.utilisation)


def find_gpu(name: str, utilisation: float) -> Gpu:
    """A GPU of a known data sheet.

    Raises:
        UserError: none is known, or a utilisation outside (0, 1].
    """
    import torch

    from evalkit.latency.peaks import SHEETS, published

    if not 0 < utilisation <= 1:
        raise UserError(f"--utilisation {utilisation:g} is no share of a peak.", "Give more than 0, at most 1.")
    peak = published(name, torch.bfloat16)
    if peak is None:
        raise unknown(
            "GPU with a known data sheet", name, [sheet.gpu.replace("(SXM4|PCIE)", "SXM4") for sheet in SHEETS]
        )
    return Gpu(name, peak.flops, peak.source, utilisation)


def training_seconds(model: ModelWork, gpu: Gpu, gpus: int) -> float:
    """A step's clips are shared as evenly as whole clips can be; the GPU with the most of them decides."""
    return gpu.seconds(model.training / model.batch) * -(-model.batch // min(gpus, model.batch))


def sampling_seconds(model: ModelWork, videos: int, gpu: Gpu, gpus: int) -> float:
    """Videos are shared as whole videos; the GPU with the most of them decides."""
    return gpu.seconds(model.sampling) * -(-videos // gpus)


def checkpoint_bytes(model: ModelWork) -> int:
    """Of one training run."""
    return BYTES_PER_PARAMETER * CHECKPOINTS * model.parameters
