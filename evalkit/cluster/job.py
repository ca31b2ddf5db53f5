"""What runs on a node: a task of a run, with its note, its log, and its end when the scheduler takes the node back."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.cluster import notes
from evalkit.cluster.graph import Task
from evalkit.cluster.warning import Warned, heard_as_ctrl_c, warning_signal
from evalkit.errors import UserError
from evalkit.events import Doing, Event, Failed

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

TERMINATED = 143
"""Exit code of a process that was asked to end."""


@dataclass(frozen=True, slots=True)
class Job:
    """A task as submitit pickles it.

    When the scheduler warns, the work stops where nothing is lost, and submitit puts the job back into the queue; the
    new one finds in the run directory what this one has done.
    """

    run: Path
    task: Task
    cpus: int

    def __call__(self) -> None:
        """Do the task.

        Raises:
            UserError: it cannot be done; the note says why, and so does `m4v-eval status`.
        """
        from submitit import JobEnvironment

        environment = JobEnvironment()
        first = environment.global_rank == 0
        note = notes.begun(self.run, self.task, environment.job_id, socket.gethostname())
        if first:
            notes.write(self.run, note)
        log_to_stderr()
        handler = signal.getsignal(warning_signal())
        try:
            warned = self._work()
        except BaseException as e:
            if first:
                notes.write(self.run, note.turned("failed", _said(e)))
            raise
        if warned:
            self._give_back(warned, note if first else None, handler)
        elif first:
            notes.write(self.run, note.turned("done"))

    def _work(self) -> Warned | None:
        """Do it; returns what was heard if that cut it short.

        Raises:
            KeyboardInterrupt: somebody cancelled it.
        """
        try:
            with heard_as_ctrl_c() as warned:
                self._limit_threads()
                self.task.work(Lines())
        except KeyboardInterrupt:
            if not warned:
                raise
            return warned
        return None

    def checkpoint(self) -> DelayedSubmission:
        """submitit's question what to queue instead of a job that was stopped: the same, for it resumes by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _limit_threads(self) -> None:
        if "torch" in sys.modules or self.task.stage in ("train", "generate"):
            import torch

            torch.set_num_threads(self.cpus)

    def _give_back(self, warned: Warned, note: notes.Note | None, handler: object) -> None:
        """End, by way of submitit's handler where the scheduler's warning was heard: it requeues, or says why not."""
        if warned.soon.is_set() and callable(handler):
            if note:
                notes.write(self.run, note.turned("requeued"))
            try:
                handler(warning_signal(), None)  # does not return where this job was put back into the queue
            except Exception as e:
                if note:
                    notes.write(self.run, note.turned("failed", _said(e)))
                raise
        elif note:
            notes.write(self.run, note.turned("failed", "stopped by the scheduler"))
        sys.exit(0 if warned.soon.is_set() else TERMINATED)


def _said(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return notes.CANCELLED
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def log_to_stderr() -> None:
    """What this package logs goes to the job's log."""
    logger = logging.getLogger("evalkit")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


class Lines:
    """Progress as lines of a log: each stage when it begins, and at most one line a while of how far it is."""

    EVERY = 30.0  # seconds

    def __init__(self) -> None:
        self.what, self.total, self.done, self.said = "", 0, 0, 0.0

    def start(self, what: str, total: int) -> None:
        self.what, self.total, self.done, self.said = what, total, 0, time.monotonic()
        if total:
            self._say(f"{what} ({total})")

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        if not steps:
            return
        if time.monotonic() - self.said >= self.EVERY or self.done == self.total:
            self.said = time.monotonic()
            self._say(f"{self.what}: {self.done} of {self.total}")

    def tell(self, event: Event) -> None:
        if isinstance(event, Failed):
            self._say(f"{event.what}: {event.why}")
        elif isinstance(event, Doing):
            return

    def _say(self, line: str) -> None:
        print(f"{notes.now()} {line}", flush=True)


def here() -> str:
    """This host, for records."""
    return f"{os.environ.get('USER') or os.getuid()}@{socket.gethostname()}"
