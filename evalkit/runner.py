"""Score a folder of videos: match, identify, decode once, score, summarise; resumable at every step.

Each video is opened once and its frames are pushed to all networks in the same pass. Every result goes to the journal
the moment it exists, under a key made of everything it depends on; what the journal holds is never computed again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

from evalkit.backbones.base import Extractor, FeatureSpec, Reader
from evalkit.errors import UserError, unknown
from evalkit.job import Outcome, Request, Result, Video
from evalkit.matching import match
from evalkit.metrics import find, registry
from evalkit.metrics.base import MetricSpec
from evalkit.posters import PosterReader
from evalkit.prompts import load_suite
from evalkit.records import RUN_SCHEMA, RunRecord, load_run, read_json
from evalkit.scoring import CUSTOM7
from evalkit.store import Journal, content_key, only_writer
from evalkit.summary import write_run
from evalkit.types import Array, Clip, Frames, Precision, Profile, PromptSuite, Sample, Score, VideoInfo
from evalkit.video import DECODER_VERSION, VideoError, probe, read
from evalkit.weights import Checkpoint, WeightStore, hash_file

T = TypeVar("T")
log = logging.getLogger(__name__)


class Progress(Protocol):
    """Who watches the work."""

    def start(self, what: str, total: int) -> None:
        """A stage of `total` steps begins."""

    def advance(self, steps: int = 1) -> None: ...


class Silent:
    """Nobody watches."""

    def start(self, what: str, total: int) -> None: ...

    def advance(self, steps: int = 1) -> None: ...


def score_folder(request: Request, progress: Progress | None = None, command: Sequence[str] = ()) -> RunRecord:
    """Score a folder of videos and write the run directory.

    Ctrl-C stops the scoring; what is finished is summarised, and the rest is listed as unscored.

    Raises:
        UserError: bad input (before anything is computed), or a machine that stands in the way.
    """
    progress = progress or Silent()
    created = datetime.now(UTC)
    suite = load_suite(request.subset)
    metrics = choose_metrics(request.dimensions, suite, request.profile)
    matching = match(request.videos, suite)
    store = WeightStore(request.weights, request.trust_archives)
    weights = _check_weights(metrics, store, progress)
    with only_writer(request.out), Journal(request.out / "results.jsonl") as journal:
        if (request.out / "run.json").exists():
            read_json(request.out / "run.json", RUN_SCHEMA)  # refuse to write into another version's run
        videos = _identify(matching.samples, journal, progress)
        scoring = _Scoring(request, metrics, weights, store, journal, progress)
        interrupted = scoring.run(videos)
        results = tuple(scoring.results(videos, interrupted))
        foreign = tuple(key for key, c in checkpoints_of(metrics).items() if c.sha256 not in (None, weights[key]))
        outcome = Outcome(suite, matching, metrics, weights, foreign, results, interrupted)
        write_run(request, command, created, outcome)
    return load_run(request.out)


def choose_metrics(names: Iterable[str], suite: PromptSuite, profile: Profile) -> tuple[MetricSpec, ...]:
    """The metrics to run, in table order.

    Raises:
        UserError: an unknown dimension; names the nearest ones.
    """
    known = registry(profile)
    wanted = {find(name, profile).name for name in names}
    if not wanted:
        wanted = {m.name for m in known.values() if suite.name == "full" or m.dimension in CUSTOM7}
    return tuple(metric for name, metric in known.items() if name in wanted)


def checkpoints_of(metrics: Iterable[MetricSpec]) -> dict[str, Checkpoint]:
    """The files that these metrics read, by key."""
    return {c.key: c for metric in metrics for feature in metric.features for c in feature.checkpoints}


def _check_weights(metrics: Iterable[MetricSpec], store: WeightStore, progress: Progress) -> dict[str, str]:
    """sha256 of every checkpoint; all that are missing are named in one error."""
    checkpoints = checkpoints_of(metrics)
    store.require(checkpoints.values())
    progress.start("checking weights", len(checkpoints))
    weights = {}
    for key, checkpoint in checkpoints.items():
        weights[key] = store.sha256(checkpoint)
        progress.advance()
    return weights


def _identify(samples: Sequence[Sample], journal: Journal, progress: Progress) -> list[Video]:
    progress.start("reading files", len(samples))
    videos = []
    for sample in samples:
        videos.append(_identity(sample, journal))
        progress.advance()
    return videos


def _identity(sample: Sample, journal: Journal) -> Video:
    try:
        stat = sample.path.stat()
        file_key = content_key(file=str(sample.path.resolve()), size=stat.st_size, mtime_ns=stat.st_mtime_ns)
        record = journal.get(file_key)
        if record is None:
            record = {"sha256": hash_file(sample.path)}
            journal.put(file_key, record)
    except OSError as e:
        return Video(sample, None, None, f"the file cannot be read: {e.strerror or e}")
    sha256 = str(record["sha256"])
    seen = journal.get(_video_key(sha256))
    if seen is None:
        try:
            seen = {"info": asdict(probe(sample.path))}
        except VideoError as e:
            seen = {"fault": e.reason}
        journal.put(_video_key(sha256), seen)
    if fault := seen.get("fault"):
        return Video(sample, sha256, None, str(fault))
    return Video(sample, sha256, VideoInfo(**seen["info"]))


def _video_key(sha256: str) -> str:
    return f"video:{sha256}:decoder {DECODER_VERSION}"


class _Scoring:
    """Fills the journal with the scores that it lacks."""

    def __init__(
        self,
        request: Request,
        metrics: Sequence[MetricSpec],
        weights: Mapping[str, str],
        store: WeightStore,
        journal: Journal,
        progress: Progress,
    ) -> None:
        self.request = request
        self.metrics = metrics
        self.weights = weights
        self.store = store
        self.journal = journal
        self.progress = progress
        self.failures: dict[str, str] = {}

    def run(self, videos: Sequence[Video]) -> bool:
        """Score what is missing; return whether it was interrupted."""
        work = [(video, metrics) for video in videos if (metrics := self._lacking(video)) or self._needs_poster(video)]
        try:
            extractors = self._load({f.name: f for _, metrics in work for m in metrics for f in m.features})
            frames = sum(video.info.n_frames for video, _ in work if video.info)
            self.progress.start(f"scoring {len(work)} videos" if work else "everything is scored already", frames)
            for video, _ in work:
                if (metrics := self._lacking(video)) or self._needs_poster(video):  # a twin may have been scored by now
                    self._score(video, metrics, extractors)
        except KeyboardInterrupt:
            return True
        return False

    def results(self, videos: Sequence[Video], interrupted: bool) -> Iterable[Result]:
        """Every video in every dimension asked of it, scored or with the reason why not."""
        for video in videos:
            fault = self._fault(video)
            for metric in self._asked(video):
                key = self._key(video, metric)
                record = self.journal.get(key) if key else None
                if fault:
                    score = Score.missing(fault)
                elif record is not None:
                    score = Score(record["value"], record["n_terms"], record["unscored"])
                elif key in self.failures:
                    score = Score.missing(self.failures[key])
                else:
                    assert interrupted, f"{video.sample.file} has no {metric.name}"
                    score = Score.missing("interrupted before it was scored")
                yield Result(video, metric, key, score)

    def _asked(self, video: Video) -> list[MetricSpec]:
        return [m for m in self.metrics if video.sample.prompt.asks_for(m.dimension)]

    def _fault(self, video: Video) -> str | None:
        """Why the video cannot be decoded, as found by the probe or by a later decode."""
        if video.fault or video.sha256 is None:
            return video.fault
        return (self.journal.get(_video_key(video.sha256)) or {}).get("fault")

    def _lacking(self, video: Video) -> list[MetricSpec]:
        if video.info is None:
            return []
        return [m for m in self._asked(video) if (key := self._key(video, m)) and self.journal.get(key) is None]

    def _needs_poster(self, video: Video) -> bool:
        return video.info is not None and not self._poster(video).path.exists()

    def _poster(self, video: Video) -> PosterReader:
        assert video.info is not None
        assert video.sha256 is not None
        return PosterReader.at(self.request.out, video.sha256, video.info)

    def _key(self, video: Video, metric: MetricSpec) -> str | None:
        """The content address of a result: everything that its value depends on."""
        if video.sha256 is None:
            return None
        prompt = video.sample.prompt
        return content_key(
            video=_video_key(video.sha256),
            dimension=[metric.name, metric.version],
            features=[[f.name, f.version] for f in metric.features],
            weights=[self.weights[c.key] for f in metric.features for c in f.checkpoints],
            precision=self.request.runtime.precision if any(f.checkpoints for f in metric.features) else None,
            prompt=[prompt.text, prompt.auxiliary.get(metric.dimension)] if metric.reads_prompt else None,
        )

    def _load(self, features: Mapping[str, FeatureSpec]) -> dict[str, Extractor]:
        if any(feature.checkpoints for feature in features.values()):
            _set_threads(self.request.threads)
            self.progress.start("loading networks", len(features))
        extractors = {}
        for name, feature in features.items():
            extractors[name] = feature.load(self.store, self.request.runtime)
            if not self.store.trust_archives:
                self.store.vouch(feature.checkpoints)
            self.progress.advance()
        return extractors

    def _score(self, video: Video, metrics: Sequence[MetricSpec], extractors: Mapping[str, Extractor]) -> None:
        assert video.info is not None
        prompt = video.sample.prompt
        clip = Clip(video.info, prompt.text, prompt.auxiliary)
        short = [m for m in metrics if video.info.n_frames < m.min_frames]
        for metric in short:
            reason = f"needs at least {metric.min_frames} frames, the clip has {video.info.n_frames}"
            self._keep(video, metric, Score.missing(reason))
        able = [m for m in metrics if m not in short]
        wanted = {f.name: f for m in able for f in m.features}
        readers = {name: _Guarded(extractors[name].open, clip) for name in wanted}
        poster = self._poster(video)
        try:
            for chunk in read(video.sample.path, video.info):
                for name, reader in readers.items():
                    reader.push(chunk.start, chunk.colours(wanted[name].pixels))
                poster.push(chunk.start, chunk.frames_THWC)
                self.progress.advance(len(chunk.frames_THWC))
        except VideoError as e:
            assert video.sha256 is not None
            self.journal.put(_video_key(video.sha256), {"fault": e.reason})
            return
        poster.close()
        features = {name: reader.close() for name, reader in readers.items()}
        for metric in able:
            self._conclude(video, metric, clip, features)

    def _conclude(self, video: Video, metric: MetricSpec, clip: Clip, features: Mapping[str, Array | str]) -> None:
        """Score one metric; a network that failed on this video leaves it unscored and is tried again next time."""
        own = {f.name: features[f.name] for f in metric.features}
        failed = [feature for feature in own.values() if isinstance(feature, str)]
        if failed:
            key = self._key(video, metric)
            assert key is not None
            self.failures[key] = failed[0]
        else:
            arrays = {name: feature for name, feature in own.items() if not isinstance(feature, str)}
            self._keep(video, metric, _finite(metric.score(clip, arrays)))

    def _keep(self, video: Video, metric: MetricSpec, score: Score) -> None:
        key = self._key(video, metric)
        assert key is not None
        record: dict[str, Any] = {
            "file": video.sample.file,
            "dimension": metric.name,
            "value": score.value,
            "n_terms": score.n_terms,
            "unscored": score.unscored,
            "device": self.request.runtime.device,
        }
        self.journal.put(key, record)


class _Guarded:
    """A reader whose failure costs its own metrics on this one video, and nothing else of a long run."""

    def __init__(self, open_: Callable[[Clip], Reader], clip: Clip) -> None:
        self.failure: str | None = None
        self.reader = self._try(lambda: open_(clip))

    def push(self, start: int, frames_THWC: Frames) -> None:
        if self.reader is not None and self.failure is None:
            reader = self.reader
            self._try(lambda: reader.push(start, frames_THWC))

    def close(self) -> Array | str:
        """The features, or why there are none."""
        features = self._try(self.reader.close) if self.reader is not None and self.failure is None else None
        return f"the network failed: {self.failure}" if features is None else features

    def _try(self, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except (
            RuntimeError,
            ValueError,
            ArithmeticError,
            IndexError,
        ) as e:  # torch raises RuntimeError, also if out of memory
            log.exception("a network failed")
            self.failure = (str(e).strip() or repr(e)).splitlines()[0][:200]
            return None


def _finite(score: Score) -> Score:
    if score.value is not None and not math.isfinite(score.value):
        return Score.missing("the result is not a finite number")
    return score


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def resolve_profile(profile: Profile | None, weights: Path, dimensions: Iterable[str], subset: str) -> Profile:
    """`official` if asked for or if all of its weights are there; otherwise say what is missing.

    Raises:
        MissingWeights: no profile was asked for and checkpoints are missing.
    """
    if profile:
        return profile
    metrics = choose_metrics(dimensions, load_suite(subset), "official")
    WeightStore(weights).require(checkpoints_of(metrics).values())
    return "official"


def parse_precision(name: str) -> Precision:
    """Raises UserError unless `name` is a precision."""
    return _one_of("precision", name, get_args(Precision))  # type: ignore[return-value]


def parse_profile(name: str | None) -> Profile | None:
    """Raises UserError unless `name` is a profile or None."""
    return name and _one_of("profile", name, get_args(Profile))  # type: ignore[return-value]


def _one_of(kind: str, name: str, choices: Sequence[str]) -> str:
    if name not in choices:
        raise unknown(kind, name, choices)
    return name


def resolve_device(name: str) -> str:
    """Turn `auto` into the best device there is, and check any other.

    Raises:
        UserError: no such device on this machine.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        why = str(e).strip().splitlines()[0]
        raise UserError(
            f"The device {name!r} cannot be used: {why}.", "Use --device cpu, or run `m4v-eval doctor`."
        ) from None
    return name
