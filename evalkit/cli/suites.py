"""What `vbench` and the commands of its sister suites share: options, the run, the report and the tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit import cli

if TYPE_CHECKING:
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
) -> None:
    """Score a folder by the rules of a suite, and show what came of it."""
    from evalkit.backbones.base import Runtime
    from evalkit.job import Request
    from evalkit.options import parse_precision, resolve_device
    from evalkit.suites.base import score
    from evalkit.weights import default_root

    name = Path(subset).stem or "pictures"
    folder = out or Path("runs") / f"{videos.resolve().name}-{name}-{suite.benchmark.profile}"
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
    )
    finish(lambda bars: score(suite, request, bars, sys.argv), folder, json)


def listed(names: str | None) -> tuple[str, ...]:
    """Read `a, b`."""
    return tuple(name.strip() for name in (names or "").split(",") if name.strip())


def finish(score: Callable[[Progress], RunRecord], folder: Path, json: Path | None) -> None:
    """Score under a progress bar, write the report, and show what came of it and what did not."""
    from evalkit.cli import tables
    from evalkit.cli.progress import Bars
    from evalkit.files import write_atomically

    with Bars() as bars:
        record = score(bars)
        from evalkit.report import render  # not before the networks have gone

        bars.start("writing the report", 1)
        render([record], folder / "report.html")
    if json:
        write_atomically(json, (folder / "vbench.json").read_bytes())
    cli.out.print(tables.scores(record))
    for line in (*tables.notes(record), *tables.unavailable(record), *tables.comparability(record)):
        cli.out.print(line, soft_wrap=True, highlight=False)
    cli.out.print(f"Report: {folder / 'report.html'}", soft_wrap=True, highlight=False)
    if tables.incomplete(record):
        raise typer.Exit(cli.INCOMPLETE)
