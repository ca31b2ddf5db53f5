"""How far a run is: its jobs, its videos, and who writes to it; for runs without a cluster, what there is of these."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit.cluster.config import STAGES
from evalkit.cluster.launch import log_files
from evalkit.cluster.ledger import Submission, read_ledger
from evalkit.cluster.states import Found, look
from evalkit.errors import UserError
from evalkit.lock import HOLDER
from evalkit.store import read_journal
from evalkit.untrusted import parse_json, read_text

Verdict = Literal["done", "failed", "incomplete"]
TAIL = 4096
"""Bytes of a log that its last lines are looked for in."""
LINES = 5


@dataclass(frozen=True, slots=True)
class StageStatus:
    """The jobs of one stage by state; `restarts` of all together, and the longest that one has run of its limit."""

    stage: str
    counts: dict[str, int]
    restarts: int
    elapsed: str
    limit_minutes: int

    @property
    def pending(self) -> int:
        """Those that were requeued included."""
        return self.counts.get("pending", 0) + self.counts.get("requeued", 0)


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed: why, and the end of its log."""

    stage: str
    name: str
    job: str | None
    why: str
    log: Path | None
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """A run at a glance.

    Args:
        run: its directory.
        kind: `vbench`, `generate` or `ablate`.
        executor: `slurm` or `local`; None for a run without a cluster.
        stages: jobs by stage.
        failures: jobs that failed.
        videos_done, videos: finished, and of how many (None: not known).
        unscored: video-dimension pairs that the last report lists as unscored; None without a report.
        writer: who writes to the directory, in words; empty for nobody.
        verdict: whether it is done.
    """

    run: Path
    kind: str
    executor: str | None
    stages: tuple[StageStatus, ...]
    failures: tuple[Failure, ...]
    videos_done: int
    videos: int | None
    unscored: int | None
    writer: str
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "m4v-eval/status/1",
            "run": str(self.run),
            "kind": self.kind,
            "executor": self.executor,
            "verdict": self.verdict,
            "videos": {"done": self.videos_done, "all": self.videos, "unscored": self.unscored},
            "writer": self.writer or None,
            "stages": [
                {
                    "stage": s.stage,
                    "jobs": dict(s.counts),
                    "restarts": s.restarts,
                    "elapsed": s.elapsed or None,
                    "limit_minutes": s.limit_minutes,
                }
                for s in self.stages
            ],
            "failures": [
                {
                    "stage": f.stage,
                    "task": f.name,
                    "job": f.job,
                    "why": f.why,
                    "log": str(f.log) if f.log else None,
                    "lines": list(f.lines),
                }
                for f in self.failures
            ],
        }


def overview(run: Path) -> Overview:
    """Look at a run.

    Raises:
        UserError: there is no run in this directory.
        RunFailed: its jobs are SLURM's, which cannot be asked here.
    """
    submissions = read_ledger(run)
    last = submissions[-1] if submissions else None
    kind = last.kind if last else _kind(run)
    found = look(run, last.executor, last.entries) if last else []
    unscored = _unscored(run)
    return Overview(
        run=run,
        kind=kind,
        executor=last.executor if last else None,
        stages=_stages(found),
        failures=tuple(_failure(run, one) for one in found if one.state == "failed"),
        videos_done=_made(run) if kind == "generate" else _scored(run),
        videos=last.videos if last else _all_videos(run),
        unscored=unscored,
        writer=_writer(run),
        verdict=_verdict(run, kind, last, found, unscored),
    )


def _kind(run: Path) -> str:
    """Of a run without a cluster, by what it has left."""
    signs = {"ablate": "ablation.json", "generate": "generation.json", "vbench": "results.jsonl"}
    for kind, sign in signs.items():
        if (run / sign).exists():
            return kind
    if any(run.glob("*/seed*/train")):
        return "ablate"
    if (run / "vbench.json").exists():
        return "vbench"
    raise UserError(f"There is no run in {run}.", "Give the --out of vbench, generate or ablate.")


