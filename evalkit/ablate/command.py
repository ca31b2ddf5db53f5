"""From what a user types to the record of an experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from evalkit.ablate.execute import arms_of, run_all
from evalkit.ablate.experiment import Experiment, design
from evalkit.ablate.record import make_record
from evalkit.ablate.setting import Setting, default_cache
from evalkit.ablation import Preset, plan
from evalkit.errors import RunFailed, UserError, unknown
from evalkit.files import write_atomically
from evalkit.job import Progress
from evalkit.lock import holding
from evalkit.options import parse_profile
from evalkit.prompts import load_suite
from evalkit.records import RunRecord, load_run, sealed
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


def setting_of(request: Request, experiment: Experiment) -> Setting:
    """What all variants have in common.

    Raises:
        UserError: an unknown profile.
    """
    weights = request.weights or default_root()
    return Setting(
        out=request.out,
        subset=_subset(request),
        profile=parse_profile(request.profile, weights, (), _subset(request)),
        weights=weights,
        seeds=request.seeds,
        device=request.device,
        cache=default_cache(),
        jobs=_jobs(request, experiment),
    )


def run(request: Request, experiment: Experiment, progress: Progress) -> dict[str, Any]:
    """Train, generate, score, compare, and leave `ablation.json` and `report.html` in the run directory.

    Raises:
        UserError: something does not fit; nothing finished is lost.
        RunFailed: training failed, the disk is full, or another process writes to the directory.
    """
    if request.threads is not None:
        import torch

        torch.set_num_threads(request.threads)
    setting = setting_of(request, experiment)
    with holding(request.out, "An ablation is run in it"):
        return conclude(experiment, setting, run_all(experiment, setting, progress), progress)


def conclude(
    experiment: Experiment, setting: Setting, runs: Mapping[str, Sequence[RunRecord]], progress: Progress
) -> dict[str, Any]:
    """Compare the variants whose runs are all there, and leave `ablation.json` and `report.html`.

    Raises:
        RunFailed: the baseline's are not, or the disk is full.
    """
    whole = {v.name for v in experiment.variants if len(runs.get(v.name, ())) == len(setting.seeds)}
    if experiment.baseline.name not in whole:
        raise RunFailed("The baseline is not scored: nothing can be compared.", "Run the same command again.")
    kept = replace(experiment, variants=tuple(v for v in experiment.variants if v.name in whole))
    record = make_record(kept, setting, {name: found for name, found in runs.items() if name in whole})
    record["missing"] = [variant.name for variant in experiment.variants if variant.name not in whole]
    text = json.dumps(sealed(record), indent=1, ensure_ascii=False) + "\n"
    write_atomically(setting.out / "ablation.json", text.encode())
    _report(setting.out, progress)
    return record


def finished_runs(experiment: Experiment, setting: Setting) -> dict[str, list[RunRecord]]:
    """The runs that are scored already, by variant; a seed that is not is left out."""
    _, arms = arms_of(experiment, setting)
    return {
        variant.name: [load_run(a.folder / "scores") for a in arms if a.variant.name == variant.name and a.is_scored]
        for variant in experiment.variants
    }


def _report(out: Path, progress: Progress) -> None:
    from evalkit.report import render_ablation

    progress.start("writing the report", 1)
    render_ablation(out, out / "report.html")
    progress.advance()
