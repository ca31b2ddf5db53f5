"""Scoring on a cluster: a job for each shard of the videos, and one at the end that reports what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.auxiliary import equip
from evalkit.cluster.config import ClusterConfig, Resources, read_config
from evalkit.cluster.folders import whole_path
from evalkit.cluster.graph import Chain, Graph, Task
from evalkit.cluster.launch import require_submitit, submit
from evalkit.cluster.ledger import Submission
from evalkit.job import Progress, Request, Shard
from evalkit.matching import match
from evalkit.options import resolve_device
from evalkit.runner import Rules, VBench, score_folder, score_shard
from evalkit.shards import part
from evalkit.store import content_key
from evalkit.types import Sample


@dataclass(frozen=True, slots=True)
class ScoreShard:
    """One shard's videos."""

    request: Request
    shard: Shard
    rules: Rules

    def __call__(self, progress: Progress) -> None:
        if score_shard(on_this_node(self.request), self.shard, progress, rules=self.rules):
            raise KeyboardInterrupt

    def found(self) -> bool | None:
        return None


@dataclass(frozen=True, slots=True)
class Report:
    """Brings together what the shards found, lists the rest as unscored, and writes summary and report."""

    request: Request
    command: tuple[str, ...]
    rules: Rules

    def __call__(self, progress: Progress) -> None:
        from evalkit.report import render

        request = on_this_node(self.request)
        record = score_folder(request, progress, self.command, compute=False, rules=self.rules)
        progress.start("writing the report", 1)
        render([record], request.out / "report.html")

    def found(self) -> bool | None:
        return None


def submit_vbench(
    request: Request, config_path: Path, command: Sequence[str], *, rules: Rules | None = None
) -> Submission:
    """Submit the scoring of a folder.

    The device `auto` is that of the node a job comes to; workers and devices are those of each job.

    Args:
        request: what to score and how.
        config_path: the cluster file.
        command: what the user typed, for the records.
        rules: VBench's if not given.

    Returns:
        What was submitted; without jobs if everything is scored. With the local executor the jobs have ended.

    Raises:
        UserError: bad input, before anything is submitted.
        RunFailed: jobs of this run are alive, or the scheduler refuses.
    """
    require_submitit()
    config = read_config(config_path)
    request = absolute(request)
    graph, samples = graph_of(request, config, command, rules or VBench())
    return submit(request.out, "vbench", graph, config, command, len(samples))


def graph_of(
    request: Request, config: ClusterConfig, command: Sequence[str], rules: Rules
) -> tuple[Graph, tuple[Sample, ...]]:
    """Shards and report, and the videos that there are to score.

    Raises:
        UserError: unknown suite or dimension, or no videos.
    """
    prompts = rules.read_prompts(request)
    samples = match(request.videos, equip(prompts, rules.choose(request, prompts))).samples
    count = min(config.shards, len(samples))
    request = with_threads(request, config.stages.score)
    chains = []
    for index in range(count):
        shard = Shard(index, count)
        mine = part(samples, shard)
        if mine:
            key = key_of(request, mine)
            task = Task("score", f"{index + 1} of {count}", key, ScoreShard(request, shard, rules))
            chains.append(Chain((task,)))
    last = Task("report", "results", key_of(request, samples), Report(request, tuple(command), rules))
    return Graph(tuple(chains), last=last), samples


def key_of(request: Request, samples: Sequence[Sample]) -> str:
    """Identity of a shard's work: videos by name, size and time, for hashing them is the jobs' own work."""
    files = [(sample.file, (stat := sample.path.stat()).st_size, stat.st_mtime_ns) for sample in samples]
    return content_key(
        files=files,
        subset=request.subset,
        profile=request.profile,
        dimensions=sorted(request.dimensions),
        weights=str(request.weights),
        precision=request.runtime.precision,
        static_filter=request.static_filter,
    )


def with_threads(request: Request, resources: Resources) -> Request:
    """Networks get the cores that a job asks for, unless the user says otherwise."""
    return request if request.threads is not None else replace(request, threads=resources.cpus)


def absolute(request: Request) -> Request:
    """The same with whole paths: jobs begin in another folder."""
    return replace(
        request,
        videos=request.videos.resolve(),
        out=request.out.resolve(),
        weights=request.weights.resolve(),
        subset=whole_path(request.subset),
    )


def on_this_node(request: Request) -> Request:
    """The same with the device that `auto` is here."""
    return replace(request, runtime=replace(request.runtime, device=resolve_device(request.runtime.device)))
