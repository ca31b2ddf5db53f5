"""One scoring job: what was asked for, and what was found before it is summarised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from evalkit.backbones.base import Runtime
from evalkit.decoding import Limits
from evalkit.events import Event
from evalkit.matching import Matching
from evalkit.metrics.base import MetricSpec
from evalkit.protocol import Selection
from evalkit.types import Profile, PromptSuite, Sample, Score, VideoInfo
from evalkit.weights import default_root


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of a run, counted from 0."""

    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Request:
    """What to score and how.

    Args:
        videos: folder of videos.
        subset: name or path of the prompt suite.
        out: run directory; an existing one of the same schema is resumed.
        profile: `official` networks, or weight-free `lite` stand-ins.
        dimensions: names; empty for the customised seven (or all that exist, for the full suite).
        weights: folder of checkpoints in the official layout.
        trust_archives: open CLIP archives whose sha256 is not the published one.
        runtime: device, precision and batch of the networks.
        threads: CPU threads for the networks; None leaves torch's choice.
        seed: of the bootstrap.
        static_filter: whether temporal flickering counts clips without motion only; None: as VBench's protocol has it
            (for VBench's own prompts, in the official profile).
        workers: processes that score side by side on this host; one scores in the caller's process.
        devices: of the workers, in turn; empty: all on that of `runtime`.
        limits: what decoding a video may take before it is given up.
    """

    videos: Path
    subset: str
    out: Path
    profile: Profile
    dimensions: tuple[str, ...] = ()
    weights: Path = field(default_factory=default_root)
    trust_archives: bool = False
    runtime: Runtime = field(default_factory=Runtime)
    threads: int | None = None
    seed: int = 0
    static_filter: bool | None = None
    workers: int = 1
    devices: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Video:
    """A matched file that can be opened, and its identity."""

    sample: Sample
    sha256: str
    info: VideoInfo


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A matched file that cannot be opened, and why (`sha256` is None if not even its bytes can be read)."""

    sample: Sample
    sha256: str | None
    fault: str


@dataclass(frozen=True, slots=True)
class Result:
    """The score of one video in one dimension; `key` is its content address, None for an unreadable video."""

    video: Video | Unreadable
    metric: MetricSpec
    key: str | None
    score: Score


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The rules by which a run's numbers came about.

    Args:
        profile: what records call it; numbers of different profiles never share a table.
        title: what tables call it.
        headlines: headline scores in percent from raw dimension scores.
        settings: its own options, part of the run's configuration.
        unavailable: dimensions that it has and this package does not compute, and why.
    """

    profile: str
    title: str
    headlines: Callable[[Mapping[str, float]], dict[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @property
    def schema(self) -> str:
        return f"m4v-eval/{self.profile}/1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found, before it is summarised.

    `weights` holds the sha256 of each checkpoint; `foreign_weights` names those that are not the published files.
    `benchmark` is None for VBench itself and its stand-ins.
    """

    suite: PromptSuite
    matching: Matching
    selection: Selection
    metrics: tuple[MetricSpec, ...]
    weights: Mapping[str, str]
    foreign_weights: tuple[str, ...]
    results: tuple[Result, ...]
    interrupted: bool
    benchmark: Benchmark | None = None


class Progress(Protocol):
    """Who watches a job."""

    def start(self, what: str, total: int) -> None:
        """A stage of `total` steps begins."""

    def advance(self, steps: int = 1) -> None: ...

    def tell(self, event: Event) -> None:
        """Something happened that is no step: a worker took something up, or a piece failed."""


class Silent:
    """Nobody watches."""

    def start(self, what: str, total: int) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def tell(self, event: Event) -> None: ...
