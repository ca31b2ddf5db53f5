"""`m4v-eval vbench`: score a folder of videos."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from evalkit import cli


def register(app: typer.Typer) -> None:
    app.command("vbench")(vbench)


def vbench(
    videos: Annotated[Path, typer.Option(help="Folder of videos, from any model.", show_default=False)],
    subset: Annotated[
        str, typer.Option(help="Prompt suite: custom50, full, or a .txt/.jsonl/.csv/VBench_full_info.json file.")
    ] = "custom50",
    dimensions: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated dimensions.",
            show_default="the customised seven and what the prompts ask for; full: all 16",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="official (VBench's networks) or lite (no weights, not VBench).", show_default="official"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Folder of checkpoints in VBench's layout.", show_default="$VBENCH_CACHE_DIR or ~/.cache/vbench"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; an existing one is resumed.", show_default="runs/FOLDER-SUBSET-PROFILE"),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the machine-readable result here.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32; bf16 or fp16 are faster, and labelled as other numbers.")
    ] = "fp32",
    batch: Annotated[int, typer.Option(min=1, help="Frames a network sees at once; does not change results.")] = 8,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads for the networks.", show_default="all cores")
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the networks (pays on a GPU).")] = False,
    trust_weights: Annotated[
        bool,
        typer.Option(
            "--trust-weights", help="Open CLIP archives that are not the published files (they can run code)."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    static_filter: Annotated[
        bool | None,
        typer.Option(
            "--static-filter/--no-static-filter",
            help="Score temporal_flickering only on clips without motion, the first five of a prompt.",
            show_default="on for VBench's own prompts",
        ),
    ] = None,
) -> None:
    """Score a folder of videos with VBench's dimensions, each with a 95 % interval.

    Videos are matched to prompts by [bold]manifest.jsonl[/bold] in the folder ({"file", "prompt_id", "seed"} a line),
    else by VBench's names [bold]<prompt>-<k>.mp4[/bold], else by [bold]<prompt_id>-<seed>.mp4[/bold]. The run directory
    gets results.parquet, vbench.json and report.html; running the same command again computes only what is missing.

    [bold]--subset full[/bold] follows VBench's protocol: each dimension on its own prompts, five videos a prompt, and
    for temporal_flickering the first five without motion out of 25. What keeps the total from being comparable with
    the leaderboard's is listed. In a prompt file of your own, say what the dimensions that look for something are to
    look for: {"text": "a red car", "auxiliary": {"color": {"color": "red", "object": "car"}}}.

    Examples:

      m4v-eval vbench --subset custom50 --videos samples/

      m4v-eval vbench --subset custom50 --videos samples/ --profile lite

      m4v-eval vbench --subset full --videos samples/

      m4v-eval vbench --subset my_prompts.txt --videos samples/ --dimensions motion_smoothness,imaging_quality
    """
    from evalkit.backbones.base import Runtime
    from evalkit.cli import tables
    from evalkit.cli.progress import Bars
    from evalkit.files import write_atomically
    from evalkit.job import Request
    from evalkit.options import parse_precision, parse_profile, resolve_device
    from evalkit.runner import score_folder
    from evalkit.weights import default_root

    names = tuple(name.strip() for name in (dimensions or "").split(",") if name.strip())
    folder = weights or default_root()
    chosen = parse_profile(profile, folder, names, subset)
    run = out or Path("runs") / f"{videos.resolve().name}-{Path(subset).stem}-{chosen}"
    request = Request(
        videos=videos,
        subset=subset,
        out=run,
        profile=chosen,
        dimensions=names,
        weights=folder,
        trust_archives=trust_weights,
        runtime=Runtime(
            "cpu" if chosen == "lite" else resolve_device(device), parse_precision(precision), batch, compile_
        ),
        threads=threads,
        seed=seed,
        static_filter=static_filter,
    )
    with Bars() as bars:
        record = score_folder(request, bars, sys.argv)
        from evalkit.report import render  # not before the networks have gone

        bars.start("writing the report", 1)
        render([record], run / "report.html")
    if json:
        write_atomically(json, (run / "vbench.json").read_bytes())
    cli.out.print(tables.scores(record))
    for line in (*tables.notes(record), *tables.comparability(record)):
        cli.out.print(line, soft_wrap=True, highlight=False)
    cli.out.print(f"Report: {run / 'report.html'}", soft_wrap=True, highlight=False)
    if tables.incomplete(record):
        raise typer.Exit(cli.INCOMPLETE)
