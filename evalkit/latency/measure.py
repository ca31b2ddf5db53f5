"""The measurement: load the variants of a clip, take their memory, time them in turn, compare them with the first."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.latency import memory
from evalkit.latency.clock import Clock
from evalkit.latency.memory import Memory
from evalkit.latency.modules import Share, breakdown
from evalkit.latency.peaks import Peak
from evalkit.latency.roofline import Position, size_of, tensors_in
from evalkit.latency.spread import Ratio, Spread, ratio_of_medians, spread
from evalkit.latency.subjects import Network, Subject
from evalkit.latency.timing import Progress, attempt, out_of_memory, round_robin
from evalkit.workload import last_line

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BREAKDOWN_PASSES = 5
Order = Literal["round-robin", "alone"]


@dataclass(frozen=True)
class Settings:
    """How it is measured. `threads` are the CPU's."""

    model: str
    device: torch.device
    dtype: str
    compile: bool = False
    batch: int = 1
    threads: int = 1
    warmup: int = 3
    repeats: int = 20
    breakdown: bool = False
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "device": str(self.device),
            "dtype": self.dtype,
            "compile": self.compile,
            "batch": self.batch,
            "threads": self.threads,
            "warmup": self.warmup,
            "repeats": self.repeats,
            "seed": self.seed,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "timed": "one forward pass without gradients: last latent frame, full-resolution stage",
        }


@dataclass(frozen=True)
class Taken:
    """What was measured of a variant. `seconds` are in the order of the rounds.

    `graphs` is into how many pieces `torch.compile` cut the pass (1 is whole; between pieces Python runs), None if it
    was not compiled.
    """

    seconds: tuple[float, ...]
    parameters: int
    bytes_moved: int
    memory: Memory
    modules: tuple[Share, ...]
    inputs: tuple[tuple[int, ...], ...]
    order: Order
    graphs: int | None

    @property
    def spread(self) -> Spread:
        return spread(self.seconds)


@dataclass(frozen=True)
class Row:
    """A variant at a clip size: what was measured, or why nothing was."""

    subject: Subject
    taken: Taken | None
    failed: str | None
    parameters: int | None
    flops: float | None
    position: Position | None
    ratio: Ratio | None


@dataclass(frozen=True)
class _Ready:
    """A network that has run once."""

    network: Network
    run: Callable[[], object]
    bytes_moved: int
    memory: Memory
    graphs: int | None


