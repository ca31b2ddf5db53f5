"""What a plan counts: VBench's protocol, and files of one's own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from evalkit.budget.work import FULL, full_suite, work_of
from evalkit.errors import UserError
from evalkit.metrics import DIMENSIONS
from evalkit.prompts import by_text, read_suite
from evalkit.protocol import surplus
from evalkit.runner import choose_metrics
from evalkit.types import PromptSuite, Sample

ENTRIES = {
    "subject_consistency": 72,
    "background_consistency": 86,
    "temporal_flickering": 75,
    "motion_smoothness": 72,
    "dynamic_degree": 72,
    "aesthetic_quality": 93,
    "imaging_quality": 93,
    "object_class": 79,
    "multiple_objects": 82,
    "human_action": 100,
    "color": 85,
    "spatial_relationship": 84,
    "scene": 86,
    "appearance_style": 90,
    "temporal_style": 100,
    "overall_consistency": 93,
}
"""Prompts of each dimension in VBench's own list, counted in the file by hand."""


def test_the_full_suite_at_five_a_prompt() -> None:
    work = work_of("full", "official")
    assert (work.entries, work.listed) == (946, 4730)
    assert len(work.asked) == 944  # two texts stand twice
    assert work.videos == 5 * 944
    assert work.candidates == 25 * 75
    assert work.files == 5 * (944 - 75) + 25 * 75
    assert work.results == {dimension: 5 * count for dimension, count in ENTRIES.items()}
    assert set(work.results) == set(DIMENSIONS)


def samples(suite: PromptSuite, count: int) -> list[Sample]:
    prompts = by_text(suite.prompts).values()
    return [Sample(Path(), f"{p.text}-{k}.mp4", p, k) for p in prompts for k in range(count)]


@pytest.mark.parametrize("count", [3, 5, 7])
def test_as_many_videos_count_as_the_protocol_lets(count: int) -> None:
    suite = full_suite()
    metrics = choose_metrics(("imaging_quality", "object_class", "scene"), suite, "official")
    left_out = surplus(samples(suite, count), metrics)
    expected = Counter(
        metric.name
        for sample in samples(suite, count)
        for metric in metrics
        if sample.prompt.asks_for(metric.dimension) and metric.dimension not in left_out.get(sample.file, ())
    )
    work = work_of("full", "official", [metric.name for metric in metrics], per_prompt=count)
    assert work.results == expected
    assert work.entries == 93 + 79 + 86


def test_the_list_itself_gives_the_same_work(tmp_path: Path) -> None:
    """A file in the official form, with VBench's numbers, is counted as `full` is without the file."""
    entries = [
        {"prompt_en": prompt.text, "dimension": list(prompt.dimensions), "auxiliary_info": facts(prompt.dimensions)}
        for prompt in full_suite().prompts
    ]
    (tmp_path / "VBench_full_info.json").write_text(json.dumps(entries))
    listed = work_of(str(tmp_path / "VBench_full_info.json"), "official")
    named = work_of("full", "official")
    assert read_suite(tmp_path / "VBench_full_info.json").standard
    assert listed.asked == named.asked
    assert listed.entries == named.entries == sum(count for _, count in FULL)


def facts(dimensions: tuple[str, ...]) -> dict[str, dict[str, str]]:
    fields = {
        "object_class": ["object"],
        "multiple_objects": ["object"],
        "color": ["color", "object"],
        "human_action": ["action"],
        "scene": ["scene"],
        "appearance_style": ["appearance_style"],
        "spatial_relationship": ["spatial_relationship"],
    }
    texts = {"object": "a dog and a cat", "color": "red"}
    relation = {"object_a": "dog", "object_b": "cat", "relationship": "on the left of"}
    return {
        name: relation if name == "spatial_relationship" else {f: texts.get(f, "x") for f in fields[name]}
        for name in dimensions
        if name in fields
    }


def test_a_file_of_ones_own_is_scored_once_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a dog\na cat\n")
    work = work_of(str(tmp_path / "mine.txt"), "lite")
    assert (work.entries, work.per_prompt, work.videos, work.files, work.candidates) == (2, 1, 2, 2, 0)
    assert len(work.results) == 7
    assert not work.static_filter
    assert work_of(str(tmp_path / "mine.txt"), "lite", per_prompt=4).videos == 8


def test_flickering_alone_needs_all_candidates_and_scores_five() -> None:
    work = work_of("full", "official", ["temporal_flickering"])
    assert (work.videos, work.files) == (5 * 75, 25 * 75)
    assert work.features["static_filter"] == ("raft_static",)
    lite = work_of("full", "lite", ["temporal_flickering"])
    assert (lite.videos, lite.files) == (5 * 75, 5 * 75)  # the filter is a network: lite has none


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(UserError, match=r"no prompt suite called .fulll.*full"):
        work_of("fulll", "official")
    with pytest.raises(UserError, match=r"imaging_qualty.*imaging_quality"):
        work_of("full", "official", ["imaging_qualty"])
