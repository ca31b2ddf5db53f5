"""Where a container says that it ends: the only sign of a file that was cut short between two frames.

Demuxers read what is there and stop without a word. MP4/MOV, Matroska/WebM and AVI all state sizes that a cut file
does not reach.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

BOX_TYPES = frozenset(
    {b"ftyp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"styp", b"uuid", b"udta", b"meta"}
)
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_whole_mp4(path: Path) -> bool:
    """Whether a file is there and has all of its boxes, the index among them."""
    found: set[bytes] = set()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _boxes_end(file, size, found) == size and b"moov" in found
    except OSError:
        return False


def missing_bytes(path: Path) -> int:
    """How many bytes the file lacks, by its own account; 0 if it is whole or its format does not tell."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[4:8] in BOX_TYPES:
            end = _boxes_end(file, size)
        elif head.startswith(EBML):
            end = _segment_end(head)
        elif head.startswith(b"RIFF"):
            end = 8 + int.from_bytes(head[4:8], "little")
        else:
            end = 0
    return max(0, end - size)


def _boxes_end(file: BinaryIO, size: int, found: set[bytes] | None = None) -> int:
    """End of the last box at the top level (ISO/IEC 14496-12, 4.2): 32-bit size, type, 64-bit size if that was 1.

    The types of the boxes are added to `found`.
    """
    at = 0
    while at < size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4])
        if header[4:8] not in BOX_TYPES or length == 0:  # trailing rubbish; a last box that runs to the end
            return at
        if found is not None:
            found.add(header[4:8])
        if length == 1:
            length = int.from_bytes(header[8:16])
        at += max(length, 8)
    return at


def _segment_end(head: bytes) -> int:
    """End of a Matroska segment (RFC 8794, section 4); 0 if it is of unknown size, as live streams are."""
    length, at = _vint(head, len(EBML))
    at += length or 0
    if head[at : at + 4] != SEGMENT:
        return 0
    length, at = _vint(head, at + 4)
    return at + length if length is not None else 0


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML number of variable size and the position after it; None where all its bits are set ("unknown")."""
    width = 9 - data[at].bit_length() if data[at : at + 1] else 1
    mask = (1 << 7 * width) - 1
    value = int.from_bytes(data[at : at + width]) & mask
    return (value if value != mask else None), at + width
