"""The subset against the full suite: order of the models, bias, and how both vary with the prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats as distributions

from evalkit.stats import BCA_MIN_CLUSTERS, FloatArray, holm
from evalkit.subset_study.components import LEVEL
from evalkit.subset_study.draws import random_subsets, resampled
from evalkit.subset_study.ranks import best_kept, is_best, pair_signs, pairs_kept, tau_b
from evalkit.subset_study.target import Target

Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ModelScore:
    """One model on the full suite and on the subset."""

    model: str
    full: float
    subset: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the subset's scores agree with the full suite's; all scores are fractions.

    Args:
        n_prompts: prompts of the subset that count in this target.
        predictor: the subset's score that is compared; another headline where the subset lacks the target itself.
        tau: Kendall's tau-b; None where either side ties all models.
        tau_range: 95 % of its values when the prompts of the subset and of the rest are drawn anew.
        tau_rest: the same against the full suite without the subset's prompts; None where nothing is left.
        pairs: pairs of models with an order in the full suite.
        pairs_kept: how many of them the subset orders alike; a tie counts half.
        decided: pairs that the full suite tells apart (paired t test, Holm over pairs, 5 %).
        decided_kept: how many of those the subset orders alike.
        best_full: the best by the full suite (several where they tie).
        best_subset: the best by the subset.
        best_kept: chance that a best model by the subset is one by the full suite.
        bias: mean over the models of subset - full; None where the two are different scores.
        bias_range: its 95 % interval over prompts of the same kinds; None with too few of either.
        rmse: root mean square over the models of subset - full.
        models: the scores themselves.
    """

    n_prompts: int
    predictor: str
    tau: float | None
    tau_range: Bounds | None
    tau_rest: float | None
    pairs: int
    pairs_kept: float
    decided: int
    decided_kept: float
    best_full: tuple[str, ...]
    best_subset: tuple[str, ...]
    best_kept: float
    bias: float | None
    bias_range: Bounds | None
    rmse: float | None
    models: tuple[ModelScore, ...]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What random subsets of n prompts do on average, against the full suite they are drawn from.

    Args:
        n: prompts drawn, without replacement.
        tau: mean Kendall's tau-b; None where the full suite ties all models.
        pairs_kept: mean share of pairs whose order is kept.
        pairs_range: the middle 90 % of draws.
        best_kept: how often the best model is kept.
        rmse: root mean square over draws and models of subset - full.
    """

    n: int
    tau: float | None
    pairs_kept: float | None
    pairs_range: Bounds | None
    best_kept: float
    rmse: float


def curve_point(target: Target, n: int, n_draws: int, rng: np.random.Generator) -> CurvePoint | None:
    """Draw subsets of n prompts; None if some dimension gets no prompt in a draw."""
    subset_RM = target.scores(random_subsets(target.groups_U, n, n_draws, rng))
    if not np.isfinite(subset_RM).all():
        return None
    full_RM = np.broadcast_to(target.full_M, subset_RM.shape)
    signs_RL, full_RL = pair_signs(subset_RM), pair_signs(full_RM)
    kept_R = pairs_kept(signs_RL, full_RL)
    known = bool(np.isfinite(kept_R).all())
    low, high = np.quantile(kept_R, (0.05, 0.95)) if known else (np.nan, np.nan)
    best_R = best_kept(_upwards(target, subset_RM), _upwards(target, full_RM))
    return CurvePoint(
        n,
        _mean(tau_b(signs_RL, full_RL)),
        float(kept_R.mean()) if known else None,
        (float(low), float(high)) if known else None,
        float(best_R.mean()),
        float(np.sqrt(((subset_RM - full_RM) ** 2).mean())),
    )


def _mean(values_R: FloatArray) -> float | None:
    """Mean of what is defined; None if nothing is."""
    defined_R = values_R[np.isfinite(values_R)]
    return float(defined_R.mean()) if len(defined_R) else None


def nested(target: Target, member_U: npt.NDArray[np.bool_], n_resamples: int, seed: list[int]) -> Agreement | None:
    """A subset of the suite's own prompts against the suite; None if some dimension has no prompt in it.

    Each resample draws the subset's prompts and the others anew, so the subset's videos stay part of the full suite.
    """
    inside_1U = member_U[None].astype(np.float64)
    subset_M = target.scores(inside_1U)[0]
    if not np.isfinite(subset_M).all():
        return None
    rest_1M = target.scores(1 - inside_1U)
    drawn_RU = resampled(2 * target.groups_U + member_U, n_resamples, np.random.default_rng(seed))
    subset_RM, full_RM = target.scores(drawn_RU * inside_1U), target.scores(drawn_RU)
    n_inside, n_rest = int(member_U.sum()), int((~member_U).sum())
    tau_rest = _mean(tau_b(pair_signs(subset_M[None]), pair_signs(rest_1M))) if np.isfinite(rest_1M).all() else None
    smaller = n_inside if n_rest == 0 else min(n_inside, n_rest)
    return _agreement(target, target, subset_M, n_inside, (subset_RM, full_RM), smaller, tau_rest)


def separate(subset: Target, full: Target, n_resamples: int, seed: list[int]) -> Agreement:
    """A suite of other prompts against the full suite; each is drawn anew by itself."""
    rng = np.random.default_rng(seed)
    drawn = tuple(target.scores(resampled(target.groups_U, n_resamples, rng)) for target in (subset, full))
    smaller = min(len(subset.prompts), len(full.prompts))
    tau_rest = _mean(tau_b(pair_signs(subset.full_M[None]), pair_signs(full.full_M[None])))
    return _agreement(full, subset, subset.full_M, len(subset.prompts), (drawn[0], drawn[1]), smaller, tau_rest)


def _agreement(
    full: Target,
    subset: Target,
    subset_M: FloatArray,
    n_prompts: int,
    drawn: tuple[FloatArray, FloatArray],
    smaller: int,
    tau_rest: float | None,
) -> Agreement:
    full_M = full.full_M
    signs_1L, full_1L = pair_signs(subset_M[None]), pair_signs(full_M[None])
    ordered_L = full_1L[0] != 0
    decided_L = decided_pairs(full) & ordered_L
    up_subset_1M, up_full_1M = _upwards(full, subset_M[None]), _upwards(full, full_M[None])
    alike = subset.name == full.name
    differences_M = subset_M - full_M
    return Agreement(
        n_prompts,
        subset.name,
        _mean(tau_b(signs_1L, full_1L)),
        _tau_range(drawn) if smaller >= BCA_MIN_CLUSTERS else None,
        tau_rest,
        int(ordered_L.sum()),
        _kept(signs_1L[0][ordered_L], full_1L[0][ordered_L]),
        int(decided_L.sum()),
        _kept(signs_1L[0][decided_L], full_1L[0][decided_L]),
        _names(full, up_full_1M),
        _names(full, up_subset_1M),
        float(best_kept(up_subset_1M, up_full_1M)[0]),
        float(differences_M.mean()) if alike else None,
        _bias_range(float(differences_M.mean()), drawn, smaller) if alike else None,
        float(np.sqrt((differences_M**2).mean())) if alike else None,
        tuple(ModelScore(m, float(f), float(s)) for m, f, s in zip(full.models, full_M, subset_M, strict=True)),
    )


def _upwards(target: Target, scores_RM: FloatArray) -> FloatArray:
    return scores_RM if target.higher_is_better else -scores_RM


def _names(target: Target, scores_1M: FloatArray) -> tuple[str, ...]:
    return tuple(model for model, best in zip(target.models, is_best(scores_1M)[0], strict=True) if best)


def _kept(signs_L: npt.NDArray[np.int8], full_L: npt.NDArray[np.int8]) -> float:
    return float((signs_L == full_L).sum() + 0.5 * (signs_L == 0).sum())


def _tau_range(drawn: tuple[FloatArray, FloatArray]) -> Bounds | None:
    taus_R = tau_b(pair_signs(drawn[0]), pair_signs(drawn[1]))
    taus_R = taus_R[np.isfinite(taus_R)]
    if not len(taus_R):
        return None
    low, high = np.quantile(taus_R, (0.5 - LEVEL / 2, 0.5 + LEVEL / 2))
    return float(low), float(high)


def _bias_range(bias: float, drawn: tuple[FloatArray, FloatArray], smaller: int) -> Bounds | None:
    """A t interval with the bootstrap's standard error, which understates that of n prompts by sqrt(1 - 1 / n)."""
    if smaller < 2:
        return None
    spread = float((drawn[0] - drawn[1]).mean(axis=1).std()) * np.sqrt(smaller / (smaller - 1))
    half = float(distributions.t.ppf(0.5 + LEVEL / 2, smaller - 1)) * spread
    return bias - half, bias + half


def decided_pairs(target: Target, alpha: float = 1 - LEVEL) -> npt.NDArray[np.bool_]:
    """Which pairs of models (L,) a paired t test over the prompts tells apart, corrected over all pairs (Holm)."""
    first_L, second_L = np.triu_indices(len(target.models), 1)
    z_LU = target.values_MU[first_L] - target.values_MU[second_L]
    n = z_LU.shape[1]
    errors_L = z_LU.std(axis=1, ddof=1) / np.sqrt(n)
    means_L = np.abs(z_LU.mean(axis=1))
    t_L = np.divide(means_L, errors_L, out=np.where(means_L > 0, np.inf, 0.0), where=errors_L > 0)
    p_values = 2 * distributions.t.sf(t_L, n - 1)
    return np.array(holm([float(p) for p in p_values])) <= alpha
