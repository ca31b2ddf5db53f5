"""Bradley-Terry strengths from wins and ties of pairs (Bradley and Terry 1952; with ties: Davidson 1970).

With strengths p and a tie parameter v,

    P(a > b) = p_a / (p_a + p_b + v sqrt(p_a p_b)),    P(a = b) = v sqrt(p_a p_b) / (p_a + p_b + v sqrt(p_a p_b))

(Davidson 1970, "On extending the Bradley-Terry model to accommodate ties"). In log p and log v this is a logit model
of three outcomes, so its log-likelihood is concave, and Newton's method finds the maximum where there is one. Without
ties v is 0, which leaves the model of Bradley and Terry.

Axes: B resamples, M models, L pairs of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evalkit.stats import FloatArray
from evalkit.study.statistics.dominance import obstacle as dominance_obstacle
from evalkit.study.statistics.dominance import strongly_connected
from evalkit.study.statistics.newton import maximise

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Strengths:
    """Fitted strengths of B sets of counts.

    Args:
        log_strengths_BM: their sum is 0; NaN where there is no finite maximum.
        tie_log_odds_B: log v; minus infinity without ties, NaN where there is no finite maximum.
    """

    log_strengths_BM: FloatArray
    tie_log_odds_B: FloatArray


def fit(wins_BMM: npt.ArrayLike, ties_BMM: npt.ArrayLike | None = None) -> Strengths:
    """Fit strengths and tie parameter by maximum likelihood.

    Args:
        wins_BMM: weight with which the model of the row beat that of the column; the diagonal is ignored.
        ties_BMM: weight of their ties, symmetric: a tie of a and b counts 1 at (a, b) and 1 at (b, a).
    """
    wins = np.asarray(wins_BMM, dtype=np.float64)
    ties = np.zeros_like(wins) if ties_BMM is None else np.asarray(ties_BMM, dtype=np.float64)
    n_problems, n_models, _ = wins.shape
    first_L, second_L = np.triu_indices(n_models, 1)
    outcomes_BL3 = np.stack([wins[:, first_L, second_L], wins[:, second_L, first_L], ties[:, first_L, second_L]], 2)
    strengths_BM, tie_B = np.full((n_problems, n_models), np.nan), np.full(n_problems, np.nan)
    bounded_B = has_maximum(wins, ties)
    tied_B = outcomes_BL3[..., 2].any(axis=1)
    for chosen_B in (bounded_B & tied_B, bounded_B & ~tied_B):
        if chosen_B.any():
            strengths_BM[chosen_B], tie_B[chosen_B] = _maximum(outcomes_BL3[chosen_B], n_models)
    return Strengths(strengths_BM, tie_B)


def has_maximum(wins_BMM: FloatArray, ties_BMM: FloatArray) -> BoolArray:
    """Where the likelihood has a finite maximum.

    It has none if and only if the parameters can go on in some direction without any observed outcome becoming less
    likely. There are two kinds. The strengths of some models grow beyond the others': excluded if the graph of wins,
    ties counting both ways, is strongly connected (Ford 1957; Davidson 1970). Or the tie parameter grows too, every win
    being across a step of strength and every tie within one: excluded if a cycle of the graph has more wins than ties,
    as two opposite wins have (Farkas' lemma: the steps are difference constraints).
    """
    won_BMM, tied_BMM = wins_BMM > 0, ties_BMM > 0
    connected_B = strongly_connected(won_BMM | tied_BMM)
    return connected_B & (~tied_BMM.any(axis=(1, 2)) | _wins_outnumber_ties(won_BMM, tied_BMM))


def obstacle(wins_MM: FloatArray, ties_MM: FloatArray, models: Sequence[str]) -> str | None:
    """Why these counts have no finite maximum, in words; None if they have one."""
    if has_maximum(wins_MM[None], ties_MM[None])[0]:
        return None
    return dominance_obstacle((wins_MM > 0) | (ties_MM > 0), models) or (
        "the more ties, the better the fit: no cycle of results has more wins than ties"
    )


def _wins_outnumber_ties(won_BMM: BoolArray, tied_BMM: BoolArray) -> BoolArray:
    """Whether a cycle of results has more wins than ties: the shortest paths of Floyd and Warshall, a win being -1."""
    length_BMM = np.where(won_BMM, -1.0, np.where(tied_BMM, 1.0, np.inf))
    for via in range(length_BMM.shape[1]):
        np.minimum(length_BMM, length_BMM[:, :, via, None] + length_BMM[:, None, via, :], out=length_BMM)
    return np.asarray((np.diagonal(length_BMM, axis1=1, axis2=2) < 0).any(axis=1))


def _maximum(outcomes_BL3: FloatArray, n_models: int) -> tuple[FloatArray, FloatArray]:
    """Log-strengths and log v of problems that all have ties, or all none."""
    n_problems, tied = len(outcomes_BL3), bool(outcomes_BL3[..., 2].any())
    share_BL3 = outcomes_BL3 / outcomes_BL3.sum(axis=(1, 2), keepdims=True)
    n_BL = share_BL3.sum(axis=2)
    first_L, second_L = np.triu_indices(n_models, 1)
    half_LM = (np.eye(n_models)[first_L] - np.eye(n_models)[second_L]) / 2  # log-strengths to half their differences
    half_LMM = half_LM[:, :, None] * half_LM[:, None, :]
    centre_MM = np.full((n_models, n_models), 1 / n_models)  # fixes the sum of the strengths, which nothing else does

    def log_likelihood(x_BD: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        half_BL = x_BD[:, :n_models] @ half_LM.T
        tie_BL = np.broadcast_to(x_BD[:, n_models:] if tied else np.array(-np.inf), half_BL.shape)
        log_BL3 = _log_chances(np.stack([half_BL, -half_BL, tie_BL], axis=2))
        win_BL, loss_BL, draw_BL = np.moveaxis(np.exp(log_BL3), 2, 0)
        value_B = np.sum(share_BL3 * np.where(share_BL3 > 0, log_BL3, 0.0), axis=(1, 2))
        lead_BL = win_BL - loss_BL
        gradient_BM = (share_BL3[..., 0] - share_BL3[..., 1] - n_BL * lead_BL) @ half_LM
        gradient_B1 = np.sum(share_BL3[..., 2] - n_BL * draw_BL, axis=1, keepdims=True)
        curvature_BMM = np.einsum("bl,lmn->bmn", n_BL * (win_BL + loss_BL - lead_BL**2), half_LMM) + centre_MM
        curvature_BM1 = (-(n_BL * lead_BL * draw_BL) @ half_LM)[..., None]
        curvature_B11 = np.sum(n_BL * draw_BL * (1 - draw_BL), axis=1)[:, None, None]
        curvature_BDD = np.block([[curvature_BMM, curvature_BM1], [curvature_BM1.transpose(0, 2, 1), curvature_B11]])
        n = x_BD.shape[1]  # without ties, log v is no parameter
        return value_B, np.concatenate([gradient_BM, gradient_B1], axis=1)[:, :n], curvature_BDD[:, :n, :n]

    x_BD, found_B = maximise(log_likelihood, np.zeros((n_problems, n_models + tied)))
    x_BD[~found_B] = np.nan
    strengths_BM = x_BD[:, :n_models] - x_BD[:, :n_models].mean(axis=1, keepdims=True)
    return strengths_BM, x_BD[:, n_models] if tied else np.where(found_B, -np.inf, np.nan)


def _log_chances(logits_BL3: FloatArray) -> FloatArray:
    top_BL1 = logits_BL3.max(axis=2, keepdims=True)
    below_BL3 = logits_BL3 - top_BL1
    return np.asarray(below_BL3 - np.log(np.exp(below_BL3).sum(axis=2, keepdims=True)))
