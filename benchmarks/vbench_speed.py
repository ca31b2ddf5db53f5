"""Speed and memory against the official VBench package: same videos, same weights, one thread on one core.

    python -m benchmarks.vbench_speed --official-python PATH --dino DIR [--clips 8] [--frames 33] [--name NAME]

Works in parts; each leaves its result in build/bench and is not measured again, so the benchmark can be interrupted and
taken up later. `--again PART` measures a part anew. The summary goes to benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import clips, summary
from benchmarks.measure import run
from evalkit.provenance import git, hardware, packages
from tests.parity.dimensions import NETWORKS

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
PIXEL_CLIPS = 24  # without networks a clip takes a fraction of a second; more of them even out what is fixed

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the benchmark works and with what."""

    official_python: Path
    dino: Path
    work: Path
    core: int
    clips: int
    frames: int

    @property
    def cache(self) -> Path:
        return self.work / "cache"

    @property
    def videos(self) -> Path:
        return self.work / f"videos-{self.clips}x{self.frames}"

    @property
    def pixel_videos(self) -> Path:
        return self.work / f"videos-{PIXEL_CLIPS}x{self.frames}"

    @property
    def parts(self) -> Path:
        return self.work / f"parts-{self.clips}x{self.frames}"

    def official(self, part: str, *arguments: str | Path) -> Record:
        """Run a part in the official environment."""
        command: list[str | Path] = [
            self.official_python,
            "-W",
            "ignore",
            "-m",
            "benchmarks.official_part",
            part,
            "--cache",
            self.cache,
        ]
        return run([*command, *arguments], self.core, self.log(f"official-{part}")).as_dict()

    def native(self, name: str, *arguments: str | Path, fresh: bool = True) -> Record:
        """Run `m4v-eval vbench` on the clips; its run directory is made anew if `fresh`."""
        out = self.work / f"run-{name}"
        if fresh:
            shutil.rmtree(out, ignore_errors=True)
        command: list[str | Path] = [sys.executable, "-c", "from evalkit.cli import main; main()", "vbench"]
        command += ["--videos", self.videos, "--subset", self.videos / "suite.jsonl", "--profile", "official"]
        command += ["--weights", self.cache, "--trust-weights", "--device", "cpu", "--threads", "1", "--out", out]
        cost = run([*command, *arguments], self.core, self.log(f"native-{name}")).as_dict()
        found = json.loads((out / "vbench.json").read_text(encoding="utf-8"))
        scores = {
            name: {
                "score": entry["score"],
                "videos": {video["file"]: video["scores"][name] for video in found["videos"]},
            }
            for name, entry in found["dimensions"].items()
        }
        return {**cost, "scores": scores}

    def native_part(self, part: str, *arguments: str | Path) -> Record:
        """Run a part of this project's side that is measured inside one process."""
        command: list[str | Path] = [sys.executable, "-m", "benchmarks.native_part", part, "--work", self.work]
        return run([*command, *arguments], self.core, self.log(f"native-{part}")).as_dict()

    def log(self, name: str) -> Path:
        return self.work / "logs" / f"{name}.log"


def prepare(bench: Bench) -> Record:
    """Clips and weights; the checkpoints are hashed once, as after `weights pull`."""
    clips.make(bench.videos, bench.clips, bench.frames)
    clips.make(bench.pixel_videos, PIXEL_CLIPS, bench.frames)
    bench.official("prepare", "--dino", bench.dino)
    command = [sys.executable, "-c", "from evalkit.cli import main; main()", "weights", "verify", "--trust-weights"]
    return run([*command, "--weights", bench.cache], bench.core, bench.log("verify")).as_dict()


def official(bench: Bench) -> Record:
    """The seven dimensions one after the other in one process, as `vbench evaluate` runs them."""
    out = bench.parts / "official-dimensions.json"
    bench.official("score", "--videos", bench.videos, "--out", out, "--dimensions", *NETWORKS)
    dimensions: Record = json.loads(out.read_text(encoding="utf-8"))
    return {"dimensions": dimensions}


def native(bench: Bench) -> Record:
    """`m4v-eval vbench` for the seven, from nothing to the report."""
    return bench.native("fp32")


def warm(bench: Bench) -> Record:
    """The same command again: nothing is computed. The faster of three."""
    return min((bench.native("fp32", fresh=False) for _ in range(3)), key=lambda cost: cost["wall_s"])


def bf16(bench: Bench) -> Record:
    return bench.native("bf16", "--precision", "bf16")


def by_dimension(bench: Bench) -> Record:
    """One dimension after the other in one process, each loading its own network, as the official side is measured."""
    out = bench.parts / "native-dimensions.json"
    bench.native_part(
        "score", "--videos", bench.videos, "--out", out, "--cache", bench.cache, "--dimensions", *NETWORKS
    )
    dimensions: Record = json.loads(out.read_text(encoding="utf-8"))
    return dimensions


def pixels(bench: Bench) -> Record:
    """Decoding and temporal_flickering on both sides, without networks."""
    sides: Record = {}
    theirs, ours = bench.parts / "pixels-official.json", bench.parts / "pixels-native.json"
    bench.official("pixels", "--videos", bench.pixel_videos, "--out", theirs)
    bench.native_part("pixels", "--videos", bench.pixel_videos, "--out", ours)
    for side, path in (("official", theirs), ("native", ours)):
        sides[side] = json.loads(path.read_text(encoding="utf-8"))
    return sides


PARTS: dict[str, Callable[[Bench], Record]] = {
    "prepare": prepare,
    "pixels": pixels,
    "official": official,
    "native": native,
    "warm": warm,
    "bf16": bf16,
    "by_dimension": by_dimension,
}


def measure(bench: Bench, part: str, again: bool) -> Record:
    """The result of a part, measured now or taken from an earlier call."""
    path = bench.parts / f"{part}.json"
    if again or not path.exists():
        print(f"measuring {part} (load {os.getloadavg()[0]:.1f})", file=sys.stderr)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(PARTS[part](bench), indent=1) + "\n", encoding="utf-8")
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vbench_speed", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--official-python", type=Path, default=ROOT / "build/parity/venv/bin/python")
    parser.add_argument(
        "--dino", type=Path, default=ROOT / "build/parity/dino", help="checkout of facebookresearch/dino"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench")
    parser.add_argument("--core", type=int, default=0, help="the core that everything is pinned to")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="measure only these")
    parser.add_argument("--again", nargs="+", choices=list(PARTS), default=[], help="measure these anew")
    parser.add_argument("--name", default="vbench_speed", help="of the file in benchmarks/results")
    given = parser.parse_args()

    bench = Bench(
        given.official_python.absolute(),
        given.dino.resolve(),
        given.work.resolve(),
        given.core,
        given.clips,
        given.frames,
    )
    parts = {part: measure(bench, part, part in given.again) for part in given.parts}
    setting = {"clips": bench.clips, "frames": bench.frames, "width": clips.WIDTH, "height": clips.HEIGHT, "threads": 1}
    result = {
        "schema": "m4v-eval/benchmark/1",
        "setting": setting,
        "hardware": hardware("cpu"),
        "packages": packages(),
        "git": git(),
        "parts": parts,
    }
    if parts.keys() == PARTS.keys():
        ratios = summary.ratios(parts)
        result["ratios"] = ratios
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{given.name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(summary.table(ratios))


if __name__ == "__main__":
    main()
