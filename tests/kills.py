"""Killing a command, or a part of it, at a moment of one's choice, and looking for what it leaves behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

PATIENCE_S = 120.0

Process = tuple[int, str]
"""Number and time of start: numbers are given anew."""


class Command:
    """`m4v-eval ARGS` as a process group of its own; all of it is gone when the block ends."""

    def __init__(self, args: Sequence[str | Path], temporary: Path, **env: str) -> None:
        command = [sys.executable, "-c", "from evalkit.cli import main; main()", *map(str, args)]
        temporary.mkdir(exist_ok=True)
        environment = os.environ | {"TMPDIR": str(temporary), "NO_COLOR": "1"} | env
        self.log = temporary.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.family: set[Process] = set()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.look()
        if self.process.poll() is None:
            self._kill_group()
            self.process.wait()

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, reached: Callable[[], bool]) -> bool:
        """Wait until something is reached; False if the command ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            if not self.runs:
                return False
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.005)
        return self.runs

    def has(self, role: str) -> bool:
        """Whether there is somebody of that role to be killed."""
        return role == "whole" or role in self._roles()

    def kill(self, role: str, rng: random.Random) -> str | None:
        """Kill -9 a worker or a decoder, or as a whole: the coordinator alone, or the group with all in it.

        Returns:
            Who was killed; None if there was nobody.
        """
        self.look()
        roles = self._roles()
        role = rng.choice(("coordinator", "group")) if role == "whole" else role
        if not self.runs or role not in roles:
            return None
        if role == "group":
            self._kill_group()
        else:
            try:
                os.kill(rng.choice(roles[role]), signal.SIGKILL)
            except ProcessLookupError:
                return None
        return role

    def end(self) -> int:
        """Wait for the exit code, and until no process of the family is left."""
        deadline = time.monotonic() + PATIENCE_S
        while self.runs:
            self.look()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        while orphans := [pid for pid, began in self.family if _began(pid) == began]:
            assert time.monotonic() < deadline, f"{[_command_of(pid) for pid in orphans]} outlived the command"
            time.sleep(0.01)
        return self.process.returncode

    def look(self) -> None:
        """Remember who is there."""
        self.family |= {(pid, began) for pid in _descendants(self.process.pid) if (began := _began(pid))}

    def _roles(self) -> dict[str, list[int]]:
        roles: dict[str, list[int]] = {"coordinator": [self.process.pid], "group": [self.process.pid]}
        for pid in _descendants(self.process.pid):
            line = _command_of(pid)
            if "evalkit.decoding.child" in line:
                roles.setdefault("decoder", []).append(pid)
            elif "spawn_main" in line:
                roles.setdefault("worker", []).append(pid)
        return roles

    def _kill_group(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _began(pid: int) -> str:
    """When a process started; empty if it is not there or only waits to be fetched."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _descendants(pid: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    parents = {pid: int(fields[1]) for pid in pids if (fields := _stat(pid))}
    found, waiting = [], [pid]
    while waiting:
        children = [child for child, parent in parents.items() if parent == waiting[0]]
        found += children
        waiting = waiting[1:] + children
    return found
