"""kill -9 of a command, or of a part of it, again and again at random moments: what comes out is the same to the bit.

A moment is drawn as a stage of the run and a short time after it is reached: so all stages are met on any machine.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evalkit.demo import make_clips
from evalkit.lock import HOLDER, LOCK
from evalkit.records import load_run
from evalkit.store import read_journal
from m4v.train import train
from tests.kills import Command
from tests.test_train import small, world

pytestmark = pytest.mark.slow

METRICS = 7
STAGES = {"start": 1.0, "identify": 0.2, "score": 0.2, "summary": 0.1, "report": 0.3}
"""Stages of a run, and how many seconds after the beginning of each something is killed at the latest."""
LIVES = (
    (("start", "whole"),),
    (("identify", "decoder"), ("identify", "whole")),
    (("score", "decoder"), ("score", "whole")),
    (("score", "worker"), ("score", "decoder"), ("score", "whole")),
    (("score", "worker"), ("summary", "whole")),
    (("report", "whole"),),
)
"""What is killed and when, command after command, before a run is left alone; where a stage has passed, in the next."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen clips of two made-up models."""
    folder = tmp_path_factory.mktemp("videos")
    lines: list[dict[str, Any]] = []
    for seed, look in enumerate(("sharp", "jerky")):
        made = tmp_path_factory.mktemp(look)
        make_clips(made, look)
        for line in (made / "manifest.jsonl").read_text().splitlines()[: 8 - 4 * seed]:
            entry = json.loads(line) | {"seed": seed}
            name = f"{look}-{entry['file']}"
            shutil.copy(made / entry["file"], folder / name)
            lines.append(entry | {"file": name})
        shutil.copy(made / "prompts.jsonl", folder)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@dataclass(frozen=True)
