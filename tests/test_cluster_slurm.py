"""The cluster path against a real SLURM: shards, requeues, failures, dependencies, and training over two hosts.

Results are compared with a run on one host: the same rows of `results.parquet`, the same dimensions, the same videos by
their bytes, the same weights.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from evalkit.ablate.experiment import Variant
from evalkit.ablate.setting import Setting
from evalkit.ablate.training import Model
from evalkit.cluster import cancel, notes, overview
from evalkit.cluster.ablating import Train
from evalkit.cluster.config import ClusterConfig, Resources, Stages
from evalkit.cluster.graph import Chain, Graph, Task
from evalkit.cluster.launch import submit
from evalkit.cluster.ledger import Submission, read_ledger
from evalkit.cluster.scoring import submit_vbench
from evalkit.demo import make_clips
from evalkit.errors import RunFailed
from evalkit.job import Request, Silent
from evalkit.records import load_run
from evalkit.runner import score_folder
from evalkit.store import read_journal
from m4v.checkpoint import load_checkpoint
from tests.slurm import Slurm, slurm, wait_for
from tests.test_cli import cli
from tests.test_train import losses, small

__all__ = ["slurm"]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]

SHARDS = 3


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """In this process and in the jobs, which get its environment."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    os.environ.pop("OMP_NUM_THREADS")
    if before is not None:
        os.environ["OMP_NUM_THREADS"] = before


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "slurm.yaml"
    stages = "".join(f"  {stage}: {{hours: 0.5}}\n" for stage in ("train", "generate", "score", "report"))
    path.write_text(f"partition: main\nshards: {SHARDS}\nstages:\n{stages}")
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight demo clips of two made-up models, as two seeds of the same prompts."""
    folder = tmp_path_factory.mktemp("clips")
    lines = []
    for seed, look in enumerate(("sharp", "jerky")):
        make_clips(folder / look, look)
        for line in (folder / look / "manifest.jsonl").read_text().splitlines():
            record = json.loads(line)
            name = f"{record['prompt_id']}-{seed}.mp4"
            (folder / look / record["file"]).rename(folder / name)
            lines.append(json.dumps(record | {"file": name, "seed": seed}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    shutil.copy(folder / "sharp" / "prompts.jsonl", folder / "prompts.jsonl")
    return folder


def request(clips: Path, out: Path) -> Request:
    return Request(clips, str(clips / "prompts.jsonl"), out, "lite")


@pytest.fixture(scope="module")
def one_host(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "run"
    score_folder(request(clips, out))
    return out


def assert_same(run: Path, other: Path) -> None:
    ours, theirs = load_run(run), load_run(other)
    pd.testing.assert_frame_equal(ours.results, theirs.results, check_exact=True)
    assert ours.summary["dimensions"] == theirs.summary["dimensions"]


def jobs(submission: Submission, stage: str) -> list[str]:
    return [str(entry.job) for entry in submission.jobs if entry.stage == stage]


def test_shards_find_what_one_host_finds(
    slurm: Slurm, clips: Path, one_host: Path, config: Path, tmp_path: Path
) -> None:
    done = submit_vbench(request(clips, tmp_path / "run"), config, ["m4v-eval", "vbench"])
    scoring = jobs(done, "score")
    assert {job.split("_")[1] for job in scoring} == {"0", "1", "2"}, "one array"
    with pytest.raises(RunFailed, match=rf"still alive: {scoring[0]}"):
        submit_vbench(request(clips, tmp_path / "run"), config, [])
    slurm.wait()
    assert_same(tmp_path / "run", one_host)
    seen = overview(tmp_path / "run")
    assert (seen.verdict, seen.videos_done, seen.videos) == ("done", 16, 16)
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    for job in (*scoring, *jobs(done, "report")):
        log = next((tmp_path / "run" / "logs").glob(f"*.{job}.log"))
        assert "Job completed successfully" in log.read_text()
    before = (tmp_path / "run" / "cluster.json").read_bytes()
    assert not submit_vbench(request(clips, tmp_path / "run"), config, []).jobs
    assert (tmp_path / "run" / "cluster.json").read_bytes() == before


def scored(run: Path, shard: int) -> int:
    """Records of a shard so far."""
    journal = run / "shards" / f"{shard}-of-{SHARDS}" / "results.jsonl"
    return sum("dimension" in record for _, record in read_journal(journal))


def requeue(slurm: Slurm, job: str) -> None:
    slurm.run("scontrol", "requeue", job)


def warn(slurm: Slurm, job: str) -> None:
    """As SLURM does before a time limit."""
    slurm.run("scancel", "--signal=USR2", job)


def preempt(slurm: Slurm, job: str) -> None:
    """As SLURM does before it takes the nodes back: SIGTERM first."""
    slurm.run("scancel", "--signal=TERM", job)
    slurm.run("scancel", "--signal=USR2", job)


@pytest.mark.parametrize("interrupt", [requeue, warn, preempt])
def test_a_shard_that_is_stopped_in_the_middle_goes_on(
    interrupt: Callable[[Slurm, str], None],
    slurm: Slurm,
    clips: Path,
    one_host: Path,
    config: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    first = jobs(submit_vbench(request(clips, run), config, []), "score")[0]
    wait_for(lambda: scored(run, 0), 120)
    interrupt(slurm, first)
    slurm.wait()
    note = notes.read(run, "score", f"1 of {SHARDS}")
    assert note is not None
    assert (note.state, note.starts, note.job) == ("done", 2, first)
    assert_same(run, one_host)
    seen = overview(run)
    assert seen.verdict == "done"
    assert seen.stages[0].restarts == 1


def test_a_shard_that_fails_for_good_costs_its_own_videos(
    slurm: Slurm, clips: Path, one_host: Path, config: Path, tmp_path: Path
) -> None:
    """Its folder is a file: nothing can be written there. The report comes all the same, and the rest can follow."""
    run = tmp_path / "run"
    (run / "shards").mkdir(parents=True)
    obstacle = run / "shards" / f"1-of-{SHARDS}"
    obstacle.write_text("in the way")
    submit_vbench(request(clips, run), config, [])
    slurm.wait()
    part = load_run(run)
    missing = [video for video in part.summary["videos"] if video["unscored"]]
    assert 0 < len(missing) < 16
    assert not any(video["scores"] for video in missing)
    seen = overview(run)
    assert seen.verdict == "failed"
    assert [(failure.stage, failure.name) for failure in seen.failures] == [("score", f"2 of {SHARDS}")]
    assert str(obstacle) in seen.failures[0].why
    assert seen.failures[0].lines
    assert seen.videos_done == 16 - len(missing)
    done = cli("status", run, **slurm.environment)
    assert done.returncode == 1
    assert f"failed: {seen.videos_done} of 16 videos scored" in done.stdout
    obstacle.unlink()
    again = submit_vbench(request(clips, run), config, [])
    assert [(entry.stage, entry.name) for entry in again.jobs] == [("score", f"2 of {SHARDS}"), ("report", "results")]
    slurm.wait()
    assert_same(run, one_host)
    assert overview(run).verdict == "done"


def test_what_sbatch_refuses_is_said_and_leaves_no_job(slurm: Slurm, clips: Path, config: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "slurm.yaml"
    elsewhere.write_text(config.read_text().replace("partition: main", "partition: nowhere"))
    with pytest.raises(RunFailed, match=r"The jobs of score could not be submitted: .*Invalid partition"):
        submit_vbench(request(clips, tmp_path / "run"), elsewhere, [])
    assert not slurm.queue()
    assert not (tmp_path / "run" / "cluster.json").exists()


def test_cancel_ends_all_jobs_and_keeps_what_they_found(
    slurm: Slurm, clips: Path, one_host: Path, config: Path, tmp_path: Path
) -> None:
    run, in_turn = tmp_path / "run", tmp_path / "slurm.yaml"
    in_turn.write_text(config.read_text() + "parallel: 1\n")
    submit_vbench(request(clips, run), in_turn, [])
    wait_for(lambda: scored(run, 0), 120)
    done = cli("cancel", run, **slurm.environment)
    assert done.returncode == 0
    assert "jobs of" in done.stdout
    slurm.wait(60)
    assert cancel(run) == []
    kept = scored(run, 0)
    assert kept
    seen = overview(run)
    assert seen.verdict == "incomplete"
    assert not any(stage.counts.get("failed") for stage in seen.stages)
    assert sum(stage.counts.get("cancelled", 0) for stage in seen.stages) >= 2
    submit_vbench(request(clips, run), config, [])
    slurm.wait()
    assert_same(run, one_host)


PROMPTS = [
    {"id": "p1", "text": "a red circle moves left"},
    {"id": "p2", "text": "a blue square moves up"},
    {"id": "p3", "text": "a green triangle stands still"},
    {"id": "p4", "text": "a red square moves right"},
]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "four.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    return path


def ablate(suite: Path, out: Path, cache: Path, *more: str | Path, **env: str) -> dict[str, Any]:
    options = ["--steps", "3", "--pretrain-steps", "2", "--subset", suite, "--threads", "1", "--jobs", "1"]
    done = cli("ablate", "registers", *options, "--out", out, *more, M4V_EVAL_CACHE=str(cache), **env)
    assert done.returncode == 0, done.stderr
    if more:
        return {}
    return dict(json.loads((out / "ablation.json").read_text()))


@pytest.fixture(scope="module")
def ablation(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small experiment on one host."""
    out = tmp_path_factory.mktemp("ablate")
    ablate(suite, out / "run", out / "cache")
    return out


