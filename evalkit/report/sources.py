"""From directories to pages: what was scored in them, what its cost was recorded to be, what people say of the videos,
or a whole ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.ablation_record import is_ablation
from evalkit.cost_record import CostRecord, load_cost
from evalkit.errors import UserError
from evalkit.records import RunRecord, load_run
from evalkit.report.page import render, render_ablation
from evalkit.report.study_view import ShownStudy
from evalkit.study.aggregate import aggregate
from evalkit.study.people import metrics_against_people


@dataclass(frozen=True, slots=True)
class HumanStudy:
    """A human study of the videos of some runs.

    Args:
        source: a study directory or a table, as `study aggregate` takes it.
        runs: run directory by model, for runs that are not called as their model is.
    """

    source: Path
    runs: Mapping[str, Path]


def write_page(paths: Sequence[Path], out: Path, study: HumanStudy | None = None) -> None:
    """Write the page of an ablation's directory, or of the runs and costs in some directories.

    Raises:
        UserError: an ablation stands beside other directories or a study, or something cannot be read.
        RunFailed: the file cannot be written.
    """
    found = next((path for path in paths if is_ablation(path)), None)
    if found is None:
        runs, costs = load(paths)
        render(runs, out, costs, None if study is None else show_study(study, runs))
    elif len({path.resolve() for path in paths}) > 1:
        raise UserError(f"{found} is an ablation: it has a page of its own.", "Give it alone.")
    elif study is not None:
        raise UserError(f"{found} is an ablation: its page has no human study.", "Give --study with runs.")
    else:
        render_ablation(found, out)


def show_study(study: HumanStudy, runs: Sequence[RunRecord]) -> ShownStudy:
    """A study and how the runs' metrics agree with it; a run is that of the model whose name it has.

    Raises:
        UserError: the study cannot be read, a named run is not on the page, or fewer than two models have a run.
    """
    found = aggregate(study.source)
    by_path = {run.path.resolve(): run for run in runs}
    strange = [f"{model}={path}" for model, path in study.runs.items() if path.resolve() not in by_path]
    if strange:
        raise UserError(
            f"--study-models {', '.join(strange)}: not one of the runs of this page.", "Name runs that are given."
        )
    named = {model: by_path[path.resolve()] for model, path in study.runs.items()}
    taken = {run.path.resolve() for run in named.values()}
    same_name = {
        run.name: run
        for path, run in by_path.items()
        if run.name in found.result.models and run.name not in named and path not in taken
    }
    matched = {**named, **same_name}
    if len(matched) < 2:
        raise UserError(
            f"{len(matched)} of the runs ({', '.join(run.name for run in runs)}) is called as a model of the study"
            f" ({', '.join(found.result.models)}); two are needed.",
            "Say which run is whose: --study-models MODEL=RUN, once for each.",
        )
    return ShownStudy(found.result, metrics_against_people(found.ballots or found.result, matched))


def load(paths: Sequence[Path]) -> tuple[list[RunRecord], list[CostRecord]]:
    """The scored runs and the costs of some directories; one that was never scored needs a cost.

    Raises:
        UserError: a directory has neither, or a record in it cannot be read.
    """
    unique = list({path.resolve(): path for path in paths}.values())
    costs = [cost for path in unique if (cost := load_cost(path)) is not None]
    with_cost = {cost.path.resolve() for cost in costs}
    return [load_run(path, whole=True) for path in paths if _is_scored(path) or path.resolve() not in with_cost], costs


def _is_scored(path: Path) -> bool:
    return any((path / name).exists() for name in ("run.json", "vbench.json"))
