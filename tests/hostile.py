"""Damaged and forged files, made from whole ones by a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.clips import moving_scene, write_clip, write_gif

SEEDS = {
    "h264.mp4": {},
    "faststart.mp4": {"codec": "mpeg4", "options": {"q": "3", "movflags": "faststart"}},
    "hevc.mp4": {"codec": "libx265", "options": {"crf": "20", "x265-params": "log-level=none"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"b": "300k"}},
    "vp8.webm": {"codec": "libvpx", "options": {"b": "300k"}},
    "h264.mkv": {},
    "ffv1.mkv": {"codec": "ffv1", "pixel_format": "bgr0", "options": {}},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p", "options": {"b": "2M"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"q": "3"}},
    "png.mov": {"codec": "png", "pixel_format": "rgb24", "options": {}},
    "prores.mov": {"codec": "prores_ks", "pixel_format": "yuv422p10le", "options": {}},
}
EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFF00, 0x00FFFFFF)
FOUR_LETTERS = re.compile(rb"[A-Za-z][A-Za-z0-9 ]{3}")
EBML_SIZES = (b"\x01" + b"\xff" * 7, b"\x01" + b"\xff" * 6 + b"\xfe", b"\x80", b"\x08\xff\xff\xff\xff", b"\x00" * 8)


def whole_files(folder: Path) -> list[Path]:
    """One small clip of each kind."""
    frames = moving_scene(10)
    paths = [write_clip(folder / name, frames, **options) for name, options in SEEDS.items()]
    return [*paths, write_gif(folder / "a.gif", [Image.fromarray(frame) for frame in frames])]


def mutant(data: bytes, suffix: str, seed: int) -> bytes:
    """A damaged copy; the same for the same seed."""
    rng = random.Random(f"{suffix} {seed}")
    damages: list[Callable[[bytearray, random.Random], None]] = [
        flip_bits, cut, noise, duplicate, swap, extremes, forge_sizes, forge_sizes, zeros,
    ]  # fmt: skip
    content = bytearray(data)
    for damage in rng.choices(damages, k=rng.choice((1, 1, 1, 2, 3))):
        damage(content, rng)
    return bytes(content)


def flip_bits(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3, 10, 100))):
        content[somewhere(content, rng)] ^= 1 << rng.randrange(8)


def cut(content: bytearray, rng: random.Random) -> None:
    del content[somewhere(content, rng) :]


def noise(content: bytearray, rng: random.Random) -> None:
    start = somewhere(content, rng)
    length = min(rng.choice((4, 40, 400, 4000)), len(content) - start)
    content[start : start + length] = rng.randbytes(length)


def zeros(content: bytearray, rng: random.Random) -> None:
    start = somewhere(content, rng)
    length = min(rng.choice((4, 40, 400, 4000)), len(content) - start)
    content[start : start + length] = bytes(length)


def duplicate(content: bytearray, rng: random.Random) -> None:
    start, end = sorted((somewhere(content, rng), somewhere(content, rng)))
    content[start:start] = content[start : min(end, start + 100_000)]


def swap(content: bytearray, rng: random.Random) -> None:
    """Two pieces that begin at what look like names of boxes."""
    marks = sorted(rng.sample(names(content), 3)) if len(names(content)) >= 3 else [0, 0, 0]
    a, b, c = marks
    content[a:c] = content[b:c] + content[a:b]


def extremes(content: bytearray, rng: random.Random) -> None:
    """Numbers of four bytes at the edges of their range, mostly in the headers at either end."""
    for _ in range(rng.choice((1, 2, 8))):
        at = somewhere(content, rng)
        content[at : at + 4] = rng.choice(EXTREMES).to_bytes(4, rng.choice(("big", "little")))


def forge_sizes(content: bytearray, rng: random.Random) -> None:
    """Sizes of boxes (before the name), of RIFF chunks (after it), or of EBML elements (after their id)."""
    for _ in range(rng.choice((1, 1, 4))):
        at = rng.choice(names(content) or [0])
        size = rng.choice((*EXTREMES, rng.randrange(2**16), rng.randrange(2**32)))
        match rng.randrange(3):
            case 0:
                content[max(0, at - 4) : at] = size.to_bytes(4)
            case 1:
                content[at + 4 : at + 8] = size.to_bytes(4, "little")
            case _:
                at = somewhere(content, rng)
                forged = rng.choice(EBML_SIZES)
                content[at : at + len(forged)] = forged


def somewhere(content: bytearray, rng: random.Random) -> int:
    """A position; every other one in the first or last kilobyte, where the headers are."""
    if not content:
        content += b"\0"
    if rng.random() < 0.5:
        return rng.randrange(len(content))
    edge = rng.randrange(min(1024, len(content)))
    return edge if rng.random() < 0.5 else len(content) - 1 - edge


def names(content: bytearray) -> list[int]:
    """Where four letters stand together."""
    found = [match.start() for match in FOUR_LETTERS.finditer(content)]
    return found[:200] + found[-200:]
