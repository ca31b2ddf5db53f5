"""`m4v-eval study import`: votes from elsewhere, checked and kept as a study that `study aggregate` reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from evalkit.cli import out


def add(study: typer.Typer) -> None:
    """Add the command."""
    study.command("import")(import_)


def import_(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.csv...", help="Tables of votes; several are one study together.")
    ],
    folder: Annotated[Path, typer.Option("--out", metavar="STUDY", help="Study directory to make.")],
    ties: Annotated[bool, typer.Option("--ties", help="Rankings may hold ties: 1, 1, 3 or 1, 1, 2.")] = False,
) -> None:
    """Check votes that were collected elsewhere and keep them as a study for `study aggregate`.

    A table is CSV in UTF-8 with one of these headers, and may have the columns in brackets:

      rater,prompt_id,axis,model,rank (seed,screen,prompt): rankings, a row a clip; 1 is best

      rater,prompt_id,axis,model_a,model_b,choice (seed,prompt): a, b or tie; or -2 to 2, below 0 if a is better

    `screen` tells several rankings by one rater of one prompt and axis apart. Text that would be a formula in a
    spreadsheet may have an apostrophe in front (as `study aggregate --csv` writes it); it is taken off. Every fault is
    named with its line, and nothing is kept unless all rows are sound.

    Examples:

      m4v-eval study import rankings.csv --out studies/theirs

      m4v-eval study import monday.csv tuesday.csv --ties --out studies/theirs
    """
    from evalkit.study.forms.imported import import_votes

    ballots = import_votes(files, folder, ties=ties, command=sys.argv)
    prompts = len({vote.prompt_id for vote in ballots.votes})
    said = (
        f"{len(ballots.votes):,} votes ({ballots.protocol}) of {ballots.screening.n_raters:,} raters on {prompts:,}"
        f" prompts; models: {', '.join(ballots.models)}; axes: {', '.join(ballots.axes)}"
    )
    out.print(said, highlight=False, markup=False)
    out.print(f"Study: {folder}", soft_wrap=True, highlight=False, markup=False)
