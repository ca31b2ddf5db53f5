"""From what a user types to the record of an experiment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from evalkit.ablate.execute import Setting, default_cache, run_all
from evalkit.ablate.experiment import Experiment, design
from evalkit.ablate.record import make_record
from evalkit.ablation import Preset, plan
from evalkit.errors import UserError, unknown
from evalkit.files import write_atomically
from evalkit.job import Progress
from evalkit.options import parse_profile
from evalkit.prompts import load_suite
from evalkit.store import only_writer
from evalkit.weights import default_root

SUITES = {"tiny": "shapes50", "paper": "custom50"}
PRECISIONS = ("auto", "float32", "bfloat16")
PRETRAINING = {"tiny": 1800, "paper": 20_000}
"""Steps of the shared attention model; the variants' own are in their recipes."""


@dataclass(frozen=True, slots=True)
class Request:
    """An experiment as asked for; None is the preset's, or what suits the machine."""

    names: tuple[str, ...]
    preset: str
    steps: int | None
    pretrain_steps: int | None
    seeds: tuple[int, ...]
    data: str | None
    subset: str | None
    cumulative: bool
    profile: str
    weights: Path | None
    device: str
    threads: int | None
    out: Path
    jobs: int | None = None
    precision: str = "auto"


def prepare(request: Request) -> Experiment:
    """The experiment, checked before anything is computed.

    Raises:
        UserError: an unknown or contradictory ablation, preset, suite or profile.
    """
    from m4v.presets import recipe

    if request.preset not in get_args(Preset):
        raise unknown("preset", request.preset, get_args(Preset))
    preset: Preset = "tiny" if request.preset == "tiny" else "paper"
    planned = plan(request.names, preset, cumulative=request.cumulative)
    load_suite(_subset(request))
    base = recipe(preset, planned.system)
    changes: dict[str, Any] = {}
    if request.steps is not None:
        changes |= {"train.steps": request.steps}
    if request.data is not None:
        changes |= {"data": request.data}
    if (precision := _precision(request)) is not None:
        changes |= {"train.precision": precision}
    try:
        changed = base.changed(changes)
    except ValueError as e:
        raise UserError(f"{e}.", "Choose other --steps or --data.") from None
    return design(planned, changed, request.pretrain_steps or PRETRAINING[preset])


def _precision(request: Request) -> str | None:
    """The type that models are trained in; None is the preset's own.

    Raises:
        UserError: no such precision.
    """
    if request.precision not in PRECISIONS:
        raise unknown("precision", request.precision, PRECISIONS)
    if request.precision != "auto":
        return request.precision
    return "float32" if request.device == "cpu" and not has_fast_bfloat16() else None


def has_fast_bfloat16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 in hardware; elsewhere float32 is faster."""
    import torch

    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _jobs(request: Request, experiment: Experiment) -> int:
    """How many models are trained at a time: on a CPU one a core, on a GPU one after the other."""
    if request.jobs is not None:
        return request.jobs
    if request.device != "cpu":
        return 1
    import torch

    return min(torch.get_num_threads(), len(experiment.variants) * len(request.seeds))


def _subset(request: Request) -> str:
    return request.subset or SUITES[request.preset]


def run(request: Request, experiment: Experiment, progress: Progress) -> dict[str, Any]:
    """Train, generate, score, compare, and leave `ablation.json` and `report.html` in the run directory.

    Raises:
        UserError: something does not fit; nothing finished is lost.
        RunFailed: training failed, the disk is full, or another process writes to the directory.
    """
    if request.threads is not None:
        import torch

        torch.set_num_threads(request.threads)
    weights = request.weights or default_root()
    setting = Setting(
        out=request.out,
        subset=_subset(request),
        profile=parse_profile(request.profile, weights, (), _subset(request)),
        weights=weights,
        seeds=request.seeds,
        device=request.device,
        cache=default_cache(),
        jobs=_jobs(request, experiment),
    )
    with only_writer(request.out):
        runs = run_all(experiment, setting, progress)
        record = make_record(experiment, setting, runs)
        write_atomically(
            request.out / "ablation.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
        )
        _report(request.out, progress)
    return record


def _report(out: Path, progress: Progress) -> None:
    from evalkit.report import render_ablation

    progress.start("writing the report", 1)
    render_ablation(out, out / "report.html")
    progress.advance()
