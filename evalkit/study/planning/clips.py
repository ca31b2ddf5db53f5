"""Blinded copies of the videos: what is left in a file tells nothing but its pictures.

Every clip, spoiled ones too, is decoded and encoded again with the same encoder and settings (H.264 at crf 12, where
copies of ordinary footage cannot be told from the original), so that container, codec, quality setting, names, metadata
and sound are the same for all models. Each has a random name and the same time stamp. Size, frame rate and length stay,
because they are part of what people judge; pictures of more than 1920 pixels are scaled down so that browsers play
several in step, and a surplus odd row or column, which 4:2:0 video cannot hold, is cut off. `remarks` says where that,
or anything else, changes what raters see.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from evalkit.encode import write_video
from evalkit.files import hash_file
from evalkit.types import Frames, VideoInfo
from evalkit.video import read, varies_in_rate

CRF = 12
MAX_SIDE = 1920
MAX_SECONDS = 60.0
"""Longer clips are kept, with a remark: raters will not watch them."""
UNKNOWN_FPS = 16
"""Where a file does not say how fast it plays."""

MOSAIC, NOISE, SHUFFLED = 24, 40.0, 16
"""A spoiled clip: tiles along the shorter side, standard deviation of their colours in grey levels, frames that change
places among themselves. Noise of single pixels would make files that are too large to play."""

_MTIME = 946_684_800  # 2000-01-01


@dataclass(frozen=True, slots=True)
class BlindCopy:
    """A file in `clips/`."""

    id: str
    sha256: str
    width: int
    height: int
    duration_s: float


def frame_rate(info: VideoInfo) -> Fraction:
    """Frames per second as an exact fraction, 30000/1001 for 29.97."""
    return Fraction(info.fps).limit_denominator(1001) if info.fps > 0 else Fraction(UNKNOWN_FPS)


def shown_size(info: VideoInfo) -> tuple[int, int]:
    """Width and height of the copy: at most `MAX_SIDE`, and even."""
    scale = min(1.0, MAX_SIDE / max(info.width, info.height))
    width, height = (round(side * scale) for side in (info.width, info.height))
    return max(2, width - width % 2), max(2, height - height % 2)


def remarks(path: Path, info: VideoInfo) -> list[str]:
    """What raters will not see as the file has it, or may not sit through.

    Raises:
        VideoError: the file is damaged.
    """
    found = []
    if info.fps <= 0:
        found.append(f"it does not say its frame rate, and is played at {UNKNOWN_FPS} frames a second")
    elif varies_in_rate(path):
        found.append(f"its frame rate varies, and all frames are shown equally long ({info.fps:.4g} a second)")
    if max(info.width, info.height) > MAX_SIDE:
        width, height = shown_size(info)
        found.append(f"its {info.width}x{info.height} pictures are scaled down to {width}x{height}")
    seconds = float(info.n_frames / frame_rate(info))
    if seconds > MAX_SECONDS:
        found.append(f"it lasts {seconds:.0f} s")
    return found


def blind_copy(source: Path, info: VideoInfo, folder: Path, spoil_seed: int | None = None) -> BlindCopy:
    """Write a copy under a random name.

    Args:
        source: the video.
        info: what `evalkit.video.probe` said about it.
        folder: `clips/` of the study.
        spoil_seed: spoil the copy, drawing from this seed; None leaves it as it is.

    Raises:
        VideoError: the video does not decode completely.
        RunFailed: the folder cannot be written.
    """
    id_ = secrets.token_hex(8)
    path = folder / f"{id_}.mp4"
    with closing(_frames(source, info, spoil_seed)) as frames:
        write_video(path, frames, frame_rate(info), crf=CRF, for_browsers=True)
    os.utime(path, (_MTIME, _MTIME))
    width, height = shown_size(info)
    return BlindCopy(id_, hash_file(path), width, height, float(info.n_frames / frame_rate(info)))


def _frames(source: Path, info: VideoInfo, spoil_seed: int | None) -> Generator[Frames, None, None]:
    width, height = shown_size(info)
    scaled = max(info.width, info.height) > MAX_SIDE
    rng = None if spoil_seed is None else np.random.default_rng(spoil_seed)
    for chunk in read(source, info, SHUFFLED, ahead=1):
        frames_THWC = chunk.frames_THWC if rng is None else spoiled(chunk.frames_THWC, rng)
        for frame_HWC in frames_THWC:
            if scaled:
                frame_HWC = np.asarray(Image.fromarray(frame_HWC).resize((width, height), Image.Resampling.LANCZOS))
            yield np.ascontiguousarray(frame_HWC[:height, :width])


def spoiled(frames_THWC: Frames, rng: np.random.Generator) -> Frames:
    """Frames nobody can like: a mosaic with noise, the frames in a wrong order."""
    n, height, width = frames_THWC.shape[:3]
    order_T = rng.permutation(n)
    if n > 1 and (order_T == np.arange(n)).all():
        order_T = order_T[::-1]
    scale = MOSAIC / min(height, width)
    tiles = (max(1, round(width * scale)), max(1, round(height * scale)))
    spoiled_THWC = np.empty_like(frames_THWC)
    for t, source in enumerate(order_T):
        mosaic_HWC = np.asarray(Image.fromarray(frames_THWC[source]).resize(tiles, Image.Resampling.BOX), np.float32)
        noisy_HWC = np.clip(mosaic_HWC + rng.normal(0, NOISE, mosaic_HWC.shape), 0, 255).astype(np.uint8)
        spoiled_THWC[t] = np.asarray(Image.fromarray(noisy_HWC).resize((width, height), Image.Resampling.NEAREST))
    return spoiled_THWC
