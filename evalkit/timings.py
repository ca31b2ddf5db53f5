"""How long the parts of a run took: measured while it runs, kept beside its results, read by whoever plans another.

`RUN/timings.jsonl` gets a line for every command that computed something. Nothing that a score depends on is here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.untrusted import read_json_lines

TIMINGS = "timings.jsonl"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds spent on a number of videos (and their frames), added up over all processes that took part."""

    seconds: float = 0.0
    videos: int = 0
    frames: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.videos + other.videos, self.frames + other.frames)


@dataclass(frozen=True, slots=True)
class Timings:
    """What one command spent.

    Args:
        device: of the networks.
        hardware: as in the run record.
        workers: processes that scored side by side.
        wall: seconds by the clock of each stage of the command: "identify", "score", "summarise", "report".
        score: all of the scoring, added up over the workers: from a video's first frame to its scores.
        waiting: the part of it in which networks waited for frames.
        setup: loading networks, added up over the workers; `videos` counts how often networks were loaded.
        features: each network or statistic, without the decoding.
        start: from a worker process's birth until it was ready for work; `videos` counts the processes.
    """

    device: str
    hardware: Mapping[str, Any]
    workers: int
    wall: Mapping[str, float]
    score: Spent = field(default_factory=Spent)
    waiting: Spent = field(default_factory=Spent)
    setup: Spent = field(default_factory=Spent)
    features: Mapping[str, Spent] = field(default_factory=dict)
    start: Spent = field(default_factory=Spent)


def keep(run: Path, timings: Timings) -> None:
    """Add a command's timings to those of a run.

    Raises:
        RunFailed: the disk is full or the folder cannot be written.
    """
    path = run / TIMINGS
    before = path.read_bytes() if path.exists() else b""
    write_atomically(path, before + _line(timings))


def _line(timings: Timings) -> bytes:
    return json.dumps(asdict(timings)).encode() + b"\n"


@contextmanager
def stage(run: Path, name: str) -> Iterator[None]:
    """Measure a stage that comes after the scoring, and add it to the last command that scored in this run.

    Raises:
        RunFailed: as `keep`.
    """
    began = perf_counter()
    yield
    found = read(run)
    if found and name not in found[-1].wall:  # else this command has scored nothing
        last = replace(found[-1], wall={**found[-1].wall, name: perf_counter() - began})
        write_atomically(run / TIMINGS, b"".join(_line(timings) for timings in (*found[:-1], last)))


def read(run: Path) -> list[Timings]:
    """The timings of all commands of a run, oldest first; none for a run that computed nothing.

    Raises:
        UserError: the file is damaged.
    """
    path = run / TIMINGS
    if not path.exists():
        return []
    remedy = "Remove it: only measured times are lost."
    try:
        return [_timings(record) for _, record in read_json_lines(path, remedy)]
    except ValueError as e:
        raise UserError(f"{path} cannot be read: {str(e).splitlines()[0]}.", remedy) from None


def _timings(record: Any) -> Timings:
    """Raises ValueError (pydantic's is one) for a field that is missing, of another type, or less than nothing."""
    from pydantic import TypeAdapter

    found = TypeAdapter(Timings).validate_json(json.dumps(record), strict=True)
    spent = (found.score, found.waiting, found.setup, found.start, *found.features.values())
    if min(found.workers, *found.wall.values(), *(min(s.seconds, s.videos, s.frames) for s in spent)) < 0:
        raise ValueError("a time or a number is negative")
    return found
