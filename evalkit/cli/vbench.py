"""`m4v-eval vbench`: score a folder of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.cli import suites


def register(app: typer.Typer) -> None:
    app.command("vbench")(vbench)


def vbench(
    videos: suites.Videos,
    subset: suites.Subset = "custom50",
    dimensions: suites.Dimensions = None,
    profile: Annotated[
        str | None,
        typer.Option(help="official (VBench's networks) or lite (no weights, not VBench).", show_default="official"),
    ] = None,
    weights: suites.Weights = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; an existing one is resumed.", show_default="runs/FOLDER-SUBSET-PROFILE"),
    ] = None,
    json: suites.Json = None,
    device: suites.Device = "auto",
    precision: suites.Precision = "fp32",
    batch: suites.Batch = 8,
    threads: suites.Threads = None,
    workers: suites.Workers = None,
    devices: suites.Devices = None,
    decode_timeout: suites.DecodeTimeout = 60,
    decode_memory: suites.DecodeMemory = 4,
    log_json: suites.LogJson = False,
    cluster: suites.Cluster = None,
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the networks (pays on a GPU).")] = False,
    trust_weights: suites.TrustWeights = False,
    seed: suites.Seed = 0,
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

    Videos are decoded in a process of their own, ahead of the networks and within limits of time and memory: one that
    hangs or crashes its decoder is listed as unscored, and the run goes on. [bold]--workers[/bold] scores several
    videos at a time, each worker with networks of its own.

    Examples:

      m4v-eval vbench --subset custom50 --videos samples/

      m4v-eval vbench --subset full --videos samples/ --devices cuda:0,cuda:1

      m4v-eval vbench --subset custom50 --videos samples/ --profile lite

      m4v-eval vbench --subset my_prompts.txt --videos samples/ --dimensions motion_smoothness,imaging_quality
    """
    from evalkit.backbones.base import Runtime
    from evalkit.job import Request
    from evalkit.options import parse_precision, parse_profile, resolve_device
    from evalkit.runner import VBench
    from evalkit.weights import default_root

    names = suites.listed(dimensions)
    folder = weights or default_root()
    chosen = parse_profile(profile, folder, names, subset)
    run = out or Path("runs") / f"{videos.resolve().name}-{Path(subset).stem}-{chosen}"
    n_workers, named = suites.crew(workers, devices, chosen, bool(cluster))
    where = "cpu" if chosen == "lite" else device if cluster else resolve_device(device)
    request = Request(
        videos=videos,
        subset=subset,
        out=run,
        profile=chosen,
        dimensions=names,
        weights=folder,
        trust_archives=trust_weights,
        runtime=Runtime(where, parse_precision(precision), batch, compile_),
        threads=threads,
        seed=seed,
        static_filter=static_filter,
        workers=n_workers,
        devices=named,
        limits=suites.limits(decode_timeout, decode_memory),
    )
    suites.carry_out(request, VBench(), cluster, json, log_json)
