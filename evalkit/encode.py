"""Frames to an H.264 file: the same frames always give the same bytes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av

from evalkit.errors import RunFailed
from evalkit.types import Frames

# x264's macroblock tree varies from run to run on AVX-512 machines; without it the same frames give the same file.
_SAME_BYTES = {"threads": "1", "x264-params": "mbtree=0"}


def write_video(path: Path, frames: Iterable[Frames], fps: int | Fraction, *, crf: int = 23) -> None:
    """Encode frames `(H, W, 3)` of one size, even in both directions, and move the file into place when it is whole.

    Raises:
        RunFailed: the folder cannot be written or the disk is full.
        ValueError: no frames.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".mp4")
        os.close(handle)
        try:
            _encode(Path(name), frames, fps, crf)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as e:
        raise RunFailed(
            f"Could not write {path}: {e.strerror or e}.",
            "Free space or choose another folder, then run the same command again: finished videos are kept.",
        ) from e


def _encode(path: Path, frames: Iterable[Frames], fps: int | Fraction, crf: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": str(crf), **_SAME_BYTES})
        n = 0
        for n, frame_HWC in enumerate(frames, 1):
            if n == 1:
                stream.height, stream.width = frame_HWC.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        if not n:
            raise ValueError(f"no frames for {path}")
        container.mux(stream.encode())
