"""Scores one video after the other in this process: each is decoded once for all networks that it still needs.

What comes of it is reported piece by piece, as messages that travel between processes as well as within one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from evalkit.backbones.base import FeatureSpec, Runtime
from evalkit.decoding import Decoder, DecoderLost, Job
from evalkit.errors import UserError
from evalkit.job import Video
from evalkit.metrics.base import MetricSpec
from evalkit.networks import Guarded, Networks
from evalkit.posters import PosterReader
from evalkit.timings import Spent
from evalkit.types import Array, Clip, FrameChunk, Score
from evalkit.video import VideoError
from evalkit.weights import WeightStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """A video and what it lacks.

    Args:
        video: the file.
        clip: what networks and metrics may know of it.
        keys: by metric, the key under which its score is kept.
        poster: where a still of the video goes; None if there is one.
    """

    video: Video
    clip: Clip
    keys: Mapping[str, str]
    poster: Path | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A score, or the lasting reason why there is none, for the journal."""

    key: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Missed:
    """A score that could not be computed this time."""

    key: str
    file: str
    why: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A video that does not decode to its end."""

    video: Video
    why: str


@dataclass(frozen=True, slots=True)
class Passed:
    """Frames that have passed by all networks."""

    frames: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part of the work took: `score`, `waiting`, `setup`, or the name of a feature."""

    spent: Mapping[str, Spent] = field(default_factory=dict)
    features: Mapping[str, Spent] = field(default_factory=dict)


Message = Scored | Missed | Broken | Passed | Cost
Report = Callable[[Message], None]


