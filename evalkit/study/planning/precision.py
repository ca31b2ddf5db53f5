"""What a study of so many raters can be expected to tell: power before anybody has voted.

A vote is the model's mean plus an effect of the rater, one of the prompt, and a rest, so the mean of the votes has
variance

    V = rater / n_raters + prompt / n_prompts + rest / n_votes

(two-way crossed random effects; Searle, Casella and McCulloch 1992, chapter 5). `evalkit.study.statistics.resampling`
estimates the same V from the votes by resampling raters and prompts; intervals and degrees of freedom here are the ones
it will have if the components are as assumed. They are assumed: the table is as good as the two spreads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import comb, sqrt

from scipy import optimize
from scipy import stats as distributions

from evalkit.errors import UserError

LEVEL, POWER = 0.95, 0.8

RATER_SPREAD = 0.10
"""Standard deviation of raters' own win rates where all raters together say 1/2: two thirds of them lie between 40 and
60 %. No study in the references publishes single raters, so this is a guess."""

PROMPT_SPREAD = 0.10
"""The same of prompts. In the M4V study (50 prompts, 5 models, digits that are those of 15 raters) the moment estimate
is at or below 0 on all three axes and its standard error rules out more than about 0.05; 0.10 is cautious."""

_MOST = 1 / 6
"""Largest sum of squared spreads that leaves mean ranks of any number of models a rest (their variance is bounded)."""


@dataclass(frozen=True, slots=True)
class Spreads:
    """Standard deviations of raters' and of prompts' true win rates of one model against another, near 1/2.

    Raises:
        UserError: negative, or together more than votes can vary.
    """

    rater: float = RATER_SPREAD
    prompt: float = PROMPT_SPREAD

    def __post_init__(self) -> None:
        if not (self.rater >= 0 and self.prompt >= 0 and self.rater**2 + self.prompt**2 < _MOST):
            raise UserError(
                f"Spreads of {self.rater:g} between raters and {self.prompt:g} between prompts cannot be.",
                f"Give --rater-spread and --prompt-spread from 0, their squares together below {_MOST:.3f}.",
            )


@dataclass(frozen=True, slots=True)
class Layout:
    """What the precision rests on.

    Args:
        n_models: M.
        block_size: clips on a screen, K.
        n_prompts: prompts of the study.
        screens: of each rater, without attention checks.
        n_axes: questions, for the correction over all duels.
        ranking: whether clips are ranked; mean ranks exist where all models are on every screen.
    """

    n_models: int
    block_size: int
    n_prompts: int
    screens: int
    n_axes: int
    ranking: bool


@dataclass(frozen=True, slots=True)
class Precision:
    """What to expect of a number of raters, on one axis.

    Args:
        n_raters: raters who finish and pass the checks.
        votes_per_pair: votes that compare two given models.
        half_width: of the 95 % interval of a win rate near 1/2.
        rank_half_width: of the 95 % interval of a mean rank; None where there are none.
        detectable: smallest true win rate that 80 % of such studies find to differ from 1/2 at 5 %; None if even 1 is
            not.
        detectable_holm: the same if the p-value is corrected for all duels of all axes, and no other duel is found.
    """

    n_raters: int
    votes_per_pair: float
    half_width: float | None
    rank_half_width: float | None
    detectable: float | None
    detectable_holm: float | None


def rater_counts(planned: int) -> tuple[int, ...]:
    """The numbers of raters to tabulate: usual ones and the planned one."""
    return tuple(sorted({5, 10, 20, 50, 100, planned}))


def expect(layout: Layout, n_raters: Iterable[int], spreads: Spreads) -> tuple[Precision, ...]:
    """Expected precision for each number of raters."""
    return tuple(_expect(layout, n, spreads) for n in n_raters)


def _expect(layout: Layout, n_raters: int, spreads: Spreads) -> Precision:
    m, k = layout.n_models, layout.block_size
    votes = n_raters * layout.screens * k * (k - 1) / (m * (m - 1))
    n_duels = comb(m, 2) * layout.n_axes
    win = _Mean.of(0.25, spreads, 1.0, layout, n_raters, votes)
    rank = None
    if layout.ranking and k == m:
        # A duel's effect is the difference of two models' effects, a rank counts the duels lost: m (m - 1) / 2 as much.
        rank = _Mean.of((m**2 - 1) / 12, spreads, m * (m - 1) / 2, layout, n_raters, n_raters * layout.screens)
    return Precision(
        n_raters,
        votes,
        win.half_width(0.25),
        None if rank is None else rank.half_width(((m - 1) / 2) ** 2),
        win.detectable(1 - LEVEL),
        win.detectable((1 - LEVEL) / n_duels),
    )


@dataclass(frozen=True, slots=True)
class _Mean:
    """Variance of a mean of votes and the degrees of freedom of its estimate; None if it cannot be estimated."""

    variance: float
    freedom: float | None

    @classmethod
    def of(cls, total: float, spreads: Spreads, scale: float, layout: Layout, n_raters: int, n_votes: float) -> _Mean:
        """From the variance of one vote and the spreads, whose squares count `scale` times.

        Degrees of freedom are Satterthwaite's (1946), as `evalkit.study.statistics.resampling` has them: the spread
        between raters, and that between prompts, each holds the rest as well.
        """
        raters, prompts = max(min(n_raters, n_votes), 1.0), max(min(layout.n_prompts, n_votes), 1.0)
        rater, prompt = scale * spreads.rater**2, scale * spreads.prompt**2
        rest = (total - rater - prompt) / n_votes
        variance = rater / raters + prompt / prompts + rest
        freedoms = (raters - 1, prompts - 1)
        if max(freedoms) < 1:
            return cls(variance, None)
        if min(freedoms) < 1:  # one rater, or one prompt: the study speaks of that one only
            return cls(variance, max(freedoms))
        doubt = (rater / raters + rest) ** 2 / freedoms[0] + (prompt / prompts + rest) ** 2 / freedoms[1]
        return cls(variance, max(variance**2 / doubt, min(freedoms)))

    def half_width(self, own: float) -> float | None:
        """Half the width of Wilson's interval halfway between the bounds, where one vote varies by at most `own`."""
        if self.freedom is None:
            return None
        t = float(distributions.t.ppf(0.5 + LEVEL / 2, self.freedom))
        return t * sqrt(self.variance) / sqrt(1 + t**2 * self.variance / own)

    def detectable(self, alpha: float) -> float | None:
        """The win rate x > 1/2 found with 80 % power: x - 1/2 = s (t_test + t_power sqrt(4 x (1 - x))).

        s is the standard error at 1/2: a share of wins varies less far from 1/2, and the test knows.
        """
        if self.freedom is None:
            return None
        s = sqrt(self.variance)
        test = float(distributions.t.ppf(1 - alpha / 2, self.freedom))
        power = float(distributions.t.ppf(POWER, self.freedom))

        def short(x: float) -> float:
            return float(s * (test + power * sqrt(4 * x * (1 - x))) - (x - 0.5))

        return float(optimize.brentq(short, 0.5, 1.0)) if short(1.0) < 0 else None
