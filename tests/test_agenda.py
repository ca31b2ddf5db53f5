"""Everything on the agenda is handed out once, in lanes that are about equally long, and twins never side by side."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from evalkit.agenda import Agenda, Entry
from evalkit.engine import Task
from evalkit.job import Shard, Video
from evalkit.shards import part
from evalkit.types import Clip, Prompt, Sample, VideoInfo

Drawn = list[tuple[int, frozenset[str], int, int]]
drawn = st.lists(
    st.tuples(
        st.integers(0, 5),  # content
        st.frozensets(st.sampled_from("abc"), min_size=1),  # features
        st.integers(1, 40),  # frames
        st.integers(0, 3),  # turn
    ),
    max_size=14,
)


def sample(n: int, prompt: str) -> Sample:
    return Sample(Path(f"{n}.mp4"), f"{n}.mp4", Prompt(prompt, prompt), 0)


def entries(videos: Drawn, with_turns: bool = True) -> list[Entry]:
    found = []
    for n, (content, features, frames, turn) in enumerate(videos):
        info = VideoInfo(8, 8, frames, 8.0, "h264", "yuv420p")
        found.append(Entry(Video(sample(n, "p"), str(content), info), features, turn if with_turns else None))
    return found


def task_of(video: Video) -> Task:
    return Task(video, Clip(video.info, "p"), {}, None)


@given(drawn, st.integers(1, 4), st.randoms(use_true_random=False))
def test_every_video_is_done_once_whoever_is_quickest(videos: Drawn, lanes: int, random: Any) -> None:
    agenda = Agenda(entries(videos), lanes, task_of)
    by_file = {entry.video.sample.file: entry for entry in entries(videos)}
    out: list[Task] = []
    done: list[str] = []
    while len(agenda):
        task = agenda.take(random.randrange(lanes))
        if task:
            here = by_file[task.video.sample.file]
            for other in out:
                there = by_file[other.video.sample.file]
                assert here.video.sha256 != there.video.sha256
                assert here.turn != there.turn
            out.append(task)
        if out and (task is None or random.random() < 0.5):
            finished = out.pop(random.randrange(len(out)))
            wanted = {f for file, e in by_file.items() if file not in done for f in e.features}
            assert agenda.still_wanted == wanted
            agenda.done(finished)
            done.append(finished.video.sample.file)
    assert sorted(done) == sorted(by_file)
    assert agenda.still_wanted == frozenset()


@given(drawn)
def test_one_lane_keeps_networks_together(videos: Drawn) -> None:
    different = [(n, *rest) for n, (_, *rest) in enumerate(videos)]
    agenda = Agenda(entries(different, with_turns=False), 1, task_of)  # type: ignore[arg-type]
    groups = []
    while task := agenda.take(0):
        groups.append(videos[int(Path(task.video.sample.file).stem)][1])
        agenda.done(task)
    changes = sum(a != b for a, b in pairwise(groups))
    assert changes == max(0, len(set(groups)) - 1)


def test_what_is_given_back_comes_first_again() -> None:
    agenda = Agenda(entries([(n, frozenset("a"), 10, n) for n in range(4)]), 2, task_of)
    first, other = agenda.take(0), agenda.take(1)
    assert first
    assert other
    assert {first.video.sha256, other.video.sha256} == {"0", "2"}  # lanes of neighbours
    agenda.give_back(first, 0)
    again = agenda.take(0)
    assert again == first
    assert len(agenda) == 4


def test_an_empty_lane_helps_the_longest_from_its_end() -> None:
    agenda = Agenda(entries([(n, frozenset("a"), 10, n) for n in range(6)]), 2, task_of)
    mine = [agenda.take(0) for _ in range(4)]
    assert [task.video.sha256 for task in mine if task] == ["0", "1", "2", "5"]


def test_what_lacks_nothing_any_more_is_struck_off() -> None:
    agenda = Agenda(entries([(n, frozenset("a"), 10, n) for n in range(3)]), 1, lambda video: None)
    assert agenda.take(0) is None
    assert len(agenda) == 0
    assert agenda.still_wanted == frozenset()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 12), st.randoms(use_true_random=False))
def test_shards_are_whole_prompts_equally_many_and_all_of_them(sizes: list[int], count: int, random: Any) -> None:
    samples = [sample(n, f"{p:02d}") for p, size in enumerate(sizes) for n in range(size)]
    random.shuffle(samples)
    shards = [part(samples, Shard(index, count)) for index in range(count)]
    assert sorted(map(repr, (s for shard in shards for s in shard))) == sorted(map(repr, samples))
    ids = [{s.prompt.id for s in shard} for shard in shards]
    assert sum(map(len, ids)) == len(sizes)
    assert max(map(len, ids)) - min(map(len, ids)) <= 1
