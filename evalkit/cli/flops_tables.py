"""The record of `m4v-eval flops` as tables for the terminal."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.cli import out

if TYPE_CHECKING:
    from rich.table import Table


def show(record: Mapping[str, Any], *, breakdown: bool) -> None:
    """Print all tables of a record, then the convention they were counted under."""
    out.print(_costs(record))
    for line in (*_verdicts(record), *_tokens(record)):
        out.print(line, highlight=False)
    if breakdown:
        out.print(_breakdown(record))
    if record["sweep"]:
        out.print(_sweep(record["sweep"]))
        out.print(_crossing(record["sweep"]), highlight=False)
    for table in _extras(record):
        out.print(table)
    out.print("\n[bold]Counted as[/bold]", highlight=False)
    for sentence in record["convention"]["notes"]:
        out.print(f"  {sentence}", highlight=False, soft_wrap=True)


def note(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True)


def save(record: Mapping[str, Any], path: Path) -> None:
    """Write the record as JSON."""
    from evalkit.files import write_atomically

    write_atomically(path, (json_format.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def _table(title: str, *columns: str, caption: str | None = None) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for n, column in enumerate(columns):
        table.add_column(column, justify="left" if n == 0 else "right", no_wrap=True)
    return table


def _costs(record: Mapping[str, Any]) -> Table:
    rows = record["rows"]
    first = rows[0]
    clip = "" if first["frames"] is None else f" · {first['frames']} frames, {first['height']}x{first['width']}"
    scope = "the whole clip" if record["convention"]["scope"] == "clip" else "one forward pass"
    columns = {
        "L + N": [
            None if row["dual_blocks"] is None else f"{row['dual_blocks']} + {row['single_blocks']}" for row in rows
        ],
        "mixers": [_cell(row["mixer_tflops"]) for row in rows],
        "whole": [_cell(row["total_tflops"]) for row in rows],
        "clip": [_cell(row["clip_tflops"]) for row in rows],
        "paper": [_cell(row["published_tflops"], 3) for row in rows],
        "off by": [_off(row) for row in rows],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    captions = {
        "L + N": "L + N: blocks with two streams and attention, and with one stream",
        "mixers": f"mixers, whole model: {scope}",
        "clip": "clip: all frames, stages, steps, guidance",
        "paper": "paper: what is published for the mixers",
    }
    caption = "; ".join(text for name, text in captions.items() if name in shown)
    table = _table(f"{first['model']}{clip}, TFLOPs", "variant", *shown, caption=caption)
    for row, *cells in zip(rows, *shown.values(), strict=True):
        table.add_row(row["variant"], *(cell or "-" for cell in cells))
    return table


def _cell(value: float | None, digits: int = 2) -> str | None:
    return None if value is None else _tflops(value, digits)


def _weights(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"


def _tflops(value: float | None, digits: int = 2) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.{digits}f}" if value >= 0.1 else f"{value:.3g}"


def _off(row: Mapping[str, Any]) -> str | None:
    if row["relative_error"] is None:
        return None
    colour = "green" if row["reproduced"] else "yellow"
    return f"[{colour}]{row['relative_error']:+.1%}[/{colour}]"


def _verdicts(record: Mapping[str, Any]) -> Iterator[str]:
    """Which published figures are met, in words, and what an unmet one would need."""
    rows = [row for row in record["rows"] if row["reproduced"] is not None]
    for reproduced, word in ((True, "[green]reproduced[/green]"), (False, "[yellow]not reproduced[/yellow]")):
        listed = [f"{row['variant']} L={row['dual_blocks']}" for row in rows if row["reproduced"] is reproduced]
        if listed:
            tolerances = sorted({f"{row['tolerance']:.1%}" for row in rows if row["reproduced"] is reproduced})
            yield f"{word} (within {' or '.join(tolerances)} of the mixers' published TFLOPs): {', '.join(listed)}"
    missed = [row for row in rows if not row["reproduced"]]
    if any(row["dual_blocks"] < 8 for row in missed) and record["convention"]["dual_mamba_cost"] == 1:
        yield "M4V's Table 6 is met only if a dual-stream Mamba block is assumed to cost twice: --dual-mamba-cost 2"
    yield from _savings(record["rows"])
    if sources := sorted({row["published_source"] for row in rows}):
        yield f"paper: {'; '.join(sources)}"


def _savings(rows: list[dict[str, Any]]) -> Iterator[str]:
    """How much less the model's mixers cost than attention's, counted and as printed."""
    by_variant = {(row["variant"], row["dual_blocks"]): row for row in rows}
    attention = next((row for row in rows if row["variant"] == "attention"), None)
    for (variant, blocks), row in by_variant.items():
        if attention and row["this_model"] and blocks == attention["dual_blocks"] and variant != "attention":
            counted = 1 - row["mixer_tflops"] / attention["mixer_tflops"]
            both = row["published_tflops"] and attention["published_tflops"]
            printed = f" (paper: {1 - row['published_tflops'] / attention['published_tflops']:.1%})" if both else ""
            yield f"{variant} saves {counted:.1%} of what attention's mixers cost{printed}"


def _tokens(record: Mapping[str, Any]) -> Iterator[str]:
    if record["tokens"]:
        yield "video tokens: " + ", ".join(f"{where} {n:,}" for where, n in record["tokens"].items())


SMALL = 0.005
"""Parts below this share of every row are added up as `rest`."""


def _breakdown(record: Mapping[str, Any]) -> Table:
    rows = record["rows"]
    shares = {
        part: max(row["breakdown"].get(part, 0.0) / row["total_tflops"] for row in rows if row["total_tflops"])
        for part in {part for row in rows for part in row["breakdown"]}
    }
    parts = sorted((part for part, share in shares.items() if share >= SMALL), key=lambda part: -shares[part])
    table = _table("Cost of each part, TFLOPs", "variant", *parts, "rest", "weights")
    for row in rows:
        listed = [row["breakdown"].get(part) for part in parts]
        rest = row["total_tflops"] - sum(flops or 0.0 for flops in listed)
        name = row["variant"] + ("" if row["dual_blocks"] is None else f" {row['dual_blocks']}")
        table.add_row(name, *map(_tflops, listed), _tflops(max(rest, 0.0)), _weights(row["parameters"]))
    return table


def _sweep(sweep: Mapping[str, Any]) -> Table:
    name = "frames" if sweep["parameter"] == "frames" else "L"
    table = _table(f"Sweep over {sweep['parameter']}", name, "tokens", "variant", "mixers", "whole model")
    before = None
    for row in sweep["rows"]:
        new = row["value"] != before
        if new and before is not None:
            table.add_section()
        before = row["value"]
        table.add_row(
            str(row["value"]) if new else "",
            f"{row['tokens']:,}" if new else "",
            row["variant"],
            _tflops(row["mixer_tflops"]),
            _tflops(row["total_tflops"]),
        )
    return table


def _crossing(sweep: Mapping[str, Any]) -> str:
    crossing = sweep["crossing"]
    if crossing is None:
        return "No crossing: the model has one variant, or one of them is always cheaper."
    where = (
        "less than one frame of this size, so that every clip lies beyond it"
        if crossing["frames"] is None
        else f"reached by clips of {crossing['frames']} frames"
    )
    return (
        f"{crossing['a']} and {crossing['b']} mixers cost the same at {crossing['tokens']:,.0f} video tokens: {where}."
    )


def _extras(record: Mapping[str, Any]) -> Iterator[Any]:
    if "closed_forms" in record:
        yield _closed_forms(record["closed_forms"])
    if "budgets" in record:
        yield _budgets(record["budgets"])
        yield _stages(record["stages"])
    for variant, check in record.get("fvcore", {}).items():
        missed = ", ".join(f"{name} ({n} calls)" for name, n in check["missed"].items())
        yield (
            f"fvcore, {variant}: {_tflops(check['tflops'])} TFLOPs against {_tflops(check['ours_tflops'])} here; "
            f"linear layers {_tflops(check['linear_tflops'])} against {_tflops(check['ours_linear_tflops'])}."
            + (f" It has no rule for {missed}." if missed else "")
        )


def _closed_forms(terms: list[dict[str, Any]]) -> Table:
    table = _table(
        "LinGen's formulas for one bidirectional Mamba-2 module, TFLOPs", "term", "formula", "counted", "note"
    )
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    for term in terms:
        table.add_row(term["term"], f"{term['formula_tflops']:.4f}", f"{term['counted_tflops']:.4f}", term["note"])
    return table


def _budgets(budgets: list[dict[str, Any]]) -> Table:
    table = _table("STIV Tables 14 and 15: training budgets, 1e21 FLOPs", "row", "stages", "sum", "printed", "note")
    table.columns[0].no_wrap, table.columns[-1].no_wrap, table.columns[-1].justify = False, False, "left"
    for row in budgets:
        note = ""
        if row["misprint"]:
            stage, _, needed = row["misprint"]
            note = f"{stage}: misprint of {needed:g}"
        table.add_row(
            f"{row['table']}: {row['name'].partition(':')[0]}",
            " + ".join(f"{x:g}" for x in row["stages"]),
            f"{row['sum']:.2f}",
            f"{row['total']:.2f}",
            note,
        )
    return table


def _stages(stages: list[dict[str, Any]]) -> Table:
    table = _table(
        "STIV-XL stages of default length, 1e21 FLOPs",
        "stage",
        "printed",
        "counted",
        "half masked",
        caption="three forward passes a step, 400k steps of 4,096 images or 1,024 videos, text left out;\n"
        "the paper does not say which stages were masked: the printed figures fit images unmasked, videos masked",
    )
    for row in stages:
        table.add_row(row["stage"], f"{row['printed']:.2f}", f"{row['unmasked']:.2f}", f"{row['masked']:.2f}")
    return table
