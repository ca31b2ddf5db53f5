"""Where jobs are: from the queue, from the accounting where there is any, and from what the jobs said of themselves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evalkit.cluster import notes
from evalkit.cluster.ledger import Entry
from evalkit.errors import RunFailed

State = Literal["waiting", "pending", "requeued", "running", "done", "failed", "cancelled"]
"""`waiting`: not submitted yet; `requeued`: pending again after it had begun."""
ALIVE: tuple[State, ...] = ("pending", "requeued", "running")

COMMAND_SECONDS = 60
_PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING", "RESIZING"}


@dataclass(frozen=True, slots=True)
class Queued:
    """What the scheduler says of a job: its word, and the seconds that it has run, if it says so."""

    word: str
    elapsed: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a task is.

    Args:
        entry: the task.
        state: where.
        restarts: how often its job began anew.
        elapsed: as SLURM writes it; empty where it does not say.
        why: it failed.
        since: when it came to this state, by the job's own word.
    """

    entry: Entry
    state: State
    restarts: int = 0
    elapsed: str = ""
    why: str = ""
    since: str = ""


def look(run: Path, executor: str, entries: Sequence[Entry]) -> list[Found]:
    """Where each task is now.

    Raises:
        RunFailed: jobs were submitted to SLURM, and there is no SLURM here to ask, or it does not answer.
    """
    jobs = [entry.job for entry in entries if entry.job is not None]
    said = {e.job: note for e in entries if (note := notes.read(run, e.stage, e.name)) and note.job == e.job}
    open_ = [job for job in jobs if job not in said or said[job].state not in ("done", "failed")]
    queued = _local(open_) if executor == "local" else slurm(open_)
    return [_found(run, entry, queued) for entry in entries]


def _found(run: Path, entry: Entry, queued: Mapping[str, Queued]) -> Found:
    note = notes.read(run, entry.stage, entry.name)
    if entry.job is None:
        done = note is not None and note.state == "done"
        return Found(entry, "done" if done else "waiting")
    ours = note if note is not None and note.job == entry.job else None
    restarts = max(0, ours.starts - 1) if ours else 0
    since = ours.since if ours else ""
    if ours and ours.state in ("done", "failed"):
        state: State = "done" if ours.state == "done" else "cancelled" if ours.why == notes.CANCELLED else "failed"
        return Found(entry, state, restarts, why=ours.why, since=since)
    there = queued.get(entry.job)
    word = there.word if there else ""
    elapsed = there.elapsed if there else ""
    if word in _PENDING:
        return Found(entry, "requeued" if ours else "pending", restarts, elapsed, since=since)
    if word in _RUNNING:
        return Found(entry, "running", restarts, elapsed, since=since)
    if word == "COMPLETED" and ours is None:  # its task said nothing: another command did it, or its setup ended it
        return Found(entry, "failed", why="it ended without a word; see its log")
    if word.startswith("CANCELLED"):
        return Found(entry, "cancelled", restarts, elapsed, why="cancelled", since=since)
    why = word.lower().replace("_", " ") if word else "it is not in the queue any more, and has not said how it ended"
    return Found(entry, "failed", restarts, elapsed, why=why, since=since)


def slurm(jobs: Sequence[str]) -> dict[str, Queued]:
    """What SLURM says of jobs: squeue of those that are alive, then sacct, or scontrol where nothing is accounted.

    Raises:
        RunFailed: it does not answer.
    """
    if not jobs:
        return {}
    found = _squeue(jobs)
    missing = [job for job in jobs if job not in found]
    if missing:
        found |= {job: queued for job, queued in _sacct(missing).items() if job in missing}
    for array in sorted({job.split("_")[0] for job in missing if job not in found}):
        found |= {job: queued for job, queued in _scontrol(array).items() if job in missing}
    return found


def _squeue(jobs: Iterable[str]) -> dict[str, Queued]:
    arrays = sorted({job.split("_")[0] for job in jobs})
    command = ["squeue", "--noheader", "--array", "--format=%i|%T|%M", f"--jobs={','.join(arrays)}"]
    done = _ask(command)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise RunFailed(
            f"SLURM's queue cannot be read: {_last(done.stderr) or f'squeue ended with {done.returncode}'}.",
            "Try again on a host where squeue works.",
        )
    return _rows(done.stdout)


def _sacct(jobs: Iterable[str]) -> dict[str, Queued]:
    """Nothing where nothing is accounted."""
    arrays = sorted({job.split("_")[0] for job in jobs})
    command = ["sacct", "--noheader", "--allocations", "--parsable2", "--array", "--format=JobID,State,Elapsed"]
    try:
        done = _ask([*command, f"--jobs={','.join(arrays)}"])
    except RunFailed:
        return {}
    return {} if done.returncode else _rows(done.stdout)


def _scontrol(array: str) -> dict[str, Queued]:
    """SLURM forgets ended jobs after some minutes; then nothing."""
    try:
        done = _ask(["scontrol", "--oneliner", "show", "job", array])
    except RunFailed:
        return {}
    found = {}
    for line in done.stdout.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S+)", line))
        if "JobState" in fields:
            task = fields.get("ArrayTaskId")
            name = f"{fields['ArrayJobId']}_{task}" if task else fields.get("JobId", array)
            found[name] = Queued(fields["JobState"], fields.get("RunTime", ""))
    return found


def _rows(text: str) -> dict[str, Queued]:
    rows = [line.strip().split("|") for line in text.splitlines()]
    return {row[0]: Queued(row[1].split(" ")[0], row[2]) for row in rows if len(row) == 3}


def _ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
    except FileNotFoundError:
        raise RunFailed(f"There is no {command[0]} here.", "Run this on a host of the cluster.") from None
    except subprocess.TimeoutExpired:
        raise RunFailed(f"{command[0]} does not answer.", "Try again later.") from None


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def _local(jobs: Iterable[str]) -> dict[str, Queued]:
    return {job: Queued("RUNNING") for job in jobs if is_local_job(int(job))}


def is_local_job(pid: int) -> bool:
    """Whether a process of this host is a job of submitit's local executor."""
    try:
        return b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def cancel_jobs(executor: str, jobs: Sequence[str]) -> None:
    """Cancel jobs; those that have ended are passed over.

    Raises:
        RunFailed: SLURM does not answer or refuses.
    """
    if executor == "local":
        for job in jobs:
            if is_local_job(int(job)):
                os.kill(int(job), signal.SIGINT)
        return
    for start in range(0, len(jobs), 500):
        done = _ask(["scancel", *jobs[start : start + 500]])
        if done.returncode and "Invalid job id" not in done.stderr and "already completed" not in done.stderr:
            raise RunFailed(f"scancel refused: {_last(done.stderr)}.", "Cancel with scancel by hand.")
