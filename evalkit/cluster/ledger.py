"""`RUN/cluster.json`: what was submitted, by which command, with which configuration; and one submission at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from evalkit.cluster.config import STAGES, ClusterConfig
from evalkit.cluster.folders import LEDGER
from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.untrusted import parse_json, read_text

SCHEMA = "m4v-eval/cluster/1"
JOB = re.compile(r"[0-9]{1,18}(_[0-9]{1,9})?")
"""What SLURM calls a job, or one of an array; of a local job, its process."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A task of a submission.

    Args:
        stage, name: the task's.
        job: the scheduler's number; None if it was done before, or has not been submitted.
        nodes: processes with a log of their own.
        minutes: its time limit.
    """

    stage: str
    name: str
    job: str | None = None
    nodes: int = 1
    minutes: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """One command's jobs.

    Args:
        kind: `vbench`, `generate` or `ablate`.
        command: as typed.
        submitted: when, by whom and where.
        config: the cluster file.
        videos: how many the run has in all.
        entries: every task of the command.
    """

    kind: str
    command: tuple[str, ...]
    submitted: str
    host: str
    config: dict[str, Any]
    videos: int
    entries: tuple[Entry, ...] = field(default=())

    @property
    def executor(self) -> str:
        return str(self.config.get("executor"))

    @property
    def jobs(self) -> tuple[Entry, ...]:
        """The tasks that were submitted."""
        return tuple(entry for entry in self.entries if entry.job is not None)

    def with_jobs(self, submitted: Iterable[Entry]) -> Submission:
        """The same with these entries in the place of those of the same tasks."""
        new = {(entry.stage, entry.name): entry for entry in submitted}
        return replace(self, entries=tuple(new.get((e.stage, e.name), e) for e in self.entries))


def read_ledger(run: Path) -> list[Submission]:
    """All submissions, oldest first; none if there was none.

    Raises:
        UserError: the file is damaged or of another version.
    """
    path = run / LEDGER
    remedy = "Remove it: finished results are kept, and running jobs must be cancelled by hand (scancel)."
    if not path.exists():
        return []
    record = parse_json(read_text(path, remedy), str(path), remedy)
    try:
        if record["schema"] != SCHEMA:
            raise ValueError(f"its schema is {record['schema']!r}, not {SCHEMA!r}")
        return [_submission(one) for one in record["submissions"]]
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise UserError(f"{path} is damaged: {e}.", remedy) from None


def _submission(record: dict[str, Any]) -> Submission:
    entries = tuple(Entry(**entry) for entry in record["entries"])
    config = ClusterConfig.model_validate_json(json.dumps(record["config"])).record()
    for entry in entries:
        if entry.job is not None and not JOB.fullmatch(entry.job):
            raise ValueError(f"no job is called {entry.job!r}")
    if unknown := {entry.stage for entry in entries} - set(STAGES):
        raise ValueError(f"no stage {min(unknown)!r}")
    return Submission(**(record | {"entries": entries, "config": config, "command": tuple(record["command"])}))


def write_ledger(run: Path, submissions: Sequence[Submission]) -> None:
    """Raises RunFailed if the disk is full or the folder cannot be written."""
    record = {"schema": SCHEMA, "submissions": [asdict(one) for one in submissions]}
    write_atomically(run / LEDGER, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
