"""What the child is asked for, and what has come of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from evalkit.decoding.answers import Answer, Done, Filled, Probed, Refused, Skipped
from evalkit.decoding.job import Job
from evalkit.decoding.process import Process
from evalkit.decoding.room import Room
from evalkit.decoding.wire import Garbled, Message
from evalkit.types import FrameChunk, VideoInfo
from evalkit.video import VideoError, check_promise


class Task(Protocol):
    """Something that the child is asked for.

    `kills` counts how often somebody else ended the child in the middle of it.
    """

    kills: int

    def order(self, number: int) -> Message:
        """The message that asks for it."""

    def take(self, answer: Answer, child: Process) -> bool:
        """Note an answer; return whether it was the last one.

        Raises:
            Garbled: it makes no sense here.
        """

    def fail(self, error: type[VideoError], reason: str) -> None:
        """Nothing more will come, and why: an error that is made of the file and the reason."""


@dataclass(eq=False, slots=True)
class Probe:
    """A question about a file."""

    path: Path
    answer: VideoInfo | VideoError | None = None
    kills: int = 0

    def order(self, number: int) -> Message:
        return {"do": "probe", "task": number, "path": str(self.path.absolute())}

    def take(self, answer: Answer, child: Process) -> bool:
        match answer:
            case Probed(info):
                self.answer = info
            case Refused(reason):
                self.fail(VideoError, reason)
            case _:
                raise Garbled
        return True

    def fail(self, error: type[VideoError], reason: str) -> None:
        self.answer = error(self.path, reason)


@dataclass(eq=False, slots=True)
class Ping:
    """Whether the child has nothing else to do; None while that is not known."""

    is_idle: bool | None = None
    kills: int = 0

    def order(self, number: int) -> Message:
        return {"do": "ping", "task": number}

    def take(self, answer: Answer, child: Process) -> bool:
        if answer != Done():
            raise Garbled
        self.is_idle = True
        return True

    def fail(self, error: type[VideoError], reason: str) -> None:
        self.is_idle = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """A chunk, and how to give back the slot that it came in."""

    chunk: FrameChunk
    free: Callable[[], None]


@dataclass(eq=False, slots=True)
class Reading:
    """A video that is wanted.

    `come` is what has come and not been fetched: chunks, in the end a fault or None. `fetched` is whether any has been.
    """

    job: Job
    room: Room = field(init=False)
    come: deque[Delivery | VideoError | None] = field(default_factory=deque)
    n_come: int = 0
    fetched: bool = False
    ended: bool = False
    kills: int = 0

    def __post_init__(self) -> None:
        try:
            check_promise(self.job.path, self.job.info)
            self.room = Room.of(self.job.info, self.job.sizes)
        except VideoError as e:
            self.room = Room.none()
            self.fail(VideoError, e.reason)

    def order(self, number: int) -> Message:
        return {
            "do": "read",
            "task": number,
            "path": str(self.job.path.absolute()),
            "info": asdict(self.job.info),
            "sizes": sorted(self.job.sizes),
            "skip": self.n_come,
        }

    def take(self, answer: Answer, child: Process) -> bool:
        match answer:
            case Filled() if self.n_come < self.job.info.n_frames:
                self._take_chunk(answer, child)
                return False
            case Skipped() if self.n_come:
                return False
            case Done() if self.n_come == self.job.info.n_frames:
                self.come.append(None)
                self.ended = True
            case Refused(reason):
                self.fail(VideoError, reason)
            case _:
                raise Garbled
        return True

    def _take_chunk(self, filled: Filled, child: Process) -> None:
        n = min(self.room.frames, self.job.info.n_frames - self.n_come)
        parts = child.take_from(filled, self.room, n, self.job.sizes)
        scaled = {size: parts[size] for size in self.job.sizes if size in parts}
        chunk = FrameChunk(self.n_come, parts["own"], parts.get("opencv"), scaled)
        self.come.append(Delivery(chunk, partial(child.free, filled.slot)))
        self.n_come += n

    def fail(self, error: type[VideoError], reason: str) -> None:
        self.come.append(error(self.job.path, reason))
        self.ended = True

    def fetch(self) -> FrameChunk | None:
        """The next of what has come; None at the end.

        Raises:
            VideoError: it ends here.
        """
        self.fetched = True
        came = self.come.popleft()
        if isinstance(came, VideoError):
            raise came
        if came is None:
            return None
        came.free()
        return came.chunk

    def start_again(self) -> None:
        """Forget what has come, before any of it has been fetched."""
        self.forget()
        self.n_come, self.ended = 0, False

    def forget(self) -> None:
        """Nobody will fetch what has come."""
        for delivery in self.come:
            if isinstance(delivery, Delivery):
                delivery.free()
        self.come.clear()
