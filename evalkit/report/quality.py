"""The one figure that stands for a run's quality, with an interval, and which runs no other run beats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.report.view import ShownRun
from evalkit.scoring import mean7, totals
from evalkit.stats import FloatArray, bootstrap_mean

HEADLINES = (
    ("total", "VBench total score"),
    ("mean7", "Mean of the seven customised dimensions"),
    ("lite/mean7", "Mean of seven stand-ins, not a VBench score"),
    ("quality", "VBench quality score"),
    ("semantic", "VBench semantic score"),
)
"""Aggregates that may head the page, the most telling first."""

_FORMULAS: Mapping[str, Callable[[Mapping[str, float]], float | None]] = {
    "total": lambda scores: totals(scores).total,
    "mean7": mean7,
    "lite/mean7": lambda scores: mean7({name.removeprefix("lite/"): score for name, score in scores.items()}),
    "quality": lambda scores: totals(scores).quality,
    "semantic": lambda scores: totals(scores).semantic,
}


@dataclass(frozen=True, slots=True)
class Quality:
    """A run's headline score in percent, its name, and its 95 % interval (None with a single prompt)."""

    value: float
    name: str
    ci95: tuple[float, float] | None


def headline(run: ShownRun) -> tuple[float, str] | None:
    """The most telling aggregate that the run has, in percent, and its name."""
    key = _key(run)
    return None if key is None else (run.summary["aggregate"][key], dict(HEADLINES)[key])


def _key(run: ShownRun) -> str | None:
    aggregate = run.summary["aggregate"]
    return next((key for key, _ in HEADLINES if aggregate.get(key) is not None), None)


def quality_of(run: ShownRun) -> Quality | None:
    """The headline with an interval over prompts; None if the run has none.

    A headline is a linear function of dimension scores, so it varies as the sum of slope x (video score - dimension
    score). That sum is resampled by prompt, all dimensions of a prompt together: dimensions scored on the same videos
    are not independent.
    """
    key = _key(run)
    if key is None:
        return None
    value = float(run.summary["aggregate"][key])
    terms = list(_terms(run, key))
    residuals_N, weights_N = (np.concatenate([term[place] for term in terms]) for place in (0, 1))
    prompts = [prompt for term in terms for prompt in term[2]]
    found = bootstrap_mean(residuals_N, prompts, weights_N, seed=run.manifest["seed"])
    scale = float(weights_N.sum())  # from the mean of the weighted residuals back to their sum
    if found.low is None or found.high is None:
        return Quality(value, dict(HEADLINES)[key], None)
    return Quality(value, dict(HEADLINES)[key], (value + scale * found.low, value + scale * found.high))


def _terms(run: ShownRun, key: str) -> Iterator[tuple[FloatArray, FloatArray, list[str]]]:
    """Of each dimension in the headline: residuals, weights that add up to its slope (percent a unit), prompts."""
    scores = {name: found["score"] for name, found in run.dimensions.items() if found["score"] is not None}
    formula = _FORMULAS[key]
    base = formula(scores)
    for name, score in scores.items():
        raised = formula(scores | {name: score + 1})
        slope = 0.0 if base is None or raised is None else raised - base
        if slope:
            rows = run.record.results.query("dimension == @name and value.notna()")
            x_N = rows["value"].to_numpy(dtype=np.float64)
            w_N = _pooled_by(x_N, rows["n_terms"].to_numpy(dtype=np.float64, na_value=1.0), score)
            yield x_N - score, slope * w_N / w_N.sum(), list(rows["prompt_id"])


def _pooled_by(x_N: FloatArray, n_terms_N: FloatArray, score: float) -> FloatArray:
    """The weights under which the recorded score came about: every video alike, or every frame pair alike."""
    choices = (np.ones_like(x_N), n_terms_N)
    return min(choices, key=lambda w_N: abs(float(np.average(x_N, weights=w_N)) - score))


def undominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the (cost, quality) points that no other point matches in both and beats in one."""
    return [
        place
        for place, (cost, score) in enumerate(points)
        if not any(c <= cost and q >= score and (c, q) != (cost, score) for c, q in points)
    ]
