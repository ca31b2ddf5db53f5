"""Which scores are missing, who computes them, and where they go: to the journal, at once.

A result's key is made of everything it depends on, so that what the journal holds is never computed again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from evalkit.agenda import Agenda, Entry
from evalkit.backbones.base import FeatureSpec
from evalkit.crew import Crew, Setup
from evalkit.decoding import Decoder
from evalkit.engine import Broken, Cost, Engine, Message, Missed, Passed, Scored, Task
from evalkit.events import Failed
from evalkit.identify import video_key
from evalkit.job import Progress, Request, Result, Unreadable, Video
from evalkit.metrics.base import MetricSpec
from evalkit.posters import PosterReader, is_whole
from evalkit.run_log import LOG
from evalkit.store import Journal, content_key
from evalkit.timings import Spent
from evalkit.types import Clip, Sample, Score
from evalkit.weights import WeightStore

Counts = Callable[[Sample, MetricSpec], bool]
AHEAD = 2
"""Videos that are taken while one is scored, so that the decoder can begin with them."""


@dataclass(slots=True)
class Costs:
    """What the passes of a command took, added up."""

    wall: dict[str, float] = field(default_factory=dict)
    parts: dict[str, Spent] = field(default_factory=dict)
    features: dict[str, Spent] = field(default_factory=dict)

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Measure a stage by the clock."""
        began = perf_counter()
        try:
            yield
        finally:
            self.wall[stage] = self.wall.get(stage, 0.0) + perf_counter() - began

    def add(self, cost: Cost) -> None:
        for found, sums in ((cost.spent, self.parts), (cost.features, self.features)):
            for name, spent in found.items():
                sums[name] = sums.get(name, Spent()) + spent


@dataclass(frozen=True, slots=True)
class Means:
    """What a command has to score with.

    Args:
        request: what was asked for.
        store: where networks find their checkpoints.
        weights: sha256 of every checkpoint, by key.
        journal: holds the results.
        decoder: reads videos for this process.
        progress: is told of every frame.
        compute: whether what is missing is to be scored.
        costs: what it all took.
    """

    request: Request
    store: WeightStore
    weights: Mapping[str, str]
    journal: Journal
    decoder: Decoder
    progress: Progress
    compute: bool = True
    costs: Costs = field(default_factory=Costs)


