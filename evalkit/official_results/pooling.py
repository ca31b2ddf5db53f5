"""How a dimension's score came about from its videos: as on one GPU, as on several, or in no way that is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evalkit.official_results.form import FORMS
from evalkit.official_results.parse import Scored
from evalkit.stats import FloatArray

AGREEMENT = 1e-6
"""How far a dimension's score may be from what its videos pool to."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One way to pool N videos; `how` says in words what is averaged."""

    how: str
    values_N: FloatArray
    weights_N: FloatArray | None = None

    @property
    def mean(self) -> float:
        return float(np.average(self.values_N, weights=self.weights_N))


@dataclass(frozen=True, slots=True)
class Pooled:
    """The way in which a file's score came about.

    Args:
        pool: that way; the one of a single GPU where none leads to the score.
        note: what the file leaves open; None if nothing.
        warning: why the score is not that of a run on one GPU, with both numbers; None if it is.
    """

    pool: Pool
    note: str | None = None
    warning: str | None = None


def pools(scored: Scored) -> list[Pool]:
    """The ways in which the package may have pooled a dimension: on one GPU first, then on several."""
    values_N = np.array([entry.value for entry in scored.entries])
    alike = Pool("all videos alike", values_N)
    ways = [alike]
    counts = [entry.n_terms for entry in scored.entries if entry.n_terms is not None]
    if FORMS[scored.name].pooling == "frames" and len(counts) == len(values_N):
        ways = [Pool("all frames alike", values_N, np.array(counts, dtype=np.float64)), alike]
    last = [entry.last_frame for entry in scored.entries if entry.last_frame is not None]
    if scored.name == "appearance_style" and len(last) == len(values_N):
        ways.append(Pool("the last frame of each video", np.array(last)))
    return ways


def pooled(scored: Scored) -> Pooled:
    """Find the way that leads to the file's score."""
    ways = pools(scored)
    first = ways[0]
    fitting = next((pool for pool in ways if abs(pool.mean - scored.score) <= AGREEMENT), None)
    uncounted = FORMS[scored.name].pooling == "frames" and first.weights_N is None
    silent = f"{scored.file.name} does not say how many frames each video of {scored.name} has"
    note = f"{silent}: its interval weighs all videos alike." if uncounted else None
    if fitting is first:
        return Pooled(first, note)
    score = f"{scored.name}: the score in {scored.file.name} is {scored.score:.6f}"
    if fitting is not None:
        several = f"{score}, the mean over {fitting.how}, as the package pools on several GPUs"
        return Pooled(fitting, note, f"{several}; on one GPU it would have been {first.mean:.6f}.")
    cause = (
        "on one GPU the package weighs videos by their frames, which the file does not count"
        if uncounted
        else "the file may have been edited, cut, or put together from several"
    )
    return Pooled(
        first,
        note,
        f"{score}, but its videos pool to {first.mean:.6f} ({first.how}): {cause}. The score shown is the file's; the"
        " interval is that of the videos.",
    )
