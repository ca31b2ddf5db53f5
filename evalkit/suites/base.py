"""What a sister suite of VBench is, and how it is run: the steps of `evalkit.runner`, with the suite's own rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from evalkit.auxiliary import asks, equip
from evalkit.identify import identify
from evalkit.job import Benchmark, Outcome, Progress, Request, Silent, Video
from evalkit.matching import match
from evalkit.metrics.base import MetricSpec
from evalkit.posters import PosterReader
from evalkit.protocol import Selection, surplus
from evalkit.records import RunRecord, load_run
from evalkit.runner import check_weights, checkpoints_of, run_directory, set_threads
from evalkit.scoring_pass import ScoringPass
from evalkit.types import Clip, PromptSuite, Sample
from evalkit.weights import WeightStore


class SuitePass(ScoringPass):
    """A pass whose clips hold more than the decoder knows, and whose results depend on it."""

    suite: Suite

    def _clip(self, video: Video) -> Clip:
        return self.suite.clip(video)

    def _key(self, video: Video, metric: MetricSpec) -> str:
        return self.suite.key(super()._key(video, metric), video, metric)

    def run(self, videos: Sequence[Video]) -> bool:
        """Prepare what clips need beyond their frames, then score; return whether Ctrl-C cut it short."""
        try:
            self.suite.prepare(videos, self.journal.get, self.journal.put, self.progress)
        except KeyboardInterrupt:
            return True
        return super().run(videos)


Get = Callable[[str], dict[str, Any] | None]
Put = Callable[[str, dict[str, Any]], None]


class Suite(Protocol):
    """The rules of one suite."""

    benchmark: Benchmark

    def read_prompts(self, subset: str) -> PromptSuite:
        """Raises UserError if there is no such file, or if a prompt lacks what the suite needs."""

    def choose(self, names: Sequence[str], prompts: PromptSuite) -> tuple[MetricSpec, ...]:
        """The metrics of these names; without names, those that suit the prompts.

        Raises:
            UserError: no such dimension, or one that is not available here (says why).
        """

    def prepare(self, videos: Sequence[Video], get: Get, put: Put, progress: Progress) -> None:
        """Find out what clips need beyond their frames; `get` and `put` are the journal's."""

    def clip(self, video: Video) -> Clip:
        """What metrics and networks see of a video."""

    def key(self, key: str, video: Video, metric: MetricSpec) -> str:
        """The content address of a result, made of VBench's and of what the suite adds to it."""


def score(suite: Suite, request: Request, progress: Progress | None = None, command: Sequence[str] = ()) -> RunRecord:
    """Score a folder of videos by the rules of a suite and write the run directory.

    Ctrl-C stops the scoring; what is finished is summarised, and the rest is listed as unscored.

    Raises:
        UserError: bad input (before anything is computed), or a machine that stands in the way.
    """
    progress = progress or Silent()
    created = datetime.now(UTC)
    prompts = suite.read_prompts(request.subset)
    metrics = suite.choose(request.dimensions, prompts)
    matching = match(request.videos, equip(prompts, metrics))
    store = WeightStore(request.weights, request.trust_archives)
    weights = check_weights(metrics, store, progress)
    set_threads(request)
    with run_directory(request.out) as journal:
        videos = identify(matching.samples, journal, progress)

        def posters(video: Video) -> PosterReader:
            return PosterReader.at(request.out, video.sha256, video.info)

        def counts(sample: Sample, metric: MetricSpec) -> bool:
            return asks(sample.prompt, metric) and selection.counts(sample, metric.dimension)

        selection = Selection(prompts.standard, surplus(matching.samples, metrics) if prompts.standard else {})
        scoring = SuitePass(metrics, weights, store, request.runtime, journal, posters, progress, counts)
        scoring.suite = suite
        interrupted = scoring.run([video for video in videos if isinstance(video, Video)])
        foreign = tuple(key for key, c in checkpoints_of(metrics).items() if c.sha256 not in (None, weights[key]))
        results = tuple(scoring.results(videos))
        outcome = Outcome(
            prompts, matching, selection, metrics, weights, foreign, results, interrupted, suite.benchmark
        )
        from evalkit.summary import write_run  # when the networks have gone: side by side they take the most memory

        write_run(request, command, created, outcome)
    return load_run(request.out)
