"""Every listed ablation, through all stages: trained for a few steps, sampled, scored, recorded."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from evalkit.ablate.command import Request, prepare
from evalkit.ablate.execute import Setting, run_all
from evalkit.ablate.experiment import Experiment, Variant
from evalkit.ablate.record import make_record
from evalkit.ablate.training import losses
from evalkit.ablation import load_all
from evalkit.job import Silent
from evalkit.options import parse_profile

STEPS = 10
SMALL = {"train.batch": 2, "sampler.steps": 2, "sampler.first_frame_steps": 2}
"""The models keep their tiny preset's size: what is small is the number of clips and of sampling steps."""
PROMPT = {
    "id": "p1",
    "text": "a red circle moves left",
    "auxiliary": {"scene": {"objects": [{"colour": "red", "shape": "circle"}], "motion": "left"}},
}


def shrunk(experiment: Experiment) -> Experiment:
    def variant(v: Variant) -> Variant:
        return dataclasses.replace(v, recipe=v.recipe.changed(SMALL))

    before = experiment.pretraining
    return Experiment(
        experiment.base.changed(SMALL),
        tuple(variant(v) for v in experiment.variants),
        before.changed(SMALL) if before else None,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where attention models are kept: ablations of one system start from the same one."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", sorted(load_all()))
def test_every_ablation_trains_samples_and_scores(name: str, cache: Path, tmp_path: Path) -> None:
    """Losses are finite and every variant has its own; the record compares each variant with what it stands against."""
    suite = tmp_path / "one.jsonl"
    suite.write_text(json.dumps(PROMPT) + "\n")
    asked = Request((name,), "tiny", STEPS, 2, (0,), None, str(suite), False, "lite", None, "cpu", 1, tmp_path / "run")
    experiment = shrunk(prepare(asked))
    profile = parse_profile("lite", tmp_path, (), str(suite))
    setting = Setting(asked.out, str(suite), profile, tmp_path, (0,), "cpu", cache)
    record = make_record(experiment, setting, run_all(experiment, setting, Silent()))
    for variant in experiment.variants:
        found = losses(asked.out / variant.name / "seed0" / "train")
        assert len(found) == STEPS
        assert all(map(math.isfinite, found))
        assert (asked.out / variant.name / "seed0" / "videos" / "p1-0.mp4").stat().st_size > 0
    compared = {(c["variant"], c["against"]) for c in record["comparisons"]}
    assert compared == {(v.name, v.against) for v in experiment.variants[1:]}
    assert all("truth/colour" in v["metrics"] for v in record["variants"])
