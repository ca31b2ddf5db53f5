"""Small videos for tests, written with PyAV."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from evalkit.types import Frames

X264 = {"crf": "12", "threads": "1", "x264-params": "mbtree=0"}
"""Encoder settings that give the same file every time."""

MATRICES = {"bt601": 6, "bt709": 1}
"""Colour tags (ITU-T H.273), for matrix, primaries and transfer alike."""


def moving_scene(n: int = 12, height: int = 48, width: int = 64, channels: int = 3, seed: int = 0) -> Frames:
    """Coloured waves and a patch of noise, moving: `(n, height, width, channels)`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    patch = rng.integers(0, 256, (height // 3, width // 3, 3))
    frames = np.zeros((n, height, width, channels))
    for t in range(n):
        waves = (
            128 + 100 * np.sin((x + 3 * t) / 7),
            128 + 100 * np.cos((y - 2 * t) / 5),
            (2 * x + 3 * y + 5 * t) % 256,
        )
        frames[t, ..., :3] = np.stack(waves, -1)
        frames[t, 3 : 3 + len(patch), t % 8 : t % 8 + patch.shape[1], :3] = patch
        frames[t, ..., 3:] = ((x + y + t) % 256)[..., None]
    return frames.clip(0, 255).astype(np.uint8)


def gradient_frames(n: int, height: int, width: int, level: int) -> Frames:
    """Gray ramps that brighten from `level` on, two steps a frame: `(n, height, width, 3)`."""
    ramp = np.linspace(0, 60, width)[None, None, :, None]
    time = 2 * np.arange(n)[:, None, None, None]
    return np.broadcast_to(level + ramp + time, (n, height, width, 3)).clip(0, 255).astype(np.uint8)


def write_clip(
    path: Path,
    frames: Frames | None = None,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    matrix: int | None = None,
    full_range: bool = False,
    times_ms: Sequence[int] | None = None,
    fps: int = 16,
) -> Path:
    """Encode RGB or RGBA frames; `times_ms` makes the frame rate variable."""
    frames = moving_scene() if frames is None else frames
    time_base = Fraction(1, 1000) if times_ms else Fraction(1, fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=dict(X264 if options is None else options))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        if matrix is not None:
            stream.codec_context.colorspace = matrix
            stream.codec_context.color_primaries = stream.codec_context.color_trc = matrix
        if full_range:
            stream.codec_context.color_range = 2
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[-1] == 4 else "rgb24")
            frame.pts, frame.time_base = times_ms[index] if times_ms else index, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_audio(path: Path) -> Path:
    """A second of silence, without pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path


def write_gif(path: Path, images: Iterable[Image.Image], **options: object) -> Path:
    """Save an animation with Pillow."""
    first, *rest = images
    first.save(path, save_all=True, append_images=rest, duration=60, loop=0, **options)
    return path


def remux(source: Path, target: Path, shift: int = 0) -> Path:
    """Copy the packets of a clip `shift` frames earlier; what then comes before zero is cut off by an edit list."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for packet in reader.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                ticks = round(shift / (stream.average_rate or 1) / packet.time_base)
                packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
                packet.stream = copy
                writer.mux(packet)
    return target


def rotate_metadata(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Overwrite the display matrix (a, b, c, d) in the track header of an MP4 (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value * 65536 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def hide_vp8_frame(source: Path, target: Path, index: int) -> Path:
    """Copy a VP8 clip with the show_frame bit of one frame cleared (RFC 6386, 9.1)."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for position, packet in enumerate(p for p in reader.demux(stream) if p.size):
            data = bytearray(bytes(packet))
            if position == index:
                data[0] &= ~0x10
            twin = av.Packet(bytes(data))
            twin.pts, twin.dts, twin.time_base = packet.pts, packet.dts, packet.time_base
            twin.is_keyframe, twin.stream = packet.is_keyframe, copy
            writer.mux(twin)
    return target
