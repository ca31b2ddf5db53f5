"""Worker processes on this host: each scores its share with networks of its own, and what it finds comes back at once.

Only the caller's process writes the journal. A worker that is killed is replaced, and the video it was at is tried once
more; a video that costs two workers is left unscored. The scores do not depend on how many workers there are, nor on
which of them scored what: every video is scored by itself. (On a CPU, networks may round differently with another
number of threads; equal `threads` give equal bits.)
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter

from evalkit.agenda import Agenda
from evalkit.backbones.base import Runtime
from evalkit.decoding import Decoder, Limits
from evalkit.engine import Cost, Engine, Message, Missed, Report, Task
from evalkit.errors import RunFailed
from evalkit.events import Doing, Failed
from evalkit.job import Progress
from evalkit.metrics.base import MetricSpec
from evalkit.run_log import log_to
from evalkit.timings import Spent
from evalkit.weights import WeightStore

DEPTH = 3
"""Videos a worker holds: the one it scores and those that its decoder may begin with."""
CHANCES = 2
"""Workers that a video may cost before it is left alone, and starts in a row that may fail."""
PATIENCE = 5.0
"""Seconds that a worker has to end by itself."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker needs to know.

    Args:
        metrics: all that tasks may ask for.
        prompts: the texts of all clips that will want a feature, by its name.
        weights: folder of checkpoints.
        trust_archives: as in `Request`.
        runtime: precision and batch of the networks; every worker puts its own device in.
        limits: of the decoder.
        threads: CPU threads of each worker; None shares the cores among them.
        log: where tracebacks go.
    """

    metrics: tuple[MetricSpec, ...]
    prompts: Mapping[str, Sequence[str]]
    weights: Path
    trust_archives: bool
    runtime: Runtime
    limits: Limits
    threads: int | None
    log: Path


@dataclass(frozen=True, slots=True)
class Order:
    """To a worker: a task, and the features whose networks are still wanted."""

    task: Task
    keep: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it waits for its first task."""


@dataclass(frozen=True, slots=True)
class Began:
    """From a worker: it has begun with the oldest of its tasks."""


@dataclass(frozen=True, slots=True)
class Done:
    """From a worker: the oldest of its tasks is done."""


@dataclass(frozen=True, slots=True)
class Raised:
    """From a worker: it cannot go on."""

    error: BaseException
    trace: str


@dataclass(eq=False, slots=True)
class Worker:
    """A process, the line to it, and the tasks it holds, oldest first; `busy` while it is at the first of them."""

    name: str
    lane: int
    process: BaseProcess
    line: Connection
    born: float
    tasks: deque[Task] = field(default_factory=deque)
    busy: bool = False


