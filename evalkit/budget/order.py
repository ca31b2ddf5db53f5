"""What is asked for: the work, how long its parts take, and where it is to run."""

from __future__ import annotations

from dataclasses import dataclass, field

from evalkit.budget.measured import Sizes
from evalkit.budget.models import Gpu
from evalkit.budget.rates import Clip, Rates
from evalkit.budget.stated import STARTUP_S
from evalkit.budget.work import Work
from evalkit.errors import UserError
from evalkit.flops.work import ModelWork

MOST = 10_000
"""GPUs, and runs, that a plan is for."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it is to run.

    Args:
        per_host: GPUs of a host.
        cores: CPU cores of a host; None if they are not to be a bound.
        startup: seconds until a process is ready to begin.
    """

    per_host: int = 8
    cores: int | None = None
    startup: float = STARTUP_S

    def cores_each(self, workers: int) -> float | None:
        """Cores for each of the workers on a host."""
        return None if self.cores is None else self.cores / workers


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Args:
        work: one run.
        rates: how long its parts take, for videos of `clip`.
        clip: the videos.
        gpus: numbers of GPUs to plan for.
        variants: models, each with a run of its own.
        seeds: trained or sampled anew so many times, each with a run of its own.
        machine: where.
        price: of a GPU-hour, in whatever currency; None if it is not given.
        sizes: measured sizes of files.
        models: what is to be trained and sampled; empty if the videos are there.
        gpu: what trains and samples.
    """

    work: Work
    rates: Rates
    clip: Clip
    gpus: tuple[int, ...] = (1, 8, 64, 1000)
    variants: int = 1
    seeds: int = 1
    machine: Machine = field(default_factory=Machine)
    price: float | None = None
    sizes: Sizes = field(default_factory=Sizes)
    models: tuple[ModelWork, ...] = ()
    gpu: Gpu | None = None

    def __post_init__(self) -> None:
        if not self.gpus or min(self.gpus) < 1 or max(self.gpus) > MOST:
            raise UserError(f"A plan is for 1 to {MOST:,} GPUs.", "Give them as --gpus 1,8,64.")
        counts = {"--variants": self.variants, "--seeds": self.seeds, "--gpus-per-host": self.machine.per_host}
        for option, value in counts.items():
            if value < 1:
                raise UserError(f"{option} {value} is less than one.", "Give 1 or more.")
        if self.runs > MOST:
            raise UserError(f"{self.runs:,} runs are more than {MOST:,}.", "Give fewer --variants or --seeds.")
        for option, amount in {"--startup": self.machine.startup, "--price": self.price}.items():
            if amount is not None and not 0 <= amount < float("inf"):
                raise UserError(f"{option} {amount:g} is no amount.", "Give a number from 0.")
        if self.models and self.gpu is None:
            raise UserError("Training cannot be planned without a GPU.", "Give --gpu.")

    @property
    def runs(self) -> int:
        return self.variants * self.seeds
