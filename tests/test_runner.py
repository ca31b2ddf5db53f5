"""A run: one decode a video, nothing computed twice, nothing lost, everything unscored listed.

The metrics here are small ones with countable extractors, so that the tests can see what the runner does; the real ones
have tests of their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import evalkit.runner
from evalkit.backbones.base import Extractor, FeatureSpec, PerFrame, Runtime
from evalkit.decoding import Decoder, Job, Limits
from evalkit.errors import RunFailed, UserError
from evalkit.job import Request, Silent
from evalkit.metrics.base import MetricSpec
from evalkit.records import RunRecord
from evalkit.runner import score_folder
from evalkit.types import Array, Clip, Features, FrameChunk, Frames, Score
from evalkit.weights import WeightStore
from tests.clips import gradient_frames, write_clip

Count = Counter[str]

# The test metrics borrow names, because only VBench's dimensions can enter a headline score.
BRIGHTNESS, LAST, WORDS = "lite/imaging_quality", "lite/motion_smoothness", "lite/overall_consistency"


class Bench:
    """Two metrics that share an extractor, one that reads the prompt, and counters of all that happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: Count = Counter()
        self.fail: Callable[[Frames], None] = lambda frames_BHWC: None
        self.metrics = {m.name: m for m in (self.brightness(), self.last(), self.words())}
        monkeypatch.setattr(evalkit.runner, "registry", lambda profile: self.metrics)
        real_read = Decoder.read

        def read(decoder: Decoder, job: Job) -> Iterator[FrameChunk]:
            self.did["decode"] += 1
            return real_read(decoder, job)

        monkeypatch.setattr(Decoder, "read", read)

    def mean_pixel(self) -> FeatureSpec:
        def embed(frames_BHWC: Frames) -> Array:
            self.fail(frames_BHWC)
            self.did["frames"] += len(frames_BHWC)
            return frames_BHWC.mean(axis=(1, 2, 3))[:, None] / 255

        def load(store: WeightStore, runtime: Runtime) -> Extractor:
            self.did["load"] += 1
            return PerFrame(embed, runtime.batch)

        return FeatureSpec("mean_pixel", 1, load)

    def brightness(self) -> MetricSpec:
        def score(clip: Clip, features: Features) -> Score:
            return Score(float(features["mean_pixel"].mean()), n_terms=len(features["mean_pixel"]))

        return metric(BRIGHTNESS, score, self.mean_pixel(), pooling="frames")

    def last(self) -> MetricSpec:
        def score(clip: Clip, features: Features) -> Score:
            return Score(float(features["mean_pixel"][-1, 0]))

        return metric(LAST, score, self.mean_pixel(), min_frames=3)

    def words(self) -> MetricSpec:
        def score(clip: Clip, features: Features) -> Score:
            return (
                Score(len(clip.prompt) / 100) if "silent" not in clip.prompt else Score.missing("the prompt is silent")
            )

        return metric(WORDS, score, self.mean_pixel(), reads_prompt=True)


def metric(name: str, score: Callable[[Clip, Features], Score], feature: FeatureSpec, **kwargs: object) -> MetricSpec:
    spec = MetricSpec(name, 1, name, "a test metric", (feature,), score, "test")
    return replace(spec, **kwargs)  # type: ignore[arg-type]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    """Three prompts; three videos of the first two (5, 4 and 6 frames)."""
    videos = tmp_path / "videos"
    videos.mkdir()
    (tmp_path / "suite.txt").write_text("a red ball\na blue cube\na silent night\n")
    for name, n, level in (("001-0", 5, 40), ("001-1", 4, 90), ("002-0", 6, 160)):
        write_clip(videos / f"{name}.mp4", gradient_frames(n, 48, 64, level))
    return Request(
        videos=videos,
        subset=str(tmp_path / "suite.txt"),
        out=tmp_path / "run",
        profile="lite",
        dimensions=(BRIGHTNESS, LAST, WORDS),
    )


