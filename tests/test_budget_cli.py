"""`m4v-eval plan` as a user meets it, and a plan from a run that was really measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from evalkit import timings
from evalkit.budget import SCHEMA
from evalkit.cli import build_app
from evalkit.cli.plan_tables import duration, volume
from evalkit.demo import FPS, SCENES, shoot
from evalkit.encode import write_video
from evalkit.errors import UserError
from evalkit.job import Request
from evalkit.runner import score_folder
from evalkit.timings import Spent, Timings

FIXED = {"startup", "identify", "summarise", "report"}


def plan(*args: object) -> Result:
    return CliRunner().invoke(build_app(), ["plan", *map(str, args)], env={"COLUMNS": "100"})


def record(tmp_path: Path, *args: object) -> dict[str, Any]:
    done = plan(*args, "--json", tmp_path / "plan.json")
    assert done.exit_code == 0, done.output
    return dict(json.loads((tmp_path / "plan.json").read_text()))


def test_the_full_suite_without_anything_measured(tmp_path: Path) -> None:
    found = record(tmp_path, "--startup", "0")
    assert found["schema"] == SCHEMA == "m4v-eval/plan/1"
    assert found["work"]["videos_listed"] == 4730
    assert [row["gpus"] for row in found["rows"]] == [1, 8, 64, 1000]
    assert not found["rates"]["measured"]
    serial = sum(found["serial_seconds"].values())
    assert found["rows"][0]["wall_seconds"]["mean"] == pytest.approx(160 * 3600 + serial, rel=1e-9)
    assert found["rows"][0]["cost"] is None
    assert {item["name"]: item["bytes"] for item in found["storage"]}["videos"] is None
    assert set(found["one_gpu_seconds"]) == {"score", "loading networks", *FIXED}


def test_what_is_printed() -> None:
    done = plan("--price", "2", "--gpus", "1,10000")
    text = " ".join(done.output.split())
    assert "stated rates, not measured" in text
    assert "4,730 videos" in text
    assert "320.0" in text  # 160 hours at 2
    assert "$" not in text
    assert "--price 2.10" in plan().output
    assert "Some have nothing to do" in text


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (("--gpus", "1,two"), "no list of whole numbers"),
        (("--gpus", "0"), "no list of whole numbers"),
        (("--gpus", "1,100000000000"), "1 to 10,000 GPUs"),
        (("--variants", "1000000", "--seeds", "1000000"), "Give fewer"),
        (("--startup", "inf"), "--startup inf is no amount"),
        (("--price", "inf"), "--price inf is no amount"),
        (("--fps", "nan"), "--fps nan is no rate"),
        (("--decode-fps", "-1"), "--decode-fps -1 is no rate"),
        (("--subset", "custom5"), "custom50"),
        (("--profile", "lite"), "Nothing is published"),
        (("--profile", "offical"), "official"),
        (("--dimensions", "colour"), "color"),
        (("--from", "nowhere"), "no run directory"),
        (("--ablation", "register"), "registers"),
        (("--ablation", "registers", "--preset", "tiny", "--variants", "7"), "Leave --variants out"),
        (("--ablation", "registers", "--preset", "tiny", "--gpu", "A1000"), "data sheet"),
    ],
)
def test_errors_name_what_and_what_to_do(args: tuple[str, ...], what: str) -> None:
    done = plan(*args)
    assert isinstance(done.exception, UserError)
    assert what in str(done.exception)


def test_an_ablation_is_trained_generated_and_scored(tmp_path: Path) -> None:
    args = ("--ablation", "registers", "--preset", "tiny", "--seeds", "2", "--subset", "custom50", "--gpus", "1")
    found = record(tmp_path, *args)
    names = [model["name"] for model in found["models"]]
    assert names[-2:] == ["baseline", "registers"]
    assert found["work"]["runs"] == 4
    flops = sum(model["training"] * (2 if model["seeds"] else 1) for model in found["models"])
    assert found["one_gpu_seconds"]["train"] == pytest.approx(flops / (312e12 * 0.4), rel=1e-9)
    assert found["one_gpu_seconds"]["generate"] > 0
    assert found["clip"]["frames"] == 17  # the tiny preset's own


def test_ranges_and_lower_bounds_are_shown(tmp_path: Path) -> None:
    for seconds in (10.0, 20.0):
        part = Spent(seconds / 4, 5, 100)
        features = {"flicker": part, "lite/mid_frame": part}
        whole = Spent(seconds, 5, 100)
        timings.keep(tmp_path, Timings("cpu", {"cpu": "Example"}, 1, {"score": seconds}, whole, features=features))
    found = record(tmp_path, "--from", tmp_path, "--profile", "lite", "--subset", "custom50")
    assert found["lower_bound"]
    assert "lite/imaging_quality" in found["unknown"]
    assert "temporal_flickering" not in found["unknown"]
    row = found["rows"][0]["wall_seconds"]
    assert row["low"] < row["mean"] < row["high"]
    assert "lower bounds" in plan("--from", tmp_path, "--profile", "lite", "--subset", "custom50").output


def test_a_run_of_another_profile_measures_nothing(tmp_path: Path) -> None:
    part = Spent(1.0, 5, 100)
    timings.keep(
        tmp_path, Timings("cpu", {}, 1, {}, Spent(5.0, 5, 100), features={"lite/detail": part, "flicker": part})
    )
    done = plan("--from", tmp_path)
    assert isinstance(done.exception, UserError)
    assert "none of the networks" in str(done.exception)


@pytest.mark.slow
def test_a_measured_run_plans_itself(tmp_path: Path) -> None:
    """Planned for the very videos that were measured, times add up to the measured ones, and bytes are exact."""
    scenes = SCENES[:3]
    for scene in scenes:
        write_video(tmp_path / "videos" / f"{scene.id}-0.mp4", shoot(scene), FPS)
    suite = tmp_path / "prompts.jsonl"
    suite.write_text("".join(json.dumps({"id": scene.id, "text": scene.prompt}) + "\n" for scene in scenes))
    score_folder(Request(tmp_path / "videos", str(suite), tmp_path / "run", "lite"))
    args = ("--from", tmp_path / "run", "--subset", suite, "--profile", "lite", "--gpus", "1", "--startup", "0")
    found = record(tmp_path, *args)
    (measured,) = timings.read(tmp_path / "run")
    assert not found["lower_bound"]
    assert found["clip"] == {"frames": 33.0, "width": 320, "height": 240, "fps": FPS}
    assert {item["name"]: item["bytes"] for item in found["storage"]}["videos"] == pytest.approx(
        sum(path.stat().st_size for path in (tmp_path / "videos").glob("*.mp4")), abs=1
    )
    networks = sum(spent.seconds for spent in measured.features.values())
    assert found["one_gpu_seconds"]["score"] >= networks * (1 - 1e-9)
    assert found["one_gpu_seconds"]["score"] <= measured.score.seconds * (1 + 1e-9)
    for stage in ("identify", "summarise"):
        assert found["serial_seconds"][stage] == pytest.approx(measured.wall[stage], rel=1e-9)


def test_units() -> None:
    assert [duration(s) for s in (3.0, 119.0, 600.0, 7200.0, 3 * 86400.0)] == [
        "3 s",
        "119 s",
        "10.0 min",
        "2.0 h",
        "3.0 days",
    ]
    assert [volume(b) for b in (10, 2048, 3 * 2**20, 5 * 2**40)] == ["10 B", "2.0 KiB", "3.0 MiB", "5.0 TiB"]
