"""Variants against what they change, metric by metric: means, differences with intervals, corrected p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evalkit.crossed import CrossedComparison, crossed_comparison
from evalkit.records import RunRecord
from evalkit.stats import FloatArray, bootstrap_mean, holm


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of one variant against another; scores are raw fractions."""

    variant: str
    against: str
    metric: str
    higher_is_better: bool
    comparison: CrossedComparison
    p_adjusted: float | None

    def to_json(self) -> dict[str, Any]:
        result = self.comparison.result
        return {
            "variant": self.variant,
            "against": self.against,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "delta": result.delta,
            "ci95": None if result.low is None else [result.low, result.high],
            "p_value": result.p_value,
            "p_adjusted": self.p_adjusted,
            "n": result.n,
            "unpaired": result.n_unpaired,
            "n_seeds": self.comparison.n_seeds,
            "seed_spread": self.comparison.seed_spread,
            "covers_training": self.comparison.covers_training,
            "verdict": self.verdict,
        }

    @property
    def verdict(self) -> str:
        """What may be said of the variant, at 5 % over all comparisons of the ablation together."""
        delta = self.comparison.result.delta
        if delta is None or self.p_adjusted is None:
            return "not compared"
        if self.p_adjusted > 0.05:
            return "not distinguishable"
        return "better" if (delta > 0) == self.higher_is_better else "worse"


def score_table(runs: Sequence[RunRecord], metric: str, prompts: Sequence[str]) -> FloatArray:
    """Scores (seeds, prompts) of one variant, a scored run a training seed; NaN where nothing was scored.

    Several videos of one prompt are averaged.
    """
    rows = []
    for run in runs:
        of_metric = run.results[run.results["dimension"] == metric]
        means = of_metric.assign(value=of_metric["value"].astype("float64")).groupby("prompt_id")["value"].mean()
        rows.append([float(means.get(prompt, np.nan)) for prompt in prompts])
    return np.array(rows, dtype=np.float64).reshape(len(runs), len(prompts))


def metric_names(runs: Mapping[str, Sequence[RunRecord]]) -> list[str]:
    """Metrics that every run has, in the order of the first."""
    all_runs = [run for variant in runs.values() for run in variant]
    names = list(dict.fromkeys(all_runs[0].results["dimension"])) if all_runs else []
    return [name for name in names if all(name in set(run.results["dimension"]) for run in all_runs)]


def prompt_ids(runs: Mapping[str, Sequence[RunRecord]]) -> list[str]:
    """Prompts that any run has a video for."""
    ids = {str(p) for variant in runs.values() for run in variant for p in run.results["prompt_id"].dropna()}
    return sorted(ids)


def compare_variants(
    runs: Mapping[str, Sequence[RunRecord]], pairs: Sequence[tuple[str, str]], *, seed: int = 0
) -> list[MetricComparison]:
    """Every (variant, other) of `pairs` in every metric; p-values corrected over all of them together (Holm)."""
    prompts = prompt_ids(runs)
    compared = []
    for metric in metric_names(runs):
        for variant, other in pairs:
            summary = runs[other][0].summary["dimensions"].get(metric, {})
            a_SP, b_SP = (score_table(runs[name], metric, prompts) for name in (other, variant))
            crossed = crossed_comparison(a_SP, b_SP, seed=seed)
            higher = bool(summary.get("higher_is_better", True))
            compared.append(MetricComparison(variant, other, metric, higher, crossed, None))
    return _adjusted(compared)


def _adjusted(compared: list[MetricComparison]) -> list[MetricComparison]:
    with_p = [c for c in compared if c.comparison.result.p_value is not None]
    adjusted = iter(holm([c.comparison.result.p_value or 0.0 for c in with_p]))
    return [c if c.comparison.result.p_value is None else replace(c, p_adjusted=next(adjusted)) for c in compared]


def summarise(runs: Sequence[RunRecord], metrics: Sequence[str], prompts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Mean of each metric over seeds and prompts with its interval over prompts, and what was not scored."""
    summary = {}
    for metric in metrics:
        scores_SP = score_table(runs, metric, prompts)
        clusters = np.tile(np.arange(len(prompts)), (len(runs), 1))
        interval = bootstrap_mean(scores_SP.ravel(), clusters.ravel())
        summary[metric] = {
            "mean": interval.estimate,
            "ci95": None if interval.low is None else [interval.low, interval.high],
            "n": interval.n,
            "unscored": interval.n_missing,
        }
    return summary
