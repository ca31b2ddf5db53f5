"""`m4v-eval cancel`: end the jobs of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit import cli


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cancel")(cancel)


def cancel(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory (the --out of the command).")],
) -> None:
    """End all jobs of a run on a cluster; what they have finished is kept, and the same command goes on from there.

    Examples:

      m4v-eval cancel runs/samples-full-official
    """
    from evalkit.cluster import cancel as end

    ended = end(run)
    said = f"{len(ended)} jobs of {run} were cancelled." if ended else f"No job of {run} was left to cancel."
    cli.out.print(said, highlight=False, soft_wrap=True)
