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
    ) -> None:
        """Write one self-contained HTML page; several runs are shown side by side, an ablation variant by variant."""
        from evalkit.report import write_page

        err.print(f"reading {len(runs)} director{'ies' if len(runs) > 1 else 'y'}")
        write_page(runs, file)
        out.print(str(file), soft_wrap=True, highlight=False)
