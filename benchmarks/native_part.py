"""This project's side of the parts that are measured inside one process.

    python -m benchmarks.native_part --videos DIR --work DIR --out FILE --repeat N

Scores temporal_flickering alone: matching, hashing, decoding, the metric, posters, journal, intervals and the run
record are all there, networks are not. Imports and the first, slower run are not counted, as for the official package.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from unittest import mock

from evalkit import runner, scoring_pass, video
from evalkit.job import Request


def once(videos: Path, run: Path) -> tuple[float, float]:
    """Processor seconds for a fresh run over the folder, and how often each video was decoded."""
    shutil.rmtree(run, ignore_errors=True)
    request = Request(
        videos=videos,
        subset=str(videos / "suite.jsonl"),
        out=run,
        profile="official",
        dimensions=("temporal_flickering",),
        threads=1,
    )
    with mock.patch.object(scoring_pass, "read", wraps=video.read) as decode:
        start = time.process_time()
        runner.score_folder(request)
        seconds = time.process_time() - start
    return seconds, decode.call_count / len(list(videos.glob("*.mp4")))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time everything but the networks.")
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()

    runs = [once(given.videos, given.work / "pixels") for _ in range(given.repeat + 1)][1:]
    record = {
        "clips": len(list(given.videos.glob("*.mp4"))),
        "cpu_s": min(seconds for seconds, _ in runs),
        "decodes_per_video": max(decodes for _, decodes in runs),
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
