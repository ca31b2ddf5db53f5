"""The harness on trained models whose difference is known: what it must find, and what it must not.

Slow: models are trained, on one core in a few minutes. The metrics are those of any ablation of the tiny preset.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from evalkit.ablate.command import Request, prepare
from evalkit.ablate.compare import compare_variants
from evalkit.ablate.execute import Setting, run_all
from evalkit.ablate.experiment import Experiment
from evalkit.ablate.record import make_record
from evalkit.job import Silent
from evalkit.options import parse_profile
from evalkit.records import RunRecord

pytestmark = pytest.mark.slow


def asked(out: Path, *names: str, **changes: Any) -> tuple[Request, Setting]:
    fields = {"steps": 400, "pretrain_steps": 600, "seeds": (0,), "subset": "shapes50"} | changes
    rest = {"data": None, "cumulative": False, "profile": "lite", "weights": None, "device": "cpu", "threads": 1}
    request = Request(names=names, preset="tiny", out=out, **fields, **rest)
    profile = parse_profile("lite", out, (), str(fields["subset"]))
    return request, Setting(out, str(fields["subset"]), profile, out, request.seeds, "cpu", out / "cache")


def verdicts(request: Request, setting: Setting) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Comparisons of an experiment by variant and metric."""
    experiment = prepare(request)
    record = make_record(experiment, setting, run_all(experiment, setting, Silent()))
    return {(c["variant"], c["metric"]): c for c in record["comparisons"]}


def test_planted_cripplings_are_found(tmp_path: Path) -> None:
    """Without captions colours are guessed (one of five is right), and with shuffled frames pictures flicker."""
    found = verdicts(*asked(tmp_path, "control-no-text", "control-shuffled-frames"))
    colour = found["control-no-text", "truth/colour"]
    assert colour["verdict"] == "worse"
    assert colour["ci95"][1] < -0.3
    flicker = found["control-shuffled-frames", "temporal_flickering"]
    assert flicker["verdict"] == "worse"
    # Each control spoils what it is meant to and nothing else: the shuffled clips keep their colours.
    assert found["control-shuffled-frames", "truth/colour"]["verdict"] == "not distinguishable"


def test_the_transplant_is_found(tmp_path: Path) -> None:
    """Started from attention weights, a Mamba is ahead of a fresh one after the same short training."""
    found = verdicts(*asked(tmp_path, "transplant", steps=100))
    assert found["transplant", "truth/colour"]["verdict"] == "better"


SEEDS = 8


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """One recipe, trained with eight seeds and scored."""
    out = tmp_path_factory.mktemp("alike")
    request, setting = asked(out, "control-no-text", steps=60, seeds=tuple(range(SEEDS)))
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
