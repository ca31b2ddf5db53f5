"""Mean scores of models over the videos that count, and over resamples of their prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.stats import FloatArray
from evalkit.study.people.recipes import Recipe
from evalkit.study.people.scored import ScoredClips


@dataclass(frozen=True, slots=True)
class Counted:
    """The videos of one model that count: the place of its prompt by file."""

    clips: ScoredClips
    prompts: Mapping[str, int]


def model_means(recipe: Recipe, models: Sequence[Counted], weights_RP: FloatArray) -> FloatArray:
    """Each model's score (R, M) with prompts counted so often; NaN where a dimension has no video left.

    A headline score comes from the means of its dimensions, each over all videos that have it.
    """
    found_RM = np.full((len(weights_RP), len(models)), recipe.intercept)
    for dimension, slope in recipe.slopes.items():
        sums_PM, scored_PM = (np.zeros((weights_RP.shape[1], len(models))) for _ in range(2))
        for m, model in enumerate(models):
            for file, value in model.clips.values.get(dimension, {}).items():
                if file in model.prompts:
                    sums_PM[model.prompts[file], m] += value
                    scored_PM[model.prompts[file], m] += 1
        sums_RM, scored_RM = weights_RP @ sums_PM, weights_RP @ scored_PM
        means_RM = np.full_like(found_RM, np.nan)
        found_RM += slope * np.divide(sums_RM, scored_RM, out=means_RM, where=scored_RM > 0)
    return found_RM
