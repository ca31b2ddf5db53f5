"""A folder of videos with captions: `manifest.jsonl`, or a `.txt` or `.json` beside each video."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import BinaryIO

from m4v.data.captions import CAPTION_SUFFIXES, MOST_BYTES, caption_in, caption_of, record_in
from m4v.data.clips import VIDEO_SUFFIXES, ClipSize, Item, VideoSource, named

MANIFEST = "manifest.jsonl"


class FolderSource(VideoSource):
    """The videos in a folder and in the folders within it.

    Captions come from `manifest.jsonl` in the folder (`{"file": ..., "caption": ...}` a line; `prompt` and `text` will
    do) for the files it lists, else from a file of the video's name with the suffix `.txt` or `.json`.

    Raises:
        ValueError: no such folder, no videos, videos without captions, too short or unreadable ones; named.
    """

    kind = "folder"

    def __init__(self, folder: Path, size: ClipSize) -> None:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}")
        super().__init__(_items(folder), size, str(folder))


def _items(folder: Path) -> list[Item]:
    listed = _manifest(folder / MANIFEST)
    items, bare = [], []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()):
        name = path.relative_to(folder).as_posix()
        caption = listed.get(name) or _beside(path)
        if not caption:
            bare.append(name)
        items.append(Item(name, caption, path.stat().st_size, partial(_opened, path)))
    if bare:
        raise ValueError(
            f"{len(bare)} of {len(items)} videos in {folder} have no caption ({named(bare)}): write a {MANIFEST} with "
            'a line {"file": ..., "caption": ...} for each, or a .txt beside each'
        )
    return items


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


def _beside(video: Path) -> str:
    for suffix in CAPTION_SUFFIXES:
        path = video.with_suffix(suffix)
        if path.is_file() and (caption := caption_in(suffix, _beginning(path), str(path))):
            return caption
    return ""


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _manifest(path: Path) -> dict[str, str]:
    """Captions by file name.

    Raises:
        ValueError: a line that is not JSON, or names no file.
    """
    captions: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n") if path.is_file() else []
    except UnicodeDecodeError as e:
        raise ValueError(f"{path} is not UTF-8 text ({e})") from e
    for number, line in enumerate(lines, 1):
        if line.strip():
            captions.update([_entry(line, f"{path}, line {number}")])
    return captions


def _entry(line: str, where: str) -> tuple[str, str]:
    try:
        record = record_in(line)
    except ValueError as e:
        raise ValueError(f"{where} is not JSON ({e})") from e
    if not isinstance(record, dict) or not record.get("file"):
        raise ValueError(f'{where} names no file: write {{"file": ..., "caption": ...}}')
    return str(record["file"]), caption_of(record)
