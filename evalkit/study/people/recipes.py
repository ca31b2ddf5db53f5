"""What is compared with people: each dimension, and each headline score as a sum over its dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from evalkit.records import RunRecord
from evalkit.scoring import (
    CUSTOM7,
    LINGEN_QUALITY6,
    M4V_AVG4,
    QUALITY,
    SEMANTIC,
    lingen_quality6,
    m4v_avg4,
    mean7,
    totals,
)

Formula = Callable[[Mapping[str, float]], float | None]

FORMULAS: Mapping[str, tuple[tuple[str, ...], Formula]] = {
    "total": ((*QUALITY, *SEMANTIC), lambda scores: totals(scores).total),
    "quality": (QUALITY, lambda scores: totals(scores).quality),
    "semantic": (SEMANTIC, lambda scores: totals(scores).semantic),
    "mean7": (CUSTOM7, mean7),
    "m4v_avg4": (M4V_AVG4, m4v_avg4),
    "lingen_quality6": (LINGEN_QUALITY6, lingen_quality6),
}
"""Headline scores: the dimensions each needs, and how it comes from them, in percent."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A score as `intercept + sum of slope x dimension`, as a fraction; a dimension is one with the slope 1.

    Args:
        name: of the dimension or headline score, as the runs call it.
        is_total: whether it is a headline score.
        higher_is_better: its direction.
        slopes: by dimension, as the runs call it.
        intercept: what it is where all dimensions are 0.
    """

    name: str
    is_total: bool
    higher_is_better: bool
    slopes: Mapping[str, float]
    intercept: float = 0.0


def recipes(runs: Mapping[str, RunRecord]) -> tuple[list[Recipe], dict[str, str]]:
    """All scores of the runs, dimensions first, and why some headline scores cannot be compared."""
    dimensions = dict.fromkeys(
        str(name) for run in runs.values() for name in run.results["dimension"].dropna().unique()
    )
    found = [Recipe(name, False, _higher_is_better(name, runs), {name: 1.0}) for name in dimensions]
    refused: dict[str, str] = {}
    for name in _headlines(runs):
        recipe = _total(name, dimensions)
        if isinstance(recipe, str):
            refused[name] = recipe
        else:
            found.append(recipe)
    return found, refused


def _higher_is_better(dimension: str, runs: Mapping[str, RunRecord]) -> bool:
    recorded = (run.summary.get("dimensions", {}).get(dimension, {}).get("higher_is_better") for run in runs.values())
    return bool(next((direction for direction in recorded if direction is not None), True))


def _headlines(runs: Mapping[str, RunRecord]) -> list[str]:
    """The headline scores that at least one run has."""
    return list(
        dict.fromkeys(
            name
            for run in runs.values()
            for name, value in run.summary.get("aggregate", {}).items()
            if isinstance(value, int | float)
        )
    )


def _total(name: str, dimensions: Mapping[str, None]) -> Recipe | str:
    """The recipe of a headline score, or why there is none.

    `lite/mean7` and `long/total` are made of `lite/...` and `long/...` dimensions by VBench's formulas.
    """
    kind, _, base = name.rpartition("/")
    if base not in FORMULAS:
        return "its formula is not one of VBench's, so it cannot be told from the clips that people judged"
    needed, formula = FORMULAS[base]
    names = {needed_name: f"{kind}/{needed_name}" if kind else needed_name for needed_name in needed}
    names = {plain: prefixed if prefixed in dimensions else plain for plain, prefixed in names.items()}
    missing = [in_runs for in_runs in names.values() if in_runs not in dimensions]
    if missing:
        return f"no run has {', '.join(missing)}"
    zero = dict.fromkeys(needed, 0.0)
    base_value = _fraction(formula, zero)
    slopes = {names[plain]: _fraction(formula, zero | {plain: 1.0}) - base_value for plain in needed}
    return Recipe(name, True, True, slopes, base_value)


def _fraction(formula: Formula, scores: Mapping[str, float]) -> float:
    percent = formula(scores)
    assert percent is not None, "all dimensions are given"
    return percent / 100
