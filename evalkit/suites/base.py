"""What a sister suite of VBench is, and how it is run: by `evalkit.runner`, with the suite's own rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from evalkit.decoding import Job
from evalkit.job import Benchmark, Progress, Request, Video
from evalkit.metrics.base import MetricSpec
from evalkit.protocol import Selection
from evalkit.records import RunRecord
from evalkit.runner import counted, score_folder
from evalkit.scoring_pass import Means, ScoringPass
from evalkit.types import Clip, FrameChunk, PromptSuite

Read = Callable[[Job], Iterator[FrameChunk]]
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

    def prepare(self, videos: Sequence[Video], read: Read, get: Get, put: Put, progress: Progress) -> None:
        """Find out what clips need beyond their frames; `read` decodes, `get` and `put` are the journal's."""

    def clip(self, video: Video) -> Clip:
        """What metrics and networks see of a video."""

    def key(self, key: str, video: Video, metric: MetricSpec) -> str:
        """The content address of a result, made of VBench's and of what the suite adds to it."""


class SuitePass(ScoringPass):
    """A pass whose clips hold more than the decoder knows, and whose results depend on it."""

    def __init__(self, suite: Suite, means: Means, metrics: Sequence[MetricSpec], selection: Selection) -> None:
        super().__init__(means, metrics, counted(selection))
        self.suite = suite

    def _clip(self, video: Video) -> Clip:
        return self.suite.clip(video)

    def _key(self, video: Video, metric: MetricSpec) -> str:
        return self.suite.key(super()._key(video, metric), video, metric)

    def run(self, videos: Sequence[Video]) -> bool:
        """Prepare what clips need beyond their frames, then score; return whether Ctrl-C cut it short."""
        means = self.means
        try:
            self.suite.prepare(videos, means.decoder.read, means.journal.get, means.journal.put, means.progress)
        except KeyboardInterrupt:
            return True
        return super().run(videos)


class SuiteRules:
    """A suite's rules, as the runner asks for them."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.benchmark: Benchmark | None = suite.benchmark

    def read_prompts(self, request: Request) -> PromptSuite:
        return self.suite.read_prompts(request.subset)

    def choose(self, request: Request, prompts: PromptSuite) -> tuple[MetricSpec, ...]:
        return self.suite.choose(request.dimensions, prompts)

    def filters(self, request: Request, prompts: PromptSuite, metrics: Sequence[MetricSpec]) -> tuple[MetricSpec, ...]:
        return ()

    def scoring(self, means: Means, metrics: Sequence[MetricSpec], selection: Selection) -> ScoringPass:
        return SuitePass(self.suite, means, metrics, selection)


def score(
    suite: Suite,
    request: Request,
    progress: Progress | None = None,
    command: Sequence[str] = (),
    *,
    compute: bool = True,
) -> RunRecord:
    """Score a folder of videos by the rules of a suite: `evalkit.runner.score_folder`."""
    return score_folder(request, progress, command, compute=compute, rules=SuiteRules(suite))
