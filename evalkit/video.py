"""The only decoder: RGB frames, each exactly once, in presentation order, in chunks of bounded memory.

What the official package's readers do, and what is done here:

- decord (most dimensions) converts with the colour matrix the file names; OpenCV (flickering, motion, dynamic degree)
  always with BT.601. Frames here are decord's, bit for bit on 8-bit progressive H.264; where the file names another
  matrix, chunks carry OpenCV's frames as well (`FrameChunk.colours`).
- Rotation metadata is applied, as decord does: people judge the upright picture. OpenCV, as the official package calls
  it, leaves frames lying on their side. A mirrored display matrix is treated as its angle, as decord does.
- Every coded frame counts once, whatever its time stamp (variable frame rate); frames that an edit list cuts off do not
  count.
- Asked for another size, decord turns the picture upright and scales it by libswscale's bilinear filter before it
  converts the colours (`FrameChunk.scaled`); bit for bit, 10-bit and odd-sized video included.
- GIFs and stills are read with Pillow's `convert("RGB")`, as the official package reads them; transparency is dropped.
- Interlaced H.264 is converted field by field (correct, but decord and OpenCV take it for progressive), and 10-bit or
  odd-sized 4:2:0 video may differ from them by rounding, as they do from each other.

A file that does not decode completely is an error and never a shorter clip. The official package scores whatever its
reader happens to deliver, so a half-written file gets a score of its own, and nobody is told.

Files are not trusted: only regular files are opened, only as MP4/QuickTime, Matroska/WebM or AVI (or as an image), no
file may lead to another file or to the network, and frames larger than `MAX_PIXELS` are refused. What bugs in the
decoders themselves could do is the business of `evalkit.decoding`, which runs this module in a process of its own.
"""

from __future__ import annotations

import importlib
import os
import queue
import stat
import threading
import warnings
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image, ImageSequence, UnidentifiedImageError

from evalkit.container_end import missing_bytes
from evalkit.errors import UserError
from evalkit.types import FrameChunk, Frames, Size, VideoInfo

DECODER_VERSION = 1
"""Raise it whenever frames come out differently; it is part of every cache key."""

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"})
"""Files in a folder that count as videos (in lower case). Stills must be named by a manifest to be read."""

PILLOW_SUFFIXES = frozenset({".gif", ".png", ".jpg", ".jpeg"})
MP4_SUFFIXES = frozenset({".mp4", ".m4v", ".mov"})
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
"""Demuxers of libavformat that files other than GIFs and stills are opened with. Others (HLS, DASH, concat, image
sequences, ...) would open further files that the first one names."""

PILLOW_FORMATS = ("GIF", "PNG", "JPEG", "WEBP", "BMP")
"""What Pillow opens. Others among its formats start programs (EPS: Ghostscript) or are rarely looked after."""

MAX_CHUNK_BYTES = 128 * 2**20
MAX_PIXELS = 8192 * 8192
"""Of a frame; twice 8K video. A few bytes can promise 65,535 x 65,535."""

MAX_FRAMES = 2**20
"""Of a clip: twelve hours at 24 frames per second. A few bytes can promise billions."""

GIF_TAIL_BYTES = 2**16
BT601_MATRICES = frozenset({0, 2, 5, 6})  # ITU-T H.273: RGB, unspecified, BT.470BG, SMPTE 170M
GIF_TRAILER = b";"

UPRIGHT = {0: (), 90: (("transpose", "cclock"),), 180: (("hflip", ""), ("vflip", "")), 270: (("transpose", "clock"),)}
"""Filters of libavfilter that undo a rotation, as decord applies them."""

Part = Literal["own", "opencv"] | Size
"""What an array of a chunk holds: frames in their own colours, in OpenCV's, or at another size."""

Allocate = Callable[[Part, tuple[int, int, int, int]], Frames]
"""Gives the array `(T, H, W, 3)` that a part of a chunk is written to."""

# Pillow only warns of images between 90 and 180 million pixels.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class _Picture:
    """One frame in the file's own colours, in OpenCV's where those differ, and scaled as decord does; `(H, W, 3)`."""

    own_HWC: Frames
    opencv_HWC: Frames | None = None
    scaled: Mapping[Size, Frames] = field(default_factory=dict)


