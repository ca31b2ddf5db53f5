"""The wheel works outside the checkout and leaves no generic name in site-packages."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and unpack it, as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from evalkit.cli import main; main()", *args]
    env = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_no_generic_names(installed: Path) -> None:
    assert {p.name for p in installed.iterdir() if not p.name.endswith(".dist-info")} == {"evalkit", "m4v"}
    assert not list(installed.rglob("__pycache__"))


def test_commands_that_need_data_work_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "prompts", "custom50")
    assert where.stdout.count("\n") == 50, where.stderr
    assert run(installed, tmp_path, "reference", "list").returncode == 0
    assert run(installed, tmp_path, "demo-clips", "clips").returncode == 0
    options = ("--subset", "clips/prompts.jsonl", "--videos", "clips", "--profile", "lite", "--out", "run")
    done = run(installed, tmp_path, "vbench", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_studies_work_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    for folder in ("templates", "static"):
        source, packed = (root / "evalkit" / "study" / "web" / folder for root in (ROOT, installed))
        assert {path.name for path in packed.iterdir()} == {path.name for path in source.iterdir()}
    table = installed / "evalkit" / "reference_data" / "user_study_m4v.csv"
    done = run(installed, tmp_path, "study", "aggregate", str(table), "--out", "page.html")
    assert done.returncode == 0, done.stderr
    assert "HunyuanVideo" in (tmp_path / "page.html").read_text(encoding="utf-8")
