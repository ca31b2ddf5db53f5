"""Videos in, chunks of frames out, whatever is in the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from evalkit.decoding.conversation import Conversation
from evalkit.decoding.job import Job, Limits
from evalkit.decoding.process import COMMAND
from evalkit.decoding.tasks import Probe, Reading
from evalkit.types import FrameChunk, VideoInfo
from evalkit.video import VideoError

AHEAD = 3
"""Videos that the child is told of at a time. It decodes them one after the other, as long as there are free slots."""

_DEFAULT = Limits()


class Decoder:
    """Decodes videos in a process of its own, a few chunks ahead of who reads them.

    Whatever a file does to that process is a `DecoderLost`, and the next file is read by a new one. The first process
    starts when it is needed. One thread at a time may use a decoder, and one of its readings at a time.

    Args:
        limits: what one video may cost.
        command: what to run as the child; for tests.
    """

    def __init__(self, limits: Limits = _DEFAULT, *, command: Sequence[str] = COMMAND) -> None:
        self._conversation = Conversation(limits, command)
        self._queue: list[Reading] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def probe(self, path: Path) -> VideoInfo:
        """What the container says; another video may be in the middle of being read.

        Raises:
            VideoError: as for `evalkit.video.probe`.
            DecoderLost: the file made the child hang, crash or exceed its memory.
            RunFailed: the child does not start.
        """
        question = Probe(path)
        try:
            while question.answer is None:
                self._conversation.ask(question)
                self._conversation.listen()
        finally:
            self._conversation.withdraw(question)
        if isinstance(question.answer, VideoError):
            raise question.answer
        return question.answer

    def expect(self, job: Job) -> None:
        """Decode this video next, after those expected before, ahead of its reader.

        Raises:
            RunFailed: the child does not start.
        """
        self._queue.append(Reading(job))
        self._ask_ahead()

    def read(self, job: Job) -> Iterator[FrameChunk]:
        """The frames of a video, as `evalkit.video.read` gives them. Those expected before it and not read are dropped.

        Raises:
            VideoError: as for `evalkit.video.read`.
            DecoderLost: the file made the child hang, crash or exceed its memory.
            RunFailed: the child does not start.
        """
        reading = self._turn_to(job)
        try:
            while (chunk := self._next_chunk(reading)) is not None:
                yield chunk
        finally:
            self._drop(reading)

    def close(self) -> None:
        """Drop all that is expected. A healthy child stays for the next decoder of this program."""
        for reading in list(self._queue):
            self._drop(reading)
        self._conversation.end()

    def _turn_to(self, job: Job) -> Reading:
        """The first that was expected of this job, now the head of the queue."""
        reading = next((reading for reading in self._queue if reading.job == job), None)
        if reading is None:
            return self._put_first(Reading(job))
        for other in self._queue[: self._queue.index(reading)]:
            self._drop(other)
        return reading

    def _put_first(self, reading: Reading) -> Reading:
        """What the child has decoded of others would keep the slots."""
        for other in list(self._queue):
            if other.fetched:
                self._drop(other)
            else:
                self._conversation.withdraw(other)
                other.start_again()
        self._queue.insert(0, reading)
        return reading

    def _next_chunk(self, reading: Reading) -> FrameChunk | None:
        if reading not in self._queue:
            raise ValueError(f"{reading.job.path} has been dropped: another video was read, or the decoder closed")
        while not reading.come:
            self._ask_ahead()
            self._conversation.listen()
        return reading.fetch()

    def _ask_ahead(self) -> None:
        for reading in self._queue[:AHEAD]:
            if not reading.ended:
                self._conversation.ask(reading)

    def _drop(self, reading: Reading) -> None:
        if reading in self._queue:
            self._queue.remove(reading)
            self._conversation.withdraw(reading)
            reading.forget()
