"""Score a folder of videos: match, identify, decode once, score, summarise; resumable at every step.

A run may be scored in one go (`score_folder`) or in shards, by processes that share nothing but the folder
(`score_shard` for each, then `score_folder`, which takes over what they found).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from evalkit import provenance, shards
from evalkit.auxiliary import asks, equip, says_for
from evalkit.decoding import Decoder
from evalkit.errors import RunFailed, UserError
from evalkit.files import remove_unfinished
from evalkit.flickering import select_static
from evalkit.identify import identify
from evalkit.job import Benchmark, Outcome, Progress, Request, Shard, Silent, Unreadable, Video
from evalkit.lock import holding
from evalkit.matching import Matching, match
from evalkit.metrics import find, registry
from evalkit.metrics.base import MetricSpec
from evalkit.prompts import load_suite
from evalkit.protocol import FLICKERING, Selection, surplus
from evalkit.records import RunRecord, check_version, load_run
from evalkit.run_log import LOG, log_to
from evalkit.scoring import CUSTOM7
from evalkit.scoring_pass import Costs, Counts, Means, ScoringPass
from evalkit.static_filter import STATIC_FILTER
from evalkit.store import Journal
from evalkit.timings import Timings, keep
from evalkit.types import Profile, PromptSuite, Sample
from evalkit.weights import Checkpoint, WeightStore


class Rules(Protocol):
    """By what rules a folder is scored: VBench's, or those of a sister suite."""

    benchmark: Benchmark | None

    def read_prompts(self, request: Request) -> PromptSuite:
        """Raises UserError if there is no such suite, or a prompt lacks what the rules need."""

    def choose(self, request: Request, prompts: PromptSuite) -> tuple[MetricSpec, ...]:
        """The metrics that were asked for; raises UserError for one that does not exist."""

    def filters(self, request: Request, prompts: PromptSuite, metrics: Sequence[MetricSpec]) -> tuple[MetricSpec, ...]:
        """What decides beforehand which clips count."""

    def scoring(self, means: Means, metrics: Sequence[MetricSpec], selection: Selection) -> ScoringPass:
        """The pass that scores."""


class VBench:
    """VBench's own rules."""

    benchmark: Benchmark | None = None

    def read_prompts(self, request: Request) -> PromptSuite:
        return load_suite(request.subset)

    def choose(self, request: Request, prompts: PromptSuite) -> tuple[MetricSpec, ...]:
        return choose_metrics(request.dimensions, prompts, request.profile)

    def filters(self, request: Request, prompts: PromptSuite, metrics: Sequence[MetricSpec]) -> tuple[MetricSpec, ...]:
        return (STATIC_FILTER,) if _filters_static_clips(request, prompts, metrics) else ()

    def scoring(self, means: Means, metrics: Sequence[MetricSpec], selection: Selection) -> ScoringPass:
        return ScoringPass(means, metrics, counted(selection))


