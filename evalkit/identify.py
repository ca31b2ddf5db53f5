"""What a file is, by its content: sha256 and container facts, or why it cannot be opened. Both are remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from evalkit.files import hash_file
from evalkit.job import Progress, Unreadable, Video
from evalkit.store import Journal, content_key
from evalkit.types import Sample, VideoInfo
from evalkit.video import DECODER_VERSION, VideoError, probe


def identify(samples: Sequence[Sample], journal: Journal, progress: Progress) -> list[Video | Unreadable]:
    """Identify every file; one whose size and mtime are known is not read again."""
    progress.start("reading files", len(samples))
    videos = []
    for sample in samples:
        videos.append(_identify(sample, journal))
        progress.advance()
    return videos


def video_key(sha256: str) -> str:
    """Under what the journal keeps a video's container facts, or why it cannot be decoded."""
    return f"video:{sha256}:decoder {DECODER_VERSION}"


def _identify(sample: Sample, journal: Journal) -> Video | Unreadable:
    try:
        sha256 = _sha256(sample, journal)
    except OSError as e:
        return Unreadable(sample, None, f"the file cannot be read: {e.strerror or e}")
    facts = journal.get(video_key(sha256))
    if facts is None:
        try:
            facts = {"info": asdict(probe(sample.path))}
        except VideoError as e:
            facts = {"fault": e.reason}
        journal.put(video_key(sha256), facts)
    if "fault" in facts:
        return Unreadable(sample, sha256, facts["fault"])
    return Video(sample, sha256, VideoInfo(**facts["info"]))


def _sha256(sample: Sample, journal: Journal) -> str:
    stat = sample.path.stat()
    key = content_key(file=str(sample.path.resolve()), size=stat.st_size, mtime_ns=stat.st_mtime_ns)
    record = journal.get(key)
    if record is None:
        record = {"sha256": hash_file(sample.path)}
        journal.put(key, record)
    return str(record["sha256"])
