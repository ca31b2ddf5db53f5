"""Independent pieces of work in several processes, with one progress bar and one Ctrl-C for all of them.

Small models keep one core busy and barely use a second: two trainings side by side finish sooner than one after the
other with twice the threads.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event as Flag
from typing import Any, Protocol, TypeVar

from evalkit.errors import RunFailed
from evalkit.events import Event
from evalkit.job import Progress

Result = TypeVar("Result", covariant=True)
POLL = 0.2  # seconds between looks at how far the workers are


class Work(Protocol[Result]):
    """A picklable piece of work that says how far it is."""

    def __call__(self, progress: Progress) -> Result: ...


def side_by_side(
    works: Sequence[Work[Result]], jobs: int, threads: int, progress: Progress, what: str, total: int
) -> list[Result]:
    """Do all work in `jobs` processes of `threads` CPU threads each; results in the order of the work.

    The first failure stops the others at their next step, which they save; so does Ctrl-C.

    Args:
        works: picklable; each is called once with its progress.
        jobs: processes at a time.
        threads: of each process.
        progress: sees the steps of all together, as one stage.
        what: the stage's name.
        total: about how many steps it has.

    Raises:
        RunFailed: a process was killed.
        Exception: that of the first piece of work that failed.
        KeyboardInterrupt: Ctrl-C.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process that has computed with torch may hang
    steps: SimpleQueue[int] = context.SimpleQueue()
    stop = context.Event()
    progress.start(what, total)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(threads, steps, stop))
    with pool:
        futures = [pool.submit(_do, work) for work in works]
        try:
            _watch(futures, steps, progress)
        except BrokenProcessPool:
            raise RunFailed(
                "A worker process was killed, most likely for want of memory; what is finished is kept.",
                "Run the same command again with a smaller --jobs.",
            ) from None
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            wait(futures)
    return [future.result() for future in futures]


def _watch(futures: Sequence[Future[Any]], steps: SimpleQueue[int], progress: Progress) -> None:
    """Pass steps on until all is done; raises the first failure."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=POLL, return_when=FIRST_EXCEPTION)
        while not steps.empty():
            progress.advance(steps.get())
        for future in done:
            future.result()


class _Reports:
    """A worker's progress: steps go to the parent, and its word to stop comes back as Ctrl-C.

    A training hears Ctrl-C, finishes its step and saves it. Other work keeps what it has finished anyway.
    """

    def __init__(self, steps: SimpleQueue[int], stop: Flag) -> None:
        self.steps, self.stop, self.stopped = steps, stop, False

    def start(self, what: str, total: int) -> None:
        self._listen()

    def advance(self, steps: int = 1) -> None:
        self.steps.put(steps)
        self._listen()

    def tell(self, event: Event) -> None:
        """The parent shows all workers as one stage."""

    def _listen(self) -> None:
        if not self.stop.is_set() or self.stopped:
            return
        self.stopped = True
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)


_shared: tuple[SimpleQueue[int], Flag]


def _begin(threads: int, steps: SimpleQueue[int], stop: Flag) -> None:
    """Set a worker process up. An idle one must not die of the Ctrl-C that the terminal sends to all."""
    global _shared
    _shared = steps, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """A killed parent takes its workers along: the next run must have the directory to itself."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _do(work: Work[Result]) -> Result:
    return work(_Reports(*_shared))
