"""`m4v-eval study aggregate`: from votes, or a published table of mean ranks, to figures with intervals."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.cli import INCOMPLETE, err, out

if TYPE_CHECKING:
    from evalkit.study.aggregate import Aggregate
    from evalkit.study.people import PeopleResult


def add(study: typer.Typer) -> None:
    """Add the command."""
    # `--runs A=a B=b`: an option takes one word, so further pairs arrive as extra arguments.
    study.command("aggregate", context_settings={"allow_extra_args": True})(aggregate)


def aggregate(
    context: typer.Context,
    given: Annotated[
        str, typer.Argument(metavar="STUDY|FILE.csv", help="A study directory, or a table of votes or of mean ranks.")
    ],
    runs: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=RUN...", help="Runs of the study's videos: do metrics agree with people?"),
    ] = None,
    ties: Annotated[bool, typer.Option("--ties", help="Rankings in FILE.csv may hold ties.")] = False,
    as_printed: Annotated[
        bool, typer.Option("--as-printed", help="Use misprints of a table of mean ranks as they are.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the machine-readable result.")] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Also write the votes that count, models named.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--out", metavar="PAGE.html", help="Also write a page with plots.")
    ] = None,
) -> None:
    """Mean ranks, win rates, strengths and agreement of a study, with intervals over raters and prompts.

    STUDY is what `study new` or `study import` made; it may be served meanwhile. Raters who failed too many attention
    checks are left out and counted. FILE.csv has one of these headers, and may have the columns in brackets:

      rater,prompt_id,axis,model,rank (seed,screen,prompt): rankings, a row a clip

      rater,prompt_id,axis,model_a,model_b,choice (seed,prompt): a, b or tie; or -2 to 2, below 0 if a is better

      prompt_id,axis,model,mean_rank (source,note): a published table, without raters

    Of a published table the scale, misprints and the least number of raters are found from the figures themselves; its
    win rates count prompts, not raters.

    Examples:

      m4v-eval study aggregate studies/first --json figures.json --out study.html

      m4v-eval study aggregate rankings.csv --ties

      m4v-eval study aggregate studies/first --runs A=runs/a B=runs/b --out study.html

      m4v-eval study aggregate user_study_m4v.csv --json published.json

    Exits with 3 if something could not be aggregated: an axis or a model without votes, a prompt without figures for
    all models, or clips without a score in --runs (they are listed). Excluded raters alone are no such case.
    """
    import json as json_format

    from evalkit.cli.study_tables import result_lines
    from evalkit.errors import UserError
    from evalkit.files import write_atomically
    from evalkit.study.aggregate import aggregate as aggregate_study
    from evalkit.study.forms import write_csv
    from evalkit.study.record import to_json

    source, pairs = _source_and_runs([given, *context.args], runs or [])
    found = aggregate_study(source, ties=ties, as_printed=as_printed, seed=seed)
    if csv and found.ballots is None:
        raise UserError(f"{source} holds mean ranks and no votes, so there is nothing for --csv.", "Leave --csv out.")
    people = _people(found, pairs, seed) if pairs else None
    for line in result_lines(found.result, out.width):
        out.print(line, highlight=False)
    if people:
        from evalkit.cli.study_people_tables import people_lines

        for line in people_lines(people):
            out.print(line, highlight=False)
    if json:
        record = to_json(found.result, found.provenance(sys.argv, seed=seed)) | _people_json(people)
        text = json_format.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(json, (text + "\n").encode())
    if csv and found.ballots:
        write_csv(found.ballots, csv)
    if page:
        from evalkit.report.study_page import render_study

        render_study(found.result, page, people=people, prompts=found.ballots.prompts if found.ballots else None)
        out.print(str(page), soft_wrap=True, highlight=False, markup=False)
    for missing in found.missing:
        err.print(f"not aggregated: {missing}", soft_wrap=True, highlight=False, markup=False)
    if found.missing or (people and not people.complete):
        raise typer.Exit(INCOMPLETE)


def _source_and_runs(given: list[str], runs: list[str]) -> tuple[Path, Mapping[str, Path]]:
    """Tell the study from pairs that follow the first one after `--runs`.

    Raises:
        UserError: not one study, or a pair that is none.
    """
    from evalkit.errors import UserError

    more = [word for word in given if runs and "=" in word and not Path(word).exists()]
    sources = [word for word in given if word not in more]
    if len(sources) != 1:
        said = ", ".join(sources) or "none"
        raise UserError(
            f"One study is aggregated at a time, not {len(sources)} ({said}).", "Give one STUDY or FILE.csv."
        )
    pairs: dict[str, Path] = {}
    for word in (*runs, *more):
        model, sign, run = word.partition("=")
        if not (model and sign and run):
            raise UserError(f"--runs {word} is no pair of a model and a run.", "Such as --runs A=runs/a B=runs/b.")
        if model in pairs:
            raise UserError(f"--runs names {model} twice.", "Give one run a model.")
        pairs[model] = Path(run)
    return Path(sources[0]), pairs


def _people(found: Aggregate, runs: Mapping[str, Path], seed: int) -> PeopleResult:
    from evalkit.records import load_run
    from evalkit.study.people import metrics_against_people

    records = {model: load_run(path) for model, path in runs.items()}
    return metrics_against_people(found.ballots or found.result, records, seed=seed)


def _people_json(people: PeopleResult | None) -> dict[str, object]:
    if people is None:
        return {}
    from evalkit.study.people import people_to_json

    return {"people": people_to_json(people)}
