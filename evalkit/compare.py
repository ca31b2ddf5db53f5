"""Two runs, prompt by prompt: which dimensions really changed, and how sure one can be.

The unit is the prompt: seeds of one prompt are averaged first, and only prompts that both runs scored are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from evalkit.errors import UserError
from evalkit.records import RunRecord
from evalkit.stats import Comparison, holm, paired_comparison

COMPARE_SCHEMA = "m4v-eval/compare/1"
LEVEL = 0.95

Verdict = Literal["better", "worse", "not distinguishable", "not compared"]


@dataclass(frozen=True, slots=True)
class DimensionComparison:
    """One dimension of two runs; scores are raw fractions.

    Args:
        metric: its name, `lite/...` for a stand-in.
        higher_is_better: its direction.
        mean_a: mean of run A over the compared prompts; None without any.
        mean_b: mean of run B over the same prompts.
        result: the paired comparison, B - A.
        p_adjusted: the p-value after Holm's correction over all compared dimensions.
        not_compared: why prompts were left out, and how many.
    """

    metric: str
    higher_is_better: bool
    mean_a: float | None
    mean_b: float | None
    result: Comparison
    p_adjusted: float | None
    not_compared: Mapping[str, int]

    @property
    def verdict(self) -> Verdict:
        """What may be said of run B against run A, at 5 % for all dimensions together."""
        if self.result.delta is None or self.p_adjusted is None:
            return "not compared"
        if self.p_adjusted > 1 - LEVEL:
            return "not distinguishable"
        return "better" if (self.result.delta > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Run B against run A.

    Args:
        run_a: directory of run A.
        run_b: directory of run B.
        profile: of both.
        suite: name, sha256 and size of the prompt suite of both.
        precision: of both.
        dimensions: those that both runs have.
        only_in: dimensions that one run lacks, with the name of the run that has them.
        in_neither: prompts of the suite without a video in either run.
    """

    run_a: str
    run_b: str
    profile: str
    suite: Mapping[str, Any]
    precision: str
    dimensions: tuple[DimensionComparison, ...]
    only_in: Mapping[str, str]
    in_neither: int

    @property
    def complete(self) -> bool:
        """Whether every dimension of either run was compared on every prompt of the suite."""
        return not (self.only_in or self.in_neither or any(dimension.not_compared for dimension in self.dimensions))

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": COMPARE_SCHEMA,
            "run_a": self.run_a,
            "run_b": self.run_b,
            "profile": self.profile,
            "precision": self.precision,
            "suite": dict(self.suite),
            "comparisons": [_dimension_json(dimension) for dimension in self.dimensions],
            "only_in": dict(self.only_in),
            "in_neither": self.in_neither,
        }


def _dimension_json(dimension: DimensionComparison) -> dict[str, Any]:
    result = dimension.result
    return {
        "metric": dimension.metric,
        "higher_is_better": dimension.higher_is_better,
        "mean_a": dimension.mean_a,
        "mean_b": dimension.mean_b,
        "delta": result.delta,
        "ci95": None if result.low is None else [result.low, result.high],
        "p_value": result.p_value,
        "p_exact": result.exact,
        "p_adjusted": dimension.p_adjusted,
        "n": result.n,
        "detectable": result.detectable,
        "not_compared": dict(dimension.not_compared),
        "verdict": dimension.verdict,
    }


def compare_runs(a: RunRecord, b: RunRecord, *, seed: int = 0) -> RunComparison:
    """Compare run B with run A, dimension by dimension.

    Raises:
        UserError: the runs do not compare (another suite, profile, precision, checkpoint or metric version), or have
            no dimension in common.
    """
    refuse_unlike(a, b)
    names_a, names_b = (list(run.results["dimension"].dropna().unique()) for run in (a, b))
    common = [name for name in names_a if name in names_b]
    if not common:
        raise UserError(f"{a.name} and {b.name} have no dimension in common.", "Score both with the same --dimensions.")
    compared = [_compare_dimension(name, a, b, seed) for name in common]
    only_in = {name: a.name for name in names_a if name not in common}
    only_in |= {name: b.name for name in names_b if name not in common}
    return RunComparison(
        run_a=str(a.path),
        run_b=str(b.path),
        profile=a.manifest["profile"],
        suite=a.manifest["suite"],
        precision=a.manifest["precision"],
        dimensions=_adjusted(compared),
        only_in=only_in,
        in_neither=len(_missing_prompts(a) & _missing_prompts(b)),
    )


