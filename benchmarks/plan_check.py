"""Is a plan right? A small run is measured, a larger one planned from it with `m4v-eval plan`, and then run.

    python -m benchmarks.plan_check [--pilot 2] [--large 24] [--workers 1 2] [--profile lite] [--out FILE]

The clips are the demo's scenes, filmed with one lens after the other. `--pilot` and `--large` are the videos of each of
the eight prompts; no clip of the pilot is in the large run. How fast a core decodes, and how long a command takes that
finds everything done, are measured too and given to the plan, as a user would (`--decode-fps`, `--startup`).

Printed and kept: predicted and measured seconds for each number of workers, and their ratio; the times of the large
runs' parts are kept beside the plan's. On a machine with other work to do the ratio says nothing: `load_1min` is kept.

`--profile official --weights DIR` takes real networks, or seeded ones in the official layout (`tests.parity.sixteen
--full` writes them), on `--device`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import measure
from evalkit import timings
from evalkit.demo import FPS, SCENES, Look, shoot
from evalkit.encode import write_video
from evalkit.files import hash_file
from evalkit.provenance import git, hardware, packages
from evalkit.video import probe, read

RESULTS = Path(__file__).with_name("results")
PROGRAM = [sys.executable, "-c", "from evalkit.cli import main; main()"]
SHARPEST, STEP = 0.5, 0.05
"""Blur of the lenses in pixels: no two clips may have the same bytes, for twins are scored once."""

Record = dict[str, Any]


def film(folder: Path, looks: Iterable[int]) -> list[Path]:
    """Write the eight scenes through each of some lenses; file names say prompt and lens."""
    paths = []
    for look in looks:
        for scene in SCENES:
            path = folder / f"{scene.id}-{look}.mp4"
            write_video(path, shoot(scene, Look(blur=SHARPEST + STEP * look)), FPS)
            paths.append(path)
    return paths


def decoded_frames_a_second(paths: Sequence[Path]) -> float:
    """On one core, without anything beside it."""
    infos = [probe(path) for path in paths]
    began = time.process_time()
    for path, info in zip(paths, infos, strict=True):
        for _ in read(path, info, ahead=0):
            pass
    return sum(info.n_frames for info in infos) / (time.process_time() - began)


class Bench:
    """Commands on clips below one folder."""

    def __init__(self, root: Path, options: Sequence[str]) -> None:
        self.root = root
        self.options = list(options)
        self.suite = root / "prompts.jsonl"
        lines = [json.dumps({"id": scene.id, "text": scene.prompt}) for scene in SCENES]
        self.suite.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def score(self, name: str, videos: Path, workers: int) -> measure.Cost:
        """Run `m4v-eval vbench` into the run directory `name`."""
        into = ["--videos", videos, "--out", self.root / name, "--workers", workers, "--threads", 1]
        return self._run("vbench", name, [*into, *self.options])

    def plan(self, pilot: str, profile: str, *options: object) -> Record:
        """What `m4v-eval plan` makes of a run."""
        out = self.root / "plan.json"
        self._run("plan", "plan", ["--from", self.root / pilot, "--profile", profile, "--json", out, *options])
        return dict(json.loads(out.read_text(encoding="utf-8")))

    def spent(self, name: str) -> Record:
        """What the last command of a run says of its parts."""
        last = asdict(timings.read(self.root / name)[-1])
        return {part: last[part] for part in ("wall", "score", "waiting", "setup", "start")}

    def _run(self, command: str, name: str, arguments: Sequence[object]) -> measure.Cost:
        line = [*PROGRAM, command, "--subset", self.suite, *arguments]
        return measure.run(list(map(str, line)), None, self.root / f"{name}.log")


def check(bench: Bench, profile: str, pilot: int, large: int, workers: Sequence[int]) -> Record:
    """Measure the pilot, plan, and run what was planned."""
    small = film(bench.root / "small", range(pilot))
    many = film(bench.root / "many", range(pilot, pilot + large))
    clips = {hash_file(path) for path in (*small, *many)}
    assert len(clips) == len(small) + len(many), "two lenses give the same clip"
    first = bench.score("pilot", bench.root / "small", 1)
    again = bench.score("pilot", bench.root / "small", 1)
    decode_fps = decoded_frames_a_second(small)
    cores = hardware("cpu")["cores"] or 1
    plan = bench.plan(
        "pilot",
        profile,
        *("--videos-per-prompt", large, "--gpus", ",".join(map(str, workers))),
        *("--gpus-per-host", max(workers), "--cores-per-host", cores),
        *("--startup", again.wall_s, "--decode-fps", decode_fps),
    )
    predicted = {row["gpus"]: row["wall_seconds"]["mean"] for row in plan["rows"]}
    rows = []
    for n in workers:
        cost = bench.score(f"large-{n}", bench.root / "many", n)
        ratio = predicted[n] / cost.wall_s
        print(
            f"{n} workers: predicted {predicted[n]:.1f} s, measured {cost.wall_s:.1f} s, ratio {ratio:.3f}", flush=True
        )
        rows.append(
            {
                "workers": n,
                "predicted_s": round(predicted[n], 3),
                "measured": cost.as_dict(),
                "ratio": round(ratio, 4),
                "parts": bench.spent(f"large-{n}"),
            }
        )
    return {
        "pilot": {"videos": len(small), **first.as_dict(), "again_s": round(again.wall_s, 3), **bench.spent("pilot")},
        "decode_fps": round(decode_fps, 1),
        "plan": {key: plan[key] for key in ("work", "rates", "one_gpu_seconds", "serial_seconds", "serial_fraction")},
        "rows": rows,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan_check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pilot", type=int, default=2, help="videos of each prompt in the small run")
    parser.add_argument("--large", type=int, default=24, help="videos of each prompt in the large one")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--profile", choices=("lite", "official"), default="lite")
    parser.add_argument("--weights", type=Path, help="checkpoints, for the official profile")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, help="where clips and runs go; by default they are not kept")
    parser.add_argument("--out", type=Path, default=RESULTS / "plan_check.json")
    given = parser.parse_args(arguments)

    root = given.work or Path(tempfile.mkdtemp(prefix="plan-check-"))
    root.mkdir(parents=True, exist_ok=True)
    options = ["--profile", given.profile, "--device", given.device]
    options += ["--weights", str(given.weights), "--trust-weights"] if given.weights else []
    try:
        found = check(Bench(root, options), given.profile, given.pilot, given.large, given.workers)
    finally:
        if given.work is None:
            shutil.rmtree(root, ignore_errors=True)
    result = {
        "schema": "m4v-eval/plan-check/1",
        "setting": {"profile": given.profile, "device": given.device, "prompts": len(SCENES), "large": given.large},
        "hardware": hardware(given.device),
        "packages": packages(),
        "git": git(),
        **found,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
