"""GRiT, the detector behind four dimensions, against the official package: same frames, same weights, one core.

    python -m benchmarks.grit_speed --official-python PATH [--frames 2]

The official package runs the detector once for each dimension (names for three of them, descriptions for the fourth),
its heads and texts twice each time; here one pass gives names and descriptions, and all four dimensions read it. Frames
are 256 x 256, loading is not counted, and boxes and texts must be equal. The official environment needs detectron2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import run
from evalkit.provenance import git, hardware, packages

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
CLIP = "square.mp4"

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grit_speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--official-python", type=Path, default=ROOT / "build/parity/venv/bin/python")
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench/grit")
    parser.add_argument("--core", type=int, default=0, help="the core that everything is pinned to")
    parser.add_argument("--frames", type=int, default=2, help="different frames that are looked at")
    given = parser.parse_args()

    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    sides = {
        side: _measure([*start, "--cache", work, "--frames", str(given.frames)], work / f"{side}.json", given.core)
        for side, start in {
            "native": [sys.executable, "-m", "benchmarks.grit_part", "native"],
            "official": [given.official_python.absolute(), "-W", "ignore", "-m", "benchmarks.grit_part", "official"],
        }.items()
    }
    theirs, ours = sides["official"], sides["native"]
    for task in ("ObjectDet", "DenseCap"):
        assert theirs[task]["found"] == ours[task]["found"], f"{task}: other boxes or texts"
    four = 3 * theirs["ObjectDet"]["cpu_s"] + theirs["DenseCap"]["cpu_s"]
    speedup = {task: theirs[task]["cpu_s"] / ours[task]["cpu_s"] for task in ("ObjectDet", "DenseCap")}
    faster = {**speedup, "four dimensions": four / ours["both"]["cpu_s"]}
    result = {
        "schema": "m4v-eval/grit-benchmark/1",
        "setting": {"clip": CLIP, "frames": given.frames, "width": 256, "height": 256, "threads": 1},
        "hardware": hardware("cpu"),
        "packages": packages(),
        "git": git(),
        **sides,
        "speedup_cpu": faster,
        "boxes": sum(map(len, ours["ObjectDet"]["found"])),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "grit_speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, ratio in faster.items():
        print(f"{name:<20}{ratio:>8.2f}x")


def _measure(command: list[str | Path], out: Path, core: int) -> Record:
    cost = run([*command, "--out", out], core, out.with_suffix(".log"), {"PYTHONPATH": str(ROOT), **os.environ})
    found: Record = json.loads(out.read_text(encoding="utf-8"))
    return found | {"peak_bytes": cost.peak_bytes, "load_1min": cost.load_1min}


if __name__ == "__main__":
    main()
