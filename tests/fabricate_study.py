"""Studies and runs made up for tests: raters with known preferences, metrics with a known relation to them.

Axes: M models, P prompts, K videos of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evalkit.records import RESULT_COLUMNS, RUN_SCHEMA, VBENCH_SCHEMA, RunRecord
from evalkit.study.types import AXES, Ballots, Screening, Vote

Array = npt.NDArray[np.float64]
MODELS = ("amber", "birch", "cedar", "delta", "ebony")
AXIS_NAMES = tuple(axis.name for axis in AXES)
SHA = "ab" * 32


def prompt_id(place: int) -> str:
    return f"p{place:03d}"


def prompt_text(place: int) -> str:
    return f"a picture of number {place}"


def ranked_votes(worth_MPK: Array, n_raters: int, rng: np.random.Generator, axis: str = AXIS_NAMES[0]) -> list[Vote]:
    """Every rater ranks all models' clips of every prompt and seed by worth plus Gumbel noise (Luce's choice axiom)."""
    n_models, n_prompts, n_videos = worth_MPK.shape
    return [
        Vote(f"r{rater:03d}", prompt_id(p), k, axis, MODELS[:n_models], tuple(int(rank) for rank in ranks_M))
        for rater in range(n_raters)
        for p in range(n_prompts)
        for k in range(n_videos)
        for ranks_M in [_ranks(worth_MPK[:, p, k] + rng.gumbel(size=n_models))]
    ]


def _ranks(worth_M: Array) -> npt.NDArray[np.intp]:
    return np.argsort(np.argsort(-worth_M)) + 1


def paired_votes(worth_MPK: Array, n_raters: int, rng: np.random.Generator, tie: float = 0.0) -> list[Vote]:
    """Every rater judges every pair of clips: `a` wins with odds exp(worth_a - worth_b); a share of ties."""
    n_models, n_prompts, n_videos = worth_MPK.shape
    votes = []
    for rater in range(n_raters):
        for p, k in np.ndindex(n_prompts, n_videos):
            for a, b in zip(*np.triu_indices(n_models, 1), strict=True):
                wins = rng.random() < 1 / (1 + np.exp(worth_MPK[b, p, k] - worth_MPK[a, p, k]))
                ranks = (1, 1) if rng.random() < tie else (1, 2) if wins else (2, 1)
                votes.append(Vote(f"r{rater:03d}", prompt_id(p), k, AXIS_NAMES[0], (MODELS[a], MODELS[b]), ranks))
    return votes


def ballots(votes: Sequence[Vote], models: Sequence[str] = MODELS, **changes: Any) -> Ballots:
    """Votes of raters none of whom was left out."""
    asked = dict.fromkeys(vote.prompt_id for vote in votes)
    prompts = {prompt: prompt_text(int(prompt[1:])) for prompt in asked if prompt[1:].isdecimal()}
    fields: dict[str, Any] = {
        "source": "made-up study",
        "protocol": "rank",
        "ties": False,
        "models": tuple(models),
        "axes": tuple(dict.fromkeys(vote.axis for vote in votes)),
        "votes": tuple(votes),
        "screening": Screening(len({vote.rater for vote in votes})),
        "prompts": prompts,
    }
    return Ballots(**fields | changes)


def run(name: str, scores: Mapping[str, Array], **changes: Any) -> RunRecord:
    """A finished run in memory: scores (P, K) by dimension; NaN is unscored.

    `changes` go to the manifest; `aggregate`, `directions` (`higher_is_better` by dimension) and `seeds` (whether the
    videos' seeds are known) are taken out first.
    """
    aggregate = changes.pop("aggregate", {})
    directions: Mapping[str, bool] = changes.pop("directions", {})
    seeds = changes.pop("seeds", True)
    manifest: dict[str, Any] = {
        "schema": RUN_SCHEMA,
        "suite": {"name": "made-up", "sha256": SHA, "n_prompts": 20},
        "profile": "official",
        "precision": "fp32",
        "weights": {},
    } | changes
    rows = [
        {
            "file": f"{prompt_id(p)}-{k}.mp4",
            "prompt_id": prompt_id(p),
            "prompt": prompt_text(p),
            "seed": k if seeds else None,
            "dimension": dimension,
            "version": 1,
            "value": None if np.isnan(value) else value,
            "n_terms": 15,
            "unscored": "too short" if np.isnan(value) else None,
            "key": f"{prompt_id(p)}-{k}-{dimension}",
        }
        for dimension, values_PK in scores.items()
        for (p, k), value in np.ndenumerate(values_PK)
    ]
    results = pd.DataFrame(rows, columns=list(RESULT_COLUMNS)).astype(RESULT_COLUMNS)
    dimensions = {dimension: {"higher_is_better": directions.get(dimension, True)} for dimension in scores}
    summary = {
        "schema": VBENCH_SCHEMA,
        "profile": manifest["profile"],
        "dimensions": dimensions,
        "aggregate": aggregate,
    }
    return RunRecord(Path("runs") / name, manifest, summary, results)


def runs_of(scores: Mapping[str, Array], **changes: Any) -> dict[str, RunRecord]:
    """A run a model from scores (M, P, K) by dimension."""
    n_models = len(next(iter(scores.values())))
    return {
        model: run(model, {name: values_MPK[m] for name, values_MPK in scores.items()}, **changes)
        for m, model in enumerate(MODELS[:n_models])
    }