class VideoError(UserError):
    """A file that is no video, or not a whole one.

    `reason` says what is wrong in a few words, without the file's name.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}.", "Export or copy the video again, or take it out of the folder.")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[Path, str]]:  # type: ignore[override]
        return type(self), (self.path, self.reason)


def preload() -> None:
    """Import what opening a first file of some kind would: where memory or permission for it may be short later."""
    importlib.import_module("av.subtitles.stream")
    Image.init()


def probe(path: Path) -> VideoInfo:
    """Read the container: packets are counted, and only the first frame is decoded (it alone carries the rotation).

    Raises:
        VideoError: the file is no video, or was cut short.
    """
    return _probe_image(path) if path.suffix.lower() in PILLOW_SUFFIXES else _probe_stream(path)


def read(
    path: Path, info: VideoInfo, chunk: int = 16, *, sizes: Collection[Size] = (), ahead: int = 2, threads: int = 1
) -> Iterator[FrameChunk]:
    """Decode all frames, in order, in arrays of their own (they may be kept).

    Args:
        path: the video.
        info: what `probe` said about it.
        chunk: frames per chunk, less for large frames; the last chunk may be shorter.
        sizes: other sizes that frames are wanted in as well.
        ahead: chunks decoded in advance by a background thread; 0 decodes in the caller's thread.
        threads: decoder threads; frames do not depend on it.

    Raises:
        VideoError: fewer frames decode than the container promises, or a frame is damaged.
    """
    chunks = decode(path, info, chunk, sizes=sizes, threads=threads)
    return _decode_ahead(chunks, ahead) if ahead else chunks


def decode(
    path: Path,
    info: VideoInfo,
    chunk: int = 16,
    *,
    sizes: Collection[Size] = (),
    threads: int = 1,
    allocate: Allocate | None = None,
) -> Generator[FrameChunk, None, None]:
    """As `read`, in the caller's thread, into arrays that `allocate` gives where the caller has room of its own."""
    return _chunks(path, info, chunk_length(info, chunk), threads, sizes, allocate or _new)


