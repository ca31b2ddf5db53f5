"""What a file is, by its content: sha256 and container facts, or why it cannot be opened. Both are remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from evalkit.decoding import Decoder, DecoderLost
from evalkit.events import Failed
from evalkit.files import hash_file
from evalkit.job import Progress, Unreadable, Video
from evalkit.store import Journal, content_key
from evalkit.types import Sample, VideoInfo
from evalkit.video import DECODER_VERSION, VideoError


def identify(
    samples: Sequence[Sample], journal: Journal, decoder: Decoder, progress: Progress
) -> list[Video | Unreadable]:
    """Identify every file; one that has not changed since is not read again."""
    progress.start("reading files", len(samples))
    videos = []
    for sample in samples:
        video = _identify(sample, journal, decoder)
        videos.append(video)
        if isinstance(video, Unreadable):
            progress.tell(Failed(sample.file, video.fault))
        progress.advance()
    return videos


def video_key(sha256: str) -> str:
    """Under what the journal keeps a video's container facts, or why it cannot be decoded."""
    return f"video:{sha256}:decoder {DECODER_VERSION}"


def _identify(sample: Sample, journal: Journal, decoder: Decoder) -> Video | Unreadable:
    try:
        sha256 = _sha256(sample, journal)
    except OSError as e:
        return Unreadable(sample, None, f"the file cannot be read: {e.strerror or e}")
    facts = journal.get(video_key(sha256))
    if facts is None:
        try:
            facts = {"info": asdict(decoder.probe(sample.path))}
        except DecoderLost as e:  # it may have been the machine: the next run tries again
            return Unreadable(sample, sha256, e.reason)
        except VideoError as e:
            facts = {"fault": e.reason}
        journal.put(video_key(sha256), facts)
    if "fault" in facts:
        return Unreadable(sample, sha256, facts["fault"])
    return Video(sample, sha256, VideoInfo(**facts["info"]))


def _sha256(sample: Sample, journal: Journal) -> str:
    key = _state(sample.path)
    if (record := journal.get(key)) is not None:
        return str(record["sha256"])
    sha256 = hash_file(sample.path)
    if _state(sample.path) == key:  # else it is still being written, and this is no state to remember
        journal.put(key, {"sha256": sha256})
    return sha256


def _state(path: Path) -> str:
    """What changes when a file does: its ctime does even if its size and mtime are set back to what they were."""
    stat = path.stat()
    return content_key(file=str(path.resolve()), size=stat.st_size, times=[stat.st_mtime_ns, stat.st_ctime_ns])