def test_an_ablation_is_the_one_host_s(slurm: Slurm, suite: Path, ablation: Path, config: Path, tmp_path: Path) -> None:
    """Pre-training, training, generation, scores and comparison, each a job that waits for those before it."""
    run = tmp_path / "run"
    ablate(suite, run, tmp_path / "cache", "--cluster", config, **slurm.environment)
    [submission] = read_ledger(run)
    stages = [entry.stage for entry in submission.jobs]
    assert stages == ["train", *["train"] * 2, *["generate"] * 2, *["score"] * 2, "report"]
    waiting = slurm.run("squeue", "--noheader", "--array", "--format=%i|%E")
    pretraining, trained = submission.jobs[0].job, str(submission.jobs[1].job).split("_")[0]
    assert f"afterok:{pretraining}" in waiting
    assert f"aftercorr:{trained}_" in waiting
    slurm.wait()
    seen = overview(run)
    assert (seen.verdict, seen.videos_done, seen.videos) == ("done", 8, 8), seen.failures
    found, expected = (json.loads((out / "ablation.json").read_text()) for out in (run, ablation / "run"))
    assert found["variants"] == expected["variants"]
    assert found["comparisons"] == expected["comparisons"]
    for name in ("baseline", "registers"):
        ours, theirs = (torch.load(o / name / "seed0" / "train" / "last.pt") for o in (run, ablation / "run"))
        assert all(torch.equal(ours["ema"][key], value) for key, value in theirs["ema"].items())


