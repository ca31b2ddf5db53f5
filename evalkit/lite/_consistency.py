"""How alike the frames of a clip are, given a unit vector per frame: the formula of VBench's consistency scores."""

from __future__ import annotations

import numpy as np

from evalkit.lite._pixels import Floats
from evalkit.types import Array, Score


def halves(first_D: Floats, second_D: Floats) -> Floats:
    """One unit vector of two, whose dot products are the mean of theirs."""
    return np.concatenate([first_D, second_D]) * np.float32(np.sqrt(0.5))


def consistency(frames_TD: Array) -> Score:
    """Mean over frames i >= 1 of (max(0, cos(i, i - 1)) + max(0, cos(i, 0))) / 2, for unit rows `(T, D)`, T >= 2."""
    rows_TD = np.asarray(frames_TD, dtype=np.float64)
    to_previous = np.clip((rows_TD[1:] * rows_TD[:-1]).sum(axis=1), 0, 1)
    to_first = np.clip((rows_TD[1:] * rows_TD[0]).sum(axis=1), 0, 1)
    return Score(float((to_previous + to_first).mean() / 2), n_terms=len(rows_TD) - 1)
