"""From directories to pages: what was scored in them, what its cost was recorded to be, or a whole ablation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evalkit.ablation_record import is_ablation
from evalkit.cost_record import CostRecord, load_cost
from evalkit.errors import UserError
from evalkit.records import RunRecord, load_run
from evalkit.report.page import render, render_ablation


def write_page(paths: Sequence[Path], out: Path) -> None:
    """Write the page of an ablation's directory, or of the runs and costs in some directories.

    Raises:
        UserError: an ablation stands beside other directories, or something cannot be read.
        RunFailed: the file cannot be written.
    """
    found = next((path for path in paths if is_ablation(path)), None)
    if found is None:
        runs, costs = load(paths)
        render(runs, out, costs)
    elif len({path.resolve() for path in paths}) > 1:
        raise UserError(f"{found} is an ablation: it has a page of its own.", "Give it alone.")
    else:
        render_ablation(found, out)


def load(paths: Sequence[Path]) -> tuple[list[RunRecord], list[CostRecord]]:
    """The scored runs and the costs of some directories; one that was never scored needs a cost.

    Raises:
        UserError: a directory has neither, or a record in it cannot be read.
    """
    unique = list({path.resolve(): path for path in paths}.values())
    costs = [cost for path in unique if (cost := load_cost(path)) is not None]
    with_cost = {cost.path.resolve() for cost in costs}
    return [load_run(path) for path in paths if _is_scored(path) or path.resolve() not in with_cost], costs


def _is_scored(path: Path) -> bool:
    return any((path / name).exists() for name in ("run.json", "vbench.json"))
