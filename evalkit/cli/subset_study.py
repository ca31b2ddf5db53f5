"""`m4v-eval subset-study`: how well do a few prompts predict the full suite?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.cli import INCOMPLETE, out

if TYPE_CHECKING:
    from evalkit.subset_study import PublishedStudy, Settings, Study


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("subset-study")(subset_study)


def subset_study(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN...", help="Run directories: one a model, of one suite or of two."),
    ] = None,
    subset: Annotated[
        str | None,
        typer.Option(metavar="custom50|FILE|N|IDS", help="A suite, a prompt file, N random prompts, or prompt ids."),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(metavar="10,25,...", help="Sizes of random subsets.", show_default="10,25,50,100,200,400,800"),
    ] = None,
    difference: Annotated[float, typer.Option(help="Difference to be seen, a fraction: 0.01 is one point.")] = 0.01,
    power: Annotated[float, typer.Option(help="Chance of seeing it.")] = 0.8,
    videos_per_prompt: Annotated[
        int | None, typer.Option(metavar="K", help="Plan for K videos a prompt.", show_default="as in the runs")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Compare the published tables instead; takes no runs.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Also write the machine-readable result here.")] = None,
    page: Annotated[
        Path | None, typer.Option("--out", metavar="PAGE.html", help="Also write a page with plots.")
    ] = None,
) -> None:
    """How well do a few prompts predict the full suite, and how many prompts does a difference take?

    From the scores of single videos of several models: does the subset order the models as the suite does, does it
    read high or low, how wide are its intervals, and which differences can it show? The same for random subsets.

    Two prompt suites: custom50 is no part of VBench's suite. Score each model on both, into directories of the same
    name, and give all of them.

    Examples:

      m4v-eval subset-study runs/A runs/B runs/C --subset 50

      m4v-eval subset-study full/A full/B full/C custom50/A custom50/B custom50/C --out study.html

      m4v-eval subset-study runs/* --sizes 10,20,40 --difference 0.005 --videos-per-prompt 5

      m4v-eval subset-study --reference

    Exits with 3 if prompts, dimensions or models had to be left out (they are listed).
    """
    import json as json_format

    from evalkit.cli.subset_tables import published_lines, study_lines
    from evalkit.errors import UserError
    from evalkit.files import write_atomically
    from evalkit.subset_study import Settings, study_published, to_json

    if reference and (runs or subset or sizes):
        raise UserError(
            "--reference compares the published tables only.", "Give it without runs, --subset and --sizes."
        )
    if not (reference or runs):
        raise UserError("There is no run to study.", "Give the runs of at least two models, or --reference alone.")
    study: Study | PublishedStudy
    if reference:
        study = study_published()
        lines = published_lines(study, out.width)
    else:
        settings = Settings(subset, _numbers(sizes), difference, power, videos=videos_per_prompt, seed=seed)
        study = _study(runs or [], settings)
        lines = study_lines(study, out.width)
    for line in lines:
        out.print(line, highlight=False)
    if json:
        text = json_format.dumps(to_json(study), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(json, (text + "\n").encode())
    if page:
        from evalkit.report.subset_page import render_subset_study

        render_subset_study(study, page)
        out.print(str(page), soft_wrap=True, highlight=False)
    if not study.complete:
        raise typer.Exit(INCOMPLETE)


def _study(paths: list[Path], settings: Settings) -> Study:
    from evalkit.cli.progress import watching
    from evalkit.records import load_run
    from evalkit.subset_study import study_runs

    with watching() as bars:
        return study_runs([load_run(path) for path in paths], settings, bars)


def _numbers(text: str | None) -> tuple[int, ...] | None:
    """`10,25` as numbers.

    Raises:
        UserError: something else than whole numbers with commas between.
    """
    from evalkit.errors import UserError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--sizes {text} is no list of whole numbers.", "Such as --sizes 10,25,50,100.")
    return tuple(map(int, parts))
