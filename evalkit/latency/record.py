"""The machine-readable result, written and read back: `m4v-eval/latency/1`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import UserError
from evalkit.latency.measure import Row, Settings
from evalkit.latency.modules import Share
from evalkit.latency.peaks import TERA, Peak
from evalkit.latency.spread import Ratio
from evalkit.untrusted import parse_json, read_text

SCHEMA = "m4v-eval/latency/1"
COMPARED = {"variant", "model", "frames", "height", "width", "inputs", "seconds", "median_s"}
"""What a comparison reads of a row."""


def to_json(
    rows: Sequence[Row], settings: Settings, hardware: dict[str, Any], peak: Peak, provenance: dict[str, Any]
) -> dict[str, Any]:
    """The whole record; times in seconds, sizes in bytes, FLOPs in 1e12."""
    return {
        "schema": SCHEMA,
        "hardware": hardware,
        "settings": settings.to_json(),
        "rows": [_row(row, peak) for row in rows],
        "provenance": provenance,
    }


def _row(row: Row, peak: Peak) -> dict[str, Any]:
    subject, taken = row.subject, row.taken
    clip = dict(zip(("frames", "height", "width"), subject.clip or (None, None, None), strict=True))
    return {
        "variant": subject.variant,
        "model": subject.model,
        "config_hash": subject.config_hash,
        **clip,
        "tokens": subject.tokens,
        "parameters": row.parameters,
        "inputs": [list(shape) for shape in taken.inputs] if taken else None,
        "compiled_graphs": taken.graphs if taken else None,
        **_times(row),
        "peak_memory_bytes": taken.memory.peak_bytes if taken else None,
        "memory_method": taken.memory.method if taken else None,
        "tflops": None if row.flops is None else row.flops / TERA,
        **_roofline(row, peak),
        "ratio": _ratio(row.ratio),
        "modules": [_share(share) for share in taken.modules] if taken else [],
        "failed": row.failed,
    }


def _times(row: Row) -> dict[str, Any]:
    taken = row.taken
    if taken is None:
        return dict.fromkeys(("median_s", "q1_s", "q3_s", "min_s", "repeats", "order", "seconds"))
    spread = taken.spread
    return {
        "median_s": spread.median,
        "q1_s": spread.q1,
        "q3_s": spread.q3,
        "min_s": spread.minimum,
        "repeats": spread.repeats,
        "order": taken.order,
        "seconds": list(taken.seconds),
    }


def _roofline(row: Row, peak: Peak) -> dict[str, Any]:
    at = row.position
    return {
        "achieved_tflops_per_s": at.achieved / TERA if at else None,
        "peak_tflops_per_s": peak.flops / TERA,
        "peak_bytes_per_s": peak.bandwidth,
        "peak_source": peak.source,
        "utilisation": at.utilisation if at else None,
        "bytes_moved_at_least": at.bytes_moved if at else None,
        "flops_per_byte_at_most": at.intensity if at else None,
        "ridge_flops_per_byte": peak.flops / peak.bandwidth,
        "bound": at.bound if at else None,
        "roof_s": at.fastest if at else None,
    }


def _ratio(ratio: Ratio | None) -> dict[str, Any] | None:
    if ratio is None:
        return None
    return {"to": ratio.to, "value": ratio.value, "ci95": None if ratio.ci95 is None else list(ratio.ci95)}


def _share(share: Share) -> dict[str, Any]:
    tflops = None if share.flops is None else share.flops / TERA
    return {"name": share.name, "seconds": share.seconds, "share": share.share, "tflops": tflops}


def load(path: Path) -> dict[str, Any]:
    """Read a record back.

    Raises:
        UserError: no file, no JSON, or another schema.
    """
    remedy = "Give a file that `m4v-eval latency --json FILE` wrote."
    record: object = parse_json(read_text(path, remedy), str(path), remedy)
    schema = record.get("schema") if isinstance(record, dict) else None
    if not isinstance(record, dict) or schema != SCHEMA:
        raise UserError(f"{path} is not a latency record: its schema is {schema!r}, not {SCHEMA!r}.", remedy)
    missing = {"hardware", "settings", "rows"} - record.keys()
    rows = record.get("rows", [])
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise UserError(f"{path} holds no rows.", remedy)
    missing |= {key for row in rows for key in COMPARED - row.keys()}
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}.", remedy)
    if not (all(isinstance(record[key], dict) for key in ("hardware", "settings")) and all(map(_is_row, rows))):
        raise UserError(f"{path} is damaged: a field has another type than `m4v-eval latency` writes.", remedy)
    return record


def _is_row(row: dict[str, Any]) -> bool:
    """Whether what a comparison reads has the types that `to_json` writes."""
    clip = [row[key] for key in ("frames", "height", "width")]
    seconds, median = row["seconds"], row["median_s"]
    return (
        isinstance(row["variant"], str)
        and isinstance(row["model"], str)
        and all(isinstance(number, int | None) for number in clip)
        and isinstance(row["inputs"], list | None)
        and (
            seconds is None
            or (isinstance(seconds, list) and all(isinstance(s, int | float) and s > 0 for s in seconds))
        )
        and (median is None or isinstance(median, int | float))
    )
