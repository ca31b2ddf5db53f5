"""What workers gain and what the harness costs, with DINO and MUSIQ at their published size (seeded weights).

    python -m benchmarks.scaling [--clips 6] [--frames 17] [--repeat 3] [--work DIR]

- `scaling`: `m4v-eval vbench` on the same clips with one worker on one core, one worker on two cores (frames are
  decoded on the second), and two workers on two cores, one thread each; seconds of the scoring stage, as the run itself
  measured them. Efficiency is the first over twice the last. The scores must be equal to the bit.
- `overhead`: the bare networks on frames that are in memory already, one thread, against the scoring stage of a run
  with one worker: decoding, stills, statistics of the clip and the journal included. Two runs differ by more than the
  overhead, so the part of the scoring stage that is not the networks' is given as well.

Start-up and the loading of networks are left out of both, and listed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import clips
from benchmarks.measure import run
from evalkit.provenance import git, hardware, packages
from evalkit.timings import Timings, read
from tests.parity import checkpoints

RESULTS = Path(__file__).with_name("results")
DIMENSIONS = ("subject_consistency", "imaging_quality")
Record = dict[str, Any]


def lay_out(work: Path, n_clips: int, frames: int) -> tuple[Path, Path]:
    """Clips and weights below `work`."""
    videos, weights = work / "videos", work / "weights"
    clips.make(videos, n_clips, frames)
    checkpoints.write(weights, ("dino", "musiq"), None)
    return videos, weights


def score(videos: Path, weights: Path, out: Path, workers: int, cores: str) -> Timings:
    """Score in a fresh process bound to some cores, into a fresh folder."""
    shutil.rmtree(out, ignore_errors=True)
    command: list[str | Path] = ["taskset", "-c", cores, sys.executable, "-c"]
    command += ["from evalkit.cli import main; main()", "vbench", "--videos", videos, "--out", out, "--device", "cpu"]
    command += ["--subset", videos / "suite.jsonl", "--profile", "official", "--weights", weights, "--trust-weights"]
    command += ["--dimensions", ",".join(DIMENSIONS), "--threads", "1", "--workers", str(workers)]
    run(command, None, out.with_suffix(".log"))
    return read(out)[0]


def scaling(work: Path, videos: Path, weights: Path, repeat: int) -> tuple[Record, Timings]:
    """Seconds of the scoring stage by workers and cores, and the timings of the run with one worker on two cores."""
    arrangements = {"1 worker, 1 core": (1, "0"), "1 worker, 2 cores": (1, "0,1"), "2 workers, 2 cores": (2, "0,1")}
    kept: dict[str, list[Timings]] = {name: [] for name in arrangements}
    for _ in range(repeat):  # in turn, so that the machine's moods meet all of them
        for name, (workers, cores) in arrangements.items():
            kept[name].append(score(videos, weights, work / f"run-{workers}-{len(cores)}", workers, cores))
    tables = [pd.read_parquet(work / f"run-{w}-{len(c)}" / "results.parquet") for w, c in arrangements.values()]
    assert all(table.equals(tables[0]) for table in tables), "workers changed the scores"
    seconds = {name: statistics.median(_seconds(timings) for timings in found) for name, found in kept.items()}
    one, alone, two = seconds.values()
    record = {
        "seconds": seconds,
        "all_seconds": {name: [_seconds(timings) for timings in found] for name, found in kept.items()},
        "speedup_of_two_workers_over_one_core": one / two,
        "efficiency_per_core": one / (2 * two),
        "speedup_of_two_workers_over_one_worker_on_two_cores": alone / two,
        "scores_equal_to_the_bit": True,
    }
    return record, sorted(kept["1 worker, 2 cores"], key=_seconds)[repeat // 2]


def _seconds(timings: Timings) -> float:
    """Of the scoring stage, without what each worker needs once."""
    once = (timings.setup.seconds + timings.start.seconds) / timings.workers
    return timings.wall["score"] - once


def within_the_run(timings: Timings) -> float:
    """What the scoring took beyond the networks' own time, both measured in the same run: steadier than two runs."""
    networks = sum(spent.seconds for spent in timings.features.values())
    return 100 * (timings.score.seconds / networks - 1)


def bare(videos: Path, weights: Path) -> float:
    """Seconds a clip that the networks alone take, in this process with one thread: the median over clips."""
    import torch

    from evalkit.backbones.base import Runtime
    from evalkit.metrics import registry
    from evalkit.types import Clip
    from evalkit.video import probe
    from evalkit.video import read as decode
    from evalkit.weights import WeightStore

    torch.set_num_threads(1)
    store = WeightStore(weights, trust_archives=True)
    features = {f.name: f for name in DIMENSIONS for f in registry("official")[name].features}
    networks = {name: feature.load(store, Runtime()) for name, feature in features.items()}
    seconds = []
    for path in sorted(videos.glob("*.mp4")):
        info = probe(path)
        chunks = list(decode(path, info))
        began = time.perf_counter()
        readers = [networks[name].open(Clip(info, "")) for name in features]
        for chunk in chunks:
            for reader in readers:
                reader.push(chunk.start, chunk.frames_THWC)
        for reader in readers:
            reader.close()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Scaling over workers, and the harness against bare networks.")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--work", type=Path, default=None)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    work = given.work or Path(tempfile.mkdtemp(prefix="scaling-"))
    videos, weights = lay_out(work, given.clips, given.frames)
    workers, timings = scaling(work, videos, weights, given.repeat)
    networks = bare(videos, weights)
    harness = _seconds(timings) / given.clips
    record = {
        "clips": given.clips,
        "frames": given.frames,
        "repeat": given.repeat,
        "size": [clips.WIDTH, clips.HEIGHT],
        "dimensions": DIMENSIONS,
        "scaling": workers,
        "overhead": {
            "bare_networks_s_per_clip": networks,
            "harness_s_per_clip": harness,
            "overhead_percent": 100 * (harness / networks - 1),
            "overhead_within_the_run_percent": within_the_run(timings),
            "of_it_waiting_for_frames_percent": 100 * timings.waiting.seconds / given.clips / networks,
            "once": {"setup_s": timings.setup.seconds, "identify_s": timings.wall["identify"]},
        },
        "hardware": hardware("cpu"),
        "packages": packages(),
        "git": git(),
    }
    text = json.dumps(record, indent=1) + "\n"
    (RESULTS / "scaling.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
