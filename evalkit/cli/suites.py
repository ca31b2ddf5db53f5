"""What `vbench` and the commands of its sister suites share: options, the run, the report and the tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit import cli
from evalkit.cli.progress import LogJson as LogJson
from evalkit.cli.submission import Cluster as Cluster
from evalkit.cli.submission import no_json, show

if TYPE_CHECKING:
    from evalkit.decoding import Limits
    from evalkit.job import Request
    from evalkit.runner import Rules
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
MACHINE = "Where and how it runs"
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=MACHINE)]
Precision = Annotated[
    str,
    typer.Option(help="fp32; bf16 or fp16 are faster, and labelled as other numbers.", rich_help_panel=MACHINE),
]
Batch = Annotated[
    int,
    typer.Option(min=1, help="Frames a network sees at once; does not change results.", rich_help_panel=MACHINE),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads for the networks of each worker.",
        show_default="all cores, shared among the workers",
        rich_help_panel=MACHINE,
    ),
]
TrustWeights = Annotated[
    bool,
    typer.Option("--trust-weights", help="Open CLIP archives that are not the published files (they can run code)."),
]
Seed = Annotated[int, typer.Option(help="Seed of the bootstrap.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that score side by side; with equal --threads the results are equal to the bit.",
        show_default="one a device",
        rich_help_panel=MACHINE,
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        help="Devices of the workers, such as cuda:0,cuda:1.", show_default="that of --device", rich_help_panel=MACHINE
    ),
]
DecodeTimeout = Annotated[
    float,
    typer.Option(min=1, help="Seconds without a frame after which a video is given up.", rich_help_panel=MACHINE),
]
DecodeMemory = Annotated[
    float,
    typer.Option(min=0.25, help="GiB that decoding one video may take before it is given up.", rich_help_panel=MACHINE),
]


def crew(workers: int | None, devices: str | None, profile: str, elsewhere: bool) -> tuple[int, tuple[str, ...]]:
    """How many workers there are, and on which devices (none named: all on that of `--device`).

    Raises:
        UserError: no such device on this machine, where they are to work unless it is `elsewhere`.
    """
    from evalkit.options import resolve_device

    named = () if profile == "lite" else tuple(n if elsewhere else resolve_device(n) for n in listed(devices))
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
    cluster: Path | None,
) -> None:
    """Score a folder by the rules of a suite, and show what came of it."""
    from evalkit.backbones.base import Runtime
    from evalkit.job import Request
    from evalkit.options import parse_precision, resolve_device
    from evalkit.suites.base import SuiteRules
    from evalkit.weights import default_root

    name = Path(subset).stem or "pictures"
    folder = out or Path("runs") / f"{videos.resolve().name}-{name}-{suite.benchmark.profile}"
    n_workers, named = crew(workers, devices, "official", bool(cluster))
    request = Request(
        videos=videos,
        subset=subset,
        out=folder,
        profile="official",
        dimensions=listed(dimensions),
        weights=weights or default_root(),
        trust_archives=trust_weights,
        runtime=Runtime(device if cluster else resolve_device(device), parse_precision(precision), batch),
        threads=threads,
        seed=seed,
        workers=n_workers,
        devices=named,
        limits=limits(decode_timeout, decode_memory),
    )
    carry_out(request, SuiteRules(suite), cluster, json, log_json)


def listed(names: str | None) -> tuple[str, ...]:
    """Read `a, b`."""
    return tuple(name.strip() for name in (names or "").split(",") if name.strip())


def carry_out(request: Request, rules: Rules, cluster: Path | None, json: Path | None, log_json: bool) -> None:
    """Score here while somebody watches, or submit it; show what came of it."""
    if cluster:
        from evalkit.cluster.scoring import submit_vbench

        no_json(json, request.out / "vbench.json")
        show(submit_vbench(request, cluster, sys.argv, rules=rules), request.out)
    else:
        finish(request, rules, json, log_json)


def finish(request: Request, rules: Rules, json: Path | None, log_json: bool) -> None:
    """Score while somebody watches, write the report, and show what came of it and what did not."""
    from evalkit import timings
    from evalkit.cli import tables
    from evalkit.cli.progress import watching
    from evalkit.files import write_atomically
    from evalkit.runner import score_folder

    folder = request.out
    with watching(log_json) as bars:
        record = score_folder(request, bars, sys.argv, rules=rules)
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
