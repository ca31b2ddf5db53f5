"""Time and memory of a run that finds everything done: 4,730 videos in all 16 dimensions, every score in the journal.

Makes a folder of 4,730 small clips, all different, for 946 prompts that each ask for all 16 dimensions, and a run
directory whose journal holds 75,680 made-up scores under the keys that the program gives them. Then the whole command
is run again in a fresh process of one core: it identifies the files, finds every score, pools, resamples for the
intervals, and writes tables and the page. No network is loaded, so that any bytes do for the checkpoints. Writes a
record to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.measure import run
from evalkit.encode import write_video
from evalkit.files import write_atomically
from evalkit.job import Request, Video
from evalkit.metrics import registry
from evalkit.posters import PosterReader
from evalkit.provenance import git, hardware, packages
from evalkit.runner import checkpoints_of, score_folder
from evalkit.scoring_pass import ScoringPass

RESULTS = Path(__file__).parent / "results"
PROMPTS, SAMPLES = 946, 5
TARGET_S, TARGET_MIB = 10.0, 500.0


def prompts(n: int) -> Iterator[dict[str, Any]]:
    """Prompts that say what every dimension is to look for."""
    looked_for = {
        m.dimension: dict.fromkeys(m.auxiliary, "a red kite") for m in registry("official").values() if m.auxiliary
    }
    for number in range(n):
        yield {"id": f"p{number:03}", "text": f"a red kite over hill number {number}", "auxiliary": looked_for}


def write_clips(folder: Path, names: Sequence[str]) -> None:
    """One small clip under many names, each with other bytes behind its end (a `free` box, ISO/IEC 14496-12, 8.1.2)."""
    grey = np.linspace(40, 200, 2 * 32 * 48).astype(np.uint8).reshape(2, 32, 48, 1).repeat(3, axis=-1)
    first = folder / names[0]
    write_video(first, grey, 8)
    clip = first.read_bytes()
    for number, name in enumerate(names):
        (folder / name).write_bytes(clip + (16).to_bytes(4) + b"free" + number.to_bytes(8))


def lay_out(work: Path, n_prompts: int) -> Request:
    """Make everything below `work` that a run needs."""
    suite, videos, weights = work / "prompts.jsonl", work / "videos", work / "weights"
    asked = list(prompts(n_prompts))
    suite.write_text("".join(json.dumps(prompt) + "\n" for prompt in asked), encoding="utf-8")
    videos.mkdir()
    write_clips(videos, [f"{prompt['id']}-{k}.mp4" for prompt in asked for k in range(SAMPLES)])
    for checkpoint in checkpoints_of(registry("official").values()).values():
        write_atomically(weights / checkpoint.file, checkpoint.key.encode())
    dimensions = tuple(registry("official"))
    return Request(videos, str(suite), work / "run", "official", dimensions, weights, trust_archives=True)


def made_up(scoring: ScoringPass, videos: Sequence[Video]) -> bool:
    """In the place of `ScoringPass.run`: every score it would compute, drawn at random."""
    generator, out = np.random.default_rng(0), scoring.means.request.out
    frame = np.full((32, 48, 3), 128, np.uint8)
    for video in videos:
        for metric in scoring._lacking(video):
            record = {
                "file": video.sample.file,
                "dimension": metric.name,
                "value": float(generator.beta(8, 2)),
                "n_terms": video.info.n_frames,
                "unscored": None,
                "device": "cpu",
            }
            scoring.means.journal.put(scoring._key(video, metric), record)
        poster = PosterReader.at(out, video.sha256, video.info)
        poster.push(poster.index, frame[None])
        poster.close()
    return False


def again(request: Request) -> list[str | Path]:
    """The command that finds everything done."""
    names = ",".join(registry("official"))
    return [
        *(sys.executable, "-c", "from evalkit.cli import main; main()", "vbench", "--subset", request.subset),
        *("--videos", request.videos, "--weights", request.weights, "--out", request.out, "--trust-weights"),
        *("--profile", "official", "--device", "cpu", "--dimensions", names),
    ]


def measure(work: Path, n_prompts: int, rounds: int) -> dict[str, Any]:
    """Make the run, then time its repetition."""
    request = lay_out(work, n_prompts)
    with mock.patch.object(ScoringPass, "run", made_up):
        first = score_folder(request)
    costs = [run(again(request), 0, work / f"again{n}.log") for n in range(rounds)]
    summary = json.loads((request.out / "vbench.json").read_text(encoding="utf-8"))
    if summary["dimensions"] != first.summary["dimensions"]:
        raise ValueError("the second run found other scores")
    return {
        "videos": len(summary["videos"]),
        "scores": len(first.results),
        "journal_bytes": (request.out / "results.jsonl").stat().st_size,
        "wall_s": round(statistics.median(cost.wall_s for cost in costs), 2),
        "peak_mib": round(max(cost.peak_bytes for cost in costs) / 2**20, 1),
        "rounds": [asdict(cost) for cost in costs],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.resume_cached", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="of five videos each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "resume_cached.json")
    given = parser.parse_args(arguments)
    load_1min = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.prompts, given.rounds)
    made = {
        "schema": "m4v-eval/resume-cached/1",
        "target": {"wall_s": TARGET_S, "peak_mib": TARGET_MIB},
        "load_1min": load_1min,
        "hardware": hardware("cpu"),
        "packages": packages(),
        "git": git(),
        **found,
    }
    write_atomically(given.out, (json.dumps(made, indent=1) + "\n").encode())
    print(
        f"{made['videos']} videos, {made['scores']} scores, all there: {made['wall_s']} s (to reach: {TARGET_S:g}),"
        f" {made['peak_mib']} MiB (to reach: {TARGET_MIB:g})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
