"""`m4v-eval vbench-i2v`: score a folder of videos that were generated from pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.cli import suites


def register(app: typer.Typer) -> None:
    app.command("vbench-i2v")(vbench_i2v)


def vbench_i2v(
    images: Annotated[
        Path, typer.Option(help="Folder of the pictures, cropped to the ratio of the videos.", show_default=False)
    ],
    videos: suites.Videos,
    subset: Annotated[
        str,
        typer.Option(
            help="Prompts: vbench2_i2v_full_info.json, or a .jsonl/.txt/.csv file.",
            show_default="one prompt a picture, worded as the picture is called",
        ),
    ] = "",
    dimensions: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated dimensions.", show_default="i2v_subject, i2v_background and VBench's seven of quality"
        ),
    ] = None,
    weights: suites.Weights = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; an existing one is resumed.", show_default="runs/FOLDER-SUBSET-vbench-i2v"),
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
    """Score videos generated from pictures as VBench-I2V does: how well they keep to the picture, and their quality.

    Videos are matched to prompts as in [bold]m4v-eval vbench[/bold]; a prompt's picture is the one that it names
    ({"text": ..., "auxiliary": {"image": "a.jpg"}}) or that is called like it. Headline scores follow two rules, that
    of the official script and that of the published table. camera_motion is not available: the network that judges it
    is for non-commercial use only.

    Examples:

      m4v-eval vbench-i2v --images crop/16-9/ --videos samples/ --subset vbench2_i2v_full_info.json

      m4v-eval vbench-i2v --images pictures/ --videos samples/ --dimensions i2v_subject
    """
    from evalkit.suites.i2v import ImageToVideo

    suite = ImageToVideo(images)
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
