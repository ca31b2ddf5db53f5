"""What is studied: a dimension or a headline score of several models, prompt by prompt.

A headline score is a sum of slope x dimension score, and each dimension has prompts of its own. Its pseudo-values (the
infinitesimal jackknife, Efron 1982) give each prompt the part it plays in that sum, so that the variance of a headline
score comes from its prompts exactly as that of a dimension does; with one set of prompts for all dimensions they are
the headline scores of single prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evalkit.scoring import CUSTOM7, QUALITY, SEMANTIC, mean7, totals
from evalkit.stats import FloatArray

if TYPE_CHECKING:
    import pandas as pd

IntArray = npt.NDArray[np.intp]
Formula = Callable[[Mapping[str, float]], float | None]

FORMULAS: Mapping[str, tuple[tuple[str, ...], Formula]] = {
    "mean7": (CUSTOM7, mean7),
    "quality": (QUALITY, lambda scores: totals(scores).quality),
    "semantic": (SEMANTIC, lambda scores: totals(scores).semantic),
    "total": ((*QUALITY, *SEMANTIC), lambda scores: totals(scores).total),
}
"""Headline scores: the dimensions each needs, and how it comes from them, in percent."""


@dataclass(frozen=True, slots=True)
class Part:
    """One dimension of a target.

    Args:
        dimension: its name in the runs.
        slope: what one unit of it adds to the target.
        columns_P: its prompts, as places in the target's prompts.
        x_MP: mean score of each prompt's videos, raw fraction.
    """

    dimension: str
    slope: float
    columns_P: IntArray
    x_MP: FloatArray


@dataclass(frozen=True)
class Target:
    """A dimension or a headline score of all models, on the prompts that all of them scored; scores are fractions.

    Args:
        name: of the dimension, or `mean7`, `quality`, `semantic`, `total`, `lite/mean7`.
        models: their names.
        prompts: ids of the common prompts.
        parts: its dimensions; one, with slope 1, if the target is a dimension.
        intercept: what the target is where all parts are 0.
        higher_is_better: its direction.
        within_MU: variance between the videos of a prompt, of pseudo-values; NaN with fewer than two videos.
        videos_MU: videos of each prompt.
        left_out: prompts that some models did not score, and which those are.
    """

    name: str
    models: tuple[str, ...]
    prompts: tuple[str, ...]
    parts: tuple[Part, ...]
    intercept: float
    higher_is_better: bool
    within_MU: FloatArray
    videos_MU: FloatArray
    left_out: Mapping[str, tuple[str, ...]]

    def scores(self, weights_RU: FloatArray) -> FloatArray:
        """The models' scores (R, M) with prompts weighted so; NaN where a dimension has no weight left."""
        found_RM = np.full((len(weights_RU), len(self.models)), self.intercept)
        for part in self.parts:
            w_RP = weights_RU[:, part.columns_P]
            total_R1 = w_RP.sum(axis=1, keepdims=True)
            means_RM = np.full_like(found_RM, np.nan)
            found_RM += part.slope * np.divide(w_RP @ part.x_MP.T, total_R1, out=means_RM, where=total_R1 > 0)
        return found_RM

    @cached_property
    def full_M(self) -> FloatArray:
        """Each model's score on all prompts."""
        return np.asarray(self.scores(np.ones((1, len(self.prompts))))[0], dtype=np.float64)

    @cached_property
    def values_MU(self) -> FloatArray:
        """Pseudo-values: a number a prompt, whose mean is the score and whose spread gives its variance."""
        z_MU = np.repeat(self.full_M[:, None], len(self.prompts), axis=1)
        for part in self.parts:
            scale = part.slope * len(self.prompts) / len(part.columns_P)
            z_MU[:, part.columns_P] += scale * (part.x_MP - part.x_MP.mean(axis=1, keepdims=True))
        return z_MU

    @cached_property
    def groups_U(self) -> IntArray:
        """Which prompts serve the same dimensions: a number a group."""
        served_DU = np.zeros((len(self.parts), len(self.prompts)), dtype=np.int8)
        for row_U, part in zip(served_DU, self.parts, strict=True):
            row_U[part.columns_P] = 1
        return np.unique(served_DU, axis=1, return_inverse=True)[1].reshape(-1).astype(np.intp)

    @property
    def fewest(self) -> int:
        """Prompts that give every dimension at least one, when drawn in the suite's proportions."""
        return int(np.ceil(len(self.prompts) / min(len(part.columns_P) for part in self.parts)))


