"""The counted votes of one axis together with their resamples: what every figure of the axis is computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evalkit.stats import FloatArray
from evalkit.study.statistics.counts import Counts
from evalkit.study.statistics.resampling import Resamples, Spread, resample, spread
from evalkit.study.statistics.tally import Tally, tally
from evalkit.study.types import Protocol, Vote

Statistic = Callable[[Counts], FloatArray]


@dataclass(frozen=True)
class Sample:
    """Votes of one axis.

    Args:
        protocol: how they were given.
        ties: whether two models may be called equal.
        tally: their counts.
        resamples: sums of the counts over resampled raters, prompts, and both.
        seed: of the resamples, and of others that are drawn from these votes.
    """

    protocol: Protocol
    ties: bool
    tally: Tally
    resamples: Resamples
    seed: int

    @property
    def models(self) -> tuple[str, ...]:
        return self.tally.models

    def spread(self, statistic: Statistic, behind: Statistic) -> Spread:
        """A statistic of counts with its two-way variance.

        Args:
            statistic: from counts to figures (B, E).
            behind: from counts to the votes behind each of these figures, (B, E).
        """
        return spread(self.resamples, self._of_rows(statistic), self._of_rows(behind))

    def _of_rows(self, statistic: Statistic) -> Callable[[FloatArray], FloatArray]:
        return lambda table_BK: statistic(Counts(self.tally.layout, table_BK))


def draw(
    votes: Sequence[Vote], models: Sequence[str], protocol: Protocol, ties: bool, *, n_resamples: int, seed: int
) -> Sample:
    """Count votes (at least one) of one axis and resample them."""
    counted = tally(votes, models, protocol)
    resamples = resample(counted.cells_CK, counted.rater_C, counted.prompt_C, n_resamples=n_resamples, seed=seed)
    return Sample(protocol, ties or counted.tied, counted, resamples, seed)
