"""Shards: tar archives in the layout of webdataset, `key.mp4` beside `key.txt` or `key.json`.

The standard library reads them: training needs any clip at any step, and the archives' offsets give that without
unpacking. Format of the members' names: the `webdataset` documentation (a key ends at the first dot of the file name).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from m4v.data.captions import CAPTION_SUFFIXES, MOST_BYTES, caption_in
from m4v.data.clips import VIDEO_SUFFIXES, ClipSize, Item, VideoSource, named


@dataclass(frozen=True)
class Member:
    """A file inside an archive: where its bytes are."""

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}, member {self.name}"

    @property
    def key(self) -> str:
        """What members of one example share."""
        path = PurePosixPath(self.name)
        return str(path.parent / path.name.split(".", 1)[0])

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    def read(self, most: int | None = None) -> bytes:
        """Its bytes, or the first `most` of them."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size if most is None else min(self.size, most))

    def open(self) -> BinaryIO:
        return io.BytesIO(self.read())


class ShardSource(VideoSource):
    """The videos in all archives of a folder that a pattern such as `data/train-*.tar` matches, in order of name.

    Raises:
        ValueError: no archive of that name, one that is damaged, videos without captions, too short or unreadable ones;
            archive and member are named.
    """

    kind = "shards"

    def __init__(self, pattern: str, size: ClipSize) -> None:
        shards = _matching(Path(pattern))
        if not shards:
            raise ValueError(f"no file matches {pattern}")
        super().__init__(_items(shards, pattern), size, pattern)


def _matching(pattern: Path) -> list[Path]:
    return sorted(path for path in pattern.parent.glob(pattern.name) if path.is_file())


def _items(shards: Iterable[Path], pattern: str) -> list[Item]:
    items, bare = [], []
    for shard in shards:
        members = list(_members(shard))
        captions = {m.key: m for m in reversed(members) if m.suffix in CAPTION_SUFFIXES}
        for video in (m for m in members if m.suffix in VIDEO_SUFFIXES):
            beside = captions.get(video.key)
            caption = caption_in(beside.suffix, beside.read(MOST_BYTES + 1), str(beside)) if beside else ""
            if not caption:
                bare.append(str(video))
            items.append(Item(f"{shard.name}, member {video.name}", caption, video.size, video.open))
    if bare:
        raise ValueError(
            f"{len(bare)} of {len(items)} videos in {pattern} have no caption ({named(bare)}): "
            "put a key.txt or key.json beside each key.mp4"
        )
    return items


def _members(shard: Path) -> Iterator[Member]:
    """Index an archive.

    Raises:
        ValueError: it is no archive, or is damaged or cut off; says after which member.
    """
    last, size = "its beginning", shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as archive:
            end = -1
            for info in archive:
                if info.size < 0 or info.offset_data <= end:  # a negative size in a header sends `tarfile` in circles
                    raise ValueError(f"{shard} is damaged after {last}")
                end = info.offset_data
                if info.offset_data + info.size > size:
                    raise ValueError(f"{shard} is cut off inside member {info.name}")
                last = f"member {info.name}"
                if info.isfile():
                    yield Member(shard, info.name, info.offset_data, info.size)
            _check_end(shard, archive.offset, last)
    except (tarfile.TarError, OSError, EOFError, MemoryError, OverflowError, RecursionError) as e:
        raise ValueError(f"{shard} is not a readable tar archive after {last} ({e})") from e


def _check_end(shard: Path, offset: int, last: str) -> None:
    """`tarfile` takes a damaged header for the end; a true end is zeros, or that of the file."""
    with shard.open("rb") as file:
        file.seek(offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise ValueError(f"{shard} is damaged after {last}")
