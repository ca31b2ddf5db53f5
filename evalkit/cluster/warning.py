"""The scheduler's warning that a job will be stopped, heard as Ctrl-C.

All work of this package knows Ctrl-C: it stops at a place where nothing is lost. submitit's own handler raises wherever
the program happens to be, and SIGUSR2 goes to all processes of a job, decoders and workers included, which would die of
it. So the signal is blocked in the processes that a job starts, and a thread of the job's own listens for it.
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
    main = threading.main_thread().ident
    ears, mouth = os.pipe()
    os.set_blocking(mouth, False)

    def listen() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        # Whichever thread the signal comes to, Python's handler writes its number here.
        while (heard := os.read(ears, 1)) and not over.is_set():
            if heard[0] == number and not warned.soon.is_set():
                first = not warned
                warned.soon.set()
                if first and main is not None:
                    signal.pthread_kill(main, signal.SIGINT)  # wakes it even from a call that waits

    def terminate(_: int, __: FrameType | None) -> None:
        if not warned:
            warned.now.set()
            signal.raise_signal(signal.SIGINT)

    handlers = {s: signal.getsignal(s) for s in (number, signal.SIGTERM, signal.SIGINT)}
    signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background are started deaf to it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})  # children inherit it
    wakeup = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield warned
    finally:
        if warned.now.is_set() and not warned.soon.is_set():
            warned.soon.wait(PATIENCE)
        over.set()
        signal.set_wakeup_fd(wakeup)
        os.close(mouth)
        listener.join()
        os.close(ears)
        for signalled, handler in handlers.items():
            signal.signal(signalled, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
