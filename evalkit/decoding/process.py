"""The decoding process as its parent sees it: started, asked, timed, ended."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Collection, Sequence
from contextlib import closing

from evalkit.decoding import slots
from evalkit.decoding.answers import Answer, Filled, parse
from evalkit.decoding.job import Limits
from evalkit.decoding.room import Room
from evalkit.decoding.slots import Slot
from evalkit.decoding.wire import Channel, Closed, Garbled, Message
from evalkit.types import Frames, Size
from evalkit.video import Part

COMMAND = (sys.executable, "-P", "-m", "evalkit.decoding.child")
"""`-P`: never import from the current folder, where the videos may be."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # By default glibc returns every picture's memory and faults it in anew: a tenth of the time that decoding takes.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}
START_S = 60.0
"""For a child to come up, on a machine that is busy."""

PATIENCE_S = 5.0
"""For what takes no time in a healthy child: dying, taking a message."""

SLICE_S = 1.0
"""Waiting is counted in slices, so that time in which this process is stopped, or the clock jumps, counts as one."""


class Died(Exception):
    """The child is gone.

    `reason` says how, in words that fit a video's fault. `killed` is whether somebody else ended it, as the kernel does
    when memory is short.
    """

    def __init__(self, reason: str, killed: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.killed = killed


class Process:
    """A running child and the memory it shares.

    Args:
        limits: of every video.
        command: what to run; arguments are added.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, limits: Limits, command: Sequence[str] = COMMAND) -> None:
        self.limits = limits
        self.command = tuple(command)
        with contextlib.ExitStack() as undo:
            self.slots = [undo.enter_context(closing(Slot())) for _ in range(slots.COUNT)]
            self._channel, self._child = self._start(undo)
            undo.pop_all()
        self._full: set[int] = set()
        self._greeted = False
        self.forgotten = False
        _running.add(self)

    def _start(self, undo: contextlib.ExitStack) -> tuple[Channel, subprocess.Popen[bytes]]:
        """Both are undone unless all goes well."""
        near, far = socket.socketpair()
        with far:
            undo.callback(near.close)
            shared = [slot.fileno() for slot in self.slots]
            numbers = [far.fileno(), ",".join(map(str, shared)), self.limits.timeout_s, self.limits.memory_bytes]
            child = subprocess.Popen(
                [*self.command, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # ffmpeg prints, and what it prints a file can choose
                pass_fds=[far.fileno(), *shared],
                env={**os.environ, **ENVIRONMENT},
                start_new_session=True,  # Ctrl-C in the terminal is for the parent
            )
        return Channel(near, PATIENCE_S), child

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.returncode is None and self._child.poll() is None

    def send(self, message: Message) -> None:
        """Ask for something; a child that is gone is noticed when its answer is waited for."""
        with contextlib.suppress(OSError):
            self._channel.send(message)

    def make_room(self, size: int) -> None:
        """Have `size` bytes in every slot at least."""
        for slot in self.slots:
            slot.grow(size)

    def take_from(self, filled: Filled, room: Room, n: int, sizes: Collection[Size]) -> dict[Part, Frames]:
        """Copy what a slot holds: the parts of a chunk of `n` frames. The slot stays full until `free` is called.

        Raises:
            Garbled: there is no such slot, or nothing new in it.
        """
        if filled.slot >= len(self.slots) or filled.slot in self._full:
            raise Garbled
        self._full.add(filled.slot)
        slot = self.slots[filled.slot]
        wanted: list[Part] = ["own"]
        wanted += ["opencv"] if filled.opencv else []
        wanted += sizes if filled.scaled else []
        try:
            return {part: slot.copy(room.offsets[part], room.shape(part, n)) for part in wanted}
        except EOFError:
            raise Garbled from None

    def free(self, slot: int) -> None:
        """The child may fill that slot again.

        Raises:
            Garbled: there is no such slot.
        """
        if slot >= len(self.slots):
            raise Garbled
        self._full.discard(slot)
        self.send({"do": "free", "slot": slot})

    def receive(self, patience_s: float | None = None) -> tuple[int, Answer]:
        """Wait for the next answer: the task and what is said of it.

        Args:
            patience_s: how long; by default as long as the limits say.

        Raises:
            Died: the child has ended, or has been killed because it said nothing for too long, or nonsense.
        """
        left = self.limits.timeout_s if patience_s is None else patience_s
        if not self._greeted:
            left = max(left, START_S)
        while True:
            wait = min(SLICE_S, max(left, 0.001))
            try:
                answer = parse(self._channel.receive(wait))
                self._greeted = True
                return answer
            except TimeoutError:
                left -= wait
                if left <= 0:
                    self.kill()
                    raise Died(self.limits.too_slow) from None
            except Closed:
                raise self._dead() from None
            except Garbled:
                raise self.nonsense() from None

    def nonsense(self) -> Died:
        """End a child that is not to be trusted any more."""
        self.kill()
        return Died("the decoder crashed (its answers make no sense)")

    def kill(self) -> None:
        """End it now. One that the kernel does not let go (a dead network share) is left behind."""
        if self._child.returncode is None:
            self._child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(PATIENCE_S)
        self._channel.close()

    def release(self) -> None:
        """End it and give up the shared memory."""
        self.kill()
        for slot in self.slots:
            slot.close()
        _running.discard(self)

    def forget(self) -> None:
        """In a fork of the parent: it is not ours."""
        self.forgotten = True
        self._channel.close()
        for slot in self.slots:
            slot.close()
        self._child.returncode = 0

    def _dead(self) -> Died:
        """Why the conversation has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(PATIENCE_S)
        code = self._child.returncode
        self.kill()
        if code is None:
            return Died("the decoder crashed (it hung up)")
        if code >= 0:
            return Died(f"the decoder crashed (exit code {code})")
        return Died(f"the decoder crashed (signal {_signal_name(-code)})", killed=-code == signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


# --- one idle child is kept for the next who needs one ----------------------------------------------------------------

_running: weakref.WeakSet[Process] = weakref.WeakSet()
_idle: list[Process] = []
_idle_lock = threading.Lock()


def take(limits: Limits, command: Sequence[str] = COMMAND) -> Process:
    """An idle child with these limits, or a new one.

    Raises:
        OSError: none can be started.
    """
    with _idle_lock:
        kept = _idle.pop() if _idle else None
    if kept is not None:
        if kept.is_alive and (kept.limits, kept.command) == (limits, tuple(command)):
            return kept
        kept.release()
    return Process(limits, command)


def keep(process: Process) -> None:
    """Put a child that has nothing to do by; another that was kept is ended."""
    for slot in process.slots:
        slot.empty()
    with _idle_lock:
        replaced = list(_idle)
        _idle[:] = [process]
    for other in replaced:
        other.release()


@atexit.register
def release_idle() -> None:
    """End the child that is kept."""
    with _idle_lock:
        kept = list(_idle)
        _idle.clear()
    for process in kept:
        process.release()


def _forget_all() -> None:
    """A fork must not talk to its parent's children, nor keep them alive when the parent dies."""
    global _idle_lock
    _idle_lock = threading.Lock()
    _idle.clear()
    for process in list(_running):
        process.forget()
    _running.clear()


os.register_at_fork(after_in_child=_forget_all)
