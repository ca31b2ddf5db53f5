"""`m4v-eval compare`: is run B really better than run A?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.cli import INCOMPLETE, out

if TYPE_CHECKING:
    from rich.table import Table

    from evalkit.compare import DimensionComparison, RunComparison

# Colour, and the word in a narrow column.
VERDICTS = {
    "better": ("bold green", "better"),
    "worse": ("bold red", "worse"),
    "not distinguishable": ("dim", "unclear"),
    "not compared": ("yellow", "-"),
}
WIDE = 100  # columns from which the two means are shown beside their difference


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run directory of the baseline.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Run directory of what is compared with it.")],
    json: Annotated[Path | None, typer.Option(help="Also write the machine-readable result here.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the resampling.")] = 0,
) -> None:
    """Is run B really better than run A? Paired differences by prompt, with intervals and tests.

    Seeds of one prompt are averaged; prompts that both runs scored are compared. Each dimension gets the mean of
    B - A with a 95 % interval (bootstrap over prompts) and a p-value (sign-flip permutation test), corrected for
    testing several dimensions (Holm). Runs with other prompts, profiles, precisions, weights or metric versions are
    refused.

    Example:

      m4v-eval vbench --videos baseline/ --out runs/a

      m4v-eval vbench --videos changed/ --out runs/b

      m4v-eval compare runs/a runs/b

    Exits with 3 if some prompts or dimensions could not be compared (they are listed).
    """
    import json as json_format

    from evalkit.compare import compare_runs
    from evalkit.files import write_atomically
    from evalkit.records import load_run

    result = compare_runs(load_run(run_a), load_run(run_b), seed=seed)
    out.print(_table(result))
    for line in (*_statements(result), *_left_out(result)):
        out.print(line, highlight=False)
    if json:
        write_atomically(json, (json_format.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n").encode())
    if not result.complete:
        raise typer.Exit(INCOMPLETE)


def _table(result: RunComparison) -> Table:
    from rich.markup import escape
    from rich.table import Table

    title = f"{result.suite['name']} · " + ("lite stand-ins, not VBench" if result.profile == "lite" else "VBench")
    title += "" if result.precision == "fp32" else f" · {result.precision}, not the official precision"
    caption = f"A = {result.run_a}, B = {result.run_b}; percent; p after Holm; n prompts"
    table = Table(title=escape(title), title_justify="left", caption=escape(caption), caption_justify="left")
    wide = out.width >= WIDE
    table.add_column("dimension", no_wrap=True)
    for heading in (*(("A", "B") if wide else ()), "B - A", "95 %", "p", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("B is", no_wrap=True)
    for dimension in result.dimensions:
        means = (_percent(dimension.mean_a), _percent(dimension.mean_b)) if wide else ()
        colour, word = VERDICTS[dimension.verdict]
        table.add_row(escape(dimension.metric), *means, *_cells(dimension), f"[{colour}]{word}[/{colour}]")
    return table


def _cells(dimension: DimensionComparison) -> list[str]:
    result = dimension.result
    known = result.low is not None and result.high is not None
    interval = f"{100 * result.low:+.2f} {100 * result.high:+.2f}" if known else "unknown"  # type: ignore[operator]
    return [
        _percent(result.delta, sign="+"),
        interval,
        "-" if dimension.p_adjusted is None else f"{dimension.p_adjusted:.2g}",
        str(result.n),
    ]


def _percent(fraction: float | None, sign: str = "") -> str:
    return "-" if fraction is None else f"{100 * fraction:{sign}.2f}"


def _statements(result: RunComparison) -> Iterator[str]:
    """The result in words, with what could have been found, so that "not found" is not read as "not there"."""
    by_verdict: dict[str, list[DimensionComparison]] = {}
    for dimension in result.dimensions:
        by_verdict.setdefault(dimension.verdict, []).append(dimension)
    for verdict in ("better", "worse"):
        names = ", ".join(dimension.metric for dimension in by_verdict.get(verdict, []))
        if names:
            yield f"B is [{VERDICTS[verdict][0]}]{verdict}[/] than A in {names}."
    if unclear := by_verdict.get("not distinguishable"):
        yield (
            f"A and B are not distinguishable in {', '.join(map(_with_power, unclear))}; in brackets, the true"
            " difference that 80 % of such tests would find."
        )


def _with_power(dimension: DimensionComparison) -> str:
    detectable = dimension.result.detectable
    return f"{dimension.metric} ({'too few prompts' if detectable is None else f'{100 * detectable:.2f}'})"


def _left_out(result: RunComparison) -> Iterator[str]:
    from rich.markup import escape

    by_reason: dict[tuple[str, int], list[str]] = {}
    for dimension in result.dimensions:
        for reason, count in dimension.not_compared.items():
            by_reason.setdefault((reason, count), []).append(dimension.metric)
    for (reason, count), names in by_reason.items():
        where = "every dimension" if len(names) == len(result.dimensions) else ", ".join(names)
        yield f"[yellow]not compared:[/yellow] {count} prompt{'s' * (count > 1)} in {where}: {escape(reason)}"
    for name, run in result.only_in.items():
        yield f"[yellow]not compared:[/yellow] {escape(name)}, only in {escape(run)}"
    if result.in_neither:
        total = result.suite["n_prompts"]
        yield f"[yellow]not compared:[/yellow] {result.in_neither} of {total} prompts: no video in either run"
