"""How long the parts of a run took: measured while it runs, kept beside its results, read by whoever plans another.

`RUN/timings.jsonl` gets a line for every command that computed something. Nothing that a score depends on is here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evalkit.errors import UserError
from evalkit.files import write_atomically

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
        setup: loading networks, added up over the workers (`videos` counts the loaded networks' clips, not files).
        features: each network or statistic, without the decoding.
    """

    device: str
    hardware: Mapping[str, Any]
    workers: int
    wall: Mapping[str, float]
    score: Spent = field(default_factory=Spent)
    waiting: Spent = field(default_factory=Spent)
    setup: Spent = field(default_factory=Spent)
    features: Mapping[str, Spent] = field(default_factory=dict)


def keep(run: Path, timings: Timings) -> None:
    """Add a command's timings to those of a run.

    Raises:
        RunFailed: the disk is full or the folder cannot be written.
    """
    path = run / TIMINGS
    before = path.read_bytes() if path.exists() else b""
    write_atomically(path, before + json.dumps(asdict(timings)).encode() + b"\n")


def read(run: Path) -> list[Timings]:
    """The timings of all commands of a run, oldest first; none for a run that computed nothing.

    Raises:
        UserError: the file is damaged.
    """
    path = run / TIMINGS
    if not path.exists():
        return []
    try:
        return [_timings(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        raise UserError(f"{path} cannot be read: {e}.", "Remove it: only measured times are lost.") from None


def _timings(record: dict[str, Any]) -> Timings:
    spent = {name: Spent(**record[name]) for name in ("score", "waiting", "setup")}
    features = {name: Spent(**found) for name, found in record["features"].items()}
    return Timings(**(record | spent | {"features": features}))
