"""Score a folder of videos: match, identify, decode once, score, summarise; resumable at every step."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from evalkit.auxiliary import asks, equip, says_for
from evalkit.errors import UserError
from evalkit.flickering import select_static
from evalkit.identify import identify
from evalkit.job import Outcome, Progress, Request, Silent, Video
from evalkit.matching import match
from evalkit.metrics import find, registry
from evalkit.metrics.base import MetricSpec
from evalkit.posters import PosterReader
from evalkit.prompts import load_suite
from evalkit.protocol import FLICKERING, Selection, surplus
from evalkit.records import RUN_SCHEMA, RunRecord, load_run, read_json
from evalkit.scoring import CUSTOM7
from evalkit.scoring_pass import Counts, ScoringPass
from evalkit.static_filter import STATIC_FILTER
from evalkit.store import Journal, only_writer
from evalkit.types import Profile, PromptSuite
from evalkit.weights import Checkpoint, WeightStore


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
    matching = match(request.videos, equip(suite, metrics))
    filters = (STATIC_FILTER,) if _filters_static_clips(request, suite, metrics) else ()
    store = WeightStore(request.weights, request.trust_archives)
    store.require(checkpoints_of(filters).values(), "; or leave the static filter out with --no-static-filter")
    weights = check_weights((*metrics, *filters), store, progress)
    set_threads(request)
    with run_directory(request.out) as journal:
        videos = identify(matching.samples, journal, progress)
        readable = [video for video in videos if isinstance(video, Video)]

        def posters(video: Video) -> PosterReader:
            return PosterReader.at(request.out, video.sha256, video.info)

        def scoring_of(metrics: Sequence[MetricSpec], counts: Counts) -> ScoringPass:
            return ScoringPass(metrics, weights, store, request.runtime, journal, posters, progress, counts)

        selection = Selection(suite.standard, surplus(matching.samples, metrics) if suite.standard else {})
        interrupted = False
        if filters:
            flickering = next(metric for metric in metrics if metric.name == FLICKERING)
            selection, interrupted = select_static(readable, flickering, selection, scoring_of)
        scoring = scoring_of(metrics, lambda s, m: asks(s.prompt, m) and selection.counts(s, m.dimension))
        interrupted = interrupted or scoring.run(readable)
        foreign = tuple(key for key, c in checkpoints_of(metrics).items() if c.sha256 not in (None, weights[key]))
        results = tuple(scoring.results(videos))
        outcome = Outcome(suite, matching, selection, metrics, weights, foreign, results, interrupted)
        # Tables and statistics come when the networks have gone: side by side they would take the most memory.
        from evalkit.summary import write_run

        write_run(request, command, created, outcome)
    return load_run(request.out)


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
    if request.threads is not None and request.profile == "official":
        import torch

        torch.set_num_threads(request.threads)


@contextmanager
def run_directory(run: Path) -> Iterator[Journal]:
    """Hold the run directory, its journal and its log (tracebacks of networks that failed) for this process."""
    with only_writer(run), Journal(run / "results.jsonl") as journal:
        if (run / "run.json").exists():
            read_json(run / "run.json", RUN_SCHEMA)  # refuse to write into another version's run
        logger = logging.getLogger("evalkit")
        handler = logging.FileHandler(run / "run.log", delay=True, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        try:
            yield journal
        finally:
            logger.removeHandler(handler)
            handler.close()
