"""One pass over a video's frames for all networks that still need them; every score goes to the journal at once.

A result's key is made of everything it depends on, so that what the journal holds is never computed again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from evalkit.backbones.base import FeatureSpec, Runtime
from evalkit.errors import UserError
from evalkit.identify import video_key
from evalkit.job import Progress, Result, Unreadable, Video
from evalkit.metrics.base import MetricSpec
from evalkit.networks import Guarded, Networks, Wants, in_turn
from evalkit.posters import PosterReader
from evalkit.store import Journal, content_key
from evalkit.types import Array, Clip, Sample, Score
from evalkit.video import VideoError, read
from evalkit.weights import WeightStore

T = TypeVar("T")
Counts = Callable[[Sample, MetricSpec], bool]
log = logging.getLogger(__name__)


class ScoringPass:
    """Fills the journal with the scores that it lacks.

    Args:
        metrics: what to score.
        weights: sha256 of every checkpoint, by key.
        store: where networks find their checkpoints.
        runtime: device, precision and batch of the networks.
        journal: holds the results.
        posters: takes a still of each video in the same pass.
        progress: is told of every decoded frame.
        counts: whether a video is to be scored in a dimension.
    """

    def __init__(
        self,
        metrics: Sequence[MetricSpec],
        weights: Mapping[str, str],
        store: WeightStore,
        runtime: Runtime,
        journal: Journal,
        posters: Callable[[Video], PosterReader],
        progress: Progress,
        counts: Counts,
    ) -> None:
        self.metrics = metrics
        self.weights = weights
        self.store = store
        self.runtime = runtime
        self.journal = journal
        self.posters = posters
        self.progress = progress
        self.counts = counts
        self.failures: dict[str, str] = {}
        self.unloadable: dict[str, str] = {}

    def run(self, videos: Sequence[Video]) -> bool:
        """Score what is missing; return whether Ctrl-C cut it short."""
        work = [video for video in videos if self._needs_decoding(video)]
        wants = [{f.name: f for metric in self._lacking(video) for f in metric.features} for video in work]
        networks = Networks(wants, [video.sample.prompt.text for video in work], self.store, self.runtime)
        order = in_turn(wants)
        try:
            if order:
                self._load(networks, networks.missing(wants[order[0]]))
            self.progress.start(_describe(work), sum(video.info.n_frames for video in work))
            for i in order:
                if self._needs_decoding(work[i]):
                    self._load_more(networks, wants[i])
                    self._score(work[i], networks)
                else:  # a twin with the same content has been scored by now, or enough others have
                    self.progress.advance(work[i].info.n_frames)
                networks.done(wants[i])
        except KeyboardInterrupt:
            return True
        return False

    def results(self, videos: Sequence[Video | Unreadable]) -> Iterator[Result]:
        """Every video in every dimension asked of it, scored or with the reason why not."""
        for video in videos:
            for metric in self._asked(video.sample):
                if isinstance(video, Unreadable):
                    yield Result(video, metric, None, Score.missing(video.fault))
                else:
                    key = self._key(video, metric)
                    yield Result(video, metric, key, self._result(video, key))

    def score(self, video: Video, metric: MetricSpec) -> Score | None:
        """What the journal holds; None if it holds nothing."""
        return self._recorded(self._key(video, metric))

    def _recorded(self, key: str) -> Score | None:
        record = self.journal.get(key)
        return None if record is None else Score(record["value"], record["n_terms"], record["unscored"])

    def _result(self, video: Video, key: str) -> Score:
        if (score := self._recorded(key)) is not None:
            return score
        facts = self.journal.get(video_key(video.sha256)) or {}
        return Score.missing(facts.get("fault") or self.failures.get(key) or "interrupted before it was scored")

    def _asked(self, sample: Sample) -> list[MetricSpec]:
        return [m for m in self.metrics if self.counts(sample, m)]

    def _lacking(self, video: Video) -> list[MetricSpec]:
        return [m for m in self._asked(video.sample) if self.journal.get(self._key(video, m)) is None]

    def _needs_decoding(self, video: Video) -> bool:
        if not self._asked(video.sample):
            return False
        return bool(self._lacking(video)) or not self.posters(video).path.exists()

    def _key(self, video: Video, metric: MetricSpec) -> str:
        """The content address of a result: everything that its value depends on."""
        prompt = video.sample.prompt
        return content_key(
            video=video_key(video.sha256),
            dimension=[metric.name, metric.version],
            features=[[f.name, f.version] for f in metric.features],
            weights=[self.weights[c.key] for f in metric.features for c in f.checkpoints],
            precision=self.runtime.precision if any(f.checkpoints for f in metric.features) else None,
            prompt=[prompt.text, prompt.auxiliary.get(metric.auxiliary_key)] if metric.reads_prompt else None,
        )

    def _load(self, networks: Networks, features: Sequence[FeatureSpec]) -> None:
        """Load the first networks, under a bar of their own; whatever is wrong with them ends the run at once."""
        with_weights = sum(bool(feature.checkpoints) for feature in features)
        self.progress.start("loading networks", with_weights)
        networks.load(features, lambda feature: self.progress.advance(bool(feature.checkpoints)))

    def _load_more(self, networks: Networks, want: Wants) -> None:
        """Load in the course of the work; a checkpoint that does not fit costs its own metrics, not the others'."""
        for feature in networks.missing(want):
            if feature.name not in self.unloadable:
                try:
                    networks.load([feature], _log_loaded)
                except UserError as e:
                    log.exception("%s cannot be loaded", feature.name)
                    self.unloadable[feature.name] = str(e)

    def _score(self, video: Video, networks: Networks) -> None:
        clip = self._clip(video)
        able = []
        for metric in self._lacking(video):
            unloadable = [self.unloadable[f.name] for f in metric.features if f.name in self.unloadable]
            if video.info.n_frames < metric.min_frames:
                reason = f"needs at least {metric.min_frames} frames, the clip has {video.info.n_frames}"
                self._keep(video, metric, Score.missing(reason))
            elif unloadable:
                self.failures[self._key(video, metric)] = unloadable[0]
            else:
                able.append(metric)
        wanted = {f.name: f for metric in able for f in metric.features}
        readers = {name: Guarded(networks[name], f, clip) for name, f in wanted.items()}
        if self._read(video, readers.values()):
            features = {name: reader.close() for name, reader in readers.items()}
            for metric in able:
                self._conclude(video, metric, clip, features)

    def _clip(self, video: Video) -> Clip:
        """What networks and metrics may know of a video; other suites tell them more."""
        return Clip(video.info, video.sample.prompt.text, video.sample.prompt.auxiliary)

    def _read(self, video: Video, readers: Iterable[Guarded]) -> bool:
        """Decode once for all readers; a damaged video is remembered and scored by none."""
        poster = self.posters(video)
        try:
            for chunk in read(video.sample.path, video.info, sizes={r.size for r in readers if r.size}):
                for reader in readers:
                    reader.push(chunk.start, chunk.colours(reader.pixels, reader.size))
                poster.push(chunk.start, chunk.frames_THWC)
                self.progress.advance(len(chunk.frames_THWC))
        except VideoError as e:
            self.journal.put(video_key(video.sha256), {"fault": e.reason})
            return False
        poster.close()
        return True

    def _conclude(self, video: Video, metric: MetricSpec, clip: Clip, found: Mapping[str, Array | str]) -> None:
        """Score one metric; a network that failed on this video leaves it unscored and is tried again next time."""
        features: dict[str, Array] = {}
        for feature in metric.features:
            array = found[feature.name]
            if isinstance(array, str):
                self.failures[self._key(video, metric)] = array
                return
            features[feature.name] = array
        self._keep(video, metric, _finite(metric.score(clip, features)))

    def _keep(self, video: Video, metric: MetricSpec, score: Score) -> None:
        record = {
            "file": video.sample.file,
            "dimension": metric.name,
            "value": score.value,
            "n_terms": score.n_terms,
            "unscored": score.unscored,
            "device": self.runtime.device,
        }
        self.journal.put(self._key(video, metric), record)


def _finite(score: Score) -> Score:
    if score.value is not None and not math.isfinite(score.value):
        return Score.missing("the result is not a finite number")
    return score


def _log_loaded(feature: FeatureSpec) -> None:
    log.info("loaded the networks of %s", feature.name)


def _describe(work: Sequence[Video]) -> str:
    return f"scoring {len(work)} videos" if work else "everything is scored already"
