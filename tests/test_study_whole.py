"""From planning to figures: raters with known preferences answer a planned study, and its figures say so."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evalkit.cli import build_app
from evalkit.demo import LOOKS, make_clips
from evalkit.errors import UserError
from evalkit.study.aggregate import aggregate
from evalkit.study.plan_file import VOTES, load_plan
from evalkit.study.simulate import Raters
from evalkit.study.votes import VoteStore

WORTHS = {
    "aesthetic_quality": {"sharp": 1.5, "jerky": 0.5, "soft": -2.0},
    "motion_smoothness": {"sharp": 1.0, "soft": 0.8, "jerky": -1.8},
    "semantic_coherence": {"sharp": 0.0, "soft": 0.0, "jerky": 0.0},
}
"""What the simulated raters prefer: on the last axis nothing."""


def run(*words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(build_app(), [*map(str, words)], env={"COLUMNS": "120"})
    assert done.exit_code == code, done.output + repr(done.exception)
    return done.output


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looks")
    for look in LOOKS:
        make_clips(folder / look, look)
    return folder


def plan_study(folders: Path, out: Path, protocol: str, raters: int) -> None:
    videos = [f"{look}={folders / look}" for look in LOOKS]
    words = ["study", "new", "--suite", folders / "sharp" / "prompts.jsonl", "--videos", *videos]
    run(*words, "--protocol", protocol, "--raters", str(raters), "--out", out)


def vote(study: Path, careless: float) -> Raters:
    """Every planned screen is answered; the share `careless` of the raters answers anything."""
    plan = load_plan(study)
    models = tuple(LOOKS)
    worths = {axis: tuple(of[model] for model in models) for axis, of in WORTHS.items()}
    raters = Raters(models, worths, careless=careless, rater_sd=0.2, prompt_sd=0.2, tie=0.3, seed=11)
    with closing(VoteStore(study / VOTES).open(plan)) as store:
        for rater in plan.raters:
            for place, screen in enumerate(rater.screens):
                for axis, answer in raters.answer(rater.id, screen, plan.clips, plan.protocol, ties=plan.ties).items():
                    store.cast(rater.id, place, axis, answer, seconds=9.0, key=f"{rater.id}-{place}-{axis}")
    return raters


@pytest.mark.parametrize("protocol", ["rank", "pairwise", "likert5"])
def test_preferences_come_back(protocol: str, folders: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    plan_study(folders, study, protocol, raters=16)
    raters = vote(study, careless=0.25)
    output = run("study", "aggregate", study, "--json", tmp_path / "found.json", "--csv", tmp_path / "votes.csv",
                 "--out", tmp_path / "page.html")  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())
    excluded = set(found["screening"]["excluded"])
    plan = load_plan(study)
    careless = {rater.id for rater in plan.raters if raters.is_careless(rater.id)}
    assert careless
    assert excluded <= careless  # nobody who looked is thrown out; a guess may pass a check
    assert f"raters: 16 of 16 planned; attention checks met by 16; excluded: {len(excluded)}" in " ".join(
        output.split()
    )
    aesthetic, motion = (found["axes"][axis] for axis in ("aesthetic_quality", "motion_smoothness"))
    assert aesthetic["order"] == ["sharp", "jerky", "soft"]
    assert motion["order"][-1] == "jerky"
    assert aesthetic["models"]["soft"]["against"]["sharp"]["p_adjusted"] < 0.05
    page = (tmp_path / "page.html").read_text()
    assert all(look in page for look in LOOKS)
    # The exported votes are the study: the same figures come out of them, attention checks aside.
    run("study", "aggregate", tmp_path / "votes.csv", "--json", tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["axes"] == found["axes"]


def test_half_a_study_is_aggregated_and_counted(folders: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    plan_study(folders, study, "rank", raters=4)
    with pytest.raises(UserError, match="no votes yet"):
        aggregate(study)
    plan = load_plan(study)
    with closing(VoteStore(study / VOTES).open(plan)) as store:
        for place, _ in enumerate(plan.raters[0].screens[:3]):
            store.cast("r001", place, "motion_smoothness", (1, 2, 3), seconds=4.0, key=f"k{place}")
    run("study", "aggregate", study, "--json", tmp_path / "found.json", code=3)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["screening"]["n_raters"] == 1
    assert found["screening"]["n_planned"] == 4
    assert found["screening"]["n_unfinished"] == len(plan.raters[0].screens)
    assert found["axes"]["motion_smoothness"]["n_votes"] <= 3
