"""`m4v-eval latency`: how long a forward pass takes here, and how much memory it needs."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit import cli

if TYPE_CHECKING:
    from rich.table import Table

    from evalkit.latency.against import Pair
    from evalkit.latency.measure import Row
    from evalkit.latency.session import Report
    from evalkit.latency.spread import Ratio

WIDE = 110  # columns from which the quartiles and the achieved rate are shown


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("latency")(latency)


def latency(
    model: Annotated[
        str | None,
        typer.Option(
            help="A named model, or FILE.py:factory with a function that returns (module, inputs).",
            show_default="m4v on a GPU, m4v-tiny on a CPU",
        ),
    ] = None,
    frames: Annotated[
        str | None, typer.Option(help="Clip lengths, such as 57,121,241.", show_default="the model's own")
    ] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Pixels.", show_default="the model's own")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Pixels.", show_default="the model's own")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="fp32, bf16 or fp16, of weights and inputs.")] = "fp32",
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the models.")] = False,
    warmup: Annotated[int, typer.Option(help="Rounds that are discarded, at least 1.")] = 3,
    repeats: Annotated[int, typer.Option(help="Rounds that count, at least 3; 6 for an interval.")] = 20,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips in a pass.", show_default="1")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")] = None,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Also time module by module.")] = False,
    dual_blocks: Annotated[
        int | None, typer.Option(help="Dual-stream attention blocks, L of M4V.", show_default="the model's own")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory: adds latency.json, which the report shows.", show_default=False)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the machine-readable result here.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Compare with this earlier --json FILE of the same hardware and settings.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, inputs, order and bootstrap.")] = 0,
) -> None:
    """How long does one forward pass take on this machine, in how much memory, and how near is that to its peak?

    The pass is the last one of sampling: last latent frame, full-resolution stage. For M4V the rows are attention,
    mamba and mamba+temporal; they take turns, so that whatever drifts meets all alike, and each is compared with the
    first by the ratio of medians with a 95 % interval. Memory is the peak of one pass with its weights. The position
    under the roofline is counted FLOPs over time against the published peak of a known GPU, else a measured matmul.

    Times of other hardware are never compared. On a GPU time comes from CUDA events and memory from PyTorch's
    allocator; that path is tested against a stand-in for the driver, and no table in this repository was made with it.

    Examples:

      m4v-eval latency --model m4v-tiny --breakdown

      m4v-eval latency --model m4v --frames 57,121,241 --dtype bf16 --json before.json

      m4v-eval latency --model m4v --frames 57,121,241 --dtype bf16 --against before.json

    Exits with 3 if a variant ran out of memory (its row says so).
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports on itself; read once, when torch is loaded

    import json as json_format

    from evalkit.cli.progress import watching
    from evalkit.files import write_atomically
    from evalkit.latency import against as other
    from evalkit.latency import record
    from evalkit.latency.session import Request, parse_frames, run
    from evalkit.options import resolve_device

    before = None if against is None else (against, record.load(against))
    request = Request(
        device=resolve_device(device),
        model=model,
        frames=parse_frames(frames),
        height=height,
        width=width,
        dtype=dtype,
        compile=compile_,
        batch=batch,
        threads=threads,
        warmup=warmup,
        repeats=repeats,
        breakdown=breakdown,
        dual_blocks=dual_blocks,
        seed=seed,
    )
    with watching() as bars:
        report = run(request, bars, sys.argv, before)
    for path in (out and out / "latency.json", json):
        if path:
            write_atomically(path, (json_format.dumps(report.to_json(), indent=2) + "\n").encode())
    for table in _tables(report):
        cli.out.print(table)
    for line in _notes(report):
        cli.out.print(line, soft_wrap=True, highlight=False)
    if before is not None:
        _print_pairs(other.pairs(report.rows, before[1], before[0], seed=seed))
    if report.incomplete:
        raise typer.Exit(cli.INCOMPLETE)


def _tables(report: Report) -> Iterator[Table]:
    by_clip: dict[object, list[Row]] = {}
    for row in report.rows:
        by_clip.setdefault(row.subject.clip, []).append(row)
    for rows in by_clip.values():
        yield _table(report, rows)
        if any(row.taken and row.taken.modules for row in rows):
            yield _modules(report, rows)


def _title(report: Report, rows: Sequence[Row], what: str) -> str:
    from rich.markup import escape

    clip, settings = rows[0].subject.clip, report.settings
    how = f"{settings.dtype}{', compiled' if settings.compile else ''}, batch {settings.batch}"
    where = f" · {clip}" if clip else ""
    return escape(f"{settings.model}{where} · {what} · {settings.device}, {how}")


def _table(report: Report, rows: Sequence[Row]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=_title(report, rows, "one forward pass"), title_justify="left")
    wide = cli.out.width >= WIDE
    table.add_column("variant")
    headings = ["median", *(["quartiles"] if wide else []), f"x {rows[0].subject.variant}", "95 %", "peak memory"]
    headings += ["TFLOP/s"] * wide + ["of peak"]
    for heading in headings if len(rows) > 1 else [h for n, h in enumerate(headings) if n not in _ratio_columns(wide)]:
        table.add_column(heading, justify="right")
    for row in rows:
        cells = _cells(row, wide)
        if len(rows) == 1:
            cells = [cell for n, cell in enumerate(cells) if n not in _ratio_columns(wide)]
        table.add_row(escape(row.subject.variant), *cells)
    return table


def _ratio_columns(wide: bool) -> tuple[int, int]:
    return (2, 3) if wide else (1, 2)