@pytest.fixture(autouse=True)
def _plain_lookup(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr(evalkit.runner, "find", lambda name, profile: bench.metrics[name])


def scores(record: RunRecord) -> dict[tuple[str, str], float | None]:
    rows = record.results.itertuples()
    return {(r.file, r.dimension): None if r.value is None or r.value != r.value else float(r.value) for r in rows}  # type: ignore[misc]


def reasons(record: RunRecord) -> dict[tuple[str, str], str]:
    table = record.results[record.results["unscored"].notna()]
    return dict(zip(zip(table["file"], table["dimension"], strict=True), table["unscored"], strict=True))


def test_each_video_is_decoded_once_and_a_shared_extractor_runs_once(bench: Bench, request_: Request) -> None:
    score_folder(request_)
    assert bench.did == {"decode": 3, "frames": 15, "load": 1}


def test_looking_ahead_is_said_once_for_each_video_and_in_their_order(
    bench: Bench, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is expected twice would be decoded twice; what is read in another order, begun again."""
    said: list[tuple[str, str]] = []
    real_expect, real_read = Decoder.expect, Decoder.read

    def expect(decoder: Decoder, job: Job) -> None:
        said.append(("expect", job.path.name))
        real_expect(decoder, job)

    def read(decoder: Decoder, job: Job) -> Iterator[FrameChunk]:
        said.append(("read", job.path.name))
        return real_read(decoder, job)

    monkeypatch.setattr(Decoder, "expect", expect)
    monkeypatch.setattr(Decoder, "read", read)
    score_folder(request_)
    expected, read_ = ([name for act, name in said if act == which] for which in ("expect", "read"))
    assert expected == read_
    assert len(set(read_)) == len(read_) == 3
    assert said[1] == ("expect", expected[1])  # before the first is read


def test_a_second_run_computes_nothing(bench: Bench, request_: Request) -> None:
    first = score_folder(request_)
    bench.did.clear()
    second = score_folder(request_)
    assert bench.did == {}
    assert scores(second) == scores(first)
    assert second.summary["dimensions"] == first.summary["dimensions"]


def test_a_changed_input_recomputes_only_what_depends_on_it(bench: Bench, request_: Request) -> None:
    before = scores(score_folder(request_))
    bench.did.clear()
    write_clip(request_.videos / "002-0.mp4", gradient_frames(6, 48, 64, 10))
    after = scores(score_folder(request_))
    assert bench.did["decode"] == 1
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {("002-0.mp4", BRIGHTNESS), ("002-0.mp4", LAST)}


def test_a_new_version_of_a_metric_recomputes_that_metric(bench: Bench, request_: Request) -> None:
    score_folder(request_)
    bench.did.clear()
    bench.metrics[LAST] = replace(bench.metrics[LAST], version=2)
    score_folder(replace(request_, dimensions=(BRIGHTNESS,)))
    assert bench.did == {}
    score_folder(request_)
    assert bench.did["decode"] == 3


def test_a_changed_prompt_recomputes_what_reads_it(bench: Bench, request_: Request) -> None:
    score_folder(request_)
    Path(request_.subset).write_text("a red ball\na blue cube of ice\na silent night\n")
    bench.did.clear()
    after = score_folder(request_)
    assert bench.did["decode"] == 1
    assert scores(after)[("002-0.mp4", WORDS)] == len("a blue cube of ice") / 100


def test_the_same_video_twice_is_scored_once(bench: Bench, request_: Request) -> None:
    (request_.videos / "001-2.mp4").write_bytes((request_.videos / "001-0.mp4").read_bytes())
    record = score_folder(request_)
    assert bench.did["decode"] == 3
    assert scores(record)[("001-2.mp4", BRIGHTNESS)] == scores(record)[("001-0.mp4", BRIGHTNESS)]


@pytest.mark.parametrize("batch", [1, 2, 7, 100])
def test_the_batch_size_changes_nothing(bench: Bench, request_: Request, batch: int) -> None:
    reference = scores(score_folder(request_))
    other = score_folder(replace(request_, out=request_.out.with_name("other"), runtime=Runtime(batch=batch)))
    assert scores(other) == reference


def test_pooling_over_frames_and_over_videos(bench: Bench, request_: Request) -> None:
    record = score_folder(request_)
    found = scores(record)
    values = [found[(f"{name}.mp4", BRIGHTNESS)] for name in ("001-0", "001-1", "002-0")]
    by_frames = np.average(np.array(values, float), weights=[5, 4, 6])
    assert record.summary["dimensions"][BRIGHTNESS]["score"] == pytest.approx(by_frames, rel=1e-12)
    last = [found[(f"{name}.mp4", LAST)] for name in ("001-0", "001-1", "002-0")]
    assert record.summary["dimensions"][LAST]["score"] == pytest.approx(np.mean(np.array(last, float)), rel=1e-12)


def test_what_cannot_be_scored_is_listed_and_counted(bench: Bench, request_: Request) -> None:
    write_clip(request_.videos / "003-0.mp4", gradient_frames(2, 48, 64, 20))
    (request_.videos / "003-1.mp4").write_bytes(b"")
    (request_.videos / "003-2.mp4").write_text("not a video at all")
    whole = (request_.videos / "001-0.mp4").read_bytes()
    (request_.videos / "003-3.mp4").write_bytes(whole[: len(whole) // 2])
    (request_.videos / "holiday.mp4").write_bytes(whole)
    record = score_folder(request_)
    why = reasons(record)
    assert why[("003-0.mp4", LAST)] == "needs at least 3 frames, the clip has 2"
    assert why[("003-0.mp4", WORDS)] == "the prompt is silent"
    assert ("003-0.mp4", BRIGHTNESS) not in why
    for damaged in ("003-1.mp4", "003-2.mp4", "003-3.mp4"):
        assert {key[1] for key in why if key[0] == damaged} == set(bench.metrics)
    assert record.summary["dimensions"][LAST]["n"] == 3
    assert record.summary["dimensions"][LAST]["unscored"] == 4
    assert [u["file"] for u in record.summary["unmatched_files"]] == ["holiday.mp4"]
    assert record.summary["missing_prompts"] == []
    bench.did.clear()
    score_folder(request_)
    assert bench.did["decode"] == 0  # damage is remembered too


def test_prompts_without_a_video_are_missing_and_not_zero(bench: Bench, request_: Request) -> None:
    record = score_folder(request_)
    assert [p["id"] for p in record.summary["missing_prompts"]] == ["003"]
    assert record.summary["dimensions"][BRIGHTNESS]["n"] == 3


def test_dimensions_a_prompt_does_not_ask_for_are_not_scored(bench: Bench, request_: Request, tmp_path: Path) -> None:
    lines = [{"id": "001", "text": "a", "dimensions": ["motion_smoothness"]}, {"id": "002", "text": "b"}]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, lines)))
    record = score_folder(replace(request_, subset=str(tmp_path / "s.jsonl")))
    assert {d for f, d in scores(record) if f.startswith("001")} == {LAST}
    assert record.summary["dimensions"][BRIGHTNESS]["n"] == 1


def test_a_network_that_fails_on_one_video_costs_that_video_only(bench: Bench, request_: Request) -> None:
    def fail(frames_BHWC: Frames) -> None:
        if len(frames_BHWC) == 6:
            raise RuntimeError("out of memory\nwith details")

    bench.fail = fail
    record = score_folder(request_)
    assert reasons(record)[("002-0.mp4", LAST)] == "mean_pixel failed: out of memory"
    assert record.summary["dimensions"][LAST]["n"] == 2
    bench.fail = lambda frames_BHWC: None
    bench.did.clear()
    assert reasons(score_folder(request_)) == {}
    assert bench.did["decode"] == 1  # a failure is tried again


class Freezing(Silent):
    """Stops the process that decodes at the first frames of the scoring, as a dead network share would."""

    def __init__(self) -> None:
        self.frozen = 0

    def start(self, what: str, total: int) -> None:
        self.is_scoring = what.startswith("scoring")

    def advance(self, steps: int = 1) -> None:
        if self.is_scoring and not self.frozen:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            named = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
            (self.frozen,) = (child for child, command in named.items() if b"evalkit.decoding" in command)
            os.kill(self.frozen, signal.SIGSTOP)


def test_a_decoder_that_hangs_costs_its_video_only(bench: Bench, request_: Request) -> None:
    write_clip(request_.videos / "001-0.mp4", gradient_frames(100, 48, 64, 40))  # more than is decoded ahead
    request = replace(request_, limits=Limits(timeout_s=1.0))
    record = score_folder(request, freezing := Freezing())
    assert freezing.frozen
    lost = {file for file, _ in reasons(record)}
    assert lost == {"001-0.mp4"}
    assert set(reasons(record).values()) == {"the decoder gave no frame for 1 s"}
    assert reasons(score_folder(request)) == {}  # the machine was to blame, so it is tried again


def test_not_a_number_is_not_a_score(bench: Bench, request_: Request) -> None:
    bench.metrics[LAST] = replace(bench.metrics[LAST], score=lambda clip, features: Score(float("nan")))
    record = score_folder(request_)
    assert reasons(record)[("001-0.mp4", LAST)] == "the result is not a finite number"
    assert record.summary["dimensions"][LAST]["score"] is None


def test_ctrl_c_keeps_what_is_finished(bench: Bench, request_: Request) -> None:
    def interrupt(frames_BHWC: Frames) -> None:
        if bench.did["decode"] == 2:
            raise KeyboardInterrupt

    bench.fail = interrupt
    partial = score_folder(request_)
    assert partial.summary["interrupted"]
    assert set(reasons(partial).values()) == {"interrupted before it was scored"}
    assert partial.summary["dimensions"][LAST]["n"] == 1
    bench.fail = lambda frames_BHWC: None
    bench.did.clear()
    whole = score_folder(request_)
    assert bench.did["decode"] == 2
    reference = score_folder(replace(request_, out=request_.out.with_name("reference")))
    assert scores(whole) == scores(reference)
    assert whole.summary["dimensions"] == reference.summary["dimensions"]


def test_a_run_directory_of_another_schema_is_refused(bench: Bench, request_: Request) -> None:
    request_.out.mkdir()
    (request_.out / "run.json").write_text('{"schema": "m4v-eval/run/99"}')
    with pytest.raises(UserError, match="has schema 'm4v-eval/run/99'"):
        score_folder(request_)
    assert bench.did == {}


def test_a_run_directory_that_cannot_be_made(bench: Bench, request_: Request) -> None:
    request_.out.write_text("a file in the way")
    with pytest.raises(RunFailed, match="Could not write"):
        score_folder(request_)


def test_the_record_says_where_numbers_come_from(bench: Bench, request_: Request) -> None:
    manifest = score_folder(request_, command=("m4v-eval", "vbench")).manifest
    assert manifest["command"] == ["m4v-eval", "vbench"]
    assert manifest["suite"]["n_prompts"] == 3
    assert len(manifest["suite"]["sha256"]) == 64
    assert manifest["packages"]["numpy"] == np.__version__
    assert manifest["config"]["dimensions"] == [BRIGHTNESS, LAST, WORDS]
    assert manifest["hardware"]["cores"] > 0


def test_posters_are_taken_in_the_same_pass(bench: Bench, request_: Request) -> None:
    record = score_folder(request_)
    for sha256 in record.results["video_sha256"].unique():
        assert record.poster(sha256).read_bytes().startswith(b"\xff\xd8\xff")


KILLED = """
import os, sys
from pathlib import Path
import evalkit.store
from evalkit.job import Request, Silent
from evalkit.runner import score_folder

videos, subset, out, budget = sys.argv[1:]
writes = 0
real = evalkit.store.Journal.put

def put(self, key, record):
    global writes
    writes += 1
    if writes > int(budget):
        os.kill(os.getpid(), 9)
    real(self, key, record)

evalkit.store.Journal.put = put
score_folder(Request(Path(videos), subset, Path(out), "lite", ("temporal_flickering", "lite/imaging_quality")))
"""


def test_a_run_killed_again_and_again_ends_with_the_same_result(tmp_path: Path, request_: Request) -> None:
    """kill -9 at every third write until the run gets through."""
    outs = [tmp_path / "killed", tmp_path / "whole"]
    for out, budget in zip(outs, ("3", "1000"), strict=True):
        command = [sys.executable, "-c", KILLED, str(request_.videos), request_.subset, str(out), budget]
        codes = []
        while not codes or codes[-1] == -9:
            assert len(codes) < 20
            codes.append(subprocess.run(command, check=False).returncode)
        assert codes[-1] == 0
        assert len(codes) > 1 or budget == "1000"
    killed, whole = (json.loads((out / "vbench.json").read_text()) for out in outs)
    assert killed["dimensions"] == whole["dimensions"]
    assert killed["videos"] == whole["videos"]
