"""`m4v-eval cluster-example`: the file that `--cluster` takes, explained."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cluster-example")(cluster_example)


def cluster_example() -> None:
    """Print the file that --cluster takes, with a line on every field.

    Examples:

      m4v-eval cluster-example > slurm.yaml
    """
    from evalkit.cluster import EXAMPLE

    typer.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)
