"""Have the official package read what we write, and keep what it makes of it.

    python -m tests.parity.official_results --source DIR --python FILE

`--source` is a checkout of the official repository, `--python` the interpreter of an environment with its package.
Writes `tests/parity/official_results_golden.json`, and into `tests/data/official` the two files that the package
itself writes for the parity clips.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from evalkit.official_results import export_run, write_submission
from evalkit.official_results.form import FORMS
from tests.official_runs import FOLDER, INFO, made_up

SEEDS = range(3)
GOLDEN = Path(__file__).with_name("official_results_golden.json")
CLIPS = ("clips_eval_results.json", "clips_full_info.json")


def prepare(work: Path) -> None:
    """Our archives, and empty files under the names of the made-up videos."""
    for seed in SEEDS:
        write_submission(export_run(made_up(seed)), work / f"{seed}.zip")
    (work / FOLDER).mkdir()
    for file in made_up(0).results["file"].unique():
        (work / FOLDER / str(file)).touch()
    shutil.copy(INFO, work)
    (work / "dimensions.json").write_text(json.dumps(list(FORMS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work)
        official = [str(args.python), "-m", "tests.parity.official_results_official"]
        subprocess.run([*official, "--source", str(args.source), "--work", folder], check=True)
        GOLDEN.write_text(json.dumps(json.loads((work / "found.json").read_text()), indent=1) + "\n")
        for name in CLIPS:
            shutil.copyfile(work / name, INFO.parent / name)


if __name__ == "__main__":
    main()