def _stages(found: Sequence[Found]) -> tuple[StageStatus, ...]:
    rows = []
    for stage in STAGES:
        mine = [one for one in found if one.entry.stage == stage]
        if mine:
            counts = Counter[str](one.state for one in mine)
            running = [one.elapsed for one in mine if one.state == "running" and one.elapsed]
            longest = max(running, key=lambda text: (len(text), text), default="")
            limit = max(one.entry.minutes for one in mine)
            rows.append(StageStatus(stage, dict(counts), sum(one.restarts for one in mine), longest, limit))
    return tuple(rows)


def _failure(run: Path, found: Found) -> Failure:
    entry = found.entry
    logs = [log for log in log_files(run, entry) if log.exists()] if entry.job else []
    log = logs[0] if logs else None
    return Failure(entry.stage, entry.name, entry.job, found.why, log, tuple(_tail(log)) if log else ())


def _tail(log: Path) -> list[str]:
    """The last lines of a log that say something."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-LINES:]


def _scored(run: Path) -> int:
    """Videos that have a score, in the journals of the run, its shards and its variants."""
    journals = [run / "results.jsonl", *run.glob("shards/*/results.jsonl")]
    files = {(run, record["file"]) for path in journals for _, record in read_journal(path) if _is_score(record)}
    for path in run.glob("*/seed*/scores/results.jsonl"):
        files |= {(path.parent, record["file"]) for _, record in read_journal(path) if _is_score(record)}
    reported = sum(1 for one in _summaries(run) for video in one["videos"] if video.get("scores"))
    return max(len(files), reported)  # videos of the same content share a record in the journal


def _is_score(record: dict[str, Any]) -> bool:
    return isinstance(record.get("file"), str) and "dimension" in record


def _made(run: Path) -> int:
    return sum(1 for path in run.glob("*.mp4") if not path.name.startswith("."))


def _summaries(run: Path) -> Iterator[dict[str, Any]]:
    remedy = "Run the command that wrote it again."
    for path in (run / "vbench.json", *run.glob("*/seed*/scores/vbench.json")):
        if path.is_file():
            record = parse_json(read_text(path, remedy), str(path), remedy)
            if isinstance(record, dict) and isinstance(record.get("videos"), list):
                yield record


def _unscored(run: Path) -> int | None:
    summaries = list(_summaries(run))
    if not summaries:
        return None
    return sum(len(video.get("unscored", ())) for one in summaries for video in one["videos"])


def _all_videos(run: Path) -> int | None:
    claimed = run / "manifest.jsonl"
    if (run / "generation.json").exists():
        return len(claimed.read_text(encoding="utf-8").splitlines()) if claimed.exists() else None
    summaries = list(_summaries(run))
    return sum(len(one["videos"]) for one in summaries) if summaries else None


def _writer(run: Path) -> str:
    """Who holds the directory, or died holding it."""
    try:
        who = json.loads((run / HOLDER).read_text(encoding="utf-8"))
        by = f"{who['what']} by process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if who["host"] == socket.gethostname() and not Path(f"/proc/{who['pid']}").exists():
        return f"{by}; that process was killed"
    return by


def _verdict(run: Path, kind: str, last: Submission | None, found: Sequence[Found], unscored: int | None) -> Verdict:
    if any(one.state == "failed" for one in found):
        return "failed"
    if any(one.state != "done" for one in found):
        return "incomplete"
    ends = {"vbench": "vbench.json", "ablate": "ablation.json", "generate": "manifest.jsonl"}
    whole = (run / ends[kind]).exists()
    if kind == "ablate" and whole:
        record = json.loads((run / ends[kind]).read_text(encoding="utf-8"))
        return "incomplete" if record.get("missing") else "done"
    if last is None and _writer(run):
        return "incomplete"
    return "done" if whole and not unscored else "incomplete"
