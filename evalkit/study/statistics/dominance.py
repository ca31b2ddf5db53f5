"""Who beat whom: whether strengths can be told at all from a graph of wins (Ford 1957; Hunter 2004, assumption 1).

Axes: B graphs, M models. An edge leads from a winner to a loser.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]


def reachable(edges_BMM: BoolArray) -> BoolArray:
    """Which models can be reached from which along edges (Warshall 1962); each from itself."""
    reach_BMM = edges_BMM | np.eye(edges_BMM.shape[1], dtype=bool)
    for via in range(reach_BMM.shape[1]):
        reach_BMM |= reach_BMM[:, :, via, None] & reach_BMM[:, None, via, :]
    return reach_BMM


def strongly_connected(edges_BMM: BoolArray) -> BoolArray:
    """Whether every model can be reached from every other one: in any two groups, each has beaten the other once."""
    return np.asarray(reachable(edges_BMM).all(axis=(1, 2)))


def obstacle(edges_MM: BoolArray, models: Sequence[str]) -> str | None:
    """Which models keep strengths from being finite, in words; None if the graph is strongly connected.

    Args:
        edges_MM: whether the model of the row beat that of the column, or tied with it where ties count.
        models: their labels.
    """
    reach_MM = reachable(edges_MM[None])[0]
    if reach_MM.all():
        return None
    mutual_MM = reach_MM & reach_MM.T
    groups = sorted({tuple(np.flatnonzero(row_M).tolist()) for row_M in mutual_MM})
    said = [_place(group, reach_MM, models) for group in groups]
    return "; ".join(part for part in said if part)


def _place(group: tuple[int, ...], reach_MM: BoolArray, models: Sequence[str]) -> str | None:
    """What makes a group of models stand apart from all others; None if it lies between others."""
    outside = [m for m in range(len(models)) if m not in group]
    beats, loses = reach_MM[group[0], outside].any(), reach_MM[outside, group[0]].any()
    if beats and loses:
        return None
    what = "always wins against" if beats else "always loses against" if loses else "was never compared with"
    if len(group) > 1:
        what = what.replace("wins", "win").replace("loses", "lose").replace("was", "were")
    return f"{_listed([models[m] for m in group])} {what} {'the others' if len(outside) > 1 else models[outside[0]]}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
