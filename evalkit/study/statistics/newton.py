"""Maximisation of many concave functions at once, by Newton's method with step halving.

Axes: B problems (such as bootstrap resamples), D parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from evalkit.stats import FloatArray

TOLERANCE = 1e-9
"""Largest norm of a gradient at a maximum, where the data weigh 1 in all."""

Objective = Callable[[FloatArray], tuple[FloatArray, FloatArray, FloatArray]]
"""From parameters (B, D) to values (B), gradients (B, D) and negative Hessians (B, D, D), positive definite."""

_MOST_STEPS, _MOST_HALVINGS = 200, 40
_ROUNDING = 1e-13


def maximise(objective: Objective, start_BD: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Maximise from `start_BD` until every gradient's norm is within `TOLERANCE`.

    A step that lowers the value is halved until it does not, which a concave function allows from anywhere.

    Returns:
        Parameters at the maximum, and which problems got there.
    """
    x_BD = start_BD.copy()
    value_B, gradient_BD, curvature_BDD = objective(x_BD)
    for _ in range(_MOST_STEPS):
        if (np.linalg.norm(gradient_BD, axis=1) <= TOLERANCE).all():
            break
        step_BD = np.linalg.solve(curvature_BDD, gradient_BD[..., None])[..., 0]
        for _ in range(_MOST_HALVINGS):
            new_B, gradient_BD, curvature_BDD = objective(x_BD + step_BD)
            worse_B = ~(new_B >= value_B - _ROUNDING * np.abs(value_B))
            if not worse_B.any():
                break
            step_BD[worse_B] /= 2
        x_BD, value_B = x_BD + step_BD, new_B
    return x_BD, np.linalg.norm(gradient_BD, axis=1) <= TOLERANCE
