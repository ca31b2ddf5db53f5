"""`--cluster`: what `vbench`, `generate` and `ablate` share when their work is submitted instead of done."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit import cli
from evalkit.errors import UserError

if TYPE_CHECKING:
    from evalkit.cluster import Submission

Cluster = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        help="Submit the work to SLURM as this file says (see m4v-eval cluster-example).",
        metavar="FILE",
        show_default=False,
    ),
]


def no_json(json: Path | None, instead: Path) -> None:
    """Raises UserError if a result was asked for that comes when the jobs have ended."""
    if json is not None:
        raise UserError("--json cannot be written before the jobs have ended.", f"Take {instead} then.")


def show(submission: Submission, run: Path) -> None:
    """Say what was submitted; where the jobs have ended already (executor local), how they ended, by exit code too."""
    jobs = Counter(entry.stage for entry in submission.jobs)
    if not jobs:
        cli.out.print(f"Nothing is missing in {run}.", highlight=False, soft_wrap=True)
    else:
        said = ", ".join(f"{count} {stage}" for stage, count in jobs.items())
        done = sum(1 for entry in submission.entries if entry.job is None)
        rest = f"; {done} were done before" if done else ""
        cli.out.print(f"Submitted {sum(jobs.values())} jobs ({said}){rest}.", highlight=False, soft_wrap=True)
    if submission.executor == "slurm" and jobs:
        cli.out.print(f"Watch them with: m4v-eval status {run}", highlight=False, soft_wrap=True)
        return
    from evalkit.cli.status import report

    report(run)
