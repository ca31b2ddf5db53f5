"""What `vbench` and the commands of its sister suites share: options, the run, the report and the tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit import cli
from evalkit.cli.progress import LogJson as LogJson

if TYPE_CHECKING:
    from evalkit.decoding import Limits
    from evalkit.job import Progress
    from evalkit.records import RunRecord
    from evalkit.suites.base import Suite

Videos = Annotated[Path, typer.Option(help="Folder of videos, from any model.", show_default=False)]
Subset = Annotated[
    str, typer.Option(help="Prompt suite: custom50, full, or a .txt/.jsonl/.csv/VBench_full_info.json file.")
]
Dimensions = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated dimensions.",
        show_default="the customised seven and what the prompts ask for; full: all 16",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Folder of checkpoints in VBench's layout.", show_default="$VBENCH_CACHE_DIR or ~/.cache/vbench"),
]
Json = Annotated[Path | None, typer.Option(help="Also write the machine-readable result here.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="fp32; bf16 or fp16 are faster, and labelled as other numbers.")]
Batch = Annotated[int, typer.Option(min=1, help="Frames a network sees at once; does not change results.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads for the networks.", show_default="all cores")]
TrustWeights = Annotated[
    bool,
    typer.Option("--trust-weights", help="Open CLIP archives that are not the published files (they can run code)."),
]
Seed = Annotated[int, typer.Option(help="Seed of the bootstrap.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that score side by side; results stay the same.", show_default="one a device"),
]
Devices = Annotated[
    str | None, typer.Option(help="Devices of the workers, such as cuda:0,cuda:1.", show_default="that of --device")
]
DecodeTimeout = Annotated[
    float, typer.Option(min=1, help="Seconds without a frame after which a video is given up as unreadable.")
]
DecodeMemory = Annotated[
    float, typer.Option(min=0.25, help="GiB that decoding one video may take before it is given up.")
]


def crew(workers: int | None, devices: str | None, profile: str) -> tuple[int, tuple[str, ...]]:
    """How many workers there are, and on which devices (none named: all on that of `--device`).

    Raises:
        UserError: no such device on this machine.
    """
    from evalkit.options import resolve_device

    named = () if profile == "lite" else tuple(resolve_device(name) for name in listed(devices))
    return workers or max(1, len(named)), named


def limits(timeout_s: float, memory_gib: float) -> Limits:
    from evalkit.decoding import Limits

    return Limits(timeout_s, int(memory_gib * 2**30))


def run(
    suite: Suite,
    videos: Path,
    subset: str,
    dimensions: str | None,
    weights: Path | None,
    out: Path | None,
    json: Path | None,
    device: str,
    precision: str,
    batch: int,
    threads: int | None,
    trust_weights: bool,
    seed: int,
    workers: int | None,
    devices: str | None,
    decode_timeout: float,
    decode_memory: float,
    log_json: bool,
) -> None:
    """Score a folder by the rules of a suite, and show what came of it."""
    from evalkit.backbones.base import Runtime
    from evalkit.job import Request
    from evalkit.options import parse_precision, resolve_device
    from evalkit.suites.base import score
    from evalkit.weights import default_root

    name = Path(subset).stem or "pictures"
    folder = out or Path("runs") / f"{videos.resolve().name}-{name}-{suite.benchmark.profile}"
    n_workers, named = crew(workers, devices, "official")
    request = Request(
        videos=videos,
        subset=subset,
        out=folder,
        profile="official",
        dimensions=listed(dimensions),
        weights=weights or default_root(),
        trust_archives=trust_weights,
        runtime=Runtime(resolve_device(device), parse_precision(precision), batch),
        threads=threads,
        seed=seed,
        workers=n_workers,
        devices=named,
        limits=limits(decode_timeout, decode_memory),
    )
    finish(lambda bars: score(suite, request, bars, sys.argv), folder, json, log_json)


def listed(names: str | None) -> tuple[str, ...]:
    """Read `a, b`."""
    return tuple(name.strip() for name in (names or "").split(",") if name.strip())


def finish(score: Callable[[Progress], RunRecord], folder: Path, json: Path | None, log_json: bool) -> None:
    """Score while somebody watches, write the report, and show what came of it and what did not."""
    from evalkit import timings
    from evalkit.cli import tables
    from evalkit.cli.progress import watching
    from evalkit.files import write_atomically

    with watching(log_json) as bars:
        record = score(bars)
        from evalkit.report import render  # not before the networks have gone

        bars.start("writing the report", 1)
        with timings.stage(folder, "report"):
            render([record], folder / "report.html")
        bars.advance()
    if json:
        write_atomically(json, (folder / "vbench.json").read_bytes())
    cli.out.print(tables.scores(record))
    for line in (*tables.notes(record), *tables.unavailable(record), *tables.comparability(record)):
        cli.out.print(line, soft_wrap=True, highlight=False)
    cli.out.print(f"Report: {folder / 'report.html'}", soft_wrap=True, highlight=False)
    if tables.incomplete(record):
        raise typer.Exit(cli.INCOMPLETE)
