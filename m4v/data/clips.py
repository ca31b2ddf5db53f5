"""Real videos as a source: files cut into windows of a clip's length, in an order that seed and step decide.

A video of many seconds is several examples, one behind the other, so that an example is always the same pixels (its
latents can be kept on disk) and an epoch sees all of the data.

Axes: B batch, T frames, H height, W width, C channels (RGB).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
import torch
from av.video.reformatter import Interpolation

from m4v.data.base import Batch, check_clip, check_request

Frames = npt.NDArray[np.uint8]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
NAMED = 3  # culprits that an error names
MAX_WINDOWS = 1000  # of one video


@dataclass(frozen=True)
class Item:
    """One video file: what to call it, its caption, its size in bytes, and how to open it."""

    name: str
    caption: str
    n_bytes: int
    open: Callable[[], BinaryIO]

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


@dataclass(frozen=True)
class ClipSize:
    """What every example is brought to; `fps` is reached by leaving frames out, never by repeating them."""

    frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True)
class Example:
    """A window of a video: `frames` of its frames from number `start`, one in `stride`."""

    item: Item
    start: int
    stride: float
    size: ClipSize

    def key(self) -> str:
        """Content address: the file's bytes, the window and the size."""
        what = [self.item.sha256, self.start, self.stride, self.size.frames, self.size.height, self.size.width]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def load(self) -> Frames:
        """Decode the window: `(T, H, W, C)`.

        Raises:
            ValueError: the video does not decode; names it.
        """
        wanted = [self.start + round(t * self.stride) for t in range(self.size.frames)]
        with self.item.open() as file:
            return read_frames(file, wanted, self.size.height, self.size.width, self.item.name)

    def still(self) -> Example:
        """Its first frame alone."""
        one = ClipSize(1, self.size.height, self.size.width, self.size.fps)
        return Example(self.item, self.start, self.stride, one)


# --- decoding ---------------------------------------------------------------------------------------------------------


def probe(file: BinaryIO, name: str) -> tuple[int, float]:
    """Number of frames and frames a second (0 if the file does not say).

    Raises:
        ValueError: not a video; names it.
    """
    try:
        with av.open(file, "r") as container:
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            return stream.frames or sum(bool(packet.size) for packet in container.demux(stream)), fps
    except (av.FFmpegError, OSError, IndexError) as e:
        raise ValueError(f"{name} is not a video that can be read ({_reason(e)})") from e


def read_frames(file: BinaryIO, wanted: Sequence[int], height: int, width: int, name: str) -> Frames:
    """Frames by number (ascending), scaled to cover `height` x `width` and cropped in the centre: `(T, H, W, C)`.

    Raises:
        ValueError: it does not decode as far as that; names it.
    """
    frames: dict[int, Frames] = {}
    try:
        with av.open(file, "r") as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    frames[number] = _fitted(frame, height, width)
                if number >= wanted[-1]:
                    break
    except (av.FFmpegError, OSError, IndexError) as e:
        raise ValueError(f"{name} does not decode ({_reason(e)})") from e
    if len(frames) < len(set(wanted)):
        raise ValueError(f"{name} ends before frame {wanted[-1]}, although its container promises more")
    return np.stack([frames[number] for number in wanted])


