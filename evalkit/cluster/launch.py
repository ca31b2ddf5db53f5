"""From a graph to jobs: submitit's executors do the work, this says what each gets and what it waits for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.cluster import notes
from evalkit.cluster.config import ClusterConfig, Resources
from evalkit.cluster.folders import file_name, logs_folder, submitit_folder
from evalkit.cluster.graph import Graph, Step, Task, steps
from evalkit.cluster.job import Job, here
from evalkit.cluster.ledger import Entry, Submission, read_ledger, write_ledger
from evalkit.cluster.states import ALIVE, Found, cancel_jobs, look
from evalkit.errors import RunFailed, UserError
from evalkit.lock import holding

if TYPE_CHECKING:
    import submitit

WAITS = {"ok": "afterok", "each": "aftercorr", "any": "afterany"}


def submit(
    run: Path, kind: str, graph: Graph, config: ClusterConfig, command: Sequence[str], videos: int
) -> Submission:
    """Submit what is missing of a graph and note it in the run directory.

    With the local executor the jobs have ended when this returns.

    Returns:
        What was submitted; it has no jobs if nothing is missing.

    Raises:
        UserError: submitit is not installed.
        RunFailed: jobs of this run are alive (names them), another process writes to it, or the scheduler refuses.
    """
    require_submitit()
    run = run.resolve()
    missing = steps(graph, lambda task: notes.is_done(run, task))
    entries = tuple(Entry(task.stage, task.name) for task in graph.tasks)
    made = Submission(kind, tuple(command), notes.now(), here(), config.record(), videos, entries)
    if not missing:
        return made
    with holding(run, "Jobs are submitted for it"):
        pass  # nobody writes to it; the jobs themselves will
    with holding(submitit_folder(run), "Jobs are submitted from it"):
        before = read_ledger(run)
        _refuse_second(run, before)
        launch = _run_here if config.executor == "local" else _queue
        for submitted in launch(run, missing, config):
            made = made.with_jobs(submitted)
            write_ledger(run, [*before, made])
    return made


def require_submitit() -> None:
    """Raises UserError where submitit is not installed."""
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UserError(
            "--cluster needs submitit, which is not installed.", "Install it: pip install 'm4v-eval[cluster]'."
        ) from None


def alive(run: Path, submissions: Sequence[Submission]) -> list[tuple[str, Found]]:
    """The jobs of all submissions that have not ended, each with its executor."""
    return [
        (one.executor, found)
        for one in submissions
        for found in look(run, one.executor, one.jobs)
        if found.state in ALIVE
    ]


def _refuse_second(run: Path, submissions: Sequence[Submission]) -> None:
    running = [found.entry for _, found in alive(run, submissions)]
    if running:
        named = ", ".join(f"{e.job} ({e.stage} {e.name})" for e in running[:5])
        more = f" and {len(running) - 5} more" if len(running) > 5 else ""
        raise RunFailed(
            f"Jobs of {run} are still alive: {named}{more}.",
            "Wait for them (m4v-eval status), or end them first (m4v-eval cancel).",
        )


def _queue(run: Path, missing: Sequence[Step], config: ClusterConfig) -> Iterator[list[Entry]]:
    """Submit all steps to SLURM, each waiting for those before it; if one is refused, the others are cancelled."""
    numbers: list[str] = []  # of the steps' arrays
    try:
        for step in missing:
            waits = ":".join([WAITS[step.wait], *(numbers[i] for i in step.after)])
            wait = _wait(step, missing, waits)
            jobs = _submit(_slurm_executor(run, step, config, wait), run, step, config)
            numbers.append(str(jobs[0].job_id).split("_")[0])
            yield _entries(run, step, jobs, config)
    except BaseException:
        if numbers:
            cancel_jobs("slurm", numbers)
        raise


def _wait(step: Step, missing: Sequence[Step], waits: str) -> str | None:
    if not step.after:
        return None
    # An array of one is no array, and has no corresponding tasks.
    return waits.replace("aftercorr", "afterok") if len(step.tasks) == 1 else waits


def _slurm_executor(run: Path, step: Step, config: ClusterConfig, wait: str | None) -> submitit.Executor:
    import submitit

    resources = config.stages.of(step.stage)
    executor = _made(lambda: submitit.SlurmExecutor(submitit_folder(run), config.requeue, python=config.python))
    extra: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes"} | dict(config.sbatch)
    executor.update_parameters(
        **_given(
            job_name=f"m4v-{step.stage}-{run.name}",
            partition=config.partition,
            account=config.account,
            qos=config.qos,
            constraint=config.constraint,
            mem=_megabytes(resources),
            gpus_per_node=resources.gpus or None,
            dependency=wait,
        ),
        time=minutes(resources),
        nodes=resources.nodes,
        ntasks_per_node=1,
        cpus_per_task=resources.cpus,
        srun_args=[f"--cpus-per-task={resources.cpus}", "--kill-on-bad-exit=1"],
        array_parallelism=config.parallel,
        setup=list(config.setup),
        stderr_to_stdout=True,
        additional_parameters={name: value for name, value in extra.items() if value is not False},
    )
    return executor


def _run_here(run: Path, missing: Sequence[Step], config: ClusterConfig) -> Iterator[list[Entry]]:
    """Run the steps one after the other, each in so many processes at a time as the file says."""
    import submitit

    for number, step in enumerate(missing):
        ready = [task for i, task in enumerate(step.tasks) if _may_begin(run, i, step, missing)]
        resources = config.stages.of(step.stage)
        executor = submitit.LocalExecutor(submitit_folder(run), config.requeue, python=config.python)
        executor.update_parameters(
            timeout_min=minutes(resources),
            gpus_per_node=resources.gpus,
            tasks_per_node=1,
            signal_delay_s=90,
            setup=list(config.setup),
            stderr_to_stdout=True,
        )
        for start in range(0, len(ready), config.parallel):
            part = replace(missing[number], tasks=tuple(ready[start : start + config.parallel]))
            jobs = _submit(executor, run, part, config)
            yield _entries(run, part, jobs, config)
            for job in jobs:
                job.wait()


def _may_begin(run: Path, number: int, step: Step, missing: Sequence[Step]) -> bool:
    """Whether what a task waits for has ended as it must."""
    if step.wait == "any":
        return True
    before = [missing[i].tasks for i in step.after]
    needed = [tasks[number] for tasks in before] if step.wait == "each" else [t for tasks in before for t in tasks]
    return all(notes.is_done(run, task) for task in needed)


def _submit(executor: submitit.Executor, run: Path, step: Step, config: ClusterConfig) -> Sequence[submitit.Job[None]]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    cpus = config.stages.of(step.stage).cpus
    try:
        with _without_slurm_of_this_job():
            return executor.submit_array([Job(run, task, cpus) for task in step.tasks])
    except (FailedJobError, FailedSubmissionError, OSError) as e:
        lines = [line for line in str(e).splitlines() if "error" in line.lower()] or str(e).splitlines()
        raise RunFailed(
            f"The jobs of {step.stage} could not be submitted: {' '.join(lines[-1:])}.",
            "Correct the cluster file and run the same command again.",
        ) from None


@contextmanager
def _without_slurm_of_this_job() -> Iterator[None]:
    """Within a job (an interactive one, say), its own SLURM_* variables would leak into what it submits."""
    leaking = (
        "SLURM_JOB",
        "SLURM_STEP",
        "SLURM_TASK",
        "SLURM_NTASKS",
        "SLURM_NPROCS",
        "SLURM_CPUS",
        "SLURM_MEM",
        "SLURM_NNODES",
        "SLURM_NODE",
        "SLURM_PROC",
        "SLURM_LOCAL",
        "SLURM_ARRAY",
        "SLURM_GPUS",
        "SLURM_TRES",
    )
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(leaking)}
    try:
        yield
    finally:
        os.environ.update(taken)


def _entries(run: Path, step: Step, jobs: Sequence[submitit.Job[None]], config: ClusterConfig) -> list[Entry]:
    resources = config.stages.of(step.stage)
    found = []
    for task, job in zip(step.tasks, jobs, strict=True):
        entry = Entry(task.stage, task.name, str(job.job_id), resources.nodes, minutes(resources))
        _link_logs(run, task, entry)
        found.append(entry)
    return found


def log_files(run: Path, entry: Entry) -> list[Path]:
    """The logs of a task's last job, one for each node, whether or not they have been begun."""
    ends = [""] if entry.nodes == 1 else [f"-node{k}" for k in range(entry.nodes)]
    return [logs_folder(run) / f"{file_name(entry.stage, entry.name)}.{entry.job}{end}.log" for end in ends]


def _link_logs(run: Path, task: Task, entry: Entry) -> None:
    """Names that say whose log it is; submitit calls its files after the scheduler's numbers."""
    logs_folder(run).mkdir(parents=True, exist_ok=True)
    for k, link in enumerate(log_files(run, entry)):
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..", submitit_folder(run).name, f"{entry.job}_{k}_log.out"))


def minutes(resources: Resources) -> int:
    return max(1, round(resources.hours * 60))


def _megabytes(resources: Resources) -> str | None:
    return None if resources.memory is None else f"{round(resources.memory * 1024)}M"


def _given(**parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _made(make: Callable[[], submitit.SlurmExecutor]) -> submitit.SlurmExecutor:
    try:
        return make()
    except RuntimeError:
        raise UserError(
            "There is no SLURM here: srun is not on the PATH.",
            "Run this on a login node of the cluster, or set `executor: local`.",
        ) from None
