"""`m4v-eval prompts`: the suites, and what to generate for them."""

from __future__ import annotations

from typing import Annotated

import typer

from evalkit import cli


def register(app: typer.Typer) -> None:
    app.command("prompts")(prompts)


def prompts(
    subset: Annotated[str | None, typer.Argument(help="Suite or file to print; default: list the suites.")] = None,
) -> None:
    """List the prompt suites, or print one as JSON lines (id, text) to generate videos from.

    Example: [bold]m4v-eval prompts custom50 > prompts.jsonl[/bold], generate one video a line named
    [bold]<id>-<seed>.mp4[/bold], then [bold]m4v-eval vbench --subset custom50 --videos DIR[/bold].
    """
    import json
    import sys

    from evalkit.prompts import load_suite, shipped

    if subset is not None:
        for prompt in load_suite(subset).prompts:
            sys.stdout.write(json.dumps({"id": prompt.id, "text": prompt.text}, ensure_ascii=False) + "\n")
        return
    for name in shipped():
        suite = load_suite(name)
        cli.out.print(
            f"{name}: {len(suite.prompts)} prompts, sha256 {suite.sha256[:12]}, {suite.source}",
            soft_wrap=True,
            highlight=False,
        )
    cli.out.print("full: VBench's 946 prompts, read from an installed vbench package", soft_wrap=True, highlight=False)
