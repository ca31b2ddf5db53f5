"""Asking a child, and finding another one when it dies: who was to blame, and who is asked for again."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.decoding.answers import Answer, Begun, Filled, Hello, TooLarge
from evalkit.decoding.job import Limits
from evalkit.decoding.lost import DecoderLost
from evalkit.decoding.process import Died, Process, keep, take
from evalkit.decoding.tasks import Ping, Reading, Task
from evalkit.decoding.wire import Garbled
from evalkit.errors import RunFailed

STRIKES = 3
"""Children in a row that may die without having begun anything."""

IDLE_S = 2.0
"""How long a child may take to become idle before it is rather ended: about ten times what a new one costs."""


class Conversation:
    """Tasks asked of one child after another.

    Args:
        limits: of every video.
        command: what to run as the child.
    """

    def __init__(self, limits: Limits, command: Sequence[str]) -> None:
        self._limits = limits
        self._command = command
        self._child: Process | None = None
        self._asked: dict[int, Task] = {}
        self._number = 0
        self._at: int | None = None
        self._strikes = 0

    def ask(self, task: Task) -> None:
        """Ask for it, unless that has been done. A child that dies takes the question along: ask before you listen.

        Raises:
            RunFailed: there is no child.
        """
        child = self._running()
        if task in self._asked.values():
            return
        if isinstance(task, Reading):
            _share(child, task.room.bytes)
        self._number += 1
        self._asked[self._number] = task
        child.send(task.order(self._number))

    def withdraw(self, task: Task) -> None:
        """Ask for it no longer."""
        for number in [number for number, asked in self._asked.items() if asked is task]:
            del self._asked[number]
            if self._child is not None:
                self._child.send({"do": "cancel", "task": number})

    def listen(self, patience_s: float | None = None) -> None:
        """Wait for one answer and hand it to its task. If the child dies instead, the task it was at has failed."""
        child = self._running()
        try:
            number, answer = child.receive(patience_s)
            match answer:
                case Hello():
                    return
                case Begun():
                    self._at, self._strikes = number, 0
                    return
                case TooLarge():
                    self._at = number
                    child.kill()
                    raise Died(self._limits.too_large)
            self._hand_over(number, answer, child)
        except Garbled:
            self._bury(child, child.nonsense())
        except Died as died:
            self._bury(child, died)

    def end(self) -> None:
        """Withdraw everything; a healthy child is kept for others."""
        for task in list(self._asked.values()):
            self.withdraw(task)
        if self._child is None:
            return
        ping = Ping()
        self.ask(ping)
        try:
            while ping.is_idle is None and self._child is not None:
                self.listen(IDLE_S)
        except RunFailed:
            pass  # no child is wanted any more
        finally:
            child, self._child = self._child, None
            if child is not None:
                keep(child) if ping.is_idle else child.release()

    def _hand_over(self, number: int, answer: Answer, child: Process) -> None:
        task = self._asked.get(number)
        if task is None:  # it was withdrawn
            if isinstance(answer, Filled):
                child.free(answer.slot)
        elif task.take(answer, child):
            del self._asked[number]
            self._at = None

    def _running(self) -> Process:
        if self._child is not None and self._child.forgotten:  # this is a fork
            self._child, self._at = None, None
            self._asked.clear()
        if self._child is None:
            try:
                self._child = take(self._limits, self._command)
            except OSError as e:
                raise _no_child(e.strerror or str(e)) from e
        return self._child

    def _bury(self, child: Process, died: Died) -> None:
        child.release()
        self._child = None
        at, self._at = self._at, None
        guilty = self._asked.get(at) if at is not None else None
        self._asked.clear()
        if guilty is not None:
            guilty.kills += died.killed
            if not died.killed or guilty.kills > 1:
                guilty.fail(DecoderLost, died.reason)
        elif at is None:
            self._strikes += 1
            if self._strikes >= STRIKES:
                raise _no_child(died.reason)


def _share(child: Process, size: int) -> None:
    try:
        child.make_room(size)
    except OSError as e:
        raise RunFailed(
            f"{size} bytes cannot be shared with the process that decodes videos ({e.strerror or e}).",
            "End other programs, then run the same command again: finished results are kept.",
        ) from e


def _no_child(reason: str) -> RunFailed:
    return RunFailed(
        f"The process that decodes videos does not start ({reason}).",
        "Try `python -P -m evalkit.decoding.child`: it should ask for arguments; if it cannot be imported, install the "
        "package again, and if memory or processes are short, end other programs. Finished results are kept.",
    )
