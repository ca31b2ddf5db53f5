"""M4V against full attention on one GPU: 57, 121 and 241 frames at 768x1280 in bf16, one forward pass each.

Writes the record and a table for people to `benchmarks/results/`. Without a GPU there is nothing to measure: it says so
and exits with 2.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import UserError
from evalkit.files import write_atomically

RESULTS = Path(__file__).parent / "results"
FRAMES = (57, 121, 241)
HEIGHT, WIDTH = 768, 1280


class Lines:
    """Progress as lines on stderr."""

    def start(self, what: str, total: int) -> None:
        print(f"{what} ({total})", file=sys.stderr)

    def advance(self, steps: int = 1) -> None:
        """Nothing: a line a stage is enough."""


def measure(repeats: int, warmup: int, compile_: bool) -> dict[str, Any]:
    """The record of one run on the current GPU."""
    from evalkit.latency.session import Request, run

    request = Request(
        device="cuda",
        model="m4v",
        frames=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        dtype="bf16",
        compile=compile_,
        warmup=warmup,
        repeats=repeats,
        breakdown=not compile_,
    )
    return run(request, Lines(), ["python", "-m", "benchmarks.latency_table", *sys.argv[1:]]).to_json()


def markdown(record: Mapping[str, Any]) -> str:
    """The record as a table, with the hardware above it and what its figures are not below it."""
    from evalkit.latency.hardware import is_a100, name

    settings = record["settings"]
    compiled = "compiled" if settings["compile"] else "not compiled"
    head = [
        f"# Latency of M4V on {record['hardware']['gpu']}",
        "",
        f"{name(record['hardware'])}; {settings['dtype']}, batch {settings['batch']}, {compiled},"
        f" {settings['repeats']} rounds after {settings['warmup']} discarded ones,"
        f" torch {record['provenance']['packages']['torch']}. One forward pass: last latent frame, full resolution.",
        "",
        "| frames | tokens | variant | median | quartiles | x attention (95 %) | peak memory | TFLOP/s | of peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    whose = "Not an A100: M4V's published seconds are from an A100"
    if is_a100(record["hardware"]):
        whose = "M4V's published seconds are of whole clips"
    foot = [f"Peak: {record['rows'][0]['peak_source']}. {whose}, and are not put beside these.", ""]
    return "\n".join([*head, *map(_line, record["rows"]), "", *foot])


def _line(row: Mapping[str, Any]) -> str:
    start = f"| {row['frames']} | {row['tokens']} | {row['variant']} |"
    if row["failed"]:
        return f"{start} {row['failed'].replace('|', '/')} | | | | | |"
    rate, share = row["achieved_tflops_per_s"], row["utilisation"]
    return (
        f"{start} {1e3 * row['median_s']:.2f} ms | {1e3 * row['q1_s']:.2f} to {1e3 * row['q3_s']:.2f} ms"
        f" | {_ratio(row['ratio'])} | {row['peak_memory_bytes'] / 2**30:.2f} GiB | {rate:.1f} | {100 * share:.1f} % |"
    )


def _ratio(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None:
        return "-"
    interval = "too few repeats" if ratio["ci95"] is None else f"{ratio['ci95'][0]:.3f} to {ratio['ci95'][1]:.3f}"
    return f"{ratio['value']:.3f} ({interval})"


def file_name(gpu: str) -> str:
    """`NVIDIA A100-SXM4-80GB` as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def write(record: Mapping[str, Any], folder: Path) -> Path:
    """Write the record and its table; returns the path of the table."""
    suffix = "_compiled" if record["settings"]["compile"] else ""
    path = folder / f"latency_{file_name(record['hardware']['gpu'])}{suffix}.json"
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    table = path.with_suffix(".md")
    write_atomically(table, markdown(record).encode())
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency_table", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="measure compiled models, without the breakdown")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the record and the table")
    given = parser.parse_args(arguments)

    import torch

    if not torch.cuda.is_available():
        print("There is no GPU here: the table needs one, and no figure is made up without it.", file=sys.stderr)
        return 2
    try:
        record = measure(given.repeats, given.warmup, given.compile)
    except UserError as e:
        print(f"{e.what}\n{e.remedy}", file=sys.stderr)
        return e.exit_code
    table = write(record, given.out)
    print(table.read_text(encoding="utf-8"))
    return 3 if any(row["failed"] for row in record["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
