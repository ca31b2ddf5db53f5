"""The command line as a person meets it: what it prints, what it returns, and that bad input costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evalkit.cli import build_app
from tests.clips import gradient_frames, write_clip

COMMANDS = (
    "ablate",
    "adjacency",
    "cancel",
    "cluster-example",
    "compare",
    "demo-clips",
    "distribution",
    "doctor",
    "export",
    "flops",
    "generate",
    "latency",
    "official",
    "plan",
    "prompts",
    "reference",
    "report",
    "score",
    "status",
    "study",
    "subset-study",
    "vbench",
    "vbench-i2v",
    "vbench-long",
    "weights",
)


def cli(*args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from evalkit.cli import main; main()", *map(str, args)]
    environment = os.environ | {"COLUMNS": "140", "NO_COLOR": "1"} | env
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def refused(done: subprocess.CompletedProcess[str], says: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    suite = {"p1": "a red ball rolls", "p2": "a dark blue room"}
    for n, id_ in enumerate(suite, 1):
        write_clip(folder / f"{id_}-0.mp4", gradient_frames(6, 48, 64, 40 * n))
    lines = [json.dumps({"id": id_, "text": text}) for id_, text in suite.items()]
    (folder / "suite.jsonl").write_text("\n".join(lines))
    return folder


def lite(videos: Path, out: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    return cli(
        "vbench", "--subset", videos / "suite.jsonl", "--videos", videos, "--profile", "lite", "--out", out, *more
    )


def test_help_teaches() -> None:
    done = cli("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout
    assert "doctor" in done.stdout.split("Start with")[1]
    for command in COMMANDS:
        assert CliRunner().invoke(build_app(), [command, "--help"]).exit_code == 0


def test_a_whole_run(videos: Path, tmp_path: Path) -> None:
    done = lite(videos, tmp_path / "run", "--json", tmp_path / "out" / "scores.json")
    assert done.returncode == 0, done.stderr
    assert "lite stand-ins, not VBench scores" in done.stdout
    assert "lite/imaging_quality" in done.stdout
    assert str(tmp_path / "run" / "report.html") in done.stdout.replace("\n", "")
    left = {p.name for p in (tmp_path / "run").iterdir() if not p.name.startswith(".")}
    results = {"results.jsonl", "results.parquet", "posters"}
    assert left == {"run.json", "timings.jsonl", "vbench.json", "report.html", *results}
    summary = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert summary["schema"] == "m4v-eval/vbench/1"
    assert summary["profile"] == "lite"
    official = {name for name in summary["dimensions"] if not name.startswith("lite/")}
    assert official == {"temporal_flickering"}  # the only one that needs no weights
    assert set(summary["aggregate"]) == {"lite/mean7", "coverage"}
    for dimension in summary["dimensions"].values():
        assert dimension["n"] + dimension["unscored"] == 2
    before = json.loads((tmp_path / "run" / "vbench.json").read_text())["dimensions"]
    again = lite(videos, tmp_path / "run")
    assert again.returncode == 0
    assert "everything is scored already" in again.stderr or "scoring" not in again.stderr
    assert json.loads((tmp_path / "run" / "vbench.json").read_text())["dimensions"] == before


def test_something_unscored_is_exit_code_3_and_listed(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for video in videos.glob("p1-*.mp4"):
        (folder / video.name).write_bytes(video.read_bytes())
    (folder / "p1-7.mp4").write_text("no video")
    (folder / "stranger.mp4").write_text("?")
    done = cli(
        *("vbench", "--subset", videos / "suite.jsonl", "--videos", folder, "--profile", "lite"),
        *("--out", tmp_path / "run"),
    )
    assert done.returncode == 3
    text = " ".join(done.stdout.split())
    assert "not scored: 1 video" in text
    assert "p1-7.mp4" in text
    assert "no video: 1 of 2 prompts (p2)" in text
    assert "not matched: stranger.mp4" in text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--videos", "missing-folder"], "does not exist"),
        (["--subset", "custom51"], "Did you mean custom50"),
        (["--subset", "custom50"], "None of the 2 videos"),
        (["--dimensions", "imaging_qality"], "Did you mean lite/imaging_quality"),
        (["--profile", "light"], "Did you mean lite"),
        (["--profile", "official", "--weights", "nowhere"], "weights pull"),
        (["--profile", "official", "--precision", "fp8"], "Choose from: bf16, fp16, fp32"),
        (["--batch", "0"], "--batch"),
        (["--frobnicate"], "No such option"),
    ],
)
def test_bad_usage(videos: Path, tmp_path: Path, args: list[str], says: str) -> None:
    defaults = {"--videos": str(videos), "--subset": str(videos / "suite.jsonl"), "--profile": "lite"}
    given = dict(zip(args[::2], args[1::2], strict=False))
    options = [part for name, value in defaults.items() if name not in given for part in (name, value)]
    refused(cli("vbench", *options, *args, "--out", str(tmp_path / "run")), says)
    assert not (tmp_path / "run" / "vbench.json").exists()


def test_an_empty_folder(videos: Path, tmp_path: Path) -> None:
    refused(cli("vbench", "--subset", videos / "suite.jsonl", "--videos", tmp_path, "--profile", "lite"), "no videos")


def test_without_weights_and_profile_the_message_names_both_ways_out(videos: Path, tmp_path: Path) -> None:
    done = cli("vbench", "--subset", videos / "suite.jsonl", "--videos", videos, VBENCH_CACHE_DIR=str(tmp_path))
    refused(done, "weights pull")
    assert "--profile lite" in done.stderr
    assert "amt_model/amt-s.pth" in done.stderr


def test_a_full_disk_costs_no_finished_result(videos: Path, tmp_path: Path) -> None:
    """A file-size limit stands in for a disk that is full when the report is to be written."""
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "import evalkit.report as report; real = report.render;"
        "fill = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "report.render = lambda *a, **k: (fill(), real(*a, **k))[1]; from evalkit.cli import main; main()"
    )
    options = ["vbench", "--subset", videos / "suite.jsonl", "--videos", videos, "--profile", "lite"]
    command = [sys.executable, "-c", script, *map(str, options), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    refused(done, "Could not write")
    assert "finished results are kept" in done.stderr
    results = (tmp_path / "run" / "results.jsonl").read_text()
    assert results.count('"dimension"') == 14
    assert lite(videos, tmp_path / "run").returncode == 0
    assert (tmp_path / "run" / "results.jsonl").read_text() == results


def test_ctrl_c_is_one_clear_line(videos: Path, tmp_path: Path) -> None:
    """The signal comes at a frame in the middle of a clip, not at a time: a busy machine changes nothing."""
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "p1-0.mp4", gradient_frames(400, 240, 320, 30))
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # a job in the background ignores it
        "from evalkit.posters import PosterReader; push = PosterReader.push;"
        "PosterReader.push = lambda self, start, frames:"
        " (signal.raise_signal(signal.SIGINT) if start >= 100 else None, push(self, start, frames))[1];"
        "from evalkit.cli import main; main()"
    )
    options = ["vbench", "--subset", videos / "suite.jsonl", "--videos", tmp_path / "videos", "--profile", "lite"]
    command = [sys.executable, "-c", script, *map(str, options), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 3
    assert "interrupted" in done.stdout


def test_prompts_can_be_exported() -> None:
    done = cli("prompts", "custom50")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 50
    assert set(lines[0]) == {"id", "text"}


def test_doctor_finds_the_lite_profile_working(tmp_path: Path) -> None:
    done = cli("doctor", VBENCH_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "broken" not in done.stdout
    assert "weights for 1 of" in " ".join(done.stdout.split())


def test_weights_list_and_verify(tmp_path: Path) -> None:
    done = cli("weights", "list", "--weights", tmp_path)
    assert done.returncode == 0
    for file in ("amt_model/amt-s.pth", "clip_model/ViT-B-32.pt", "ViCLIP/ViClip-InternVid-10M-FLT.pth"):
        assert file in done.stdout.replace("\n", "")
    (tmp_path / "amt_model").mkdir()
    (tmp_path / "amt_model" / "amt-s.pth").write_bytes(b"<html>Not found</html>")
    for trust, says in (([], "has sha256"), (["--trust-weights"], "is not the amt checkpoint")):
        done = cli("weights", "verify", "amt", "--weights", tmp_path, *trust)
        assert done.returncode == 2
        assert says in " ".join(done.stdout.split())
    refused(cli("weights", "pull", "atm"), "Did you mean amt")
    refused(cli("weights", "pull", "amt", "--force", M4V_EVAL_OFFLINE="1"), "forbids downloads")


def test_a_closed_pipe_is_no_traceback() -> None:
    script = f"{sys.executable} -c 'from evalkit.cli import main; main()' prompts custom50 | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["id"] == "custom50-01"