def test_generation_in_shards_makes_the_same_videos(
    slurm: Slurm, suite: Path, ablation: Path, config: Path, tmp_path: Path
) -> None:
    options = ["--model", ablation / "run" / "baseline" / "seed0" / "train", "--prompts", suite, "--steps", "2"]
    options += ["--device", "cpu", "--batch", "1"]
    assert cli("generate", *options, "--out", tmp_path / "one").returncode == 0
    done = cli("generate", *options, "--out", tmp_path / "many", "--cluster", config, **slurm.environment)
    assert done.returncode == 0, done.stderr
    assert "Submitted 3 jobs (3 generate)" in done.stdout
    slurm.wait()
    seen = overview(tmp_path / "many")
    assert (seen.verdict, seen.videos_done, seen.videos) == ("done", 4, 4), seen.failures
    names = ["manifest.jsonl", *sorted(path.name for path in (tmp_path / "one").glob("*.mp4"))]
    assert len(names) == 5
    for name in names:
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    (tmp_path / "many" / names[1]).unlink()
    again = cli("generate", *options, "--out", tmp_path / "many", "--cluster", config, **slurm.environment)
    assert "Submitted 1 jobs" in again.stdout, again.stdout + again.stderr
    slurm.wait()
    assert (tmp_path / "many" / names[1]).read_bytes() == (tmp_path / "one" / names[1]).read_bytes()


def test_two_hosts_train_one_model_and_go_on_after_a_warning(slurm: Slurm, tmp_path: Path) -> None:
    """Sharded by FSDP2 over two nodes, stopped after its first step and queued again, against one process.

    Tolerances are those of two processes on one host in `test_train`: sums are in another order.
    """
    recipe = small(steps=4, micro_batch=1, save_every=100, shard=True)
    variant = Variant("sharded", "Sharded", recipe, "fresh", 0.0, None)
    setting = Setting(tmp_path, "shapes50", "lite", tmp_path, (0,), "cpu", tmp_path / "cache")
    one, two = (Model(variant, 0, None, setting, tmp_path / name) for name in ("one", "two"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one.train(Silent())
    torch.set_num_threads(threads)
    resources = Resources(hours=0.5, nodes=2)
    config = ClusterConfig(stages=Stages(train=resources))
    run = tmp_path / "run"
    graph = Graph((Chain((Task("train", "sharded", "key", Train(two, resources)),)),))
    [entry] = submit(run, "ablate", graph, config, [], 0).jobs
    log = run / "logs" / f"train-sharded.{entry.job}-node0.log"
    wait_for(lambda: log.exists() and "training sharded" in log.read_text(), 240)
    warn(slurm, str(entry.job))
    slurm.wait()
    note = notes.read(run, "train", "sharded")
    assert note is not None
    assert (note.state, note.starts) == ("done", 2), log.read_text()
    assert "training sharded, seed 0 (3)" in log.read_text(), "it had saved the first of four steps"
    torch.testing.assert_close(losses(two.folder / "train"), losses(one.folder / "train"), rtol=1e-5, atol=1e-5)
    ours, theirs = load_checkpoint(two.checkpoint), load_checkpoint(one.checkpoint)
    for name, value in theirs.ema.items():
        torch.testing.assert_close(ours.ema[name], value, rtol=1e-3, atol=2e-4)
    assert not list(two.folder.glob(".stop*"))
