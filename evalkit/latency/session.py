"""From what a user asks for to rows: settings checked before anything is built, then one clip after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from evalkit import provenance
from evalkit.errors import UserError, unknown
from evalkit.latency import hardware, record
from evalkit.latency.against import refuse_unless_alike
from evalkit.latency.clock import clock_for
from evalkit.latency.measure import DTYPES, Bench, Row, Settings, check_compiler
from evalkit.latency.peaks import Peak, peak_of
from evalkit.latency.subjects import Clip, Subject, named_subjects, user_subject
from evalkit.latency.timing import Progress
from evalkit.workload import load_user_model, resolve

MIN_REPEATS = 3


@dataclass(frozen=True)
class Request:
    """What was asked for; None is "as the model or the machine has it"."""

    device: str
    model: str | None = None
    frames: Sequence[int] | None = None
    height: int | None = None
    width: int | None = None
    dtype: str = "fp32"
    compile: bool = False
    batch: int | None = None
    threads: int | None = None
    warmup: int = 3
    repeats: int = 20
    breakdown: bool = False
    dual_blocks: int | None = None
    seed: int = 0

    @property
    def model_name(self) -> str:
        return self.model or ("m4v" if self.device.startswith("cuda") else "m4v-tiny")

    @property
    def is_users(self) -> bool:
        """Whether the model is a file of the user's."""
        return ":" in self.model_name or self.model_name.endswith(".py")


@dataclass(frozen=True)
class Report:
    """Everything that was measured, and on what."""

    rows: list[Row]
    settings: Settings
    hardware: dict[str, Any]
    peak: Peak
    provenance: dict[str, Any]

    @property
    def incomplete(self) -> bool:
        return any(row.failed for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        return record.to_json(self.rows, self.settings, self.hardware, self.peak, self.provenance)


def parse_frames(text: str | None) -> list[int] | None:
    """`57,121,241` as numbers.

    Raises:
        UserError: something in it is not a whole positive number, or is there twice.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"--frames {text!r} is not a list of numbers of frames.", "Give for example --frames 57,121.")
    if len(set(parts)) < len(parts):
        raise UserError(f"--frames {text!r} names a number twice.", "Name each once.")
    return [int(part) for part in parts]


def settings_of(request: Request) -> Settings:
    """The settings, with the CPU threads set.

    Raises:
        UserError: one of them cannot be used.
    """
    _check(request)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    return Settings(
        model=request.model_name,
        device=_device(request.device),
        dtype=request.dtype,
        compile=request.compile,
        batch=request.batch or 1,
        threads=torch.get_num_threads(),
        warmup=request.warmup,
        repeats=request.repeats,
        breakdown=request.breakdown,
        seed=request.seed,
    )


def _check(request: Request) -> None:
    if request.dtype not in DTYPES:
        raise unknown("dtype", request.dtype, DTYPES)
    if request.repeats < MIN_REPEATS:
        raise UserError(
            f"--repeats {request.repeats}: median and quartiles need at least {MIN_REPEATS}.",
            "Give 20, or at least 6 for an interval.",
        )
    if request.warmup < 1:
        raise UserError(f"--warmup {request.warmup}: the first run pays for what later ones reuse.", "Give at least 1.")
    if request.compile and request.breakdown:
        raise UserError(
            "--breakdown times module by module, and a compiled graph has no modules.", "Leave one of the two out."
        )


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: only CPUs and CUDA GPUs have a clock here.", "Use cpu, cuda or cuda:N.")
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


def subjects_of(request: Request) -> list[list[Subject]]:
    """What will be timed, a list for each clip.

    Raises:
        UserError: no such model, a clip that it cannot make, or an option that a user's network does not have.
    """
    if request.is_users:
        given = {
            "--frames": request.frames,
            "--height": request.height,
            "--width": request.width,
            "--batch": request.batch,
            "--dual-blocks": request.dual_blocks,
        }
        for option, value in given.items():
            if value is not None:
                raise UserError(
                    f"{option} is of no use with {request.model}: the file makes its own inputs.", "Leave it out."
                )
        return [[user_subject(load_user_model(request.model_name))]]
    clips = _clips(request)
    batch = request.batch or 1
    return named_subjects(request.model_name, clips, batch=batch, seed=request.seed, dual_blocks=request.dual_blocks)


def _clips(request: Request) -> list[Clip]:
    own = Clip(*resolve(request.model_name).clip)
    return [
        Clip(frames, request.height or own.height, request.width or own.width)
        for frames in request.frames or [own.frames]
    ]


def run(
    request: Request, progress: Progress, command: Sequence[str], against: tuple[Path, dict[str, Any]] | None = None
) -> Report:
    """Measure what was asked for.

    Args:
        request: what to measure.
        progress: who watches.
        command: the command line, for the record.
        against: a record and its file that the result is to be compared with.

    Raises:
        UserError: the request cannot be met, or must not be compared with the record; nothing has been measured then.
    """
    began = datetime.now(UTC)
    settings = settings_of(request)
    groups = subjects_of(request)
    found = hardware.describe(settings.device)
    if against is not None:
        refuse_unless_alike(found, settings, [group[0].clip for group in groups], against[1], against[0])
    if settings.compile:
        check_compiler(settings.device)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    clock = clock_for(settings.device)
    progress.start("peak of the device", 1)
    peak = peak_of(settings.device, DTYPES[settings.dtype], clock)
    bench = Bench(settings, clock, peak, progress)
    rows = [row for group in groups for row in bench.clip(group)]
    origin = {
        "command": list(command),
        "began": began.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "clock": clock.name,
        "load_1min_before": load,
        "packages": provenance.packages(),
        "git": provenance.git(),
    }
    return Report(rows, settings, found, peak, origin)
