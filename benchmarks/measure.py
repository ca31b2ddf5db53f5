"""Running a command on one core and reading what it cost."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process cost.

    Args:
        wall_s: elapsed seconds, interpreter start included.
        cpu_s: processor seconds, user and system; steadier than `wall_s` on a machine with other work to do.
        peak_bytes: largest resident set.
        load_1min: the machine's load average when the process started.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    load_1min: float

    def as_dict(self) -> dict[str, Any]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


class CommandFailed(RuntimeError):
    """A measured command gave an error; its output is in the log."""


def run(
    command: Sequence[str | Path], core: int | None, log: Path, environment: Mapping[str, str] | None = None
) -> Cost:
    """Run a command with one thread, on one core if one is given, its output in `log`.

    Raises:
        CommandFailed: a non-zero exit code.
    """
    pin = ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    load = os.getloadavg()[0]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [*pin, *map(str, command)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **one_thread, **(environment or {})},
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CommandFailed(f"{' '.join(map(str, command))}: exit code {process.returncode}, output in {log}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, load)
