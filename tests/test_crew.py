"""Workers: the same scores as one process, whoever scores what and whoever dies."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import evalkit.runner
from evalkit.backbones.base import Extractor, FeatureSpec, Runtime
from evalkit.errors import RunFailed, UserError
from evalkit.events import Doing, Event, Failed
from evalkit.job import Request, Shard
from evalkit.metrics.base import MetricSpec
from evalkit.records import RunRecord
from evalkit.runner import score_folder, score_shard
from evalkit.suites.base import Suite, SuiteRules
from evalkit.suites.i2v import ImageToVideo
from evalkit.suites.long import Long
from evalkit.timings import read
from evalkit.weights import WeightStore
from tests.clips import gradient_frames, write_clip
from tests.deadly import Deadly, Fatal, brightness, refuse
from tests.parity import checkpoints

LEVELS = {"001-0": 40, "001-1": 60, "002-0": 80, "003-0": 100, "003-1": 120, "004-0": 140}
LITE = ("temporal_flickering", "lite/imaging_quality", "lite/subject_consistency", "lite/overall_consistency")


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    videos = tmp_path / "videos"
    videos.mkdir()
    (tmp_path / "suite.txt").write_text("a red ball\na blue cube\na silent night\na green hill\n")
    for n, (name, level) in enumerate(LEVELS.items()):
        write_clip(videos / f"{name}.mp4", gradient_frames(4 + n, 48, 64, level))
    (videos / "002-1.mp4").write_bytes((videos / "001-0.mp4").read_bytes())  # a twin for another prompt
    return Request(videos, str(tmp_path / "suite.txt"), tmp_path / "run", "lite", LITE)


class Watched:
    """Progress that remembers, and does something at an event."""

    def __init__(self, act: Callable[[Event], None] = lambda event: None) -> None:
        self.events: list[Event] = []
        self.total = self.steps = 0
        self.act = act

    def start(self, what: str, total: int) -> None:
        self.total, self.steps = total, 0

    def advance(self, steps: int = 1) -> None:
        self.steps += steps

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.act(event)

    @property
    def failed(self) -> list[Failed]:
        return [event for event in self.events if isinstance(event, Failed)]


def found(record: RunRecord) -> tuple[Any, Any]:
    """What must not depend on who computed it."""
    table = record.results.drop(columns=[]).to_dict("records")
    return repr(table), {k: v for k, v in record.summary.items() if k != "provenance"}


def test_workers_find_what_one_process_finds(request_: Request) -> None:
    alone = score_folder(request_)
    watched = Watched()
    together = score_folder(replace(request_, out=request_.out.with_name("two"), workers=2), watched)
    assert found(together) == found(alone)
    assert watched.steps == watched.total == sum(range(4, 10)) + 4
    files = {event.what for event in watched.events if isinstance(event, Doing)}
    assert {f"{name}.mp4" for name in LEVELS} | {"002-1.mp4", ""} == files
    stills = [sorted(p.name for p in (r.path / "posters").iterdir()) for r in (alone, together)]
    assert stills[0] == stills[1]
    assert multiprocessing.active_children() == []
    (spent,) = read(together.path)
    assert (spent.workers, spent.start.videos, spent.score.videos) == (2, 2, 7)
    assert spent.features["mean_pixel" if "mean_pixel" in spent.features else next(iter(spent.features))].frames > 0


@pytest.mark.slow
def test_networks_of_full_size_give_workers_the_same_bits(request_: Request, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    checkpoints.write(weights, ("dino", "musiq", "amt"), None)
    official = replace(
        request_,
        profile="official",
        dimensions=("subject_consistency", "imaging_quality", "motion_smoothness", "temporal_flickering"),
        weights=weights,
        trust_archives=True,
        threads=1,
    )
    before = torch.get_num_threads()
    try:
        alone = score_folder(official)
        together = score_folder(replace(official, out=tmp_path / "two", workers=2))
    finally:
        torch.set_num_threads(before)
    assert found(together) == found(alone)
    assert alone.summary["dimensions"]["subject_consistency"]["n"] == 7


def test_what_one_process_began_workers_finish(request_: Request) -> None:
    whole = score_folder(request_)
    journal = request_.out / "results.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    other = request_.out.with_name("other")
    other.mkdir()
    (other / "results.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    assert found(score_folder(replace(request_, out=other, workers=3))) == found(whole)


def test_shards_find_what_one_process_finds(request_: Request) -> None:
    whole = score_folder(request_)
    apart = replace(request_, out=request_.out.with_name("apart"))
    shards = [Shard(index, 3) for index in range(3)]
    assert not any(score_shard(apart, shard) for shard in shards[:2])
    partial = score_folder(apart, compute=False)
    missing = [reason for video in partial.summary["videos"] for reason in video["unscored"].values()]
    assert set(missing) == {"no shard has scored it"}
    assert not partial.summary["interrupted"]
    assert not (apart.out / "shards").exists() or not list((apart.out / "shards").iterdir())
    score_shard(apart, shards[2])
    assert found(score_folder(apart, compute=False)) == found(whole)
    assert sum(spent.score.videos for spent in read(apart.out)) == 6 + 1  # a twin is scored by two of them


@pytest.mark.parametrize("suite", [Long(split_scenes=True), ImageToVideo(Path())])
def test_rules_travel_to_other_hosts(suite: Suite) -> None:
    rules = pickle.loads(pickle.dumps(SuiteRules(suite)))
    assert rules.benchmark.schema == suite.benchmark.schema
    assert rules.suite.benchmark.settings == suite.benchmark.settings


# --- workers that die -------------------------------------------------------------------------------------------------


def use(monkeypatch: pytest.MonkeyPatch, load: Callable[[WeightStore, Runtime], Extractor]) -> tuple[str, ...]:
    """Make the only metric one with this extractor."""
    name = "lite/imaging_quality"
    metric = MetricSpec(name, 1, name, "", (FeatureSpec("mean_pixel", 1, load),), brightness, "test")
    monkeypatch.setattr(evalkit.runner, "registry", lambda profile: {name: metric})
    monkeypatch.setattr(evalkit.runner, "find", lambda name, profile: metric)
    return (name,)


def mean_of(name: str) -> float:
    return gradient_frames(1, 48, 64, LEVELS[name]).mean()


@pytest.mark.parametrize("lives", [1, 2])
def test_a_killed_worker_is_replaced_and_its_video_tried_once_more(
    lives: int, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lives").mkdir()
    for life in range(lives):
        (tmp_path / "lives" / str(life)).touch()
    deadly = Deadly(round(mean_of("003-0")), str(tmp_path / "lives"))
    request = replace(request_, dimensions=use(monkeypatch, deadly), workers=2)
    watched = Watched()
    record = score_folder(request, watched)
    unscored = {video["file"]: list(video["unscored"].values()) for video in record.summary["videos"]}
    missed = {file: reasons for file, reasons in unscored.items() if reasons}
    reason = "2 workers were lost over it: the last one was killed (SIGKILL)"
    assert missed == ({"003-0.mp4": [reason]} if lives == 2 else {})
    assert len(watched.failed) == lives
    assert "was killed (SIGKILL) at 003-0.mp4; another goes on" in watched.failed[0].why
    if lives == 2:  # nobody dies any more: the next run scores it
        assert score_folder(request).summary["dimensions"]["lite/imaging_quality"]["unscored"] == 0


def test_networks_that_do_not_load_end_the_run(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    request = replace(request_, dimensions=use(monkeypatch, refuse), workers=2)
    with pytest.raises(UserError) as refused:
        score_folder(request)
    assert (refused.value.what, refused.value.remedy) == ("The checkpoint does not fit.", "Fetch it again.")
    assert multiprocessing.active_children() == []


def test_workers_that_never_start_end_the_run(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    request = replace(request_, dimensions=use(monkeypatch, Fatal()), workers=2)
    with pytest.raises(RunFailed, match=r"end as soon as they start: the last one ended with exit code 7"):
        score_folder(request)


def test_ctrl_c_keeps_what_has_come_back(request_: Request) -> None:
    def interrupt(event: Event) -> None:
        if len({e.what for e in watched.events if isinstance(e, Doing)}) == 4:
            signal.raise_signal(signal.SIGINT)

    watched = Watched(interrupt)
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        partial = score_folder(replace(request_, workers=2), watched)
    finally:
        signal.signal(signal.SIGINT, before)
    assert partial.summary["interrupted"]
    assert multiprocessing.active_children() == []
    whole = score_folder(replace(request_, workers=2))
    assert found(whole) == found(score_folder(replace(request_, out=request_.out.with_name("reference"))))
