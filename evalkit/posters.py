"""A still of each video for the report, taken while the frames pass by."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from evalkit.files import write_atomically
from evalkit.types import Frames, VideoInfo

_END = b"\xff\xd9"  # of a JPEG
SIZE = (320, 240)
"""Largest width and height of a still, in pixels."""


def is_whole(path: Path) -> bool:
    """Whether a still is there, to its end."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_END), os.SEEK_END)
            return file.read() == _END
    except OSError:
        return False


@dataclass(slots=True)
class PosterReader:
    """Keeps the middle frame of a clip and writes it as JPEG."""

    path: Path
    index: int
    frame_HWC: Frames | None = None

    @classmethod
    def at(cls, run: Path, video_sha256: str, info: VideoInfo) -> PosterReader:
        """The reader for a video of a run; `records.RunRecord.poster` finds what it writes."""
        return cls(run / "posters" / f"{video_sha256[:16]}.jpg", info.n_frames // 2)

    def push(self, start: int, frames_THWC: Frames) -> None:
        if start <= self.index < start + len(frames_THWC):
            self.frame_HWC = frames_THWC[self.index - start].copy()

    def close(self) -> None:
        if self.frame_HWC is not None:
            still = Image.fromarray(self.frame_HWC)
            still.thumbnail(SIZE)
            jpeg = io.BytesIO()
            still.save(jpeg, "JPEG", quality=80)
            write_atomically(self.path, jpeg.getvalue())