class Run:
    """A run directory of the videos."""

    videos: Path
    path: Path

    def command(self, workers: int) -> Command:
        options = ["--subset", self.videos / "prompts.jsonl", "--videos", self.videos, "--profile", "lite"]
        return Command(
            ["vbench", *options, "--out", self.path, "--workers", str(workers)], self.path.with_name("temporary")
        )

    @property
    def wanted(self) -> int:
        return METRICS * len(list(self.videos.glob("*.mp4")))

    def scores(self) -> list[str]:
        """Keys of the scores in the journal, as often as they stand there."""
        journal = read_journal(self.path / "results.jsonl")
        return [key for key, record in journal if "dimension" in record and record.get("value") is not None]

    def stage(self) -> str:
        """What the run is at."""
        if (self.path / "run.json").exists():
            return "report"
        if not (self.path / HOLDER).exists():
            return "start"
        scored = len(set(self.scores()))
        return "summary" if scored == self.wanted else "score" if scored else "identify"

    def reached(self, stage: str) -> bool:
        stages = list(STAGES)
        return stages.index(self.stage()) >= stages.index(stage)

    def result(self) -> tuple[dict[str, Any], bytes]:
        load_run(self.path)
        summary = json.loads((self.path / "vbench.json").read_text())
        del summary["provenance"]
        return summary, (self.path / "results.parquet").read_bytes()


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One worker, left alone."""
    run = Run(videos, tmp_path_factory.mktemp("whole") / "run")
    with run.command(1) as command:
        assert command.end() == 0
    assert len(run.scores()) == run.wanted
    return run


@pytest.mark.parametrize(("workers", "n_kills"), [(2, 36), (1, 16)])
def test_a_run_killed_anywhere_ends_with_the_same_result(
    videos: Path, whole: Run, tmp_path: Path, workers: int, n_kills: int
) -> None:
    rng, kills = random.Random(workers), Counter[tuple[str, str]]()
    number = 0
    while kills.total() < n_kills:
        run, number = Run(videos, tmp_path / str(number) / "run"), number + 1
        run.path.parent.mkdir()
        for life in LIVES:
            resume(run, workers, life, rng, kills)
        for _ in range(5):  # a video over which decoders or workers were lost is tried again
            if resume(run, workers, (), rng, kills) == 0:
                break
        check(run, whole)
    print(f"\n{workers} workers, {number} runs, {kills.total()} kills:")
    for (stage, role), times in sorted(kills.items()):
        print(f"  {stage:<9} {role:<12} {times}")
    assert {stage for stage, _ in kills} >= {"start", "identify", "score", "summary", "report"}
    assert {role for _, role in kills} >= {"coordinator", "group", "decoder"} | ({"worker"} if workers > 1 else set())


def resume(
    run: Run, workers: int, life: Sequence[tuple[str, str]], rng: random.Random, kills: Counter[tuple[str, str]]
) -> int:
    """Start or resume a run, and kill in it what its life holds; returns the exit code."""
    before, killed = set(run.scores()), []
    with run.command(workers) as command:
        for stage, wanted in life:
            role = "decoder" if wanted == "worker" and workers == 1 else wanted
            if command.wait_for(lambda s=stage, r=role: run.reached(s) and command.has(r)):  # type: ignore[misc]
                time.sleep(rng.uniform(0, STAGES[stage]))
                met = run.stage()
                if hit := command.kill(role, rng):
                    kills[met, hit] += 1
                    killed.append(hit)
        code = command.end()
    if {"coordinator", "group"} & set(killed):
        assert code in (-signal.SIGKILL, 0), command.log.read_text()
    elif killed == ["worker"]:
        assert code == 0, command.log.read_text()  # another takes its place, and the run does not even notice
    else:
        assert code in (0, 3), (killed, command.log.read_text())
    assert before <= set(run.scores()), "what was finished is lost"
    return code


def check(run: Run, whole: Run) -> None:
    """The result is that of a run left alone; nothing was computed twice, and nothing lies about."""
    assert run.result() == whole.result()
    assert max(Counter(run.scores()).values()) == 1, "a score was computed although the journal held it"
    assert sorted(p.name for p in run.path.rglob("*") if p.name.startswith(".") or p.suffix == ".part") == [LOCK]
    assert not (run.path / HOLDER).exists()
    assert not (run.path / "shards").exists()
    assert list(run.path.with_name("temporary").iterdir()) == []


# --- generated videos, and a whole ablation ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "suite.jsonl"
    texts = ("a red circle moves left", "a blue square moves up", "a green ring", "two yellow stars")
    path.write_text("".join(json.dumps({"id": f"p{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


def made(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".mp4", ".jsonl")}


def test_videos_made_under_kills_are_the_same(suite: Path, tmp_path: Path) -> None:
    model = train(small(steps=1), world(), tmp_path / "model").parent
    rng = random.Random(0)

    def command(out: Path) -> Command:
        return Command(
            ["generate", "--model", model, "--prompts", suite, "--out", out, "--batch", "1"], tmp_path / "temporary"
        )

    with command(tmp_path / "whole") as left_alone:
        assert left_alone.end() == 0
    out = tmp_path / "out"
    for n in range(4):
        with command(out) as started:
            if started.wait_for(lambda n=n: len(list(out.glob("*.mp4"))) >= n):  # type: ignore[misc]
                time.sleep(rng.uniform(0, 0.5))
                started.kill("whole", rng)
            started.end()
    with command(out) as last:
        assert last.end() == 0
    assert made(out) == made(tmp_path / "whole")
    assert list(out.glob(".*.part")) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_ablation_under_kills_is_the_same(suite: Path, tmp_path: Path) -> None:
    rng = random.Random(0)

    def command(name: str) -> Command:
        options = ["--steps", "2", "--pretrain-steps", "2", "--seeds", "0", "--subset", suite, "--jobs", "1"]
        files = ["--threads", "1", "--out", tmp_path / name, "--json", tmp_path / f"{name}.json"]
        cache = str(tmp_path / f"{name}-cache")
        return Command(["ablate", "registers", *options, *files], tmp_path / "temporary", M4V_EVAL_CACHE=cache)

    def record(name: str) -> tuple[Any, Any]:
        found = json.loads((tmp_path / f"{name}.json").read_text())
        return found["variants"], found["comparisons"]

    with command("whole") as left_alone:
        assert left_alone.end() == 0, left_alone.log.read_text()
    for pattern in moments():
        with command("killed") as started:
            if started.wait_for(lambda p=pattern: bool(list(tmp_path.glob(p)))):  # type: ignore[misc]
                time.sleep(rng.uniform(0, 0.3))
                started.kill("whole", rng)
            started.end()
    with command("killed") as last:
        assert last.end() == 0, last.log.read_text()
    assert record("killed") == record("whole")
    assert list((tmp_path / "killed").rglob("*.part")) == []


def moments() -> Iterator[str]:
    """In pre-training, in training, while videos are made, and in the scoring of the second variant."""
    yield "killed-cache/pretrained/*/losses.jsonl"
    yield "killed/baseline/seed0/train/losses.jsonl"
    yield "killed/baseline/seed0/videos/*.mp4"
    yield "killed/registers/seed0/scores/results.jsonl"
