"""This project's side of the parts that are measured inside one process, imports of the package not counted.

    python -m benchmarks.native_part pixels --videos DIR --work DIR --out FILE --repeat N
    python -m benchmarks.native_part score --videos DIR --work DIR --out FILE --cache DIR --dimensions a b

`pixels` scores temporal_flickering alone: matching, hashing, decoding, the metric, posters, journal, intervals and the
run record are all there, networks are not; the first, slower run does not count. `score` takes one dimension after the
other, each loading its own network, as the official package does.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from pathlib import Path
from typing import Any
from unittest import mock

from evalkit import runner
from evalkit.decoding import Decoder
from evalkit.decoding.process import release_idle
from evalkit.job import Request


def once(videos: Path, run: Path, dimension: str, cache: Path) -> dict[str, Any]:
    """What a fresh run over the folder costs in one dimension, and how often it decodes each video."""
    shutil.rmtree(run, ignore_errors=True)
    request = Request(
        videos=videos,
        subset=str(videos / "suite.jsonl"),
        out=run,
        profile="official",
        dimensions=(dimension,),
        weights=cache,
        trust_archives=True,
        threads=1,
    )
    with mock.patch.object(Decoder, "read", autospec=True, side_effect=Decoder.read) as decode:
        wall, cpu = time.perf_counter(), _cpu()
        runner.score_folder(request)
        release_idle()  # the decoding process counts when it has ended
        cost = {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu() - cpu}
    return {**cost, "decodes_per_video": decode.call_count / len(list(videos.glob("*.mp4")))}


def _cpu() -> float:
    """Processor seconds of this process and of those it has started and seen end."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def pixels(videos: Path, work: Path, repeat: int) -> dict[str, Any]:
    """The fastest of several runs without networks."""
    runs = [once(videos, work / "pixels", "temporal_flickering", work) for _ in range(repeat + 1)][1:]
    best = min(runs, key=lambda cost: cost["cpu_s"])
    return {"clips": len(list(videos.glob("*.mp4"))), **best}


def main() -> None:
    parser = argparse.ArgumentParser(description="This project's side of the benchmark.")
    parser.add_argument("part", choices=("pixels", "score"))
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--dimensions", nargs="+", default=())
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()

    if given.part == "pixels":
        record = pixels(given.videos, given.work, given.repeat)
    else:
        record = {name: once(given.videos, given.work / "run-one", name, given.cache) for name in given.dimensions}
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