class Engine:
    """Networks and a decoder, ready to score videos.

    Args:
        metrics: all that tasks may ask for.
        prompts: the texts of all clips that will want a feature, by its name.
        store: where networks find their checkpoints.
        runtime: device, precision and batch of the networks.
        decoder: reads the frames.
        report: is told all that comes of it.
    """

    def __init__(
        self,
        metrics: Sequence[MetricSpec],
        prompts: Mapping[str, Sequence[str]],
        store: WeightStore,
        runtime: Runtime,
        decoder: Decoder,
        report: Report,
    ) -> None:
        self.metrics = {metric.name: metric for metric in metrics}
        self.runtime = runtime
        self.decoder = decoder
        self.report = report
        self.networks = Networks(prompts, store, runtime)
        self.unloadable: dict[str, str] = {}

    def wants(self, task: Task) -> dict[str, FeatureSpec]:
        """The features that a task needs, by name."""
        return {feature.name: feature for name in task.keys for feature in self.metrics[name].features}

    def load(self, task: Task, loaded: Callable[[FeatureSpec], None]) -> None:
        """Load the first networks.

        Raises:
            UserError: whatever is wrong with them; it would be wrong for every video.
        """
        with self._setup():
            self.networks.load(self.networks.missing(self.wants(task)), loaded)

    def expect(self, task: Task) -> None:
        """Let the decoder begin with a task that comes soon."""
        self.decoder.expect(self._job(task))

    def keep(self, features: Collection[str]) -> None:
        """Let go of the networks of all other features."""
        self.networks.keep(features)

    def score(self, task: Task) -> None:
        """Score a video in all that it lacks; whatever goes wrong with it is reported, and costs nothing else."""
        self._load_more(task)
        began = perf_counter()
        able = [metric for name in task.keys if self._is_able(metric := self.metrics[name], task)]
        wanted = {f.name: f for metric in able for f in metric.features}
        readers = {name: Guarded(self.networks[name], f, task.clip) for name, f in wanted.items()}
        waited = self._read(task, readers)
        if waited is None:
            return
        features = {name: reader.close() for name, reader in readers.items()}
        for metric in able:
            self._conclude(task, metric, features)
        self._account(task, perf_counter() - began, waited, readers)

    def _job(self, task: Task) -> Job:
        sizes = frozenset(feature.size for feature in self.wants(task).values() if feature.size)
        return Job(task.video.sample.path, task.video.info, sizes)

    @contextmanager
    def _setup(self) -> Iterator[None]:
        began = perf_counter()
        try:
            yield
        finally:
            self.report(Cost({"setup": Spent(perf_counter() - began, 1)}))

    def _load_more(self, task: Task) -> None:
        """Load in the course of the work; a checkpoint that does not fit costs its own metrics, not the others'."""
        missing = [f for f in self.networks.missing(self.wants(task)) if f.name not in self.unloadable]
        if not missing:
            return
        with self._setup():
            for feature in missing:
                try:
                    self.networks.load([feature], _log_loaded)
                except UserError as e:
                    log.exception("%s cannot be loaded", feature.name)
                    self.unloadable[feature.name] = str(e)

    def _is_able(self, metric: MetricSpec, task: Task) -> bool:
        """Whether a metric can be tried at all; reports why not."""
        info = task.video.info
        unloadable = [self.unloadable[f.name] for f in metric.features if f.name in self.unloadable]
        if info.n_frames < metric.min_frames:
            reason = f"needs at least {metric.min_frames} frames, the clip has {info.n_frames}"
            self._keep(task, metric, Score.missing(reason))
        elif unloadable:
            self._miss(task, metric, unloadable[0])
        else:
            return True
        return False

    def _read(self, task: Task, readers: Mapping[str, Guarded]) -> float | None:
        """Decode once for all readers; return the seconds spent waiting for frames, or None for a damaged video."""
        poster = PosterReader(task.poster, task.video.info.n_frames // 2) if task.poster else None
        waited = 0.0
        try:
            for chunk, seconds in _timed(self.decoder.read(self._job(task))):
                waited += seconds
                for reader in readers.values():
                    reader.push(chunk.start, chunk.colours(reader.pixels, reader.size))
                if poster:
                    poster.push(chunk.start, chunk.frames_THWC)
                self.report(Passed(len(chunk.frames_THWC)))
        except VideoError as e:
            self._give_up(task, e)
            return None
        if poster:
            poster.close()
        return waited

    def _give_up(self, task: Task, error: VideoError) -> None:
        """A damaged file stays damaged; a decoder that was lost over it is tried again next time."""
        if isinstance(error, DecoderLost):
            log.warning("%s: %s", task.video.sample.file, error.reason)
            for name in task.keys:
                self._miss(task, self.metrics[name], error.reason)
        else:
            self.report(Broken(task.video, error.reason))

    def _conclude(self, task: Task, metric: MetricSpec, found: Mapping[str, Array | str]) -> None:
        """Score one metric; a network that failed on this video leaves it unscored and is tried again next time."""
        features: dict[str, Array] = {}
        for feature in metric.features:
            array = found[feature.name]
            if isinstance(array, str):
                self._miss(task, metric, array)
                return
            features[feature.name] = array
        self._keep(task, metric, _finite(metric.score(task.clip, features)))

    def _keep(self, task: Task, metric: MetricSpec, score: Score) -> None:
        record = {
            "file": task.video.sample.file,
            "dimension": metric.name,
            "value": score.value,
            "n_terms": score.n_terms,
            "unscored": score.unscored,
            "device": self.runtime.device,
        }
        self.report(Scored(task.keys[metric.name], record))

    def _miss(self, task: Task, metric: MetricSpec, why: str) -> None:
        self.report(Missed(task.keys[metric.name], task.video.sample.file, why))

    def _account(self, task: Task, seconds: float, waited: float, readers: Mapping[str, Guarded]) -> None:
        frames = task.video.info.n_frames
        whole = {"score": Spent(seconds, 1, frames), "waiting": Spent(waited, 1, frames)}
        self.report(Cost(whole, {name: Spent(reader.seconds, 1, frames) for name, reader in readers.items()}))


def _timed(chunks: Iterator[FrameChunk]) -> Iterator[tuple[FrameChunk, float]]:
    """Each chunk, and how many seconds it took to come."""
    began = perf_counter()
    for chunk in chunks:
        yield chunk, perf_counter() - began
        began = perf_counter()


def _finite(score: Score) -> Score:
    if score.value is not None and not math.isfinite(score.value):
        return Score.missing("the result is not a finite number")
    return score


def _log_loaded(feature: FeatureSpec) -> None:
    log.info("loaded the networks of %s", feature.name)
