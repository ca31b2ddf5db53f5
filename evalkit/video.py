"""The only decoder: RGB frames, each exactly once, in presentation order, in chunks of bounded memory.

A file that does not decode completely is an error and never a shorter clip: the official package scores whatever its
reader happens to deliver, so that a half-written file gets a score of its own (often a better one, for there is less
of it), and nobody is told.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from evalkit.errors import UserError
from evalkit.types import FrameChunk, Frames, VideoInfo

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"})
"""Files in a folder that count as videos (in lower case)."""


class VideoError(UserError):
    """A file that is no video, or not a whole one.

    `reason` says what is wrong in a few words, without the file's name.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}.", "Export or copy the video again, or take it out of the folder.")
        self.reason = reason


def probe(path: Path) -> VideoInfo:
    """Read the container without decoding a frame.

    Raises:
        VideoError: the file is no video, or its container is damaged.
    """
    with _open(path) as container:
        stream = _video_stream(path, container)
        try:
            n_frames = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
        except av.FFmpegError as e:
            raise VideoError(path, f"damaged container: {e.strerror}") from e
        if n_frames < stream.frames:
            raise VideoError(path, f"truncated: {n_frames} of {stream.frames} frames are there")
        if not n_frames:
            raise VideoError(path, "the video has no frames")
        return VideoInfo(
            width=stream.width,
            height=stream.height,
            n_frames=n_frames,
            fps=float(stream.average_rate or stream.guessed_rate or 0),
            codec=stream.codec_context.name,
            pixel_format=str(stream.codec_context.pix_fmt),
        )


def read(path: Path, info: VideoInfo, chunk: int = 16, *, ahead: int = 2, threads: int = 1) -> Iterator[FrameChunk]:
    """Decode all frames, at most `chunk` at a time.

    Args:
        path: the video.
        info: what `probe` said about it.
        chunk: frames per chunk; the last chunk may be shorter.
        ahead: chunks decoded in advance by a background thread; 0 decodes in the caller's thread.
        threads: decoder threads.

    Raises:
        VideoError: fewer frames decode than the container promises, or a frame is damaged.
    """
    chunks = _chunks(path, info, chunk, threads)
    return _decode_ahead(chunks, ahead) if ahead else chunks


def read_frames(path: Path, indices: Sequence[int]) -> Frames:
    """Decode chosen frames, `(len(indices), H, W, 3)` in the order asked for, in one pass up to the last one.

    Raises:
        VideoError: as for `probe` and `read`.
    """
    info = probe(path)
    found: dict[int, Frames] = {}
    with closing(_chunks(path, info, 1, 1)) as chunks:
        for piece in chunks:
            if piece.start in indices:
                found[piece.start] = piece.frames_THWC[0]
            if piece.start >= max(indices):
                break
    return np.stack([found[index] for index in indices])


def _open(path: Path) -> InputContainer:
    try:
        return av.open(str(path), metadata_errors="replace")
    except FileNotFoundError:
        raise VideoError(path, "no such file") from None
    except (av.FFmpegError, OSError) as e:
        reason = "empty file" if path.stat().st_size == 0 else f"not a video file ({e.strerror})"
        raise VideoError(path, reason) from e


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise VideoError(path, "no video stream")
    return container.streams.video[0]


def _chunks(path: Path, info: VideoInfo, size: int, threads: int) -> Generator[FrameChunk, None, None]:
    buffer_THWC = np.empty((min(size, info.n_frames), info.height, info.width, 3), np.uint8)
    start = filled = 0
    for frame_HWC in _frames(path, info, threads):
        buffer_THWC[filled] = frame_HWC
        filled += 1
        if filled == len(buffer_THWC):
            yield FrameChunk(start, buffer_THWC)
            start, filled = start + filled, 0
            buffer_THWC = np.empty((min(size, max(1, info.n_frames - start)), *buffer_THWC.shape[1:]), np.uint8)
    if start + filled != info.n_frames:
        raise VideoError(path, f"truncated: {start + filled} of {info.n_frames} frames decode")


def _frames(path: Path, info: VideoInfo, threads: int) -> Iterator[Frames]:
    n = 0
    with _open(path) as container:
        stream = _video_stream(path, container)
        stream.codec_context.thread_count = threads
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise VideoError(path, f"frame {n} of {info.n_frames} is damaged")
                yield _rgb(frame)
                n += 1
        except av.FFmpegError as e:
            raise VideoError(path, f"damaged after {n} of {info.n_frames} frames: {e.strerror}") from e


def _rgb(frame: VideoFrame) -> Frames:
    rgb = frame.reformat(format="rgb24")
    plane = rgb.planes[0]
    rows_HX: Frames = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
        : rgb.height, : rgb.width * 3
    ]
    return rows_HX.reshape(rgb.height, rgb.width, 3)


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _decode_ahead(chunks: Iterable[FrameChunk], depth: int) -> Iterator[FrameChunk]:
    """Run `chunks` in a thread, at most `depth` chunks in advance; stop it when the consumer stops."""
    ready: queue.Queue[FrameChunk | _Failure | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: FrameChunk | _Failure | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            if all(put(piece) for piece in chunks):
                put(None)
        except BaseException as e:  # noqa: BLE001 - handed to the consumer
            put(_Failure(e))

    worker = threading.Thread(target=produce, name="decode-ahead", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stopped.set()
        worker.join()