def build_targets(
    videos: pd.DataFrame, models: Sequence[str], higher_is_better: Mapping[str, bool], lite: bool
) -> tuple[list[Target], dict[str, str]]:
    """All targets that can be studied, and why the others cannot.

    Args:
        videos: a row a scored video and dimension: `model`, `prompt_id`, `file`, `dimension`, `value`.
        models: names of all models.
        higher_is_better: direction of each dimension.
        lite: whether the scores are stand-ins.
    """
    found: list[Target] = []
    refused: dict[str, str] = {}
    dimensions = [str(name) for name in videos["dimension"].unique()]
    recipes: dict[str, tuple[dict[str, float], float]] = {name: ({name: 1.0}, 0.0) for name in dimensions}
    recipes |= {name: recipe for name, recipe in _headlines(lite) if set(recipe[0]) <= set(dimensions)}
    by_dimension = {str(name): rows for name, rows in videos.groupby("dimension", observed=True, sort=False)}
    for name, (slopes, intercept) in recipes.items():
        scored = [set(by_dimension[dimension]["model"]) for dimension in slopes]
        having = tuple(model for model in models if all(model in some for some in scored))
        rows = {dimension: by_dimension[dimension] for dimension in slopes}
        target = _target(name, slopes, intercept, rows, having, higher_is_better.get(name, True))
        lacking = [model for model in models if model not in having]
        if target is None:
            refused[name] = _refusal(having)
        else:
            found.append(target)
            if lacking:
                refused[name] = f"not scored for {', '.join(lacking)}: studied without"
    return found, refused


def _refusal(having: Sequence[str]) -> str:
    if len(having) < 2:
        return f"scored for {having[0]} only" if having else "no model has all of its dimensions"
    return "fewer than 2 prompts that all models scored"


def _headlines(lite: bool) -> Iterator[tuple[str, tuple[dict[str, float], float]]]:
    """Slope of each dimension, as the runs call it, and intercept of each headline score, as fractions."""
    for name, (dimensions, formula) in FORMULAS.items():
        if lite and name != "mean7":
            continue
        zero = dict.fromkeys(dimensions, 0.0)
        base = formula(zero)
        assert base is not None
        slopes = {}
        for dimension in dimensions:
            raised = formula(zero | {dimension: 1.0})
            assert raised is not None
            in_runs = f"lite/{dimension}" if lite and dimension != "temporal_flickering" else dimension
            slopes[in_runs] = (raised - base) / 100
        yield (f"lite/{name}" if lite else name), (slopes, base / 100)


def _target(
    name: str,
    slopes: Mapping[str, float],
    intercept: float,
    rows: Mapping[str, pd.DataFrame],
    models: tuple[str, ...],
    higher_is_better: bool,
) -> Target | None:
    """Put a target together; None with fewer than two models, or than two common prompts in a dimension."""
    if len(models) < 2:
        return None
    means = {dimension: _prompt_means(rows[dimension], models) for dimension in slopes}
    common = {dimension: table.dropna() for dimension, table in means.items()}
    if any(len(table) < 2 for table in common.values()):
        return None
    prompts = tuple(dict.fromkeys(prompt for table in common.values() for prompt in table.index))
    place = {prompt: index for index, prompt in enumerate(prompts)}
    parts = tuple(
        Part(
            dimension,
            slopes[dimension],
            np.array([place[prompt] for prompt in table.index], dtype=np.intp),
            np.ascontiguousarray(table.to_numpy(dtype=np.float64).T),
        )
        for dimension, table in common.items()
    )
    within_MU, videos_MU = _within(rows, {part.dimension: part for part in parts}, models, prompts)
    left_out: dict[str, tuple[str, ...]] = {}
    for table in means.values():
        for prompt, absent in table[table.isna().any(axis=1)].isna().iterrows():
            missing = (*left_out.get(str(prompt), ()), *(str(model) for model in absent.index[absent]))
            left_out[str(prompt)] = tuple(dict.fromkeys(missing))
    return Target(name, models, prompts, parts, intercept, higher_is_better, within_MU, videos_MU, left_out)


def _prompt_means(rows: pd.DataFrame, models: tuple[str, ...]) -> pd.DataFrame:
    """Mean over the videos of each prompt, a column a model; NaN where none was scored. Prompts sorted by id."""
    kept = rows[rows["model"].isin(models)]
    return kept.pivot_table(index="prompt_id", columns="model", values="value", aggfunc="mean")[list(models)]


def _within(
    rows: Mapping[str, pd.DataFrame], parts: Mapping[str, Part], models: tuple[str, ...], prompts: tuple[str, ...]
) -> tuple[FloatArray, FloatArray]:
    """Variance between the videos of each prompt, and their number, both (M, U).

    A video's deviations from its prompt's means add up over the dimensions, so that what moves together counts so.
    """
    import pandas as pd

    deviations = []
    for dimension, part in parts.items():
        kept = rows[dimension]
        kept = kept[kept["model"].isin(models) & kept["prompt_id"].isin([prompts[place] for place in part.columns_P])]
        mean = kept.groupby(["model", "prompt_id"])["value"].transform("mean")
        scale = part.slope * len(prompts) / len(part.columns_P)
        deviations.append(kept[["model", "prompt_id", "file"]].assign(deviation=scale * (kept["value"] - mean)))
    by_video = pd.concat(deviations).groupby(["model", "prompt_id", "file"])["deviation"].sum()
    by_prompt = (by_video**2).groupby(level=[0, 1]).agg(["sum", "count"])
    sums_MU, videos_MU = (
        by_prompt[column].unstack(0).reindex(list(prompts))[list(models)].to_numpy(dtype=np.float64).T
        for column in ("sum", "count")
    )
    alone_MU = videos_MU < 2
    within_MU = np.where(alone_MU, np.nan, sums_MU / np.where(alone_MU, 1.0, videos_MU - 1))
    return within_MU, videos_MU