def _reason(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "no video stream"
    return str(getattr(error, "strerror", None) or error).lower()


def _fitted(frame: av.VideoFrame, height: int, width: int) -> Frames:
    turns = round(frame.rotation / 90) % 4
    tall, wide = (width, height) if turns % 2 else (height, width)
    scale = max(tall / frame.height, wide / frame.width)
    to_height, to_width = max(tall, round(frame.height * scale)), max(wide, round(frame.width * scale))
    smooth = Interpolation.AREA if scale < 1 else Interpolation.BICUBIC
    scaled = frame.reformat(width=to_width, height=to_height, format="rgb24", interpolation=smooth)
    top, left = (to_height - tall) // 2, (to_width - wide) // 2
    return np.rot90(scaled.to_ndarray()[top : top + tall, left : left + wide], turns)


# --- the source -------------------------------------------------------------------------------------------------------


class VideoSource:
    """Captioned videos as a source (`m4v.data.base.Source`): every epoch is a permutation of its own.

    Args:
        items: the videos.
        size: what examples are brought to.
        where: what errors call the collection.

    Raises:
        ValueError: no videos, one that cannot be read, or some that are too short (counted and named).
    """

    kind = "videos"

    def __init__(self, items: Sequence[Item], size: ClipSize, where: str) -> None:
        check_clip(size.frames, size.height, size.width, size.fps)
        if not items:
            raise ValueError(f"{where} holds no videos ({', '.join(VIDEO_SUFFIXES)})")
        self.items, self.size = tuple(items), size
        self.frames, self.height, self.width, self.fps = size.frames, size.height, size.width, size.fps
        self.all = self._windows(where)

    def _windows(self, where: str) -> list[Example]:
        examples, short = [], []
        for item in self.items:
            with item.open() as file:
                n_frames, fps = probe(file, item.name)
            stride = max(1.0, (fps or self.fps) / self.fps)
            span = round((self.frames - 1) * stride) + 1
            if n_frames < span:
                short.append(f"{item.name} has {n_frames} frames at {fps:g} a second, and {span} are needed")
            n = min(n_frames // span, MAX_WINDOWS)
            examples += [Example(item, k * span, stride, self.size) for k in range(n)]
        if short:
            raise ValueError(
                f"{len(short)} of {len(self.items)} videos in {where} are too short for {self.frames} frames at "
                f"{self.fps:g} a second: {named(short)}"
            )
        return examples

    def examples(self, step: int, size: int, *, seed: int, images: bool = False) -> list[Example]:
        """The examples of a training step; images take another permutation than clips.

        Raises:
            ValueError: a negative step or seed, or an empty batch.
        """
        check_request(step, size, seed)
        found = [self._at(number, seed, images) for number in range(step * size, (step + 1) * size)]
        return [example.still() for example in found] if images else found

    def _at(self, number: int, seed: int, images: bool) -> Example:
        epoch, place = divmod(number, len(self.all))
        return self.all[int(_permutation(len(self.all), seed, epoch, int(images))[place])]

    def batch(self, step: int, size: int, *, seed: int, images: bool = False) -> Batch:
        """Clips and captions of a training step.

        Raises:
            ValueError: a video does not decode; names it.
        """
        examples = self.examples(step, size, seed=seed, images=images)
        video_BTHWC = np.stack([example.load() for example in examples])
        return Batch(torch.from_numpy(video_BTHWC), [example.item.caption for example in examples])

    def describe(self) -> dict[str, Any]:
        """The identity of the data: names, captions and sizes of the files (not read for that), and the clips' size."""
        listing = [[item.name, item.caption, item.n_bytes] for item in self.items]
        digest = hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()
        size = {"frames": self.frames, "height": self.height, "width": self.width, "fps": self.fps}
        return {"source": self.kind, "sha256": digest, "videos": len(self.items), "clips": len(self.all), **size}


def named(culprits: Sequence[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = len(culprits) - NAMED
    return "; ".join(culprits[:NAMED]) + (f"; and {more} more" if more > 0 else "")


_last_permutation: dict[tuple[int, int, int, int], npt.NDArray[np.int64]] = {}


def _permutation(n: int, seed: int, epoch: int, stream: int) -> npt.NDArray[np.int64]:
    """A permutation of `n`, the same on any machine: the order of as many random words. The latest is kept."""
    key = n, seed, epoch, stream
    if key not in _last_permutation:
        words = np.random.Philox(key=seed | (epoch << 64), counter=stream << 192).random_raw(n)
        _last_permutation.clear()
        _last_permutation[key] = np.argsort(words, kind="stable")
    return _last_permutation[key]
