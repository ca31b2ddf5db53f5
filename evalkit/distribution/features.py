"""The features of a folder of videos: decoded once for all networks, kept on disk, never computed twice."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.backbones.base import Extractor, Runtime
from evalkit.decoding import Decoder, DecoderLost, Job
from evalkit.distribution.networks import Network
from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.identify import identify, video_key
from evalkit.job import Progress, Unreadable, Video
from evalkit.networks import Guarded
from evalkit.store import Journal, content_key
from evalkit.types import Array, Clip, Prompt, Sample
from evalkit.video import VIDEO_SUFFIXES, VideoError
from evalkit.weights import WeightStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Features:
    """What one network found in a folder: an array for each video, and why there is none for the others."""

    found: Mapping[str, Array]
    unscored: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class VideoSet:
    """The videos of a folder, identified."""

    folder: Path
    videos: tuple[Video | Unreadable, ...]

    @property
    def sha256s(self) -> set[str]:
        return {video.sha256 for video in self.videos if video.sha256 is not None}


def list_videos(folder: Path, option: str) -> list[Sample]:
    """The videos in a folder and its sub-folders, by name.

    Raises:
        UserError: no such folder, or no video in it.
    """
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{option} {folder} {kind}.", "Give the folder that holds the videos.")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    files = [(path, str(path.relative_to(folder))) for path in paths]
    shown = [(path, file) for path, file in files if not any(part.startswith(".") for part in Path(file).parts)]
    if not shown:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise UserError(f"{option} {folder} holds no videos ({suffixes}).", "Give the folder that holds the videos.")
    return [Sample(path, file, Prompt(file, ""), None) for path, file in shown]


def identify_set(folder: Path, option: str, journal: Journal, decoder: Decoder, progress: Progress) -> VideoSet:
    """Raises UserError if the folder holds no videos."""
    return VideoSet(folder, tuple(identify(list_videos(folder, option), journal, decoder, progress)))


class FeaturePass:
    """Fills the run directory with the features that it lacks, and reads them back.

    Args:
        networks: what is to read the videos, by name.
        weights: sha256 of every checkpoint, by key.
        store: where networks find their checkpoints.
        runtime: device and batch of the networks.
        run: the run directory; features lie in `features/`, one array a video and network.
        journal: remembers files that cannot be decoded.
        decoder: reads the frames.
        progress: is told of every decoded frame.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        weights: Mapping[str, str],
        store: WeightStore,
        runtime: Runtime,
        run: Path,
        journal: Journal,
        decoder: Decoder,
        progress: Progress,
    ) -> None:
        self.networks = networks
        self.weights = weights
        self.store = store
        self.runtime = runtime
        self.run = run
        self.journal = journal
        self.decoder = decoder
        self.progress = progress
        self._failures: dict[Path, str] = {}

    def fill(self, sets: Sequence[VideoSet]) -> None:
        """Compute what is missing.

        Raises:
            UserError: a checkpoint does not fit its network.
        """
        videos = [v for s in sets for v in s.videos if isinstance(v, Video) and self._lacking(v)]
        lacking = {name for video in videos for name in self._lacking(video)}
        if not lacking:
            return
        self.progress.start("loading networks", len(lacking))
        extractors = {}
        for name in sorted(lacking):
            extractors[name] = self.networks[name].feature.load(self.store, self.runtime)
            self.store.vouch(self.networks[name].feature.checkpoints)
            self.progress.advance()
        self.progress.start(f"reading {len(videos)} videos", sum(video.info.n_frames for video in videos))
        for video in videos:
            self._read(video, {name: extractors[name] for name in self._lacking(video)})

    def features(self, videos: VideoSet, name: str) -> Features:
        """What was found, by file name in the folder."""
        found: dict[str, Array] = {}
        unscored: dict[str, str] = {}
        for video in videos.videos:
            file = video.sample.file
            if isinstance(video, Unreadable):
                unscored[file] = video.fault
            elif (path := self._path(video, name)).is_file():
                found[file] = np.load(path)
            else:
                unscored[file] = self._why_not(video, name)
        return Features(found, unscored)

    def _why_not(self, video: Video, name: str) -> str:
        facts = self.journal.get(video_key(video.sha256)) or {}
        too_short = f"needs at least {self.networks[name].min_frames} frames, the clip has {video.info.n_frames}"
        return facts.get("fault") or self._failures.get(self._path(video, name)) or too_short

    def _lacking(self, video: Video) -> list[str]:
        facts = self.journal.get(video_key(video.sha256)) or {}
        if "fault" in facts:
            return []
        able = [name for name, network in self.networks.items() if video.info.n_frames >= network.min_frames]
        return [name for name in able if not self._path(video, name).is_file()]

    def _path(self, video: Video, name: str) -> Path:
        """The content address of the features: everything that their values depend on."""
        feature = self.networks[name].feature
        key = content_key(
            video=video_key(video.sha256),
            feature=[feature.name, feature.version],
            weights=[self.weights[c.key] for c in feature.checkpoints],
        )
        return self.run / "features" / f"{key}.npy"

    def _read(self, video: Video, extractors: Mapping[str, Extractor]) -> None:
        """Decode once for all networks; one that fails on this video leaves it unscored, and is tried again next time.

        A twin with the same content, or an earlier failure, leaves nothing to do.
        """
        if not extractors:
            self.progress.advance(video.info.n_frames)
            return
        clip = Clip(video.info, "")
        specs = {name: self.networks[name].feature for name in extractors}
        readers = {name: Guarded(extractor, specs[name], clip) for name, extractor in extractors.items()}
        try:
            for chunk in self.decoder.read(_job(video)):
                for reader in readers.values():
                    reader.push(chunk.start, chunk.frames_THWC)
                self.progress.advance(len(chunk.frames_THWC))
        except DecoderLost as e:  # it may have been the machine: the next run tries again
            self._failures |= dict.fromkeys((self._path(video, name) for name in extractors), e.reason)
            return
        except VideoError as e:
            self.journal.put(video_key(video.sha256), {"fault": e.reason})
            return
        for name, reader in readers.items():
            self._keep(self._path(video, name), name, reader.close())

    def _keep(self, path: Path, name: str, features: Array | str) -> None:
        if isinstance(features, str):
            self._failures[path] = features
        elif features.ndim != 2 or not np.isfinite(features).all():
            self._failures[path] = f"{name} failed: the features are not finite numbers, a row a frame or clip"
        else:
            write_atomically(path, _npy(features))


def _job(video: Video) -> Job:
    return Job(video.sample.path, video.info)


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def all_unscored(found: Mapping[str, Mapping[str, Features]]) -> Iterator[tuple[str, str, str]]:
    """Every video that a network has no features of: set, file and reason, each once; `found` is by network and set."""
    rows = [
        (s, f, why) for sets in found.values() for s, features in sets.items() for f, why in features.unscored.items()
    ]
    yield from dict.fromkeys(rows)
