"""What jobs say of themselves: a small file each, replaced whole; it outlives the scheduler's memory of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from evalkit.cluster.folders import file_name, notes_folder
from evalkit.cluster.graph import Task
from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.untrusted import parse_json, read_text

State = Literal["running", "requeued", "done", "failed"]
CANCELLED = "cancelled"
"""Why a job failed that somebody cancelled."""


@dataclass(frozen=True, slots=True)
class Note:
    """The last word of a task.

    Args:
        stage, name, key: the task's.
        job: the scheduler's number for it.
        state: `running` until it says otherwise: a job that was killed never does.
        starts: how often this job has begun.
        host: where.
        since: when the state began.
        began: when the job last began.
        why: it failed.
    """

    stage: str
    name: str
    key: str
    job: str
    state: State
    starts: int
    host: str
    since: str
    began: str
    why: str = ""

    def turned(self, state: State, why: str = "") -> Note:
        return replace(self, state=state, why=why, since=now())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def begun(run: Path, task: Task, job: str, host: str) -> Note:
    """The note of a job that begins now, perhaps not for the first time."""
    before = read(run, task.stage, task.name)
    starts = before.starts + 1 if before and before.job == job else 1
    return Note(task.stage, task.name, task.key, job, "running", starts, host, now(), now())


def write(run: Path, note: Note) -> None:
    """Raises RunFailed if the disk is full or the folder cannot be written."""
    write_atomically(_path(run, note.stage, note.name), json.dumps(asdict(note), indent=1).encode())


def cancelled(run: Path, stage: str, name: str, job: str) -> None:
    """Note for a job that it was cancelled, for it cannot do so itself; one that has ended keeps its own word."""
    said = read(run, stage, name)
    if said is None or said.job != job:
        said = Note(stage, name, "", job, "running", 0, "", now(), "")
    if said.state in ("running", "requeued"):
        write(run, said.turned("failed", CANCELLED))


def read(run: Path, stage: str, name: str) -> Note | None:
    """None if there is none; one that is damaged counts as none, and its task is done again."""
    path = _path(run, stage, name)
    if not path.is_file():
        return None
    try:
        note = Note(**parse_json(read_text(path, ""), str(path), ""))
    except (TypeError, UserError):
        return None
    return note if note.state in get_args(State) else None


def is_done(run: Path, task: Task) -> bool:
    """Whether a task has its result: by what it sees of it, whoever made it, else by its note."""
    found = task.work.found()
    if found is not None:
        return found
    note = read(run, task.stage, task.name)
    return note is not None and note.state == "done" and note.key == task.key


def _path(run: Path, stage: str, name: str) -> Path:
    return notes_folder(run) / f"{file_name(stage, name)}.json"