def _cells(row: Row, wide: bool) -> list[str]:
    if row.taken is None:
        return ["[bold yellow]out of memory[/bold yellow]", *["-"] * (6 if wide else 4)]
    spread, at = row.taken.spread, row.position
    return [
        _time(spread.median),
        *([f"{_time(spread.q1)} to {_time(spread.q3)}"] if wide else []),
        *_ratio(row.ratio),
        _size(row.taken.memory.peak_bytes),
        *([f"{at.achieved / 1e12:.3g}" if at else "-"] if wide else []),
        f"{100 * at.utilisation:.3g} %" if at else "-",
    ]


def _ratio(ratio: Ratio | None) -> list[str]:
    if ratio is None:
        return ["-", "-"]
    interval = "unknown" if ratio.ci95 is None else f"{ratio.ci95[0]:.3f} {ratio.ci95[1]:.3f}"
    return [f"{ratio.value:.3f}", interval]


def _time(seconds: float) -> str:
    """Three significant digits or more, in the unit that suits."""
    scale, unit = next((s, u) for s, u in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")) if s * seconds >= 1 or u == "µs")
    value = scale * seconds
    return f"{value:.{max(0, 2 - int(math.log10(value))) if value >= 1 else 2}f} {unit}"


def _size(size: int) -> str:
    unit, scale = next((u, s) for u, s in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 1)) if size >= s)
    return f"{size / max(scale, 1024):.{2 if unit == 'GiB' else 1}f} {unit}"


def _modules(report: Report, rows: Sequence[Row]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=_title(report, rows, "by module"), title_justify="left")
    table.add_column("module", no_wrap=True)
    shares = [{share.name: share for share in row.taken.modules} if row.taken else {} for row in rows]
    for row in rows:
        table.add_column(escape(row.subject.variant), justify="right")
    names = dict.fromkeys(name for found in shares for name in found if name != "other")
    for name in (*names, "other"):
        cells = [f"{_time(f[name].seconds)} {100 * f[name].share:5.1f} %" if name in f else "-" for f in shares]
        table.add_row(escape(name), *cells)
    return table


def _notes(report: Report) -> Iterator[str]:
    from rich.markup import escape

    from evalkit.latency import hardware
    from evalkit.latency.peaks import GIGA, TERA

    settings, peak = report.settings, report.peak
    count = f"{settings.threads} thread{'s' * (settings.threads > 1)}"
    threads = f", {count}" if settings.device.type == "cpu" else ""
    yield f"Hardware: {escape(hardware.name(report.hardware))}{threads}; {report.provenance['clock']}."
    yield from map(escape, _published(report))
    yield (
        f"Times: {settings.repeats} rounds after {settings.warmup} discarded, variants in turn in seeded order; one"
        " forward pass, not a clip."
    )
    if any(row.ratio and row.ratio.ci95 is None for row in report.rows):
        yield f"Intervals unknown: {settings.repeats} repeats are too few for 95 %; it takes 6."
    yield escape(
        f"Peak in {settings.dtype}: {peak.flops / TERA:.4g} TFLOP/s, {peak.bandwidth / GIGA:.4g} GB/s; {peak.source}."
    )
    for row in report.rows:
        yield from _row_notes(row)
    method = next((row.taken.memory.method for row in report.rows if row.taken), None)
    if method:
        yield escape(f"Memory: {method}.")
    if any(row.taken and row.taken.modules for row in report.rows):
        yield "By module: mean of passes of their own, with marks around the modules; shares add up to the whole pass."


def _published(report: Report) -> Iterator[str]:
    from evalkit.latency.hardware import is_a100

    if is_a100(report.hardware):
        yield "An A100, as in M4V's publications; but those seconds are of whole clips, and not put beside these."
    else:
        yield "Not an A100: M4V's published seconds are from an A100, and are not put beside these."


def _row_notes(row: Row) -> Iterator[str]:
    from rich.markup import escape

    name = escape(f"{row.subject.clip}, {row.subject.variant}" if row.subject.clip else row.subject.variant)
    if row.failed:
        yield f"[yellow]not measured:[/yellow] {name}: {escape(row.failed)}"
    if row.position:
        at = row.position
        yield (
            f"{name}: at most {at.intensity:.3g} FLOPs a byte, ridge at {at.ridge:.3g}: bound by {at.bound};"
            f" the roof is {_time(at.fastest)}."
        )
    elif not row.failed:
        yield f"{name}: its FLOPs cannot be counted (on the meta device), so it has no place under the roofline."
    if row.taken and (row.taken.graphs or 0) > 1:
        yield f"{name}: compiled into {row.taken.graphs} graphs, with Python in between: not the best it could be."
    if row.taken and row.taken.order == "alone":
        yield f"{name}: no room beside the other variants, measured alone afterwards; drift is not shared with them."


def _print_pairs(pairs: Sequence[Pair]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Against the earlier record: median here / median there", title_justify="left")
    for heading in ("variant", "clip", "there", "here", "ratio", "95 %"):
        table.add_column(heading, justify="left" if heading in ("variant", "clip") else "right")
    for pair in pairs:
        here = _time(pair.row.taken.spread.median) if pair.row.taken else "out of memory"
        there = _time(pair.there["median_s"]) if pair.there["seconds"] else "out of memory"
        subject = pair.row.subject
        table.add_row(escape(subject.variant), str(subject.clip or "-"), there, here, *_ratio(pair.ratio))
    cli.out.print(table)
    cli.out.print("Measured at different times: a drift of the machine is part of these ratios.", highlight=False)
