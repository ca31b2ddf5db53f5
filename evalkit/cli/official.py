"""`m4v-eval official`: result files of the official package, read and written, and the leaderboard's zip."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.cli import INCOMPLETE, err, out

if TYPE_CHECKING:
    from rich.console import Group

    from evalkit.official_results import Export


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True)
    group.command("import")(import_)
    group.command("export")(export)
    group.command("submission")(submission)
    app.add_typer(group, name="official", help="Exchange results with the official VBench package and its leaderboard.")


def import_(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Result files: *_eval_results.json, one or several.")
    ],
    run: Annotated[Path, typer.Option("--out", metavar="RUN", help="Run directory to write.")],
    subset: Annotated[
        str | None,
        typer.Option(
            metavar="full|FILE",
            help="The prompts that the videos were made from.",
            show_default="*_full_info.json beside the files, else the videos' names",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name, for the page.", show_default="the directory's")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Read results of the official package as a run, so that report and compare work on them.

    Every video keeps its score, and every dimension the score that the file gives; the intervals come from the videos.
    Where a file's score is not what its videos pool to, both numbers are named: on several GPUs the package averages
    some dimensions in another way than on one. To compare with a run of [bold]vbench --subset full[/bold], import with
    [bold]--subset full[/bold] too: runs compare only on the same prompts.

    Examples:

      m4v-eval official import evaluation_results/*_eval_results.json --subset full --out runs/theirs

      m4v-eval compare runs/theirs runs/ours

      m4v-eval report runs/theirs --out theirs.html

    Exits with 3 if prompts lack a video, or videos a score or a prompt (they are listed).
    """
    from evalkit.cli import tables
    from evalkit.official_results import import_results

    record = import_results(files, run, subset=subset, name=name, seed=seed, command=sys.argv)
    open_questions = [quirk for found in record.summary["dimensions"].values() for quirk in found["quirks"]]
    _note([*open_questions, *(caveat["text"] for caveat in record.summary["comparability"])])
    out.print(tables.scores(record))
    for line in tables.notes(record):
        err.print(line, soft_wrap=True, highlight=False)
    out.print(f"Run: {run}", soft_wrap=True, highlight=False, markup=False)
    if tables.incomplete(record):
        raise typer.Exit(INCOMPLETE)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run of the official profile.")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the two files.")],
    name: Annotated[
        str | None, typer.Option(help="What to call them: NAME_eval_results.json.", show_default="the run's name")
    ] = None,
) -> None:
    """Write a run as the official package would: NAME_eval_results.json and NAME_full_info.json.

    Units and types are the package's: imaging quality in percent for videos and as a fraction for the dimension,
    dynamic degree and human action as true and false. Videos without a score are left out and counted, never written as
    zero.

    Examples:

      m4v-eval official export runs/ours --out evaluation_results

      m4v-eval official export runs/ours --out evaluation_results --name my_model

    Exits with 3 if videos without a score were left out.
    """
    from evalkit.official_results import export_run, write_export
    from evalkit.records import load_run

    found = export_run(load_run(run), name)
    _note(found.caveats)
    files = write_export(found, folder)
    out.print(_tables(found))
    for file in files:
        out.print(str(file), soft_wrap=True, highlight=False, markup=False)
    if found.unscored:
        raise typer.Exit(INCOMPLETE)


def submission(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run of the official profile.")],
    file: Annotated[Path, typer.Option("--out", metavar="FILE.zip", help="The archive to write.")],
    name: Annotated[
        str | None, typer.Option(help="What to call the files inside.", show_default="the run's name")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Write it although dimensions are missing (the leaderboard counts 0).")
    ] = False,
) -> None:
    """Write the zip that VBench's leaderboard takes: both official files at its top level.

    Refused while one of the 16 dimensions has no score, because the leaderboard would count it as 0. The same run gives
    the same bytes. What would keep the numbers from being VBench's is listed; read it before you submit.

    Examples:

      m4v-eval official submission runs/ours --out eval_results.zip

      m4v-eval official submission runs/ours --out quality_only.zip --partial

    Exits with 3 if videos without a score were left out, or dimensions are missing.
    """
    from evalkit.official_results import export_run, write_submission
    from evalkit.records import load_run

    found = export_run(load_run(run), name)
    _note(found.caveats)
    write_submission(found, file, partial=partial)
    out.print(_tables(found))
    out.print(str(file), soft_wrap=True, highlight=False, markup=False)
    if found.unscored or found.totals.missing:
        raise typer.Exit(INCOMPLETE)


def _note(lines: Iterable[str]) -> None:
    for line in lines:
        err.print(f"note: {line}", soft_wrap=True, highlight=False, markup=False)


def _tables(export: Export) -> Group:
    """What was written: a row a dimension, then the headline scores that they allow."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(export.name)} · as VBench's package writes it", title_justify="left")
    table.add_column("dimension", no_wrap=True)
    for heading in ("score %", "videos", "left out"):
        table.add_column(heading, justify="right")
    for dimension, (score, records) in export.results.items():
        left_out = export.unscored.get(dimension, 0)
        warned = f"[bold yellow]{left_out}[/bold yellow]" if left_out else "0"
        table.add_row(dimension, f"{100 * score:.2f}", str(len(records)), warned)
    headlines = Table(show_header=False)
    for title, value in (
        ("Quality (7 dimensions)", export.totals.quality),
        ("Semantic (9 dimensions)", export.totals.semantic),
        ("Total (16 dimensions)", export.totals.total),
    ):
        headlines.add_row(title, "[dim]not all of them scored[/dim]" if value is None else f"{value:.2f}")
    return Group(table, headlines)
