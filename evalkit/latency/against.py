"""Two measurements beside each other, if they may be: the same hardware, settings and clip, nothing else will do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import UserError
from evalkit.latency import hardware
from evalkit.latency.measure import Row, Settings
from evalkit.latency.spread import Ratio, ratio_of_medians
from evalkit.latency.subjects import Clip

SAME_SETTINGS = ("dtype", "compile", "batch", "threads", "float32_matmul_precision")


@dataclass(frozen=True)
class Pair:
    """A row here and its counterpart there; `ratio` is None where one of the two has no times."""

    row: Row
    there: Mapping[str, Any]
    ratio: Ratio | None


def refuse_unless_alike(
    ours: Mapping[str, Any], settings: Settings, clips: Sequence[Clip | None], record: Mapping[str, Any], path: Path
) -> None:
    """Stop before anything is measured, if it could not be compared with the record afterwards.

    Raises:
        UserError: hardware, a setting or a clip differs; all differing fields are named.
    """
    differing = hardware.differences(ours, record["hardware"])
    here, there = settings.to_json(), record["settings"]
    differing += [
        f"{key} ({there.get(key)} there, {here[key]} here)" for key in SAME_SETTINGS if here[key] != there.get(key)
    ]
    known = {_clip_of(row) for row in record["rows"]}
    differing += [f"clip ({clip or 'own inputs'} is not there)" for clip in clips if clip not in known]
    if differing:
        raise UserError(
            f"Not compared with {path}: the measurements differ in {', '.join(differing)}.",
            "Times are only comparable on the same hardware with the same settings: measure both sides here.",
        )


def pairs(rows: Sequence[Row], record: Mapping[str, Any], path: Path, *, seed: int = 0) -> list[Pair]:
    """Each row with its counterpart of the same variant and clip, or with the only other row where both have one.

    Raises:
        UserError: nothing matches, or a user's networks take inputs of other shapes.
    """
    found = list(_matching(rows, record["rows"]))
    if not found:
        names = ", ".join(sorted({str(row["variant"]) for row in record["rows"]}))
        raise UserError(f"{path} has no variant that was measured here.", f"It has {names}.")
    for row, there in found:
        _check_inputs(row, there, path)
    return [Pair(row, there, _ratio(row, there, seed)) for row, there in found]


def _matching(rows: Sequence[Row], theirs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Row, Mapping[str, Any]]]:
    for row in rows:
        clip = row.subject.clip
        here = [r for r in rows if r.subject.clip == clip]
        there = [r for r in theirs if _clip_of(r) == clip]
        if len(here) == len(there) == 1:
            yield row, there[0]
        else:
            yield from ((row, r) for r in there if r["variant"] == row.subject.variant)


def _clip_of(row: Mapping[str, Any]) -> Clip | None:
    return None if row["frames"] is None else Clip(row["frames"], row["height"], row["width"])


def _check_inputs(row: Row, there: Mapping[str, Any], path: Path) -> None:
    if row.subject.clip is not None or row.taken is None or there["inputs"] is None:
        return
    here = [list(shape) for shape in row.taken.inputs]
    if here != there["inputs"]:
        raise UserError(
            f"Not compared with {path}: the measurements differ in inputs ({there['inputs']} there, {here} here).",
            "Let both factories make inputs of the same shapes.",
        )


def _ratio(row: Row, there: Mapping[str, Any], seed: int) -> Ratio | None:
    if row.taken is None or not there["seconds"]:
        return None
    name = f"{there['model']} {there['variant']}"
    return ratio_of_medians(row.taken.seconds, there["seconds"], name, paired=False, seed=seed)
