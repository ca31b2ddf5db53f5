"""Progress on stderr: what is going on, how far it is, when it will be done."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from evalkit import cli
from evalkit.cli.live.json_lines import JsonLines
from evalkit.cli.live.watch import Watch


def _choose(log_json: bool) -> bool:
    """Noted as soon as it is read, so that bad input is told as JSON too."""
    cli.log = JsonLines(lambda: sys.stderr) if log_json else None
    return log_json


LogJson = Annotated[
    bool,
    typer.Option("--log-json", help="JSON lines on stderr instead of bars, for machines.", callback=_choose),
]


def watching(log_json: bool = False) -> Watch:
    """Who watches a run, as a context manager that is a `evalkit.job.Progress`.

    A terminal gets a live view; a file, a pipe and a terminal that cannot repaint get plain lines.

    Args:
        log_json: JSON lines on stderr, whatever it is (schema: `evalkit.cli.live.json_lines`).
    """
    if log_json:
        return cli.log or JsonLines(lambda: sys.stderr)
    if cli.err.is_interactive and cli.err.file.isatty():
        from evalkit.cli.live.view import LiveView

        return LiveView(cli.err)
    from evalkit.cli.live.plain import PlainLines

    return PlainLines(cli.err)
