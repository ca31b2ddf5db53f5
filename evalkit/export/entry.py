"""What is told to a tracker of one run: numbers, settings, origin and files, whatever the tracker."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Curve = Sequence[tuple[int, float]]
"""Pairs of step and value."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One run, or the part of an ablation that a variant or a seed is.

    Args:
        name: of the run; of a part within it.
        identity: what makes two exports the same run.
        finished: when the run was.
        interrupted: whether it was cut short.
        numbers: by name; only those that there are.
        missing: names of the numbers that have no value.
        curves: numbers by step.
        samples: scores of single videos, by name.
        settings: what the run was asked for.
        origin: what it was done with.
        tables: CSV files by name.
        pictures: stills by name.
        report: its page.
        parts: the variants of an ablation, or the seeds of a variant.
    """

    name: str
    identity: str
    finished: datetime
    interrupted: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)
    report: Path | None = None
    parts: tuple[Entry, ...] = ()

    def whole(self) -> Iterator[Entry]:
        """This one and all its parts."""
        yield self
        for part in self.parts:
            yield from part.whole()


def present(numbers: Mapping[str, float | None]) -> tuple[dict[str, float], tuple[str, ...]]:
    """The numbers that there are, and the names of those that there are not."""
    there = {name: float(value) for name, value in numbers.items() if value is not None and math.isfinite(value)}
    return there, tuple(name for name in numbers if name not in there)


def flat(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as text by dotted name; what is neither text nor nested is JSON."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(f"{prefix}{name}.", value)
        else:
            found[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A CSV file; what a row lacks is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def moment(written: Any) -> datetime:
    """When a record says that it was finished; the beginning of time for one that does not say it."""
    try:
        found = datetime.fromisoformat(str(written))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return max(found if found.tzinfo else found.replace(tzinfo=UTC), datetime.fromtimestamp(0, UTC))


def file_name(name: str) -> str:
    """A name as a file's, on any system and in no other folder."""
    return re.sub(r"[^\w .+-]", "_", name).strip(" .")[:100] or "run"
