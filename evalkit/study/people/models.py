"""The order of models by score against their order by people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.stats import FloatArray
from evalkit.study.people import measures
from evalkit.study.people.record import ENOUGH_MODELS, ModelCorrelation, ModelPoint
from evalkit.study.people.standing import Standings
from evalkit.study.types import Estimate


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One score of all models.

    Args:
        value_M: of each; NaN where it is unknown.
        drawn_RM: the same for resamples of the prompts; None where the votes' prompts cannot be resampled with them.
        n_prompts: resampled.
        higher_is_better: its direction.
    """

    value_M: FloatArray
    drawn_RM: FloatArray | None
    n_prompts: int
    higher_is_better: bool

    def estimate(self, place: int) -> Estimate:
        """One model's score with its interval, where it has one."""
        value = float(self.value_M[place])
        if self.drawn_RM is None:
            return Estimate(value)
        return measures.with_interval(value, self.drawn_RM[:, place], self.n_prompts)


def model_correlation(
    models: Sequence[str], scores: ModelScores, standings: Standings, *, seed: int
) -> ModelCorrelation | None:
    """Correlate over the models of which both are known; None with fewer than two."""
    kept = np.flatnonzero(np.isfinite(scores.value_M) & np.isfinite(standings.value_M)).tolist()
    if len(kept) < 2:
        return None
    sign = 1.0 if scores.higher_is_better else -1.0
    x_1K, y_1K = sign * scores.value_M[None, kept], standings.value_M[None, kept]
    drawn = None
    if scores.drawn_RM is not None and standings.drawn_RM is not None and len(kept) >= ENOUGH_MODELS:
        drawn = sign * scores.drawn_RM[:, kept], standings.drawn_RM[:, kept]

    def correlate(measure: Callable[[FloatArray, FloatArray], FloatArray]) -> Estimate | None:
        value = float(measure(x_1K, y_1K)[0])
        if not np.isfinite(value):
            return None
        return Estimate(value) if drawn is None else measures.with_interval(value, measure(*drawn), scores.n_prompts)

    return ModelCorrelation(
        tuple(
            ModelPoint(models[k], scores.estimate(k), standings.estimate(k, models[k], scores.n_prompts)) for k in kept
        ),
        correlate(measures.spearman),
        correlate(measures.pearson),
        measures.permutation_p_value(measures.ranks(x_1K)[0], measures.ranks(y_1K)[0], seed=seed),
        measures.permutation_p_value(x_1K[0], y_1K[0], seed=seed),
        measures.least_p_value(len(kept)),
    )
