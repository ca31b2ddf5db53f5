"""`m4v-eval vbench-long`: score a folder of long videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.cli import suites


def register(app: typer.Typer) -> None:
    app.command("vbench-long")(vbench_long)


def vbench_long(
    videos: suites.Videos,
    subset: suites.Subset = "custom50",
    dimensions: suites.Dimensions = None,
    split_scenes: Annotated[
        bool, typer.Option("--split-scenes", help="Cut at scene changes first; every scene then counts as a video.")
    ] = False,
    weights: suites.Weights = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; an existing one is resumed.", show_default="runs/FOLDER-SUBSET-vbench-long"),
    ] = None,
    json: suites.Json = None,
    device: suites.Device = "auto",
    precision: suites.Precision = "fp32",
    batch: suites.Batch = 8,
    threads: suites.Threads = None,
    trust_weights: suites.TrustWeights = False,
    seed: suites.Seed = 0,
    workers: suites.Workers = None,
    devices: suites.Devices = None,
    decode_timeout: suites.DecodeTimeout = 60,
    decode_memory: suites.DecodeMemory = 4,
    log_json: suites.LogJson = False,
    cluster: suites.Cluster = None,
) -> None:
    """Score videos of five seconds and more as VBench-Long does: in parts of 2 s (10 s for prompts of some dimensions).

    Subject and background consistency also compare the first frames of the parts (DINOv2, DreamSim). The numbers are
    not VBench's; they carry [bold]long/[/bold] before their names and never share a table with VBench's. Parts are
    taken from the one decode, where the official package encodes each to a file of its own.

    Examples:

      m4v-eval vbench-long --videos samples/

      m4v-eval vbench-long --subset full --videos samples/ --dimensions subject_consistency,background_consistency
    """
    from evalkit.suites.long import Long

    suite = Long(split_scenes)
    suites.run(
        suite,
        videos,
        subset,
        dimensions,
        weights,
        out,
        json,
        device,
        precision,
        batch,
        threads,
        trust_weights,
        seed,
        workers,
        devices,
        decode_timeout,
        decode_memory,
        log_json,
        cluster,
    )
