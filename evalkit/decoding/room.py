"""Where the parts of a chunk lie in a slot of shared memory: computed by both sides, never told by the child."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from evalkit.types import Size, VideoInfo
from evalkit.video import Part, chunk_length


@dataclass(frozen=True, slots=True)
class Room:
    """The layout of chunks of one clip.

    Args:
        offsets: where each part begins, in bytes; each has room for the longest chunk.
        sizes: width and height of each part.
        frames: of the longest chunk.
        bytes: of all parts together.
    """

    offsets: Mapping[Part, int]
    sizes: Mapping[Part, Size]
    frames: int
    bytes: int

    @classmethod
    def none(cls) -> Room:
        """For a clip that cannot be."""
        return cls({}, {}, 0, 0)

    @classmethod
    def of(cls, info: VideoInfo, sizes: Collection[Size]) -> Room:
        """The room for a clip's own frames, OpenCV's, and those of other sizes."""
        frames = min(chunk_length(info), info.n_frames)
        parts: dict[Part, Size] = {"own": (info.width, info.height), "opencv": (info.width, info.height)}
        parts |= {size: size for size in sorted(sizes)}
        offsets: dict[Part, int] = {}
        end = 0
        for part, (width, height) in parts.items():
            offsets[part] = end
            end += frames * height * width * 3
        return cls(offsets, parts, frames, end)

    def shape(self, part: Part, n: int) -> tuple[int, int, int, int]:
        """Of that part of a chunk of `n` frames: `(n, H, W, 3)`."""
        width, height = self.sizes[part]
        return n, height, width, 3
