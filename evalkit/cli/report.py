"""`m4v-eval report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.cli import err, out


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def report(
        runs: Annotated[
            list[Path],
            typer.Argument(
                metavar="RUN...", help="Directories of finished runs, scored or with cost only; or one ablation."
            ),
        ],
        file: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="Where to write the page.")],
        study: Annotated[
            Path | None,
            typer.Option(metavar="STUDY|FILE.csv", help="A human study of the runs' videos: what people prefer."),
        ] = None,
        study_models: Annotated[
            list[str] | None,
            typer.Option(metavar="MODEL=RUN", help="Which run is whose, where it is not called as its model is."),
        ] = None,
    ) -> None:
        """Write one self-contained HTML page; several runs are shown side by side, an ablation variant by variant.

        With --study the page says what people prefer and how well the metrics agree with them. A run belongs to the
        study's model that its directory is called after, or to the one named: --study-models A=runs/a.
        """
        from evalkit.report import HumanStudy, write_page

        models = _named(study_models or [], given=study is not None)
        err.print(f"reading {len(runs)} director{'ies' if len(runs) > 1 else 'y'}")
        write_page(runs, file, None if study is None else HumanStudy(study, models))
        out.print(str(file), soft_wrap=True, highlight=False)


def _named(pairs: list[str], *, given: bool) -> dict[str, Path]:
    """`A=runs/a` as a mapping.

    Raises:
        UserError: no such pair, a model twice, or pairs without a study.
    """
    from evalkit.errors import UserError

    if pairs and not given:
        raise UserError("--study-models says whose runs a study is about, but there is no study.", "Give --study too.")
    found: dict[str, Path] = {}
    for pair in pairs:
        model, sign, run = pair.partition("=")
        if not (model and sign and run):
            raise UserError(
                f"--study-models {pair} is no pair of a model and a run.", "Such as --study-models A=runs/a."
            )
        if model in found:
            raise UserError(f"--study-models names {model} twice.", "Give one run a model.")
        found[model] = Path(run)
    return found
