"""`m4v-eval generate`: videos from a trained checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from evalkit import cli
from evalkit.cli.progress import LogJson
from evalkit.cli.submission import Cluster


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("generate")(generate)


def generate(
    model: Annotated[Path, typer.Option(help="Checkpoint (last.pt), or the folder of a training run.")],
    prompts: Annotated[str, typer.Option(help="Prompt suite: shapes50, custom50, full, or a file of your own.")],
    out: Annotated[Path, typer.Option(help="Folder of the videos; what is there already is kept.")],
    seeds: Annotated[str, typer.Option(help="One video of every prompt for each, such as 0,1,2,3,4.")] = "0",
    steps: Annotated[int | None, typer.Option(min=1, help="Solver steps.", show_default="the recipe's")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.", show_default="the recipe's")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Prompts at a time; does not change the videos.")] = 25,
    fps: Annotated[float, typer.Option(min=1, help="Frames a second of the files.")] = 8.0,
    raw: Annotated[bool, typer.Option("--raw", help="Sample from the last weights, not from their average.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    cluster: Cluster = None,
    log_json: LogJson = False,
) -> None:
    """Answer every prompt of a suite with a trained model: one video a prompt and seed, and manifest.jsonl.

    A video's noise depends on its prompt's id and seed alone, so that models can be compared prompt by prompt. Run the
    same command again to make what is missing.

    Examples:

      m4v-eval generate --model runs/ablate-registers/baseline/seed0/train --prompts shapes50 --out samples

      m4v-eval vbench --subset shapes50 --videos samples --profile lite
    """
    from evalkit.cli.progress import watching
    from evalkit.generation import Request
    from evalkit.generation import generate as make
    from evalkit.options import parse_seeds, resolve_device

    changes: dict[str, float] = {}
    if steps is not None:
        changes |= {"sampler.steps": steps, "sampler.first_frame_steps": steps}
    if guidance is not None:
        changes |= {"sampler.guidance": guidance, "sampler.first_frame_guidance": guidance}
    request = Request(
        checkpoint=model,
        subset=prompts,
        out=out,
        seeds=parse_seeds(seeds),
        batch=batch,
        device=device if cluster else resolve_device(device),
        fps=fps,
        ema=not raw,
        changes=tuple(changes.items()),
    )
    if cluster:
        from evalkit.cli.submission import show
        from evalkit.cluster.generating import submit_generate

        show(submit_generate(request, cluster, sys.argv), out)
        return
    with watching(log_json) as bars:
        made = make(request, bars)
    cli.out.print(f"{made} videos made, all in {out}", highlight=False, soft_wrap=True)
