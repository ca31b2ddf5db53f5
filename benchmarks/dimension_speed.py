"""One dimension against the official VBench package: same clips, same weights, one thread on one core, one run.

A dimension has a file of its own, such as `dynamic_degree_speed`, that says with which weights it is measured.
Both sides score the clips in one process, loading of networks included, imports not; every part leaves its result in
the work folder and is not measured again, so the benchmark can be interrupted and taken up later.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import clips
from benchmarks.measure import run
from evalkit.provenance import git, hardware, packages

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """Weights to measure a dimension with.

    Args:
        name: what the table calls it.
        about: what the weights make of the clips.
        write: writes the checkpoints below a cache folder, in the official layout.
    """

    name: str
    about: str
    write: Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Bench:
    """Where a dimension is measured and with what.

    Args:
        dimension: its official name.
        official_module: scores in the official environment, as `benchmarks.official_part score` does.
    """

    dimension: str
    official_python: Path
    work: Path
    core: int
    clips: int
    frames: int
    official_module: str

    @property
    def videos(self) -> Path:
        return self.work / f"videos-{self.clips}x{self.frames}"

    def measure(self, case: Case, again: bool) -> Record:
        """Both sides' cost and outcomes for a case, and what they say of each other."""
        cache = self.work / case.name
        case.write(cache)
        sides = {side: self._part(f"{case.name}-{side}", cache, again) for side in ("official", "native")}
        theirs, ours = sides["official"], sides["native"]
        gaps = [abs(value - ours["videos"][file]) for file, value in theirs["videos"].items()]
        return {
            "about": case.about,
            **sides,
            "speedup": {clock: theirs[clock] / ours[clock] for clock in ("wall_s", "cpu_s")},
            "largest_difference": {"video": max(gaps), "dimension": abs(theirs["score"] - ours["score"])},
        }

    def _part(self, name: str, cache: Path, again: bool) -> Record:
        path = self.work / f"parts-{self.clips}x{self.frames}" / f"{name}.json"
        if again or not path.exists():
            print(f"measuring {self.dimension}, {name} (load {os.getloadavg()[0]:.1f})", file=sys.stderr)
            path.parent.mkdir(parents=True, exist_ok=True)
            record = self._official(cache, path) if name.endswith("official") else self._native(cache, path)
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        part: Record = json.loads(path.read_text(encoding="utf-8"))
        return part

    def _official(self, cache: Path, path: Path) -> Record:
        return self._score([self.official_python, "-W", "ignore", "-m", self.official_module], cache, path, [])

    def _native(self, cache: Path, path: Path) -> Record:
        work = cache / "native"
        shutil.rmtree(work, ignore_errors=True)
        record = self._score([sys.executable, "-m", "benchmarks.native_part"], cache, path, ["--work", work])
        found = json.loads((work / "run-one" / "vbench.json").read_text(encoding="utf-8"))
        videos = {video["file"]: video["scores"][self.dimension] for video in found["videos"]}
        return {"score": found["dimensions"][self.dimension]["score"], "videos": videos, **record}

    def _score(self, start: Sequence[str | Path], cache: Path, path: Path, extra: Sequence[str | Path]) -> Record:
        out = path.with_suffix(".raw.json")
        out.unlink(missing_ok=True)  # the official side goes on where the file ends
        options = ["--cache", cache, "--videos", self.videos, "--out", out, "--dimensions", self.dimension, *extra]
        cost = run([*start, "score", *options], self.core, path.with_suffix(".log"))
        inside: Record = json.loads(out.read_text(encoding="utf-8"))[self.dimension]
        return {"peak_bytes": cost.peak_bytes, "load_1min": cost.load_1min, **inside}


def main(
    dimension: str, cases: Sequence[Case], doc: str, frames: int = 17, official: str = "benchmarks.official_part"
) -> None:
    """Measure a dimension in all cases, write benchmarks/results/NAME.json and print the table.

    Args:
        dimension: its official name.
        cases: the weights to measure it with, one after the other.
        doc: what `--help` says.
        frames: of each clip, by default.
        official: the module that scores in the official environment.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{dimension}_speed", description=doc)
    parser.add_argument("--official-python", type=Path, default=ROOT / "build/parity/venv/bin/python")
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench" / dimension)
    parser.add_argument("--core", type=int, default=0, help="the core that everything is pinned to")
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=frames)
    parser.add_argument("--cases", nargs="+", choices=[c.name for c in cases], default=[c.name for c in cases])
    parser.add_argument("--again", action="store_true", help="measure anew what an earlier call has measured")
    parser.add_argument("--name", default=f"{dimension}_speed", help="of the file in benchmarks/results")
    given = parser.parse_args()

    python, work = given.official_python.absolute(), given.work.resolve()
    bench = Bench(dimension, python, work, given.core, given.clips, given.frames, official)
    clips.make(bench.videos, bench.clips, bench.frames)
    found = {case.name: bench.measure(case, given.again) for case in cases if case.name in given.cases}
    setting = {"clips": bench.clips, "frames": bench.frames, "width": clips.WIDTH, "height": clips.HEIGHT, "threads": 1}
    result = {
        "schema": "m4v-eval/dimension-benchmark/1",
        "dimension": dimension,
        "setting": setting,
        "hardware": hardware("cpu"),
        "packages": packages(),
        "git": git(),
        "cases": found,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{given.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(found))


def table(cases: Mapping[str, Record]) -> str:
    """The result as text, one line a case."""
    lines = [f"{'case':<16}{'official cpu s':>16}{'here cpu s':>12}{'faster':>8}{'peak GiB':>14}{'difference':>12}"]
    for name, found in cases.items():
        theirs, ours = found["official"], found["native"]
        peaks = f"{theirs['peak_bytes'] / 2**30:.2f} / {ours['peak_bytes'] / 2**30:.2f}"
        seconds = f"{theirs['cpu_s']:>16.1f}{ours['cpu_s']:>12.1f}{found['speedup']['cpu_s']:>8.2f}"
        lines.append(f"{name:<16}{seconds}{peaks:>14}{found['largest_difference']['video']:>12.1e}")
    return "\n".join(lines)
