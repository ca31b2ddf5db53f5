"""`m4v-eval study`: the human study, from planning to figures. One module per command, `study_<command>.py`."""

from __future__ import annotations

import importlib

import typer

COMMANDS = ("new", "serve", "import", "aggregate")


def register(app: typer.Typer) -> None:
    """Add the group and its commands, in the order in which they are used."""
    words = "Blind human studies: plan, serve, conclude."
    study = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help=words)
    for command in COMMANDS:
        importlib.import_module(f"evalkit.cli.study_{command}").add(study)
    app.add_typer(study, name="study")
