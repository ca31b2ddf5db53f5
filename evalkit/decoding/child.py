"""The process that files are opened in: `python -P -m evalkit.decoding.child CONTROL SLOTS TIMEOUT MEMORY`.

CONTROL and SLOTS are numbers of open files. It ends when its parent does, whatever it is doing: a thread sees the other
side hang up, and a decoder that keeps even that thread from running is ended by a timer.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import mmap
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from evalkit.decoding.answers import MAX_REASON
from evalkit.decoding.room import Room
from evalkit.decoding.sandbox import close_in, memory_limited, memory_peak, memory_taken
from evalkit.decoding.wire import Channel, Closed, Message
from evalkit.types import FrameChunk, Frames, Size, VideoInfo
from evalkit.video import Part, VideoError, decode, preload, probe

NO_SLOT = -1
GRACE_S = 30.0
"""How much later than its parent the child gives itself up."""


class Orders:
    """What the parent has asked for."""

    def __init__(self, channel: Channel, slots: int) -> None:
        self._channel = channel
        self._short: list[Message] = []
        self._reads: dict[int, Message] = {}
        self._free = set(range(slots))

    def next(self) -> tuple[Message, int]:
        """What to do, once there is something: short tasks first, else a step of the first video and a slot for it.

        Raises:
            Closed: the parent is gone.
        """
        self._hear()
        while not (self._short or (self._reads and self._free)):
            self._take(self._channel.receive())
        if self._short:
            return self._short.pop(0), NO_SLOT
        return next(iter(self._reads.values())), self._free.pop()

    def done(self, task: int) -> None:
        """A video has been read, or cannot be."""
        self._reads.pop(task, None)

    def give_back(self, slot: int) -> None:
        """A slot was not needed."""
        self._free.add(slot)

    def _hear(self) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                self._take(self._channel.receive(0))

    def _take(self, message: Message) -> None:
        match message["do"]:
            case "read":
                self._reads[message["task"]] = message
            case "cancel":
                self._reads.pop(message["task"], None)
            case "free":
                self._free.add(message["slot"])
            case _:
                self._short.append(message)


class Slots:
    """The shared memory, mapped as far as has been needed."""

    def __init__(self, handles: list[int]) -> None:
        self._handles = handles
        self._mapped = [np.empty(0, np.uint8) for _ in handles]

    def make_room(self, size: int) -> None:
        for index, handle in enumerate(self._handles):
            if self._mapped[index].size < size:
                self._mapped[index] = np.frombuffer(mmap.mmap(handle, size), np.uint8)

    def array(self, slot: int, offset: int, shape_THWC: tuple[int, int, int, int]) -> Frames:
        """A part of a slot."""
        size = int(np.prod(shape_THWC))
        array: Frames = self._mapped[slot][offset : offset + size].reshape(shape_THWC)
        return array


class Reading:
    """A video in the middle of being read."""

    def __init__(self, order: Message, slots: Slots, memory_bytes: int) -> None:
        self.task: int = order["task"]
        self.skip: int = order["skip"]
        self._info = VideoInfo(**order["info"])
        sizes: list[Size] = [(width, height) for width, height in order["sizes"]]
        self._room = Room.of(self._info, sizes)
        self._slots = slots
        self._slot = -1
        slots.make_room(self._room.bytes)
        self.ceiling = memory_taken() + memory_bytes
        self._chunks = decode(Path(order["path"]), self._info, sizes=sizes, allocate=self._allocate)

    def fill(self, slot: int) -> FrameChunk | None:
        """Decode the next chunk into a slot; None at the end.

        Raises:
            VideoError: it cannot be decoded.
            MemoryError: not within the limit.
        """
        self._slot = slot
        with memory_limited(self.ceiling):
            return next(self._chunks, None)

    def close(self) -> None:
        self._chunks.close()

    def _allocate(self, part: Part, shape_THWC: tuple[int, int, int, int]) -> Frames:
        return self._slots.array(self._slot, self._room.offsets[part], shape_THWC)


@dataclass
class Worker:
    """Does one task after another."""

    channel: Channel
    orders: Orders
    slots: Slots
    timeout_s: float
    memory_bytes: int
    reading: Reading | None = None
    _task: int = -1
    _ceiling: int = 0

    def work(self) -> NoReturn:
        """Obey for ever.

        Raises:
            Closed: the parent is gone.
        """
        while True:
            order, slot = self.orders.next()
            task = order["task"]
            if order["do"] == "ping":
                self._drop()
                self._say(task, "done")
                continue
            if task != self._task:
                self._say(task, "begun")
                self._task = task
            with self._within_limits(task):
                if order["do"] == "probe":
                    self._probe(order)
                else:
                    self._step(order, slot)

    def _probe(self, order: Message) -> None:
        self._ceiling = memory_taken() + self.memory_bytes
        with memory_limited(self._ceiling):
            info = probe(Path(order["path"]))
        self._say(order["task"], "probed", info=asdict(info))
        self._task = -1

    def _step(self, order: Message, slot: int) -> None:
        """One chunk; the slot goes with it, or back."""
        sent = False
        try:
            if self.reading is None or self.reading.task != order["task"]:
                self._drop()
                self.reading = Reading(order, self.slots, self.memory_bytes)
            self._ceiling = self.reading.ceiling
            sent = self._advance(self.reading, slot)
        finally:
            if not sent:
                self.orders.give_back(slot)

    def _advance(self, reading: Reading, slot: int) -> bool:
        """Whether the parent has been given the slot."""
        chunk = reading.fill(slot)
        if chunk is None:
            self._end(reading.task)
            self._say(reading.task, "done")
        elif chunk.start < reading.skip:
            self._say(reading.task, "skipped")
        else:
            self._say(
                reading.task,
                "filled",
                slot=slot,
                opencv=chunk.opencv_THWC is not None,
                scaled=bool(chunk.scaled),
            )
            return True
        return False

    @contextmanager
    def _within_limits(self, task: int) -> Generator[None, None, None]:
        """Report what goes wrong as an answer; end this process if nothing comes back at all."""
        faulthandler.dump_traceback_later(self.timeout_s + GRACE_S, exit=True)
        try:
            yield
        except Closed:
            raise
        except Exception as e:  # noqa: BLE001 - whatever a library raises, the file made it
            self._end(task)
            if _says_memory(e) or self._came_near_the_limit():
                self._say(task, "too large")
            else:
                unforeseen = f"cannot be decoded ({type(e).__name__}: {e})"
                self._say(task, "refused", reason=(e.reason if isinstance(e, VideoError) else unforeseen)[:MAX_REASON])
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _came_near_the_limit(self) -> bool:
        """Many decoders call a picture damaged that they find no room for; the largest take a tenth of the default."""
        return 0 < self._ceiling - self.memory_bytes // 8 < memory_peak()

    def _end(self, task: int) -> None:
        self.orders.done(task)
        if self.reading is not None and self.reading.task == task:
            self._drop()
        self._task = -1

    def _drop(self) -> None:
        if self.reading is not None:
            self.reading.close()
            self.reading = None

    def _say(self, task: int, what: str, **facts: object) -> None:
        try:
            self.channel.send({"task": task, "says": what, **facts})
        except OSError as e:
            raise Closed from e


def end_with_parent(channel: Channel) -> NoReturn:
    """Wait until the other side hangs up; it needs no memory, of which there may be none."""
    watch = select.poll()
    watch.register(channel.socket, select.POLLHUP)
    while True:
        with contextlib.suppress(MemoryError):
            if watch.poll():
                os._exit(0)


def _says_memory(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def main(arguments: list[str]) -> None:
    """Set the process up and work."""
    control, handles, timeout_s, memory_bytes = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    sys.dont_write_bytecode = True
    slots = [int(handle) for handle in handles.split(",")]
    channel = Channel(socket.socket(fileno=int(control)))
    orders = Orders(channel, len(slots))
    preload()
    close_in()
    threading.Thread(target=end_with_parent, args=(channel,), daemon=True).start()
    channel.send({"task": 0, "says": "hello"})
    with contextlib.suppress(Closed):
        Worker(channel, orders, Slots(slots), float(timeout_s), int(memory_bytes)).work()


if __name__ == "__main__":
    main(sys.argv[1:])
