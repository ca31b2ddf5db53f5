"""Ablations on a cluster: pre-training, then train, generate and score each variant with each seed, then compare.

The stages are those of `evalkit.ablate.execute`, a job each, so that the numbers are those of a run on one host.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.ablate.command import Request, conclude, finished_runs, prepare, setting_of
from evalkit.ablate.execute import Arm, arms_of
from evalkit.ablate.experiment import Experiment
from evalkit.ablate.hosts import Hosts, train_on
from evalkit.ablate.setting import Setting
from evalkit.ablate.training import Model, Pretraining
from evalkit.cluster.config import ClusterConfig, Resources, read_config
from evalkit.cluster.folders import whole_path
from evalkit.cluster.graph import Chain, Graph, Task
from evalkit.cluster.launch import require_submitit, submit
from evalkit.cluster.ledger import Submission
from evalkit.errors import UserError
from evalkit.generation import generate, is_complete
from evalkit.job import Progress
from evalkit.lock import holding
from evalkit.options import resolve_device
from evalkit.prompts import load_suite
from evalkit.store import content_key


@dataclass(frozen=True, slots=True)
class Train:
    """Train the shared attention model, or one variant with one seed, on all hosts of the job."""

    model: Pretraining | Model
    resources: Resources

    def __call__(self, progress: Progress) -> None:
        model = replace(self.model, setting=on_this_node(self.model.setting))
        train_on(hosts_of_this_job(self.resources), model, progress)

    def found(self) -> bool:
        return self.model.is_trained


@dataclass(frozen=True, slots=True)
class Generate:
    """The videos of one variant with one seed."""

    arm: Arm

    def __call__(self, progress: Progress) -> None:
        generate(replace(self.arm, setting=on_this_node(self.arm.setting)).videos, progress)

    def found(self) -> bool:
        return self.arm.model.is_trained and is_complete(self.arm.videos)


@dataclass(frozen=True, slots=True)
class Score:
    """The scores of those."""

    arm: Arm

    def __call__(self, progress: Progress) -> None:
        replace(self.arm, setting=on_this_node(self.arm.setting)).score(progress)

    def found(self) -> bool:
        return self.arm.model.is_trained and self.arm.is_scored


@dataclass(frozen=True, slots=True)
class Compare:
    """The comparison of all variants that are finished, and the report."""

    experiment: Experiment
    setting: Setting

    def __call__(self, progress: Progress) -> None:
        setting = on_this_node(self.setting)
        with holding(setting.out, "An ablation is concluded in it"):
            conclude(self.experiment, setting, finished_runs(self.experiment, setting), progress)

    def found(self) -> bool | None:
        return None


def submit_ablate(request: Request, config_path: Path, command: Sequence[str]) -> Submission:
    """Submit an experiment.

    Args:
        request: what is asked for; its device may be `auto`: that of the node a job comes to.
        config_path: the cluster file.
        command: what the user typed, for the records.

    Returns:
        What was submitted; without jobs if all is finished. With the local executor the jobs have ended.

    Raises:
        UserError: bad input, before anything is submitted.
        RunFailed: jobs of this run are alive, or the scheduler refuses.
    """
    require_submitit()
    config = read_config(config_path)
    request = absolute(request)
    graph, setting = graph_of(request, config)
    prompts = len(load_suite(setting.subset).prompts)
    n_arms = sum(1 for task in graph.tasks if task.stage == "score")
    return submit(request.out, "ablate", graph, config, command, prompts * n_arms)


def graph_of(request: Request, config: ClusterConfig) -> tuple[Graph, Setting]:
    """Pre-training, a chain for each variant and seed, and the comparison.

    Raises:
        UserError: an unknown ablation, preset, suite or profile, or batches that do not divide among the processes.
    """
    experiment, setting = designed(request, config)
    attention, arms = arms_of(experiment, setting)
    resources = config.stages.train
    for recipe in [v.recipe for v in experiment.variants] + ([attention.recipe] if attention else []):
        _check_share(recipe.name, recipe.train.micro_batches, resources)
    key = content_key(subset=setting.subset, profile=setting.profile, weights=str(setting.weights))
    first = None
    if attention:
        first = Task("train", "pre-training", attention.recipe.config_hash(), Train(attention, resources))
    chains = tuple(_chain(arm, resources, key) for arm in arms)
    everything = content_key(keys=[task.key for chain in chains for task in chain.tasks])
    return Graph(chains, first, Task("report", "comparison", everything, Compare(experiment, setting))), setting


def designed(request: Request, config: ClusterConfig) -> tuple[Experiment, Setting]:
    """The experiment and its setting; `auto` is left for the nodes to resolve.

    Raises:
        UserError: as `graph_of`.
    """
    # The type that models are trained in is part of the recipe, so it is decided here: by what trains them.
    trained_on = request.device if request.device != "auto" else "cuda" if config.stages.train.gpus else "cpu"
    experiment = prepare(replace(request, device=trained_on))
    return experiment, setting_of(replace(request, jobs=1), experiment)


def _chain(arm: Arm, resources: Resources, key: str) -> Chain:
    name = f"{arm.variant.name} seed {arm.seed}"
    trained = content_key(recipe=arm.model.recipe.config_hash(), init=arm.variant.init, reward=arm.variant.reward)
    answered = content_key(trained=trained, key=key)
    tasks = (
        Task("train", name, trained, Train(arm.model, resources)),
        Task("generate", name, answered, Generate(arm)),
        Task("score", name, answered, Score(arm)),
    )
    return Chain(tasks, waits=arm.model.attention is not None)


def _check_share(name: str, micro_batches: int, resources: Resources) -> None:
    total = resources.nodes * max(1, resources.gpus)
    if micro_batches % total:
        raise UserError(
            f"stages.train has {total} processes ({resources.nodes} nodes of {max(1, resources.gpus)}), and the "
            f"{micro_batches} micro-batches of {name} do not divide among them.",
            f"Choose nodes and gpus whose product divides {micro_batches}.",
        )


def absolute(request: Request) -> Request:
    """The same with whole paths: jobs begin in another folder."""
    subset = whole_path(request.subset) if request.subset else None
    data = request.data
    if data and not data.startswith("shapes") and Path(data).exists():
        data = str(Path(data).resolve())
    weights = request.weights.resolve() if request.weights else None
    return replace(request, out=request.out.resolve(), weights=weights, subset=subset, data=data)


def on_this_node(setting: Setting) -> Setting:
    """The same with the device that `auto` is here."""
    return replace(setting, device=resolve_device(setting.device))


def hosts_of_this_job(resources: Resources) -> Hosts:
    """Where this process is among the nodes of its job."""
    from submitit import JobEnvironment

    job = JobEnvironment()
    # The batch script runs on the first node, and starts the others from there.
    address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or job.hostnames[0]
    return Hosts(
        count=job.num_nodes,
        rank=job.node,
        processes=max(1, resources.gpus),
        address=address if job.num_nodes > 1 else "127.0.0.1",
        job=int(job.raw_job_id),
        start=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        cpus=resources.cpus,
    )
