"""`m4v-eval demo-clips`: a few clips to try the tool on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit import cli


def register(app: typer.Typer) -> None:
    app.command("demo-clips")(demo_clips)


def demo_clips(
    folder: Annotated[Path, typer.Argument(help="Where the clips go.")] = Path("demo/clips"),
    look: Annotated[
        str, typer.Option(metavar="sharp|soft|jerky", help="Whose clips: three made-up models for a study.")
    ] = "sharp",
) -> None:
    """Write a few short clips (a camera moving over photographs) with their prompts, to try the tool on.

    Then: [bold]m4v-eval vbench --subset demo/clips/prompts.jsonl --videos demo/clips --profile lite[/bold]
    """
    from evalkit.demo import make_clips

    make_clips(folder, look)
    cli.out.print(f"Clips and prompts: {folder}", soft_wrap=True, highlight=False)
