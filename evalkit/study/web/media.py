"""Clips over HTTP: nothing but the picture tells one from another, and a clip shown twice looks like two files.

File name, time of change and entity tags stay here. Each place of each screen gets its own number of bytes that players
skip (a `free` box of ISO 14496-12 at the end), so that lengths neither repeat for the same clip nor identify one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response, StreamingResponse

_CHUNK = 256 * 1024
_PADDING = 32 * 1024
_BOX_HEADER = 8
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")


@dataclass(frozen=True, slots=True)
class ServedClip:
    """A clip at one address.

    Args:
        path: its file.
        size: bytes of the file.
        padding: bytes of the box behind it.
    """

    path: Path
    size: int
    padding: int

    @property
    def total(self) -> int:
        return self.size + self.padding

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`, in chunks."""
        with self.path.open("rb") as file:
            file.seek(start)
            left = min(stop, self.size) - start
            while left > 0 and (chunk := file.read(min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk
        if stop > self.size:
            yield _free_box(self.padding)[max(0, start - self.size) : stop - self.size]


def padding(mac: str) -> int:
    """How many bytes stand behind a clip, from the authentication code of its address."""
    return _BOX_HEADER + int(mac[:12], 16) % _PADDING


def _free_box(size: int) -> bytes:
    return size.to_bytes(4, "big") + b"free" + bytes(size - _BOX_HEADER)


def respond(clip: ServedClip, wanted: str | None, cache_control: str) -> Response:
    """Answer a request for a clip, or for a range of it (RFC 9110, section 14).

    Args:
        clip: the clip.
        wanted: the `Range` header; one that asks for several ranges or is malformed is ignored.
        cache_control: header of this name.
    """
    headers = {"Accept-Ranges": "bytes", "Cache-Control": cache_control}
    part = _part(wanted, clip.total) if wanted else None
    if part is None:
        headers["Content-Length"] = str(clip.total)
        return StreamingResponse(clip.read(0, clip.total), 200, headers, "video/mp4")
    if not part:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{clip.total}"})
    headers |= {
        "Content-Length": str(len(part)),
        "Content-Range": f"bytes {part.start}-{part.stop - 1}/{clip.total}",
    }
    return StreamingResponse(clip.read(part.start, part.stop), 206, headers, "video/mp4")


def _part(wanted: str, total: int) -> range | None:
    """The bytes that are asked for; empty if the clip has none of them, None if this asks for no range."""
    match = _RANGE.fullmatch(wanted)
    if match is None or wanted == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, total - int(last)), total)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, total) if last else total)
