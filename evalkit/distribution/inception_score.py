"""The Inception Score: how sure a classifier is of each frame, and how varied the classes are (Salimans et al. 2016).

exp E_x KL(p(y|x) || p(y)), between 1 and the number of classes. It sees no reference, and grows with the number of
frames up to tens of thousands; scores from different numbers of frames do not compare (Barratt and Sharma 2018).

Array names: N frames, C classes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

Labels = npt.NDArray[np.intp]


def inception_score(logits_NC: npt.ArrayLike, split_N: Labels | None = None) -> float:
    """The score of all frames, or the mean of the scores of the parts that `split_N` divides them into.

    Raises:
        ValueError: there are no frames.
    """
    logits = np.asarray(logits_NC, np.float64)
    if len(logits) == 0:
        raise ValueError("the Inception Score needs a frame")
    parts = np.zeros(len(logits), np.intp) if split_N is None else split_N
    return float(np.mean([_score(logits[parts == part]) for part in np.unique(parts)]))


def _score(logits_NC: npt.NDArray[np.float64]) -> float:
    log_p_NC = special.log_softmax(logits_NC, axis=1)
    log_marginal_C = special.logsumexp(log_p_NC, axis=0) - np.log(len(log_p_NC))
    p_NC = np.exp(log_p_NC)
    surprise_NC = np.where(p_NC > 0.0, log_p_NC - log_marginal_C, 0.0)  # 0 log 0 is 0
    return float(np.exp(np.sum(p_NC * surprise_NC, axis=1).mean()))


def split_frames(n: int, parts: int, seed: int) -> Labels:
    """Deal `n` frames at random into `parts` of equal size (to one frame), as published scores do with ten."""
    labels_N = np.empty(n, np.intp)
    labels_N[np.random.default_rng(seed).permutation(n)] = np.arange(n) * parts // n
    return labels_N