def counted(selection: Selection) -> Counts:
    """A video is scored in a dimension that its prompt asks for, unless it was left out there."""
    return lambda sample, metric: asks(sample.prompt, metric) and selection.counts(sample, metric.dimension)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is known before the first video is opened."""

    rules: Rules
    prompts: PromptSuite
    metrics: tuple[MetricSpec, ...]
    filters: tuple[MetricSpec, ...]
    matching: Matching
    store: WeightStore
    weights: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scores:
    """What came of scoring some samples."""

    videos: list[Video | Unreadable]
    scoring: ScoringPass
    selection: Selection
    interrupted: bool


def score_folder(
    request: Request,
    progress: Progress | None = None,
    command: Sequence[str] = (),
    *,
    compute: bool = True,
    rules: Rules | None = None,
) -> RunRecord:
    """Score a folder of videos and write the run directory.

    What shards of this run found is taken over first. Ctrl-C stops the scoring; what is finished is summarised, and
    the rest is listed as unscored.

    Args:
        request: what to score and how.
        progress: who watches.
        command: what the user typed, for the record.
        compute: whether what is missing is scored; else it is listed as unscored.
        rules: VBench's if not given.

    Raises:
        UserError: bad input (before anything is computed), or a machine that stands in the way.
    """
    _score_folder(request, progress or Silent(), command, compute, rules or VBench())
    return load_run(request.out)  # journal and tables of the run have gone by now: a full one's take 200 MB


def _score_folder(request: Request, progress: Progress, command: Sequence[str], compute: bool, rules: Rules) -> None:
    created = datetime.now(UTC)
    prepared = prepare(request, rules, progress)
    with run_directory(request.out) as journal, Decoder(request.limits) as decoder:
        shards.take_over(request.out, journal)
        means = Means(request, prepared.store, prepared.weights, journal, decoder, progress, compute)
        with measured(means):
            found = score_samples(prepared, means, prepared.matching.samples)
            outcome = _outcome(prepared, found)
            # Tables and statistics come when the networks have gone: side by side they would take the most memory.
            from evalkit.summary import write_run

            with means.costs.clock("summarise"):
                write_run(request, command, created, outcome)


def score_shard(
    request: Request, shard: Shard, progress: Progress | None = None, *, rules: Rules | None = None
) -> bool:
    """Score a part of a folder into the shard's own folder of the run directory; return whether Ctrl-C cut it short.

    What the run has already is not computed again.

    Raises:
        UserError: as `score_folder`.
    """
    progress = progress or Silent()
    prepared = prepare(request, rules or VBench(), progress)
    folder = shards.folder(request.out, shard)
    with (
        holding(folder, "It is scored"),
        Journal(folder / shards.JOURNAL, below=request.out / JOURNAL) as journal,
        log_to(folder / LOG),
        Decoder(request.limits) as decoder,
    ):
        means = Means(request, prepared.store, prepared.weights, journal, decoder, progress)
        with measured(means):
            return score_samples(prepared, means, shards.part(prepared.matching.samples, shard)).interrupted


def prepare(request: Request, rules: Rules, progress: Progress) -> Preparation:
    """Read prompts, match videos, check weights.

    Raises:
        UserError: bad input; all missing checkpoints are named in one error.
    """
    prompts = rules.read_prompts(request)
    metrics = rules.choose(request, prompts)
    matching = match(request.videos, equip(prompts, metrics))
    filters = rules.filters(request, prompts, metrics)
    store = WeightStore(request.weights, request.trust_archives)
    store.require(checkpoints_of(filters).values(), "; or leave the static filter out with --no-static-filter")
    weights = check_weights((*metrics, *filters), store, progress)
    set_threads(request)
    return Preparation(rules, prompts, metrics, filters, matching, store, weights)


def score_samples(prepared: Preparation, means: Means, samples: Sequence[Sample]) -> Scores:
    """Identify and score; what is found is in the journal."""
    metrics, prompts = prepared.metrics, prepared.prompts
    with means.costs.clock("identify"):
        videos = identify(samples, means.journal, means.decoder, means.progress)
    readable = [video for video in videos if isinstance(video, Video)]
    # Which videos of a prompt are too many depends on all of them, not on those of a shard.
    selection = Selection(prompts.standard, surplus(prepared.matching.samples, metrics) if prompts.standard else {})
    with means.costs.clock("score"):
        interrupted = False
        if prepared.filters:
            flickering = next(metric for metric in metrics if metric.name == FLICKERING)
            selection, interrupted = select_static(means, readable, flickering, selection)
        scoring = prepared.rules.scoring(means, metrics, selection)
        interrupted = interrupted or scoring.run(readable)
    return Scores(videos, scoring, selection, interrupted)


def _outcome(prepared: Preparation, found: Scores) -> Outcome:
    checkpoints = checkpoints_of(prepared.metrics)
    return Outcome(
        prepared.prompts,
        prepared.matching,
        found.selection,
        prepared.metrics,
        prepared.weights,
        tuple(key for key, c in checkpoints.items() if c.sha256 not in (None, prepared.weights[key])),
        tuple(found.scoring.results(found.videos)),
        found.interrupted,
        prepared.rules.benchmark,
    )


@contextmanager
def measured(means: Means) -> Iterator[None]:
    """Keep beside the results what it took to get them, if networks or decoders worked."""
    try:
        yield
    except BaseException:
        with suppress(RunFailed):  # on a disk that is full there is no room for times either, and they are not news
            _keep_timings(means)
        raise
    _keep_timings(means)


def _keep_timings(means: Means) -> None:
    if means.costs.parts:
        keep(means.journal.path.parent, _timings(means.request, means.costs))


def _timings(request: Request, costs: Costs) -> Timings:
    device = request.devices[0] if request.devices else request.runtime.device
    hardware = provenance.hardware(device)
    return Timings(device, hardware, request.workers, costs.wall, **costs.parts, features=costs.features)


def _filters_static_clips(request: Request, suite: PromptSuite, metrics: Iterable[MetricSpec]) -> bool:
    """Whether temporal flickering is to count clips without motion only.

    Raises:
        UserError: asked for where it cannot be.
    """
    flickering = any(metric.name == FLICKERING for metric in metrics)
    if request.static_filter and (request.profile != "official" or not flickering):
        raise UserError(
            "The static filter needs the official profile and temporal_flickering among the dimensions.",
            "Leave out --static-filter, or change the other two.",
        )
    protocol = suite.standard and request.profile == "official"
    return flickering and (protocol if request.static_filter is None else request.static_filter)


def choose_metrics(names: Iterable[str], suite: PromptSuite, profile: Profile) -> tuple[MetricSpec, ...]:
    """The metrics to run, in table order: those named, else the customised seven (all of them for the full suite).

    Without names, what the suite's prompts ask for is scored as well: the dimensions they list, those for which they
    say what to look for, and the facts of their scenes (in the profile that has such metrics).

    Raises:
        UserError: an unknown dimension; names the nearest ones.
    """
    known = registry(profile)
    wanted = {find(name, profile).name for name in names}
    if not wanted:
        wanted = {m.name for m in known.values() if not m.reads_scene and (suite.standard or m.dimension in CUSTOM7)}
        wanted |= {m.name for m in known.values() if m.reads_scene and _some_scene_states(m, suite)}
        wanted |= {m.name for m in known.values() if not m.reads_scene and _some_prompt_names(m, suite)}
    return tuple(metric for name, metric in known.items() if name in wanted)


def _some_scene_states(metric: MetricSpec, suite: PromptSuite) -> bool:
    scenes = [prompt.auxiliary.get("scene") for prompt in suite.prompts]
    return any(isinstance(scene, Mapping) and metric.fact in scene for scene in scenes)


def _some_prompt_names(metric: MetricSpec, suite: PromptSuite) -> bool:
    return any(
        metric.dimension in prompt.dimensions or (metric.auxiliary and says_for(prompt, metric))
        for prompt in suite.prompts
    )


def checkpoints_of(metrics: Iterable[MetricSpec]) -> dict[str, Checkpoint]:
    """The files that these metrics read, by key."""
    return {c.key: c for metric in metrics for feature in metric.features for c in feature.checkpoints}


def check_weights(metrics: Iterable[MetricSpec], store: WeightStore, progress: Progress) -> dict[str, str]:
    """sha256 of every checkpoint; all that are missing are named in one error."""
    checkpoints = checkpoints_of(metrics)
    store.require(checkpoints.values())
    progress.start("checking weights", len(checkpoints))
    weights = {}
    for key, checkpoint in checkpoints.items():
        weights[key] = store.sha256(checkpoint)
        progress.advance()
    return weights


def set_threads(request: Request) -> None:
    """Of this process; workers set their own."""
    if request.threads is not None and request.profile == "official" and request.workers == 1:
        import torch

        torch.set_num_threads(request.threads)


JOURNAL = "results.jsonl"


@contextmanager
def run_directory(run: Path) -> Iterator[Journal]:
    """Hold the run directory, its journal and its log (tracebacks of networks that failed) for this process."""
    with holding(run, "It is scored"), Journal(run / JOURNAL) as journal, log_to(run / LOG):
        check_version(run)
        remove_unfinished(run, run / "posters")
        yield journal