class Crew:
    """Workers that share an agenda.

    Args:
        setup: what each needs to know.
        workers: how many.
        devices: theirs, in turn.
        agenda: the work; has as many lanes.
        report: is told all that comes of it, in this process.
        progress: is told what each worker is at.
    """

    def __init__(
        self, setup: Setup, workers: int, devices: Sequence[str], agenda: Agenda, report: Report, progress: Progress
    ) -> None:
        self.setup = setup
        self.devices = [devices[lane % len(devices)] for lane in range(workers)]
        self.agenda = agenda
        self.report = report
        self.progress = progress
        self.workers: list[Worker] = []
        self.cost: Counter[str] = Counter()
        self.failed_starts = 0

    def run(self) -> None:
        """Do all that is on the agenda.

        Raises:
            UserError: the networks cannot be loaded, or workers do not even start.
            KeyboardInterrupt: Ctrl-C; what has come back is reported.
        """
        try:
            self.workers = [self._start(lane) for lane in range(len(self.devices))]
            self._hand_out()
            while len(self.agenda):
                for line in connection.wait([worker.line for worker in self.workers]):
                    self._listen(next(worker for worker in self.workers if worker.line is line))
                self._hand_out()
        finally:
            self._dismiss()

    def _start(self, lane: int) -> Worker:
        context = multiprocessing.get_context("spawn")  # a fork of a process that has computed with torch may hang
        ours, theirs = context.Pipe()
        device = self.devices[lane]
        setup = replace(self.setup, threads=self.setup.threads or max(1, cores() // len(self.devices)))
        setup = replace(setup, runtime=replace(setup.runtime, device=device))
        process = context.Process(target=_work, args=(theirs, setup), name=f"scoring worker {lane + 1}", daemon=True)
        process.start()
        theirs.close()
        shared = len(self.devices) > len(set(self.devices))
        return Worker(f"{device} ({lane + 1})" if shared else device, lane, process, ours, perf_counter())

    def _hand_out(self) -> None:
        """Fill the workers' hands, everyone's first one before anyone's second."""
        for depth in range(1, DEPTH + 1):
            for worker in self.workers:
                if len(worker.tasks) < depth and (task := self.agenda.take(worker.lane)):
                    worker.tasks.append(task)
                    self._send(worker, Order(task, self.agenda.still_wanted))

    def _send(self, worker: Worker, order: Order) -> None:
        try:
            worker.line.send(order)
        except OSError:  # it is dead: its line says so when it is listened to
            log.info("%s does not hear", worker.name)

    def _listen(self, worker: Worker) -> None:
        try:
            message = worker.line.recv()
        except (EOFError, OSError):
            self._replace(worker)
        else:
            self._hear(worker, message)

    def _hear(self, worker: Worker, message: Message | Ready | Began | Done | Raised) -> None:
        match message:
            case Ready():
                self.report(Cost({"start": Spent(perf_counter() - worker.born, 1)}))
            case Began():
                worker.busy = True
                self.failed_starts = 0
                self.progress.tell(Doing(worker.name, worker.tasks[0].video.sample.file))
            case Done():
                worker.busy = False
                self.agenda.done(worker.tasks.popleft())
                if not worker.tasks:
                    self.progress.tell(Doing(worker.name, ""))
            case Raised(error, trace):
                log.error("%s cannot go on:\n%s", worker.name, trace)
                raise error
            case _:
                self.report(message)

    def _replace(self, lost: Worker) -> None:
        """Take a dead worker's tasks back and put a new one in its place.

        Raises:
            RunFailed: workers die before they begin, again and again.
        """
        lost.process.join()
        lost.line.close()
        how = _ending(lost.process.exitcode)
        log.error("%s %s", lost.name, how)
        suspect = lost.tasks.popleft() if lost.busy else None
        for task in reversed(lost.tasks):
            self.agenda.give_back(task, lost.lane)
        if suspect:
            self._blame(lost, suspect, how)
        self.failed_starts += 1
        if self.failed_starts > CHANCES * len(self.devices):
            raise RunFailed(
                f"Worker processes end as soon as they start: the last one {how}.",
                "Most likely memory is short: use fewer --workers. What is finished is kept.",
            )
        self.workers[self.workers.index(lost)] = self._start(lost.lane)

    def _blame(self, lost: Worker, task: Task, how: str) -> None:
        """A video may have killed its worker, or been there when somebody else did."""
        file = task.video.sample.file
        self.cost[file] += 1
        if self.cost[file] < CHANCES:
            self.progress.tell(Failed(lost.name, f"{how} at {file}; another goes on"))
            self.agenda.give_back(task, lost.lane)
            return
        for key in task.keys.values():
            self.report(Missed(key, file, f"{CHANCES} workers were lost over it: the last one {how}"))
        self.agenda.done(task)

    def _dismiss(self) -> None:
        """End all workers; what they have found is reported."""
        for worker in self.workers:
            worker.line.close()
        for worker in self.workers:
            worker.process.join(PATIENCE)
            worker.process.kill()
            worker.process.join()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"


# --- in the worker ----------------------------------------------------------------------------------------------------


def _work(line: Connection, setup: Setup) -> None:
    """What a worker process does until its line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to all; the parent decides
    orders: SimpleQueue[Order] = SimpleQueue()
    threading.Thread(target=_receive, args=(line, orders), daemon=True).start()
    with log_to(setup.log):
        try:
            _serve(line, orders, setup)
        except BrokenPipeError:  # the parent has gone
            return
        except BaseException as error:  # noqa: BLE001  # the parent raises it again
            line.send(Raised(_portable(error), traceback.format_exc()))


def _receive(line: Connection, orders: SimpleQueue[Order]) -> None:
    """Take orders in, so that the parent never waits; the end of the line is the end of the worker.

    It ends when the parent closes it, or is killed: the next run must have the directory to itself.
    """
    try:
        while True:
            orders.put(line.recv())
    except (EOFError, OSError):
        os._exit(0)


def _serve(line: Connection, orders: SimpleQueue[Order], setup: Setup) -> None:
    if any(feature.checkpoints for metric in setup.metrics for feature in metric.features):
        import torch

        torch.set_num_threads(setup.threads or 1)
    store = WeightStore(setup.weights, setup.trust_archives)
    held: deque[Order] = deque()
    loaded = False
    with Decoder(setup.limits) as decoder:
        engine = Engine(setup.metrics, setup.prompts, store, setup.runtime, decoder, line.send)
        line.send(Ready())
        while True:
            while not held or not orders.empty():
                held.append(orders.get())
                engine.expect(held[-1].task)
            order = held.popleft()
            line.send(Began())
            engine.keep(order.keep)
            if not loaded:
                engine.load(order.task, lambda feature: None)
                loaded = True
            engine.score(order.task)
            line.send(Done())


def _portable(error: BaseException) -> BaseException:
    """An error that the parent can raise: itself, if it can travel."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # whatever keeps it from travelling
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
