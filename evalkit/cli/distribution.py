"""`m4v-eval distribution`: how far a set of videos is from a reference."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalkit import cli
from evalkit.cli import suites

if TYPE_CHECKING:
    from rich.table import Table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("distribution")(distribution)


def distribution(
    videos: Annotated[Path, typer.Option(help="Folder of the model's videos.", show_default=False)],
    reference: Annotated[
        Path | None, typer.Option(help="Folder of real videos, or a file of their statistics.", show_default=False)
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Folder of another model's videos, to compare with.", show_default=False)
    ] = None,
    measures: Annotated[str, typer.Option(help="Comma-separated: fid, kid, is, fvd.")] = "fid,kid,is,fvd",
    frames: Annotated[int, typer.Option(min=1, help="Frames a video for fid, kid and is, evenly spread.")] = 16,
    splits: Annotated[int, typer.Option(min=1, help="Parts that the Inception Score is averaged over.")] = 1,
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints.", show_default="$VBENCH_CACHE_DIR or ~/.cache/vbench"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; an existing one is resumed.", show_default="runs/FOLDER-distribution"),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the machine-readable result here.")] = None,
    save_statistics: Annotated[
        Path | None, typer.Option(help="Write the reference's mean and covariance here (.npz).", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Frames a network sees at once.")] = 8,
    trust_weights: Annotated[
        bool, typer.Option("--trust-weights", help="Open weights that are not the published files (I3D can run code).")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the intervals and of the splits.")] = 0,
) -> None:
    """Compare a set of videos with a reference: FID, KID, FVD, and the Inception Score. Not VBench.

    [bold]fid[/bold] and [bold]kid[/bold] compare single frames in Inception's features, [bold]fvd[/bold] the middle 16
    frames in I3D's; lower is nearer to the reference. [bold]is[/bold] needs no reference; higher is better.

    What to know before comparing numbers: FID and FVD come out too large for few videos, the more so the fewer there
    are, so compare only numbers from [bold]equally many videos and the same reference[/bold]. Below as many samples as
    features (2048, 400) they are mostly that bias, and the table says so; from twice as many videos it also gives the
    number extrapolated to infinitely many. KID has no such bias and is the better choice for small sets. The intervals
    leave out groups of videos by turns; they do not contain the bias. With --baseline the difference of two models
    against the same reference gets an interval of its own.

    The networks are torch-fidelity's Inception and StyleGAN-V's I3D: `pip install 'm4v-eval\\[distribution]'`, then
    `m4v-eval weights pull inception-2015 i3d-400`. The published files were not at hand when this command was tested.
    EvalCrafter is not available: no licence was found for it; `m4v-eval reference show evalcrafter` has its table.

    Examples:

      m4v-eval distribution --videos samples/ --reference real/

      m4v-eval distribution --videos samples/ --reference real/ --baseline old/ --measures kid,fvd

      m4v-eval distribution --videos samples/ --reference real/ --measures fid,fvd --save-statistics real.npz

      m4v-eval distribution --videos samples/ --reference real.npz --measures fid,fvd

    Exits with 3 if a video or a measure was left out (they are listed).
    """
    from evalkit.backbones.base import Runtime
    from evalkit.cli.progress import watching
    from evalkit.distribution.evaluate import Request, as_json, evaluate, incomplete
    from evalkit.files import write_atomically
    from evalkit.options import resolve_device
    from evalkit.weights import default_root

    run = out or Path("runs") / f"{videos.resolve().name}-distribution"
    request = Request(
        videos=videos,
        out=run,
        reference=reference,
        baseline=baseline,
        measures=suites.listed(measures),
        frames=frames,
        splits=splits,
        weights=weights or default_root(),
        trust_archives=trust_weights,
        runtime=Runtime(resolve_device(device), batch=batch),
        seed=seed,
        save_statistics=save_statistics,
    )
    with watching() as bars:
        record = evaluate(request, bars, sys.argv)
    if json:
        write_atomically(json, as_json(record))
    cli.out.print(_table(record))
    for line in _lines(record):
        cli.out.print(line, soft_wrap=True, highlight=False)
    if incomplete(record):
        raise typer.Exit(cli.INCOMPLETE)


def _table(record: Mapping[str, Any]) -> Table:
    """A row a number; fits a terminal of 80 columns."""
    from rich.table import Table

    caption = "videos: of the set / of the reference; ↓ lower is better, ↑ higher"
    title = "Distances of sets of videos, not VBench"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("measure", no_wrap=True)
    for column in ("value", "95 % interval", "videos", "left out"):
        table.add_column(column, justify="right")
    for protocol, row in record["measures"].items():
        for label, part, role in _parts(protocol, row):
            n = row["n"].get(role)
            missing = record["sets"][role]["n"] - n if role else 0
            table.add_row(
                label,
                _number(part["value"]),
                _interval(part),
                f"{n}{_reference(row)}" if role else "",
                f"[bold yellow]{missing}[/bold yellow]" if missing else "0" if role else "",
            )
    return table


def _parts(protocol: str, row: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str | None]]:
    """The number of the videos, that of the baseline, and their difference: label, number and set."""
    yield f"{protocol} {'↓' if row['better'] == 'lower' else '↑'}", row, "videos"
    if row["baseline"]:
        yield "baseline", row["baseline"], "baseline"
    if row["difference"]:
        pairs = " of pairs" if row["difference"]["paired"] else ""
        yield f"difference{pairs}", row["difference"], None


def _reference(row: Mapping[str, Any]) -> str:
    if "reference" not in row["n"]:
        return ""
    return f" / {'file' if row['n']['reference'] is None else row['n']['reference']}"


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What was left out, and what has to be said with the numbers."""
    from rich.markup import escape

    for protocol, row in record["measures"].items():
        if row["unscored"]:
            yield f"[yellow]not measured:[/yellow] {protocol}, {escape(row['unscored'])}"
        if row["extrapolated"] is not None:
            yield f"{protocol}, extrapolated to infinitely many videos: {_number(row['extrapolated'])}"
    reasons = Counter((v["set"], v["reason"]) for v in record["unscored"])
    examples = {(v["set"], v["reason"]): v["file"] for v in reversed(record["unscored"])}
    for (role, reason), n in reasons.most_common():
        example = escape(examples[role, reason])
        yield f"[yellow]not scored:[/yellow] {n} of --{role}, {escape(reason)} (such as {example})"
    for caveat in record["caveats"]:
        yield f"[yellow]note:[/yellow] {escape(caveat)}"
    notes: dict[str, list[str]] = {}
    for protocol, row in record["measures"].items():
        for note in row["notes"]:
            notes.setdefault(note, []).append(protocol)
    for note, protocols in notes.items():
        yield f"[yellow]{', '.join(protocols)}:[/yellow] {escape(note)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _interval(part: Mapping[str, Any]) -> str:
    if part["value"] is None:
        return "-"
    return f"{part['ci95'][0]:.3g} to {part['ci95'][1]:.3g}" if part["ci95"] else "needs 3 videos"
