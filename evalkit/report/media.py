"""Stills and clips of the page: inside it while they are small, beside it (linked) when they are not."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from evalkit.report.view import ShownRun, Video, video_path
from evalkit.untrusted import is_file

CLIP_BYTES = 400_000
"""Largest clip that is embedded, as a file."""
CLIP_BUDGET = 12_000_000
"""Characters that all embedded clips together may take in the page."""
POSTER_BUDGET = 2_500_000
"""Characters that all embedded stills together may take in the page."""

MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",  # browsers refuse video/quicktime but play the H.264 inside
    ".webm": "video/webm",
    ".gif": "image/gif",
}
"""What browsers play; other files are offered as links."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Where a clip plays from. `type` is empty if browsers cannot play the format."""

    src: str
    type: str
    embedded: bool


@dataclass(slots=True)
class Media:
    """Posters (URIs) and clips by media name."""

    posters: dict[str, str] = field(default_factory=dict)
    clips: dict[str, Clip] = field(default_factory=dict)

    @property
    def n_embedded(self) -> int:
        return sum(clip.embedded for clip in self.clips.values())


def gather(runs: Sequence[ShownRun], videos: Iterable[Video], page: Path) -> Media:
    """Collect the media of `videos`, the most wanted first: the budgets are spent in that order.

    Links are relative to the folder of `page`, the file that is being written.
    """
    media = Media()
    posters, clips = _Budget(POSTER_BUDGET), _Budget(CLIP_BUDGET)
    for video in videos:
        if video.media is None or video.media in media.clips:
            continue
        run = runs[video.run]
        poster, file = run.record.poster(video.media), video_path(run, video.file)
        if poster.is_file():
            media.posters[video.media] = posters.embed(poster, "image/jpeg") or link(poster, page)
        if file is not None and is_file(file):
            media.clips[video.media] = _clip(file, page, clips)
    return media


def _clip(file: Path, page: Path, budget: _Budget) -> Clip:
    kind = MEDIA_TYPES.get(file.suffix.lower(), "")
    uri = budget.embed(file, kind, CLIP_BYTES) if kind else None
    return Clip(uri or link(file, page), kind, embedded=uri is not None)


@dataclass(slots=True)
class _Budget:
    left: int

    def embed(self, file: Path, kind: str, limit: int | None = None) -> str | None:
        """The file as a data: URI, or None if it is larger than `limit` or than what is left."""
        n_bytes = file.stat().st_size
        n_characters = 4 * -(-n_bytes // 3)
        if n_characters > self.left or (limit is not None and n_bytes > limit):
            return None
        self.left -= n_characters
        return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def link(file: Path, page: Path) -> str:
    """A relative URL; the leading `./` keeps a name such as `javascript:x.mp4` from being read as a scheme."""
    relative = Path(os.path.relpath(file.resolve(), page.parent.resolve()))
    return "./" + quote(os.fsencode(relative.as_posix()))
