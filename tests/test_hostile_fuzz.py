"""Thousands of mutants of valid files through every reader (`tests.feed_mutants`), in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.untrusted_files import SUBJECTS

SEED = 7
MUTANTS = 250
SLOWER = {"flops.json", "latency.json", "subset study", "checkpoint", "official prompts"}
SLOWER |= {"ablation.json", "recipe in a checkpoint", "pickle in a checkpoint"}
SLOW = {"run.json", "vbench.json", "results.parquet", "official results", "rankings", "pairs", "mean ranks"}
SLOW |= {"study import", "study plan"}
"""A page, a study or a network is made for each."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_mutants_are_read_or_refused(name: str) -> None:
    count = 60 if name in SLOWER else 100 if name in SLOW else MUTANTS
    command = [sys.executable, "-m", "tests.feed_mutants", name, str(count), str(SEED)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parent.parent, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]  # a reader that crashes takes the process along
    found = json.loads(done.stdout)
    assert not found["wrong"], "\n\n".join(f"{w['mutant']}: {w['bytes']}\n{w['fault']}" for w in found["wrong"][:3])
    assert found["read"] + found["refused"] == count
    assert found["refused"] > 0 or name == "journal"  # which drops lines that are damaged
