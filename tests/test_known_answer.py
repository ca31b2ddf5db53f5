"""The harness on trained models whose difference is known: what it must find, and what it must not.

Slow: models are trained, on one core in a few minutes. The metrics are those of any ablation of the tiny preset.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit.ablate.command import Request, prepare
from evalkit.ablate.compare import compare_variants
from evalkit.ablate.execute import Setting, run_all
from evalkit.ablate.experiment import Experiment
from evalkit.ablate.record import make_record
from evalkit.job import Silent
from evalkit.options import parse_profile
from evalkit.records import RunRecord

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def both_cores() -> Iterator[None]:
    """The tests of this file run alone, and share one attention pre-training that takes most of their time."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def asked(out: Path, cache: Path, *names: str, **changes: Any) -> tuple[Request, Setting]:
    fields = {"pretrain_steps": 1400, "seeds": (0,), "subset": "shapes50"} | changes
    rest = {"data": None, "cumulative": False, "profile": "lite", "weights": None, "device": "cpu", "threads": None}
    request = Request(names=names, preset="tiny", out=out, **fields, **rest)
    profile = parse_profile("lite", out, (), str(fields["subset"]))
    return request, Setting(out, str(fields["subset"]), profile, out, request.seeds, "cpu", cache, jobs=2)


def verdicts(request: Request, setting: Setting) -> dict[str, Mapping[str, Any]]:
    """What an experiment of one variant says of each metric."""
    experiment = prepare(request)
    record = make_record(experiment, setting, run_all(experiment, setting, Silent()))
    assert len(record["variants"]) == 2
    return {c["metric"]: c for c in record["comparisons"]}


def test_a_model_without_captions_is_found(tmp_path: Path, cache: Path) -> None:
    """Colours are guessed (one of five is right) where a short training has learned them."""
    found = verdicts(*asked(tmp_path, cache, "control-no-text", steps=300))
    assert found["truth/colour"]["verdict"] == "worse"
    assert found["truth/colour"]["ci95"][1] < -0.3


def test_a_model_of_shuffled_frames_is_found(tmp_path: Path, cache: Path) -> None:
    """Motion is lost, and colours are not: the control spoils what it is meant to."""
    found = verdicts(*asked(tmp_path, cache, "control-shuffled-frames", steps=300))
    assert found["truth/motion"]["verdict"] == "worse"
    assert found["truth/colour"]["verdict"] == "not distinguishable"


def test_the_transplant_is_found(tmp_path: Path, cache: Path) -> None:
    """Started from attention weights, a Mamba is ahead of a fresh one after the same short training."""
    found = verdicts(*asked(tmp_path, cache, "transplant", steps=100))
    assert found["truth/motion"]["verdict"] == "better"


SEEDS = 8


@pytest.fixture(scope="module")
def alike(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """One recipe, trained with eight seeds and scored."""
    out = tmp_path_factory.mktemp("alike")
    request, setting = asked(out, cache, "control-no-text", steps=60, seeds=tuple(range(SEEDS)))
    experiment = prepare(request)
    baseline = experiment.baseline
    small = baseline.recipe.changed({"sampler.steps": 10, "sampler.first_frame_steps": 10, "train.batch": 8})
    alone = Experiment(experiment.base, (dataclasses.replace(baseline, recipe=small),), None)
    return run_all(alone, setting, Silent())[baseline.name]


def rejections(runs: Sequence[RunRecord], size: int) -> list[bool]:
    """Whether anything is called different, for all ways to give two variants `size` of the runs each."""
    found = []
    for first in combinations(range(len(runs)), size):
        left = [k for k in range(len(runs)) if k not in first]
        for second in combinations(left, size):
            if first < second:
                sides = {"a": [runs[k] for k in first], "b": [runs[k] for k in second]}
                compared = compare_variants(sides, [("b", "a")])
                found.append(any(c.verdict in ("better", "worse") for c in compared))
    return found


def test_identical_variants_are_not_told_apart(alike: list[RunRecord]) -> None:
    """One recipe under two names, four training seeds each, in all 35 ways: at 5 % at most 3 are called different."""
    found = rejections(alike, SEEDS // 2)
    assert len(found) == 35
    assert sum(found) <= 3
