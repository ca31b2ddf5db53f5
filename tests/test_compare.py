"""Comparing two runs: pairing, refusals, direction, and what the command says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from evalkit.cli import INCOMPLETE, build_app
from evalkit.compare import compare_runs
from evalkit.errors import UserError
from evalkit.records import RESULT_COLUMNS, RUN_SCHEMA, VBENCH_SCHEMA, load_run

SHA = "ab" * 32
Scores = Mapping[str, Mapping[str, list[float | None]]]  # dimension -> prompt -> one value a seed


def fabricate(path: Path, scores: Scores, version: int = 1, **changes: Any) -> Path:
    """Write a run directory that holds these scores and no videos."""
    manifest: dict[str, Any] = {
        "schema": RUN_SCHEMA,
        "suite": {"name": "made-up", "sha256": SHA, "n_prompts": 20},
        "profile": "official",
        "precision": "fp32",
        "weights": {"dino": SHA, "clip": SHA},
    } | changes
    rows = [
        {
            "file": f"{prompt}-{seed}.mp4",
            "prompt_id": prompt,
            "prompt": f"a picture of {prompt}",
            "seed": seed,
            "dimension": dimension,
            "version": version,
            "value": value,
            "n_terms": 15,
            "unscored": "too short" if value is None else None,
            "key": f"{prompt}-{seed}-{dimension}",
        }
        for dimension, prompts in scores.items()
        for prompt, values in prompts.items()
        for seed, value in enumerate(values)
    ]
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps(manifest))
    (path / "vbench.json").write_text(
        json.dumps(
            {
                "schema": VBENCH_SCHEMA,
                "profile": manifest["profile"],
                "dimensions": {name: {"higher_is_better": not name.startswith("low")} for name in scores},
                "missing_prompts": changes.get("missing", []),
            }
        )
    )
    pd.DataFrame(rows, columns=list(RESULT_COLUMNS)).astype(RESULT_COLUMNS).to_parquet(path / "results.parquet")
    return path


def by_prompt(values: np.ndarray) -> dict[str, list[float | None]]:
    return {f"p{i:02d}": [float(v) for v in row] for i, row in enumerate(np.atleast_2d(values.T).T)}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Twenty prompts, two seeds each; one dimension clearly up, one clearly down, one with noise only."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.4, 0.6, size=(20, 2))
    noise = rng.normal(0, 0.01, size=(3, 20, 2))
    a = {name: by_prompt(base) for name in ("aesthetic_quality", "imaging_quality", "motion_smoothness")}
    b = {
        "aesthetic_quality": by_prompt(base + 0.05 + noise[0]),
        "imaging_quality": by_prompt(base - 0.05 + noise[1]),
        "motion_smoothness": by_prompt(base + noise[2] - noise[2].mean()),
    }
    return fabricate(tmp_path / "a", a), fabricate(tmp_path / "b", b)


def compare(a: Path, b: Path) -> dict[str, Any]:
    return compare_runs(load_run(a), load_run(b)).to_json()


def test_finds_what_was_planted(runs: tuple[Path, Path]) -> None:
    found = {row["metric"]: row for row in compare(*runs)["comparisons"]}
    assert {name: row["verdict"] for name, row in found.items()} == {
        "aesthetic_quality": "better",
        "imaging_quality": "worse",
        "motion_smoothness": "not distinguishable",
    }
    up = found["aesthetic_quality"]
    assert up["delta"] == pytest.approx(up["mean_b"] - up["mean_a"], abs=1e-12)
    assert up["ci95"][0] < up["delta"] < up["ci95"][1]
    assert up["ci95"][0] == pytest.approx(0.05, abs=0.01)
    assert up["n"] == 20
    assert up["p_value"] <= up["p_adjusted"] <= 3 * up["p_value"] + 1e-12


def test_a_run_against_itself_differs_nowhere(runs: tuple[Path, Path]) -> None:
    for row in compare(runs[0], runs[0])["comparisons"]:
        assert row["delta"] == 0.0
        assert row["ci95"] == [0.0, 0.0]
        assert row["p_value"] == row["p_adjusted"] == 1.0
        assert row["verdict"] == "not distinguishable"


def test_swapping_the_runs_swaps_the_sign(runs: tuple[Path, Path]) -> None:
    forth, back = compare(*runs)["comparisons"], compare(*reversed(runs))["comparisons"]
    opposite = {"better": "worse", "worse": "better", "not distinguishable": "not distinguishable"}
    for one, other in zip(forth, back, strict=True):
        assert one["delta"] == pytest.approx(-other["delta"], abs=1e-15)
        assert one["verdict"] == opposite[other["verdict"]]


def test_seeds_are_averaged_within_a_prompt(tmp_path: Path) -> None:
    """A prompt with many seeds weighs as much as one with a single seed."""
    a = fabricate(tmp_path / "a", {"color": {"p": [0.0], "q": [0.0]}})
    b = fabricate(tmp_path / "b", {"color": {"p": [0.1, 0.2, 0.3, 0.6], "q": [0.5]}})
    (row,) = compare(a, b)["comparisons"]
    assert row["delta"] == pytest.approx((0.3 + 0.5) / 2)
    assert row["n"] == 2


def test_lower_can_be_better(tmp_path: Path) -> None:
    up = {f"p{i}": [0.5 + 0.01 * i] for i in range(10)}
    a = fabricate(tmp_path / "a", {"low_is_good": {prompt: [0.4] for prompt in up}})
    b = fabricate(tmp_path / "b", {"low_is_good": up})
    (row,) = compare(a, b)["comparisons"]
    assert row["delta"] > 0
    assert row["verdict"] == "worse"


def test_what_was_not_compared_is_counted_with_reasons(tmp_path: Path) -> None:
    a = fabricate(
        tmp_path / "a",
        {"color": {"p": [0.5], "q": [None], "r": [0.2, None], "s": [0.1]}, "scene": {"p": [0.1]}},
        missing=[{"id": "t", "text": "t"}, {"id": "u", "text": "u"}],
    )
    b = fabricate(tmp_path / "b", {"color": {"p": [0.5], "q": [0.4], "r": [0.2]}}, missing=[{"id": "t", "text": "t"}])
    found = compare(a, b)
    (row,) = found["comparisons"]
    assert row["n"] == 2  # p, and r by its scored seed
    assert row["not_compared"] == {"not scored in a": 1, "no video in b": 1}
    assert found["only_in"] == {"scene": "a"}
    assert found["in_neither"] == 1


def test_nothing_to_compare_is_said_and_not_zero(tmp_path: Path) -> None:
    a = fabricate(tmp_path / "a", {"color": {"p": [None]}, "scene": {"p": [0.1]}})
    b = fabricate(tmp_path / "b", {"color": {"p": [0.5]}, "scene": {"p": [0.3]}})
    color, scene = compare(a, b)["comparisons"]
    assert color["delta"] is color["ci95"] is color["p_value"] is color["p_adjusted"] is None
    assert color["verdict"] == "not compared"
    assert scene["delta"] == pytest.approx(0.2)
    assert scene["ci95"] is None  # one prompt cannot tell how prompts vary
    assert scene["p_adjusted"] == 1.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"suite": {"name": "other", "sha256": "cd" * 32, "n_prompts": 20}}, "prompt suites made-up"),
        ({"profile": "lite"}, "profile official and lite"),
        ({"precision": "bf16"}, "precision fp32 and bf16"),
        ({"weights": {"dino": "cd" * 32, "clip": SHA}}, "checkpoint dino abababababab and cdcdcdcdcdcd"),
        ({"version": 2}, "color version 1 and 2"),
    ],
)
def test_unlike_runs_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    scores: Scores = {"color": {"p": [0.5], "q": [0.4]}}
    a, b = fabricate(tmp_path / "a", scores), fabricate(tmp_path / "b", scores, **change)
    with pytest.raises(UserError, match="do not compare") as refused:
        compare(a, b)
    assert said in refused.value.what
    assert refused.value.what.count(";") == 0  # nothing else differs


def test_refusal_names_everything_that_differs(tmp_path: Path) -> None:
    scores: Scores = {"color": {"p": [0.5]}}
    a = fabricate(tmp_path / "a", scores)
    b = fabricate(tmp_path / "b", scores, version=3, profile="lite", precision="fp16")
    with pytest.raises(UserError, match=r"profile.*precision.*version"):
        compare(a, b)


def test_no_common_dimension(tmp_path: Path) -> None:
    a = fabricate(tmp_path / "a", {"color": {"p": [0.5]}})
    b = fabricate(tmp_path / "b", {"scene": {"p": [0.5]}})
    with pytest.raises(UserError, match="no dimension in common"):
        compare(a, b)


def test_command_writes_json_and_states_the_result(runs: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    done = CliRunner().invoke(build_app(), ["compare", *map(str, runs), "--json", str(target)])
    assert done.exit_code == 0, done.output
    written = json.loads(target.read_text())
    assert written == compare(*runs)
    assert written["schema"] == "m4v-eval/compare/1"
    assert all(math.isfinite(row["delta"]) for row in written["comparisons"])


def test_command_exits_with_3_if_incomplete(tmp_path: Path) -> None:
    a = fabricate(tmp_path / "a", {"color": {"p": [0.5], "q": [None]}})
    b = fabricate(tmp_path / "b", {"color": {"p": [0.5], "q": [0.4]}})
    assert CliRunner().invoke(build_app(), ["compare", str(a), str(b)]).exit_code == INCOMPLETE