class Bench:
    """Measures on one device with one set of settings."""

    def __init__(self, settings: Settings, clock: Clock, peak: Peak, progress: Progress) -> None:
        self.settings, self.clock, self.peak, self.progress = settings, clock, peak, progress
        self.device, self.dtype = settings.device, DTYPES[settings.dtype]

    def clip(self, subjects: list[Subject]) -> list[Row]:
        """The rows of one clip. A variant without room beside the others is measured once more, alone."""
        found = self.together(subjects, "round-robin")
        for subject in subjects:
            if isinstance(found[subject.variant], str) and len(subjects) > 1:
                found |= self.together([subject], "alone")
        first = found[subjects[0].variant]
        return [self._row(s, found[s.variant], None if s is subjects[0] else first, subjects[0]) for s in subjects]

    def together(self, subjects: list[Subject], order: Order) -> dict[str, Taken | str]:
        """What was measured of each variant, or why memory did not suffice; afterwards the device is free again."""
        try:
            return self._together(subjects, order)
        finally:
            self._release()

    def _together(self, subjects: list[Subject], order: Order) -> dict[str, Taken | str]:
        name = subjects[0].clip or subjects[0].model
        self.progress.start(f"{name}: loading", len(subjects))
        prepared = {subject.variant: self._prepare_or_reason(subject) for subject in subjects}
        ready = {variant: found for variant, found in prepared.items() if isinstance(found, _Ready)}
        settings = self.settings
        self.progress.start(f"{name}: rounds", settings.warmup + settings.repeats)
        samples = round_robin(
            {variant: found.run for variant, found in ready.items()},
            self.clock,
            warmup=settings.warmup,
            repeats=settings.repeats,
            seed=settings.seed,
            progress=self.progress,
        )
        reasons = {variant: found for variant, found in prepared.items() if isinstance(found, str)} | samples.failed
        return {
            s.variant: reasons.get(s.variant) or self._taken(s, ready[s.variant], samples.seconds[s.variant], order)
            for s in subjects
        }

    def _prepare_or_reason(self, subject: Subject) -> _Ready | str:
        found = attempt(partial(self._prepare, subject))
        self.progress.advance()
        if isinstance(found, str):
            self._release()
        return found

    def _prepare(self, subject: Subject) -> _Ready:
        before = memory.occupied(self.device)
        self._check_room(subject)
        network = subject.build(self.device, self.dtype)
        module = torch.compile(network.module, dynamic=False) if self.settings.compile else network.module
        run = partial(_forward, module, network.arguments, network.keywords)
        resident = network.resident_bytes
        result, graphs = self._first_run(subject, run)
        bytes_moved = resident + size_of(tensors_in(result))
        del result
        peak = memory.peak_memory(run, self.device, resident=resident, before=before)
        return _Ready(network, run, bytes_moved, peak, graphs)

    def _check_room(self, subject: Subject) -> None:
        """A CPU's memory is given out before it is there, and the kernel then ends the process: ask before."""
        count, free = subject.count(), memory.available()
        if self.device.type == "cpu" and count is not None and free is not None and 4 * count.parameters > free:
            raise MemoryError(
                f"the weights alone take {4 * count.parameters / 2**30:.1f} GiB while they are made in float32,"
                f" and {free / 2**30:.1f} GiB are free"
            )

    def _first_run(self, subject: Subject, run: Callable[[], object]) -> tuple[object, int | None]:
        """Run once, so that what cannot run at all is said in one line; the result, and the graphs that it compiled.

        Raises:
            UserError: an operator lacks the dtype on this device, or a user's network fails.
        """
        compiled = _graphs_so_far() if self.settings.compile else None
        try:
            return run(), None if compiled is None else _graphs_so_far() - compiled
        except Exception as e:
            if out_of_memory(e):
                raise
            if self.settings.dtype != "fp32" and (isinstance(e, NotImplementedError) or "not implemented" in str(e)):
                raise UserError(
                    f"{subject.variant} does not run in {self.settings.dtype} on {self.device}: {_reason(e)}.",
                    "Use --dtype fp32, or another device.",
                ) from None
            if subject.is_users:
                raise UserError(
                    f"The forward pass of {subject.variant} fails: {_reason(e)}.",
                    "Put the network or its inputs right.",
                ) from None
            raise

    def _taken(self, subject: Subject, ready: _Ready, seconds: list[float], order: Order) -> Taken | str:
        shares = attempt(partial(self._shares, subject, ready)) if self.settings.breakdown else ()
        if isinstance(shares, str):
            return shares
        return Taken(
            seconds=tuple(seconds),
            parameters=sum(p.numel() for p in ready.network.module.parameters()),
            bytes_moved=ready.bytes_moved,
            memory=ready.memory,
            modules=shares,
            inputs=tuple(tuple(x.shape) for x in tensors_in((ready.network.arguments, ready.network.keywords))),
            order=order,
            graphs=ready.graphs,
        )

    def _shares(self, subject: Subject, ready: _Ready) -> tuple[Share, ...]:
        count = subject.count()
        flops = None if count is None else {path: self.settings.batch * n for path, n in count.by_module.items()}
        passes = min(BREAKDOWN_PASSES, self.settings.repeats)
        return breakdown(ready.network.module, ready.run, self.clock, passes=passes, flops=flops)

    def _row(self, subject: Subject, found: Taken | str, first: Taken | str | None, base: Subject) -> Row:
        count = subject.count()
        flops = None if count is None else self.settings.batch * count.total
        if isinstance(found, str):
            parameters = None if count is None else count.parameters
            return Row(subject, None, f"out of memory: {found}", parameters, flops, None, None)
        position = Position(flops, found.spread.median, found.bytes_moved, self.peak) if flops else None
        ratio = self._ratio(found, first, base.variant) if isinstance(first, Taken) else None
        return Row(subject, found, None, found.parameters, flops, position, ratio)

    def _ratio(self, taken: Taken, first: Taken, to: str) -> Ratio:
        paired = taken.order == first.order == "round-robin"
        return ratio_of_medians(taken.seconds, first.seconds, to, paired=paired, seed=self.settings.seed)

    def _release(self) -> None:
        gc.collect()
        if self.settings.compile:
            torch.compiler.reset()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _graphs_so_far() -> int:
    from torch._dynamo.utils import counters  # the compiler's own statistics; there is no public name for them

    return int(counters["stats"]["unique_graphs"])


def _forward(module: Callable[..., Tensor] | nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> object:
    with torch.no_grad():
        return module(*arguments, **keywords)


def _reason(error: Exception) -> str:
    return last_line(error).rstrip(".")


def check_compiler(device: torch.device) -> None:
    """Compile a few operators, to see whether it can be done here.

    Raises:
        UserError: it cannot; the reason in one line.
    """
    x = torch.ones(8, device=device)
    try:
        torch.compile(lambda x: (x + 1).relu())(x)
    except Exception as e:  # noqa: BLE001 -- compilers fail in many ways, and all of them mean the same
        raise UserError(
            f"--compile does not work here: {_reason(e)}.",
            "Install a C++ compiler (and Triton for a GPU), or leave it out.",
        ) from None
    finally:
        torch.compiler.reset()
