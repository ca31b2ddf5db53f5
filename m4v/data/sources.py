"""From what a user types to a source of data."""

from __future__ import annotations

import difflib
from pathlib import Path

from m4v.data.base import Source
from m4v.data.clips import ClipSize
from m4v.data.folder import FolderSource
from m4v.data.shapes import LEVELS, ShapesWorld
from m4v.data.shards import ShardSource

WORLDS = ("shapes", *(f"shapes:{level}" for level in LEVELS if level != "default"))


def make_source(spec: str, *, frames: int = 17, height: int = 32, width: int = 32, fps: float = 8.0) -> Source:
    """The source that `spec` names, with clips of this size.

    Args:
        spec: `shapes`, `shapes:easy` or `shapes:full`; a folder of captioned videos; or a pattern of tar
            shards, such as `data/train-*.tar`.
        frames: of a clip.
        height: in pixels.
        width: in pixels.
        fps: of a clip; real videos are thinned to it.

    Raises:
        ValueError: nothing of that name, or data that cannot be used; one sentence says what is wrong and where.
    """
    if spec in (*WORLDS, "shapes:default"):
        level = spec.partition(":")[2]
        return ShapesWorld(level or "default", frames=frames, height=height, width=width, fps=fps)  # type: ignore[arg-type]
    size = ClipSize(frames, height, width, fps)
    if spec.endswith(".tar"):
        return ShardSource(spec, size)
    if Path(spec).is_dir():
        return FolderSource(Path(spec), size)
    near = difflib.get_close_matches(spec, WORLDS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(f"{spec!r} is neither one of {', '.join(WORLDS)}, nor a folder, nor a pattern of .tar files{hint}")