def chunk_length(info: VideoInfo, chunk: int = 16) -> int:
    """How many frames a chunk of that clip has, the last one aside."""
    return max(1, min(chunk, MAX_CHUNK_BYTES // max(1, info.width * info.height * 3)))


def check_promise(path: Path, info: VideoInfo) -> None:
    """What was said about a video may come from a file, too.

    Raises:
        VideoError: there can be no such video.
    """
    _check_size(path, info.width, info.height)
    _check_length(path, info.n_frames)
    if min(info.width, info.height, info.n_frames) < 1:
        raise VideoError(path, f"no video has {info.n_frames} frames of {info.width} x {info.height} pixels")


def _new(part: Part, shape_THWC: tuple[int, int, int, int]) -> Frames:
    return np.empty(shape_THWC, np.uint8)


def read_frames(path: Path, indices: Sequence[int]) -> Frames:
    """Decode chosen frames, `(len(indices), H, W, 3)` in the order asked for, in one pass up to the last of them.

    Raises:
        VideoError: as for `probe` and `read`.
        IndexError: the clip has no such frame.
    """
    info = probe(path)
    if not all(0 <= index < info.n_frames for index in indices):
        raise IndexError(f"frames {min(indices)} to {max(indices)} of a clip of {info.n_frames}")
    found: dict[int, Frames] = {}
    last = max(indices, default=-1)
    with closing(decode(path, info, 1)) as chunks:
        while len(found) < len(set(indices)):
            piece = next(chunks)
            assert piece.start <= last
            if piece.start in indices:
                found[piece.start] = piece.frames_THWC[0]
    frames = [found[index] for index in indices]
    return np.stack(frames) if frames else np.empty((0, info.height, info.width, 3), np.uint8)


def varies_in_rate(path: Path) -> bool:
    """Whether frames are shown for unequal times, by more than a tick of the container's clock either way.

    Raises:
        VideoError: the file is no video.
    """
    if path.suffix.lower() in PILLOW_SUFFIXES:
        with _opened_image(path) as image:
            return len({frame.info.get("duration") for frame in ImageSequence.Iterator(image)}) > 1
    with _opened(path) as (container, stream):
        try:
            times = sorted(p.pts for p in container.demux(stream) if p.size and not p.is_discard and p.pts is not None)
        except av.FFmpegError as e:
            raise VideoError(path, f"damaged ({e.strerror})") from e
    gaps = [after - before for before, after in pairwise(times)]
    return bool(gaps) and max(gaps) - min(gaps) > 2


# --- containers -------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Generator[tuple[InputContainer, VideoStream], None, None]:
    # To learn a stream's format libavformat decodes some frames when it opens a file: a third of the time that a short
    # clip takes. An MP4's index holds all of it.
    options = dict(_CLOSED_IN) | ({"skip_frame": "all"} if path.suffix.lower() in MP4_SUFFIXES else {})
    _check_is_file(path)
    try:
        # An absolute path: one that begins like an address ("concat:", "http:") would be taken for one.
        container = av.open(os.path.abspath(path), options=options, metadata_errors="replace")  # noqa: PTH100
    except (av.FFmpegError, OSError) as e:
        raise VideoError(path, _why_not_opened(path, e)) from e
    with container:
        if not container.streams.video:
            raise VideoError(path, "no video stream")
        stream = container.streams.video[0]
        if not hasattr(stream, "thread_count"):  # PyAV lends the decoder's attributes to the stream, if there is one
            raise VideoError(path, "no decoder for its video stream")
        _check_size(path, stream.codec_context.width, stream.codec_context.height)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, stream


_CLOSED_IN = {
    "format_whitelist": CONTAINERS,
    "protocol_whitelist": "file",
    "enable_drefs": "0",
}


def _check_is_file(path: Path) -> None:
    """Only regular files: a pipe would hang, a device may never end."""
    try:
        kind = path.stat().st_mode
    except OSError as e:
        raise VideoError(path, "no such file" if isinstance(e, FileNotFoundError) else _cannot_be_read(e)) from e
    except ValueError as e:  # a null byte
        raise VideoError(path, "no such file") from e
    if stat.S_ISDIR(kind):
        raise VideoError(path, "no such file")
    if not stat.S_ISREG(kind):
        raise VideoError(path, "not a regular file")


def _cannot_be_read(error: OSError) -> str:
    return f"the file cannot be read ({(error.strerror or str(error)).lower()})"


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError(path, f"frames of {width} x {height} pixels are larger than {MAX_PIXELS // 10**6} megapixels")


def _check_length(path: Path, n_frames: int) -> None:
    if n_frames > MAX_FRAMES:
        raise VideoError(path, f"more than {MAX_FRAMES:,} frames")


def _why_not_opened(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return _cannot_be_read(error)
    if path.stat().st_size == 0:
        return "empty file"
    if missing_bytes(path):
        return "truncated: the file ends before its index"
    detail = getattr(error, "strerror", None) or "unreadable"
    return f"not a video file ({str(detail).lower()})"


def _probe_stream(path: Path) -> VideoInfo:
    with _opened(path) as (container, stream):
        n_frames, lead = _count(path, container, stream)
        if lacking := missing_bytes(path):
            whole = f" of {stream.frames}" if stream.frames > n_frames else ""
            raise VideoError(path, f"truncated: {n_frames}{whole} frames are there, {lacking} bytes are missing")
        if not n_frames:
            raise VideoError(path, "the video stream has no frames")
        frame = _first_frame(path, stream, lead)
        _check_size(path, frame.width, frame.height)
        rotation = round(frame.rotation / 90) * 90 % 360
        height, width = (frame.width, frame.height) if rotation % 180 else (frame.height, frame.width)
        return VideoInfo(
            width=width,
            height=height,
            n_frames=n_frames,
            fps=float(stream.average_rate or stream.guessed_rate or 0),
            codec=stream.codec_context.name,
            pixel_format=frame.format.name,
            rotation=rotation,
        )


def _count(path: Path, container: InputContainer, stream: VideoStream) -> tuple[int, list[Packet[VideoStream]]]:
    """Count the frames that will be shown; return the packets up to the first of them as well."""
    n_frames, lead = 0, []
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_corrupt:
                if not n_frames:
                    lead.append(packet)
                n_frames += not packet.is_discard and _is_shown(packet, stream.codec_context.name)
                _check_length(path, n_frames)
    except av.FFmpegError as e:
        if not missing_bytes(path):
            raise VideoError(path, f"damaged after frame {n_frames} ({e.strerror})") from e
    return n_frames, lead


def _is_shown(packet: Packet[VideoStream], codec: str) -> bool:
    """VP8 stores frames that are never shown in packets of their own (RFC 6386, 9.1: bit 4 is show_frame)."""
    return codec != "vp8" or bool(memoryview(packet)[0] & 0x10)


def _first_frame(path: Path, stream: VideoStream, lead: Sequence[Packet[VideoStream]]) -> VideoFrame:
    """Only a frame knows its size, its pixel format and its display matrix for certain."""
    stream.thread_type = "NONE"
    reason = "damaged: the first frame does not decode"
    try:
        frames = [frame for packet in (*lead, None) for frame in stream.decode(packet)]
    except av.FFmpegError as e:
        raise VideoError(path, f"{reason} ({e.strerror})") from e
    if not frames:
        raise VideoError(path, reason)
    return frames[0]


# --- frames -----------------------------------------------------------------------------------------------------------


def _chunks(
    path: Path, info: VideoInfo, size: int, threads: int, sizes: Collection[Size], allocate: Allocate
) -> Generator[FrameChunk, None, None]:
    """Stack frames into chunks of `size`, and insist on `info.n_frames` of them."""
    check_promise(path, info)
    is_image = path.suffix.lower() in PILLOW_SUFFIXES
    with closing(_image_frames(path, info) if is_image else _stream_frames(path, info, threads, sizes)) as pictures:
        for start in range(0, info.n_frames, size):
            n = min(size, info.n_frames - start)
            yield _stack(path, info, pictures, start, n, allocate)
        if next(pictures, None) is not None:
            raise VideoError(path, f"more than the {info.n_frames} frames that the container lists")


def _stack(
    path: Path, info: VideoInfo, pictures: Iterator[_Picture], start: int, n: int, allocate: Allocate
) -> FrameChunk:
    frames_THWC = allocate("own", (n, info.height, info.width, 3))
    opencv_THWC: Frames | None = None
    scaled: dict[Size, Frames] = {}
    for i in range(n):
        picture = next(pictures, None)
        if picture is None:
            raise VideoError(path, f"truncated: {start + i} of {info.n_frames} frames decode")
        if picture.own_HWC.shape != frames_THWC.shape[1:]:
            raise VideoError(path, f"the frame size changes at frame {start + i}")
        frames_THWC[i] = picture.own_HWC
        if picture.opencv_HWC is not None:
            if opencv_THWC is None:
                opencv_THWC = allocate("opencv", frames_THWC.shape)
                opencv_THWC[:i] = frames_THWC[:i]
            opencv_THWC[i] = picture.opencv_HWC
        elif opencv_THWC is not None:
            opencv_THWC[i] = picture.own_HWC
        for size, pixels_HWC in picture.scaled.items():
            if size not in scaled:
                scaled[size] = allocate(size, (n, size[1], size[0], 3))
            scaled[size][i] = pixels_HWC
    return FrameChunk(start, frames_THWC, opencv_THWC, scaled)


def _stream_frames(
    path: Path, info: VideoInfo, threads: int, sizes: Collection[Size]
) -> Generator[_Picture, None, None]:
    convert = _converter(info.rotation, sizes)
    n = 0
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO" if threads > 1 else "NONE"
        stream.codec_context.thread_count = threads
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise VideoError(path, f"damaged: {n} of {info.n_frames} frames decode, then one is corrupt")
                yield convert(frame)
                n += 1
        except av.FFmpegError as e:
            raise VideoError(path, f"damaged: {n} of {info.n_frames} frames decode ({e.strerror})") from e


def _converter(rotation: int, sizes: Collection[Size]) -> Callable[[VideoFrame], _Picture]:
    tagged, bt601 = VideoReformatter(), VideoReformatter()
    scalers = {size: _scaler(rotation, size) for size in sizes}

    def convert(frame: VideoFrame) -> _Picture:
        scaled = {size: scale(frame) for size, scale in scalers.items()}
        own = tagged.reformat(frame, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
        pixels = np.rot90(_pixels(own), rotation // 90)
        if frame.colorspace in BT601_MATRICES:
            return _Picture(pixels, None, scaled)
        itu601 = Colorspace.ITU601
        other = bt601.reformat(frame, None, None, "rgb24", itu601, itu601, Interpolation.BICUBIC, threads=1)
        return _Picture(pixels, np.rot90(_pixels(other), rotation // 90), scaled)

    return convert


def _scaler(rotation: int, size: Size) -> Callable[[VideoFrame], Frames]:
    """Scale like decord, which filters the decoder's frames: upright first, then to size, then to RGB."""
    steps = (*UPRIGHT[rotation], ("scale", f"{size[0]}:{size[1]}:flags=bilinear:threads=1"), ("format", "rgb24"))
    graph: Graph | None = None

    def scale(frame: VideoFrame) -> Frames:
        nonlocal graph
        if graph is None:  # only a frame knows its format
            graph = _filters(frame, steps)
        graph.vpush(frame)
        return _pixels(graph.vpull())

    return scale


def _filters(frame: VideoFrame, steps: Sequence[tuple[str, str]]) -> Graph:
    graph = Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    for name, arguments in steps:
        step = graph.add(name, arguments)
        last.link_to(step)
        last = step
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _pixels(rgb: VideoFrame) -> Frames:
    plane = rgb.planes[0]
    rows_HX: Frames = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows_HX[: rgb.height, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)


# --- GIFs and stills --------------------------------------------------------------------------------------------------


@contextmanager
def _opened_image(path: Path) -> Generator[Image.Image, None, None]:
    """Open with Pillow; whatever goes wrong inside is the file's fault."""
    _check_is_file(path)
    try:
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            _check_size(path, image.width, image.height)
            yield image
    except VideoError:
        raise
    except PermissionError as e:
        raise VideoError(path, _cannot_be_read(e)) from e
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise VideoError(path, f"larger than {MAX_PIXELS // 10**6} megapixels") from e
    except Exception as e:  # on bad data Pillow raises IndexError, struct.error, SyntaxError and more
        if not path.stat().st_size:
            raise VideoError(path, "empty file") from e
        detail = "unknown format" if isinstance(e, UnidentifiedImageError) else str(e) or type(e).__name__
        raise VideoError(path, f"not a whole image ({detail.splitlines()[0]})") from e


def _probe_image(path: Path) -> VideoInfo:
    with _opened_image(path) as image:
        animated = image.format == "GIF"
        if animated and not _ends_as_gif(path):
            raise VideoError(path, f"truncated: {getattr(image, 'n_frames', 0)} frames are there, the end is missing")
        n_frames = getattr(image, "n_frames", 1) if animated else 1
        _check_length(path, n_frames)
        return VideoInfo(
            width=image.width,
            height=image.height,
            n_frames=n_frames,
            fps=1000 / (image.info.get("duration") or 100) if animated else 0.0,
            codec=str(image.format).lower(),
            pixel_format=image.mode.lower(),
        )


def _ends_as_gif(path: Path) -> bool:
    """Whether the trailer is there; zeros after it are common."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - GIF_TAIL_BYTES))
        return file.read().rstrip(b"\0").endswith(GIF_TRAILER)


def _image_frames(path: Path, info: VideoInfo) -> Generator[_Picture, None, None]:
    with _opened_image(path) as image:
        for index, frame in enumerate(ImageSequence.Iterator(image)):
            if index == info.n_frames:  # an animated PNG is one picture to the official package
                return
            _check_size(path, frame.width, frame.height)
            yield _Picture(np.asarray(frame.convert("RGB")))


# --- decoding ahead ---------------------------------------------------------------------------------------------------


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _decode_ahead(chunks: Generator[FrameChunk, None, None], depth: int) -> Generator[FrameChunk, None, None]:
    """Run `chunks` in a thread, at most `depth` chunks in advance; end the thread when the consumer stops."""
    ready: queue.Queue[FrameChunk | _Failure | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: FrameChunk | _Failure | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.05)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            with closing(chunks):
                if all(put(piece) for piece in chunks):
                    put(None)
        except BaseException as e:  # noqa: BLE001 - raised again in the consumer's thread
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
