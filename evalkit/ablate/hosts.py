"""Training over several processes or hosts: one torchrun agent a host, which starts a process for each GPU.

    python -m evalkit.ablate.hosts MODEL STOP PARENT      what torchrun starts

A run is asked to stop by a file that one of its hosts makes: the step is finished and saved by all, and the next run,
on as many processes as it may, goes on from there.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evalkit.errors import RunFailed, UserError
from evalkit.events import Event
from evalkit.job import Progress, Silent

POLL = 0.5  # seconds between looks whether the parent is there
REFUSED = 2
"""Exit code of a process that was asked for what cannot be."""


class Trainable(Protocol):
    """A model that can be trained, and says when it is."""

    @property
    def folder(self) -> Path: ...

    @property
    def is_trained(self) -> bool: ...

    def train(self, progress: Progress) -> None: ...


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where this process is among the hosts of a job.

    Args:
        count: hosts.
        rank: of this one.
        processes: on each.
        address: of the first, as the others reach it.
        job: a number that the hosts of this job share, and no other job does; with `start`, how often it was begun.
        cpus: of each host.
    """

    count: int
    rank: int
    processes: int
    address: str
    job: int
    start: int
    cpus: int

    @property
    def total(self) -> int:
        return self.count * self.processes

    @property
    def port(self) -> int:
        """Below those that systems give out by themselves."""
        return 10_000 + (self.job * 7 + self.start) % 20_000


def train_on(hosts: Hosts, model: Trainable, progress: Progress) -> None:
    """Train a model; every host calls this.

    Args:
        hosts: which there are.
        model: what to train; can be pickled.
        progress: can be pickled, too; the first process tells it how far the training is.

    Raises:
        RunFailed: a process failed; its log says why.
        KeyboardInterrupt: Ctrl-C; the step was finished and saved.
    """
    if hosts.total == 1:
        model.train(progress)
        return
    stop = model.folder / f".stop-{hosts.job}-{hosts.start}"
    with tempfile.TemporaryDirectory(prefix="m4v-eval-") as folder:
        path = Path(folder) / "model.pickle"
        path.write_bytes(pickle.dumps((model, progress)))
        interrupted, code = _wait(_start(hosts, path, stop), stop)
    if hosts.rank == 0:
        stop.unlink(missing_ok=True)
    if interrupted and not model.is_trained:
        raise KeyboardInterrupt
    if code:
        raise RunFailed(
            f"Training on {hosts.count} hosts failed: torchrun ended with {code}.",
            "The log says why; the last good checkpoint is kept.",
        )
    if not model.is_trained and hosts.rank == 0:  # another host was asked to stop
        raise KeyboardInterrupt


def _start(hosts: Hosts, model: Path, stop: Path) -> subprocess.Popen[bytes]:
    options = [f"--nnodes={hosts.count}", f"--nproc-per-node={hosts.processes}", "--max-restarts=0"]
    options += [f"--rdzv-id={hosts.job}-{hosts.start}", "--rdzv-backend=c10d"]
    options += [f"--rdzv-endpoint={hosts.address}:{hosts.port}", f"--rdzv-conf=is_host={int(hosts.rank == 0)}"]
    options += [f"--local-addr={hosts.address}"] if hosts.rank == 0 else []
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", __spec__.name]
    threads = {"OMP_NUM_THREADS": str(max(1, hosts.cpus // hosts.processes))}
    return subprocess.Popen([*command, str(model), str(stop), str(os.getpid())], env=os.environ | threads)


def _wait(agent: subprocess.Popen[bytes], stop: Path) -> tuple[bool, int]:
    """Until the agent ends; Ctrl-C is passed on through the stop file. Returns whether there was one, and its code."""
    try:
        try:
            return False, agent.wait()
        except KeyboardInterrupt:
            stop.parent.mkdir(parents=True, exist_ok=True)
            stop.touch()
            return True, agent.wait()
    except BaseException:
        agent.terminate()
        agent.wait()
        raise


def main(model: Path, stop: Path, parent: int) -> int:
    """One process of a training; returns its exit code."""
    trained: Trainable
    trained, progress = pickle.loads(model.read_bytes())  # written by the process that started this one
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        trained.train(Stoppable(progress, stop) if os.environ["RANK"] == "0" else Silent())
    except KeyboardInterrupt:
        return 0  # saved; whoever started this sees that it is not finished
    except UserError as e:
        print(e, file=sys.stderr, flush=True)
        return REFUSED
    return 0


class Stoppable:
    """Progress of the first process, which turns the stop file into Ctrl-C between two steps.

    Not before the first one: until then processes wait for each other, and one that left would leave the others there.
    """

    def __init__(self, progress: Progress, stop: Path) -> None:
        self.progress, self.stop, self.stopped = progress, stop, False

    def start(self, what: str, total: int) -> None:
        self.progress.start(what, total)

    def advance(self, steps: int = 1) -> None:
        self.progress.advance(steps)
        if not self.stopped and self.stop.exists():
            self.stopped = True
            signal.raise_signal(signal.SIGINT)

    def tell(self, event: Event) -> None:
        self.progress.tell(event)


def _end_with(parent: int) -> None:
    """A killed parent takes its processes along."""
    while Path(f"/proc/{parent}").exists():
        time.sleep(POLL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
