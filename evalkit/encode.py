"""Frames to an H.264 file: the same frames always give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av

from evalkit.files import replacing
from evalkit.types import Frames

# x264's macroblock tree varies from run to run on AVX-512 machines; without it the same frames give the same file.
_SAME_BYTES = {"threads": "1", "x264-params": "mbtree=0"}

_BT709, _BT601 = 1, 6
"""ITU-T H.273. RGB is encoded with the BT.601 matrix; players take untagged HD video for BT.709 and shift its
colours."""


def write_video(
    path: Path, frames: Iterable[Frames], fps: int | Fraction, *, crf: int = 23, for_browsers: bool = False
) -> None:
    """Encode frames `(H, W, 3)` of one size, even in both directions, and move the file into place when it is whole.

    Args:
        path: the file.
        frames: RGB.
        fps: frames per second.
        crf: x264's constant rate factor; lower is better and larger.
        for_browsers: name the colour matrix, and put the index first so that playing starts before all has arrived.

    Raises:
        RunFailed: the folder cannot be written or the disk is full.
        ValueError: no frames.
    """
    with replacing(path) as temporary:
        _encode(temporary, frames, fps, crf, for_browsers)


def _encode(path: Path, frames: Iterable[Frames], fps: int | Fraction, crf: int, for_browsers: bool) -> None:
    flags = {"movflags": "+faststart"} if for_browsers else {}
    with av.open(str(path), "w", format="mp4", options=flags) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": str(crf), **_SAME_BYTES})
        if for_browsers:
            context = stream.codec_context
            context.colorspace, context.color_primaries, context.color_trc = _BT601, _BT709, _BT709
        n = 0
        for n, frame_HWC in enumerate(frames, 1):
            if n == 1:
                stream.height, stream.width = frame_HWC.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        if not n:
            raise ValueError(f"no frames for {path}")
        container.mux(stream.encode())