class ScoringPass:
    """Fills the journal with the scores that it lacks.

    Args:
        means: what to score with.
        metrics: what to score.
        counts: whether a video is to be scored in a dimension.
        turn: what videos that must be scored one after the other have in common.
    """

    def __init__(
        self,
        means: Means,
        metrics: Sequence[MetricSpec],
        counts: Counts,
        turn: Callable[[Video], Hashable] = lambda video: None,
    ) -> None:
        self.means = means
        self.metrics = metrics
        self.counts = counts
        self.turn = turn

    def run(self, videos: Sequence[Video]) -> bool:
        """Score what is missing, if it is to be; return whether Ctrl-C cut it short."""
        if not self.means.compute:
            return False
        entries = [self._entry(video) for video in videos if self._lacks(video)]
        lanes = max(1, min(self.means.request.workers, len(entries)))
        agenda = Agenda(entries, lanes, self._task)
        try:
            if lanes > 1:
                self._side_by_side(agenda, entries, lanes)
            else:
                self._alone(agenda, entries)
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

    # --- who computes -------------------------------------------------------------------------------------------------

    def _alone(self, agenda: Agenda, entries: Sequence[Entry]) -> None:
        """Score in this process."""
        means = self.means
        engine = Engine(
            self.metrics, self._prompts(entries), means.store, means.request.runtime, means.decoder, self._hear
        )
        taken = self._take(agenda, engine, deque())
        if taken:
            self._load(engine, taken[0])
        means.progress.start(_describe(entries), _frames(entries))
        while taken:
            engine.score(taken[0])
            agenda.done(taken.popleft())
            engine.keep(agenda.still_wanted)
            self._take(agenda, engine, taken)

    def _take(self, agenda: Agenda, engine: Engine, taken: deque[Task]) -> deque[Task]:
        """Take what comes next, so that the decoder can begin with it."""
        while len(taken) <= AHEAD and (task := agenda.take(0)):
            engine.expect(task)
            taken.append(task)
        return taken

    def _load(self, engine: Engine, task: Task) -> None:
        """Load the first networks, under a bar of their own."""
        progress = self.means.progress

        def loaded(feature: FeatureSpec) -> None:
            progress.advance(bool(feature.checkpoints))

        progress.start("loading networks", sum(bool(f.checkpoints) for f in engine.wants(task).values()))
        engine.load(task, loaded)

    def _side_by_side(self, agenda: Agenda, entries: Sequence[Entry], lanes: int) -> None:
        """Score in processes of their own."""
        means, request = self.means, self.means.request
        setup = Setup(
            tuple(self.metrics),
            self._prompts(entries),
            request.weights,
            request.trust_archives,
            request.runtime,
            request.limits,
            request.threads,
            request.out / LOG,
        )
        means.progress.start(_describe(entries), _frames(entries))
        Crew(setup, lanes, request.devices or (request.runtime.device,), agenda, self._hear, means.progress).run()

    def _prompts(self, entries: Sequence[Entry]) -> dict[str, list[str]]:
        prompts: dict[str, list[str]] = {}
        for entry in entries:
            for name in entry.features:
                prompts.setdefault(name, []).append(entry.video.sample.prompt.text)
        return prompts

    # --- what is missing ----------------------------------------------------------------------------------------------

    def _entry(self, video: Video) -> Entry:
        features = frozenset(feature.name for metric in self._lacking(video) for feature in metric.features)
        return Entry(video, features, self.turn(video))

    def _task(self, video: Video) -> Task | None:
        """What a video lacks at this moment: a twin may have been scored by now, or enough others have."""
        if not self._lacks(video):
            self.means.progress.advance(video.info.n_frames)
            return None
        keys = {metric.name: self._key(video, metric) for metric in self._lacking(video)}
        poster = self._poster(video)
        return Task(video, self._clip(video), keys, None if is_whole(poster) else poster)

    def _lacks(self, video: Video) -> bool:
        """Whether there is anything to decode it for; not if it was found damaged."""
        if not self._asked(video.sample) or "fault" in (self.means.journal.get(video_key(video.sha256)) or {}):
            return False
        return bool(self._lacking(video)) or not is_whole(self._poster(video))

    def _poster(self, video: Video) -> Path:
        return PosterReader.at(self.means.request.out, video.sha256, video.info).path

    def _asked(self, sample: Sample) -> list[MetricSpec]:
        return [m for m in self.metrics if self.counts(sample, m)]

    def _lacking(self, video: Video) -> list[MetricSpec]:
        return [m for m in self._asked(video.sample) if self.means.journal.get(self._key(video, m)) is None]

    def _clip(self, video: Video) -> Clip:
        """What networks and metrics may know of a video; other suites tell them more."""
        return Clip(video.info, video.sample.prompt.text, video.sample.prompt.auxiliary)

    def _key(self, video: Video, metric: MetricSpec) -> str:
        """The content address of a result: everything that its value depends on."""
        prompt = video.sample.prompt
        precision = self.means.request.runtime.precision
        return content_key(
            video=video_key(video.sha256),
            dimension=[metric.name, metric.version],
            features=[[f.name, f.version] for f in metric.features],
            weights=[self.means.weights[c.key] for f in metric.features for c in f.checkpoints],
            precision=precision if any(f.checkpoints for f in metric.features) else None,
            prompt=[prompt.text, prompt.auxiliary.get(metric.auxiliary_key)] if metric.reads_prompt else None,
        )

    # --- what comes of it ---------------------------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        journal, progress = self.means.journal, self.means.progress
        match message:
            case Scored(key, record):
                journal.put(key, record)
            case Missed(key, file, why):
                if journal.get(_failure(key)) != {"why": why}:
                    journal.put(_failure(key), {"why": why})
                progress.tell(Failed(file, why))
            case Broken(video, why):
                journal.put(video_key(video.sha256), {"fault": why})
                progress.tell(Failed(video.sample.file, why))
            case Passed(frames):
                progress.advance(frames)
            case Cost():
                self.means.costs.add(message)

    def _recorded(self, key: str) -> Score | None:
        record = self.means.journal.get(key)
        return None if record is None else Score(record["value"], record["n_terms"], record["unscored"])

    def _result(self, video: Video, key: str) -> Score:
        if (score := self._recorded(key)) is not None:
            return score
        journal = self.means.journal
        fault = (journal.get(video_key(video.sha256)) or {}).get("fault")
        failure = (journal.get(_failure(key)) or {}).get("why")
        unfinished = "interrupted before it was scored" if self.means.compute else "no shard has scored it"
        return Score.missing(fault or failure or unfinished)


def _failure(key: str) -> str:
    """Under what the journal keeps why a score could not be computed, for the summary; it is tried again next time."""
    return f"failure:{key}"


def _frames(entries: Sequence[Entry]) -> int:
    return sum(entry.video.info.n_frames for entry in entries)


def _describe(entries: Sequence[Entry]) -> str:
    return f"scoring {len(entries)} videos" if entries else "everything is scored already"
