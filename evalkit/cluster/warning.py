"""The scheduler's warning that a job will be stopped, heard as Ctrl-C.

All work of this package knows Ctrl-C: it stops at a place where nothing is lost. submitit's own handler raises wherever
the program happens to be, and SIGUSR2 goes to all processes of a job, decoders and workers included, which would die of
it. So the signal is blocked in this process and those that it starts, and waited for by a thread.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE = 120.0
"""Seconds after SIGTERM in which the scheduler's warning may still follow (preemption), or the end."""


class Warned:
    """What was heard: `soon` the job's end was announced (SIGUSR2); `now` it was asked to end (SIGTERM)."""

    def __init__(self) -> None:
        self.soon = threading.Event()
        self.now = threading.Event()

    def __bool__(self) -> bool:
        return self.soon.is_set() or self.now.is_set()


def warning_signal() -> signal.Signals:
    """The one that submitit asks SLURM to send."""
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


@contextmanager
def heard_as_ctrl_c() -> Iterator[Warned]:
    """Within it, a warning raises KeyboardInterrupt in the main thread, once; what it was says `Warned`."""
    warned, over, number = Warned(), threading.Event(), warning_signal()

    def hear(*_: object) -> None:
        first = not warned
        warned.soon.set()
        if first and not over.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    def listen() -> None:
        signal.sigwait({number})
        if not over.is_set():
            hear()

    def terminate(_: int, __: FrameType | None) -> None:
        if not warned:
            warned.now.set()
            signal.raise_signal(signal.SIGINT)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    handlers = {s: signal.getsignal(s) for s in (number, signal.SIGTERM, signal.SIGINT)}
    signal.signal(number, hear)  # threads that were there before do not block it
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background are started deaf to it
    try:
        yield warned
    finally:
        if warned.now.is_set() and not warned.soon.is_set():
            warned.soon.wait(PATIENCE)
        over.set()
        if listener.is_alive() and listener.ident is not None:
            signal.pthread_kill(listener.ident, number)
        listener.join()
        for signalled, handler in handlers.items():
            signal.signal(signalled, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
