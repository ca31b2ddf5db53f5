"""Generating on a cluster: a job for each shard; whichever finds all videos there writes the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.cluster.config import ClusterConfig, read_config
from evalkit.cluster.folders import whole_path
from evalkit.cluster.graph import Chain, Graph, Task
from evalkit.cluster.launch import require_submitit, submit
from evalkit.cluster.ledger import Submission
from evalkit.errors import UserError
from evalkit.files import hash_file
from evalkit.generation import Request, check_folder, generate, is_complete, pieces_of
from evalkit.job import Progress, Shard
from evalkit.options import resolve_device
from evalkit.store import content_key


@dataclass(frozen=True, slots=True)
class GenerateShard:
    """One shard's videos."""

    request: Request

    def __call__(self, progress: Progress) -> None:
        generate(replace(self.request, device=resolve_device(self.request.device)), progress)

    def found(self) -> bool:
        return is_complete(self.request)


def submit_generate(request: Request, config_path: Path, command: Sequence[str]) -> Submission:
    """Submit the generation of videos.

    Args:
        request: what to generate; its device may be `auto`.
        config_path: the cluster file.
        command: what the user typed, for the records.

    Returns:
        What was submitted; without jobs if all videos are there. With the local executor the jobs have ended.

    Raises:
        UserError: bad input, before anything is submitted.
        RunFailed: jobs of this folder are alive, or the scheduler refuses.
    """
    require_submitit()
    config = read_config(config_path)
    request = absolute(request)
    check_folder(request)
    return submit(request.out, "generate", graph_of(request, config), config, command, len(pieces_of(request)))


def graph_of(request: Request, config: ClusterConfig) -> Graph:
    """One job a shard.

    Raises:
        UserError: no such suite or checkpoint.
    """
    count = min(config.shards, len(pieces_of(request)))
    shards = [replace(request, shard=Shard(index, count)) for index in range(count)]
    key = _key(request)
    tasks = [Task("generate", f"{n + 1} of {count}", key, GenerateShard(s)) for n, s in enumerate(shards)]
    return Graph(tuple(Chain((task,)) for task in tasks))


def _key(request: Request) -> str:
    path = request.checkpoint / "last.pt" if request.checkpoint.is_dir() else request.checkpoint
    if not path.is_file():
        raise UserError(
            f"{path}: no such checkpoint.", "Give a checkpoint that m4v-eval wrote (last.pt, or its folder)."
        )
    return content_key(
        checkpoint=hash_file(path),
        subset=request.subset,
        seeds=request.seeds,
        batch=request.batch,
        fps=request.fps,
        ema=request.ema,
        changes=[list(change) for change in request.changes],
    )


def absolute(request: Request) -> Request:
    """The same with whole paths: jobs begin in another folder."""
    return replace(
        request,
        checkpoint=request.checkpoint.resolve(),
        out=request.out.resolve(),
        subset=whole_path(request.subset),
    )