def refuse_unlike(a: RunRecord, b: RunRecord) -> None:
    """Raise if the numbers of two runs mean different things.

    Raises:
        UserError: naming everything that differs.
    """
    differences = list(_differences(a, b))
    if differences:
        raise UserError(
            f"{a.name} and {b.name} do not compare: {'; '.join(differences)}.",
            "Score both video folders with the same prompts, profile, precision, weights and version.",
        )


def _differences(a: RunRecord, b: RunRecord) -> Iterator[str]:
    suite_a, suite_b = _recorded(a, "suite"), _recorded(b, "suite")
    if suite_a["sha256"] != suite_b["sha256"]:
        yield f"prompt suites {_suite(suite_a)} and {_suite(suite_b)}"
    for key in ("profile", "precision"):
        if _recorded(a, key) != _recorded(b, key):
            yield f"{key} {a.manifest[key]} and {b.manifest[key]}"
    weights_a, weights_b = _recorded(a, "weights"), _recorded(b, "weights")
    for key in sorted(weights_a.keys() & weights_b.keys()):
        if weights_a[key] != weights_b[key]:
            yield f"checkpoint {key} {weights_a[key][:12]} and {weights_b[key][:12]}"
    versions_a, versions_b = _versions(a), _versions(b)
    for name in versions_a.keys() & versions_b.keys():
        if versions_a[name] != versions_b[name]:
            yield f"{name} version {_either(versions_a[name])} and {_either(versions_b[name])}"


def _recorded(run: RunRecord, key: str) -> Any:
    if key not in run.manifest:
        raise UserError(f"{run.path / 'run.json'} does not say its {key}.", "Run the scoring command again.")
    return run.manifest[key]


def _suite(suite: Mapping[str, Any]) -> str:
    return f"{suite['name']} ({suite['sha256'][:12]})"


def _versions(run: RunRecord) -> dict[str, list[int]]:
    return {str(name): sorted(rows.unique()) for name, rows in run.results.groupby("dimension")["version"]}


def _either(versions: list[int]) -> str:
    return " or ".join(map(str, versions))


def _compare_dimension(name: str, a: RunRecord, b: RunRecord, seed: int) -> DimensionComparison:
    means_a, means_b = _prompt_means(a, name), _prompt_means(b, name)
    prompts = sorted(means_a.keys() | means_b.keys())
    x_P = np.array([means_a.get(prompt, np.nan) for prompt in prompts])
    y_P = np.array([means_b.get(prompt, np.nan) for prompt in prompts])
    both_P = np.isfinite(x_P) & np.isfinite(y_P)
    reasons = Counter(
        _reason(prompt, means_a, means_b, a, b) for prompt, both in zip(prompts, both_P, strict=True) if not both
    )
    return DimensionComparison(
        name,
        bool(a.summary.get("dimensions", {}).get(name, {}).get("higher_is_better", True)),
        float(x_P[both_P].mean()) if both_P.any() else None,
        float(y_P[both_P].mean()) if both_P.any() else None,
        paired_comparison(x_P, y_P, seed=seed, level=LEVEL),
        None,
        dict(reasons),
    )


def _prompt_means(run: RunRecord, dimension: str) -> dict[str, float]:
    """Mean over the scored videos of each prompt; NaN where none was scored."""
    rows = run.results[run.results["dimension"] == dimension]
    means = rows.assign(value=rows["value"].astype("float64")).groupby("prompt_id")["value"].mean()
    return {str(prompt): float(mean) for prompt, mean in means.items()}


def _reason(prompt: str, means_a: Mapping[str, float], means_b: Mapping[str, float], a: RunRecord, b: RunRecord) -> str:
    """Why a prompt was not compared, run by run."""
    parts = []
    for means, run in ((means_a, a), (means_b, b)):
        if prompt not in means:
            parts.append(f"no video in {run.name}")
        elif np.isnan(means[prompt]):
            parts.append(f"not scored in {run.name}")
    return " and ".join(parts)


def _adjusted(compared: list[DimensionComparison]) -> tuple[DimensionComparison, ...]:
    """Correct the p-values of all tested dimensions together."""
    p_values = {c.metric: c.result.p_value for c in compared if c.result.p_value is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return tuple(replace(c, p_adjusted=adjusted.get(c.metric)) for c in compared)


def _missing_prompts(run: RunRecord) -> set[str]:
    return {str(prompt["id"]) for prompt in run.summary.get("missing_prompts", ())}
