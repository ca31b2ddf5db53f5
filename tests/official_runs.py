"""Runs of the official profile, made up from a seed: every dimension, several videos a prompt, some unscored."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evalkit.official_results.form import FORMS
from evalkit.prompts import by_text, load_suite
from evalkit.records import RESULT_COLUMNS, RunRecord

INFO = Path(__file__).parent / "data/official/VBench_full_info.json"
"""Thirteen of the 946 entries of VBench (Vchitect/VBench, Apache-2.0): each combination of dimensions, and one text
that stands there twice."""

FOLDER = "samples"
N_VIDEOS = 3


def made_up(seed: int, *, dimensions: Sequence[str] = tuple(FORMS), n_unscored: int = 1) -> RunRecord:
    """A run over `INFO` with `N_VIDEOS` videos a prompt.

    Args:
        seed: of the scores.
        dimensions: those to have.
        n_unscored: how many videos of colour have no score.
    """
    draw = random.Random(seed)
    suite = load_suite(str(INFO))
    rows = []
    for prompt in by_text(suite.prompts).values():
        for k in range(N_VIDEOS):
            for dimension in (d for d in dimensions if prompt.asks_for(d)):
                rows.append(_row(prompt.id, prompt.text, k, dimension, draw))
    for row in [row for row in rows if row["dimension"] == "color"][:n_unscored]:
        row |= {"value": None, "n_terms": 0, "unscored": "no frame shows the object in a colour"}
    table = pd.DataFrame(rows, columns=list(RESULT_COLUMNS)).astype(RESULT_COLUMNS)
    subset = {"name": suite.name, "sha256": suite.sha256, "n_prompts": len(suite.prompts), "source": suite.source}
    summary = {
        "profile": "official",
        "precision": "fp32",
        "subset": subset,
        "dimensions": {name: _dimension(table, name) for name in dimensions},
        "missing_prompts": [],
        "unmatched_files": [],
        "foreign_weights": [],
    }
    manifest = {"videos_dir": f"/home/someone/{FOLDER}", "config": {"subset": str(INFO)}, "suite": subset}
    return RunRecord(Path(f"made-up-{seed}"), manifest, summary, table)


def _row(prompt_id: str, prompt: str, k: int, dimension: str, draw: random.Random) -> dict[str, Any]:
    form = FORMS[dimension]
    n_terms = draw.randint(8, 40)
    value = draw.random() if form.low == 0.0 else draw.uniform(-0.1, 0.9)
    if dimension in ("object_class", "multiple_objects", "scene"):
        value = draw.randint(0, n_terms) / n_terms
    return {
        "file": f"{prompt}-{k}.mp4",
        "prompt_id": prompt_id,
        "prompt": prompt,
        "seed": k,
        "dimension": dimension,
        "version": 1,
        "value": float(value > 0.5) if form.unit == "flag" else value,
        "n_terms": n_terms,
    }


def _dimension(table: pd.DataFrame, name: str) -> dict[str, Any]:
    rows = table[(table["dimension"] == name) & table["value"].notna()]
    weights = rows["n_terms"].to_numpy(dtype=float) if FORMS[name].pooling == "frames" else None
    score = float(np.average(rows["value"].to_numpy(dtype=float), weights=weights)) if len(rows) else None
    return {"score": score, "n": len(rows)}
