"""`m4v-eval export`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit import cli

if TYPE_CHECKING:
    from evalkit.export import Entry

NAMED = 6


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of finished runs or ablations.")],
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write TensorBoard's files here, a folder a run.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="URI", help="MLflow's store: a server's address, or sqlite:///FILE.db.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="MLflow's experiment.", show_default="m4v-eval")
    ] = None,
) -> None:
    """Give the numbers of finished runs to TensorBoard or MLflow.

    Scored runs of vbench, vbench-long and vbench-i2v: scores with their intervals, what could not be scored, headline
    scores, the scores of single videos, settings and origin, stills of the videos that scored lowest and highest, and
    for MLflow the report. Ablations: also the losses by step of every variant and seed, and the comparisons.

    What has no value is not exported as zero; it is counted. Exporting a run again brings it up to date.

    Examples:

      m4v-eval export runs/samples-custom50-lite --tensorboard tb

      m4v-eval export runs/ablate-registers --mlflow sqlite:///mlflow.db --experiment registers

    TensorBoard and MLflow come with `pip install 'm4v-eval\\[tensorboard,mlflow]'`.
    """
    from evalkit.errors import UserError
    from evalkit.export import read_entry

    if tensorboard is None and mlflow is None:
        raise UserError("There is nowhere to export to.", "Give --tensorboard DIR, --mlflow URI, or both.")
    if experiment is not None and mlflow is None:
        raise UserError("--experiment is MLflow's, but there is no --mlflow.", "Give --mlflow URI too.")
    entries = [read_entry(run) for run in runs]
    if tensorboard is not None:
        from evalkit.export.tensorboard import write

        for entry in entries:
            _say(entry, str(write(entry, tensorboard)))
    if mlflow is not None:
        from evalkit.export.mlflow import EXPERIMENT, Store
        from evalkit.export.mlflow_client import without_password

        name = experiment or EXPERIMENT
        store = Store(mlflow, name)
        for entry in entries:
            _say(entry, f"{without_password(mlflow)}, experiment {name}, run {store.write(entry)}")


def _say(entry: Entry, place: str) -> None:
    for line in _lines(entry, place):
        cli.out.print(line, soft_wrap=True, highlight=False, markup=False)


def _lines(entry: Entry, place: str) -> Iterator[str]:
    whole = list(entry.whole())
    numbers = sum(len(part.numbers) + sum(map(len, part.curves.values())) for part in whole)
    yield f"{entry.name}: {numbers:,} numbers to {place}"
    missing = [name for part in whole for name in part.missing]
    if missing:
        named = list(dict.fromkeys(missing))
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        yield f"  without a value: {len(missing)} ({', '.join(named[:NAMED])}{more})"
