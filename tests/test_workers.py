"""Work in several processes: order, progress, failures and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from evalkit.ablate.workers import side_by_side
from evalkit.errors import RunFailed, UserError
from evalkit.job import Progress


class Counted:
    """Progress that counts."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.steps = 0

    def start(self, what: str, total: int) -> None:
        self.stages.append((what, total))

    def advance(self, steps: int = 1) -> None:
        self.steps += steps


@dataclass(frozen=True)
class Square:
    number: int

    def __call__(self, progress: Progress) -> int:
        progress.start("squaring", 3)
        for _ in range(3):
            progress.advance()
        return self.number**2


@dataclass(frozen=True)
class Refuse:
    def __call__(self, progress: Progress) -> int:
        raise UserError("It does not fit.", "Take another.")


@dataclass(frozen=True)
class Die:
    """As the kernel does to a process when memory is short."""

    def __call__(self, progress: Progress) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


@dataclass(frozen=True)
class Endless:
    def __call__(self, progress: Progress) -> int:
        while True:
            progress.advance()
            time.sleep(0.01)


def test_results_come_in_the_order_of_the_work() -> None:
    watched = Counted()
    found = side_by_side([Square(n) for n in range(5)], 2, 1, watched, "squares", 15)
    assert found == [0, 1, 4, 9, 16]
    assert watched.stages == [("squares", 15)]
    assert watched.steps == 15


def test_a_failure_arrives_whole_and_stops_the_others() -> None:
    """Without the stop this test would not end."""
    with pytest.raises(UserError) as refused:
        side_by_side([Endless(), Refuse()], 2, 1, Counted(), "", 1)
    assert (refused.value.what, refused.value.remedy) == ("It does not fit.", "Take another.")


def test_a_killed_worker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(RunFailed, match="smaller --jobs"):
        side_by_side([Die(), Square(1)], 2, 1, Counted(), "", 1)


ORPHANS = """
import os, signal, sys
from evalkit.ablate.workers import side_by_side
from evalkit.job import Silent
from tests.test_workers import Naming

if __name__ == "__main__":
    side_by_side([Naming(sys.argv[1], k) for k in range(2)], 2, 1, Silent(), "", 1)
"""


@dataclass(frozen=True)
class Naming:
    """Leaves its process number, then works for ever."""

    folder: str
    number: int

    def __call__(self, progress: Progress) -> int:
        (Path(self.folder) / f"{self.number}.new").write_text(str(os.getpid()))
        (Path(self.folder) / f"{self.number}.new").rename(Path(self.folder) / f"{self.number}.pid")
        while True:
            time.sleep(0.01)


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    root = Path(__file__).parent.parent
    parent = subprocess.Popen([sys.executable, script, tmp_path], env={**os.environ, "PYTHONPATH": str(root)})
    files = [tmp_path / f"{k}.pid" for k in range(2)]
    wait_until(lambda: all(file.exists() for file in files))
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(is_alive(int(file.read_text())) for file in files))


def wait_until(happened: Callable[[], bool]) -> None:
    """Looks for at most two minutes."""
    for _ in range(1200):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def is_alive(process: int) -> bool:
    """Zombies, which nobody has fetched yet, are dead."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ctrl_c_stops_all_workers() -> None:
    """Only this process hears it, as with `kill -INT`; without the word passed on this test would not end."""

    class Interrupting(Counted):
        def advance(self, steps: int = 1) -> None:
            super().advance(steps)
            if self.steps == 20:
                signal.raise_signal(signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side([Endless(), Endless()], 2, 1, Interrupting(), "", 1)
    finally:
        signal.signal(signal.SIGINT, before)
