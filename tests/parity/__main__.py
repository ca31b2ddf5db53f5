"""`make parity`: the official VBench package and this project, live, on the same clips with the same weights.

    python -m tests.parity [--full] [--update] [--official-python PATH] [--dino DIR]

Builds the official environment in build/parity (a few minutes and 5 GB, once), unless --official-python or
$M4V_EVAL_OFFICIAL_PYTHON names the interpreter of one. The official DINO loader wants a checkout of its public
repository, named by --dino or $M4V_EVAL_DINO. By default the networks are shallow (a minute or two); --full runs them
at their published size (a quarter of an hour, 4 GB of disk). --update writes the official results into golden.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from evalkit.errors import RunFailed, UserError
from tests.parity import native, recipe
from tests.parity.dimensions import NETWORKS

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
GOLDEN = HERE / "golden.json"
CLIPS = HERE / "clips"
WORK = ROOT / "build" / "parity"


def main() -> int:
    arguments = _parse()
    try:
        python = arguments.official_python or build_environment(WORK / "venv")
        dino = _dino_checkout(arguments.dino)
        holds = True
        for size in ("shallow", "full") if arguments.full else ("shallow",):
            official = run_official(python, dino, size, arguments.videos, arguments.threads)
            if arguments.update:
                update_golden(size, official)
            holds &= report(size, official, arguments.videos, arguments.threads)
    except UserError as e:
        print(f"parity: {e}", file=sys.stderr)
        return e.exit_code
    return 0 if holds else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=(__doc__ or "").splitlines()[0])
    default = os.environ.get("M4V_EVAL_OFFICIAL_PYTHON")
    parser.add_argument("--official-python", type=Path, default=default and Path(default))
    parser.add_argument("--dino", type=Path, default=Path(os.environ.get("M4V_EVAL_DINO", WORK / "dino")))
    parser.add_argument("--videos", type=Path, default=CLIPS, help="folder of mp4 files with a manifest.jsonl")
    parser.add_argument("--full", action="store_true", help="the networks at their published size as well")
    parser.add_argument("--update", action="store_true", help="write the official results into golden.json")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for both sides")
    return parser.parse_args()


def _dino_checkout(folder: Path) -> Path:
    if not (folder / "hubconf.py").is_file():
        raise UserError(
            f"There is no checkout of DINO's code in {folder}.",
            "Get one with `git clone https://github.com/facebookresearch/dino DIR` (Apache-2.0), then set"
            " M4V_EVAL_DINO=DIR or pass --dino DIR.",
        )
    return folder


def build_environment(folder: Path) -> Path:
    """Make the official environment, at the versions the golden results were made with; return its interpreter."""
    python = folder / "bin" / "python"
    if python.is_file():
        return python
    base = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if base is None:
        raise UserError("The official package needs Python 3.11.", "Install it, or pass --official-python.")
    versions = json.loads(GOLDEN.read_text(encoding="utf-8"))["versions"]
    packages = [f"{name}=={version}" for name, version in versions.items() if name != "python"]
    print(f"building the official environment in {folder}", file=sys.stderr)
    # vbench 0.1.5 imports pkg_resources, which left setuptools in version 81.
    steps = ([base, "-m", "venv", folder], [python, "-m", "pip", "install", "-q", "setuptools<81", *packages])
    for step in steps:
        if subprocess.run(step, stdout=sys.stderr, check=False).returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise RunFailed("The official environment could not be built.", "The lines above say why.")
    return python


def run_official(python: Path, dino: Path, size: str, videos: Path, threads: int) -> dict[str, Any]:
    """Score the clips in the official environment; leaves the checkpoints in build/parity/SIZE."""
    cache, out = WORK / size, WORK / f"{size}.json"
    cache.mkdir(parents=True, exist_ok=True)
    command = [python, "-W", "ignore", "-m", "tests.parity.official", "--cache", cache, "--dino", dino, "--out", out]
    depth = ["--depth", str(recipe.SHALLOW)] if size == "shallow" else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    print(f"official package, {size} networks: log in {cache}.log", file=sys.stderr)
    with Path(f"{cache}.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(
            [*map(str, command), "--videos", str(videos.resolve()), *depth],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise RunFailed("The official package failed.", f"Its output is in {cache}.log.")
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return result


def update_golden(size: str, official: dict[str, Any]) -> None:
    """Put one size's results into golden.json; the clips and versions are common to both sizes."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    golden |= {key: official[key] for key in ("versions", "seed", "clips")}
    golden[size] = {key: official[key] for key in ("depth", "fingerprints", "scores")}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


def report(size: str, official: dict[str, Any], videos: Path, threads: int) -> bool:
    """Score the clips here with the checkpoints the official package has just used; print the table."""
    with (
        tempfile.TemporaryDirectory() as work,
        native.shallow(recipe.SHALLOW) if size == "shallow" else nullcontext(),
    ):
        scores = native.score(videos, WORK / size, Path(work), NETWORKS, threads)
    differences = native.compare(official["scores"], scores)
    versions = official["versions"]
    print(f"\n{size} networks, {len(official['clips'])} clips, vbench {versions['vbench']}, torch {versions['torch']}")
    print(native.table(differences))
    return all(difference.holds for difference in differences)


if __name__ == "__main__":
    sys.exit(main())
