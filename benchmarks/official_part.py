"""The official package's side of the benchmark; runs in the official environment.

    python -m benchmarks.official_part prepare --cache DIR --dino DIR
    python -m benchmarks.official_part score --cache DIR --videos DIR --out FILE --dimensions a b
    python -m benchmarks.official_part pixels --cache DIR --videos DIR --out FILE --repeat N

`score` writes after every dimension and leaves out those that the file already holds, so it can be interrupted.
`pixels` decodes every video as each of the seven dimensions does for itself, and scores temporal_flickering in full.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def prepare(cache: Path, dino: Path) -> None:
    """Write the recipe's full-size weights in the official layout."""
    from tests.parity import checkpoints, official

    cache.mkdir(parents=True, exist_ok=True)
    official.lay_out(cache, dino)
    if not all((cache / file).exists() for file in checkpoints.FILES.values()):
        checkpoints.write(cache, checkpoints.FILES, depth=None)


def score(cache: Path, videos: Path, out: Path, dimensions: Sequence[str]) -> None:
    """Time `VBench.evaluate` per dimension, each loading its own network, in one process."""
    from tests.parity import official

    results: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    # What all dimensions share is imported before the clock starts, in the official package's favour.
    importlib.import_module("vbench")
    for dimension in dimensions:
        if dimension in results:
            continue
        load, wall, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
        verdict = official.score(dimension, videos, cache, None)
        results[dimension] = verdict | {
            "wall_s": round(time.perf_counter() - wall, 3),
            "cpu_s": round(time.process_time() - cpu, 3),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "load_1min": load,
        }
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def pixels(videos: Path, out: Path, repeat: int) -> None:
    """Time decoding as each of the seven dimensions does it for itself, and all of temporal_flickering."""
    utils: Any = importlib.import_module("vbench.utils")
    flickering: Any = importlib.import_module("vbench.temporal_flickering")
    motion: Any = importlib.import_module("vbench.motion_smoothness")
    paths = sorted(map(str, videos.glob("*.mp4")))
    steps: dict[str, Callable[[str], object]] = {
        "subject_consistency": utils.load_video,
        "background_consistency": utils.load_video,
        "temporal_flickering": flickering.cal_score,
        "motion_smoothness": motion.FrameProcess().get_frames,
        "aesthetic_quality": utils.load_video,
        "imaging_quality": utils.load_video,
        "overall_consistency": lambda path: utils.read_frames_decord_by_fps(path, num_frames=8, sample="middle"),
    }
    costs = {name: min(_cost(step, paths) for _ in range(repeat)) for name, step in steps.items()}
    record = {"clips": len(paths), "cpu_s": costs, "decodes_per_video": len(steps)}
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _cost(step: Callable[[str], object], paths: Sequence[str]) -> float:
    """Processor seconds: the parts are too short for a clock that other processes can stop."""
    start = time.process_time()
    for path in paths:
        step(path)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="The official package's side of the benchmark.")
    parser.add_argument("part", choices=("prepare", "score", "pixels"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--dino", type=Path)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dimensions", nargs="+", default=())
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()

    cache = given.cache.resolve()
    os.environ |= {"VBENCH_CACHE_DIR": str(cache), "TORCH_HOME": str(cache)}
    if given.part == "prepare":
        prepare(cache, given.dino)
    elif given.part == "score":
        score(cache, given.videos.resolve(), given.out, given.dimensions)
    else:
        pixels(given.videos, given.out, given.repeat)


if __name__ == "__main__":
    main()
