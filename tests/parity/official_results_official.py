"""What the official package makes of result files. Runs in the official environment.

    python -m tests.parity.official_results_official --source DIR --work DIR

`--source` is a checkout of the official repository (its scripts are not in the wheel), `--work` a folder prepared by
`tests.parity.official_results`: zips to be totalled, and a list of prompts with the (empty) videos that it speaks of.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

CLIPS = "tests/parity/clips"


def totals(archive: Path, source: Path) -> dict[str, float]:
    """Quality, semantic and total by the official `scripts/cal_final_score.py`, as fractions."""
    sys.path.insert(0, str(source / "scripts"))
    script = importlib.import_module("cal_final_score")
    normalised = script.get_nomalized_score(script.submission(str(archive.with_suffix("")), str(archive)))
    quality, semantic = script.get_quality_score(normalised), script.get_semantic_score(normalised)
    return {"quality": quality, "semantic": semantic, "total": script.get_final_score(quality, semantic)}


def flickering(work: Path) -> None:
    """Score the parity clips with the package's own entry point, which writes both of its files into `work`."""
    import torch
    import vbench

    bench = vbench.VBench(torch.device("cpu"), "", str(work))
    bench.evaluate(
        videos_path=CLIPS, name="clips", dimension_list=["temporal_flickering"], local=True, mode="custom_input"
    )


def info(work: Path, dimensions: list[str]) -> Any:
    """The list that the package's standard mode makes of the videos in `work/samples`."""
    import vbench

    bench = vbench.VBench("cpu", str(work / "VBench_full_info.json"), str(work))
    before = Path.cwd()
    os.chdir(work)
    try:
        path = bench.build_full_info_json("samples", "standard", dimensions)
    finally:
        os.chdir(before)
    return json.loads(Path(path).read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    work = args.work.resolve()
    flickering(work)
    found = {
        "totals": {zipped.stem: totals(zipped, args.source.resolve()) for zipped in sorted(work.glob("*.zip"))},
        "info": info(work, json.loads((work / "dimensions.json").read_text())),
    }
    (work / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
