"""What is asked of a study, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.errors import UserError
from evalkit.subset_study.agreement import Agreement, CurvePoint
from evalkit.subset_study.components import Components
from evalkit.subset_study.select import Subset

SIZES = (10, 25, 50, 100, 200, 400, 800)
"""Sizes of random subsets where none are asked for; of each target, those below its number of prompts."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What to find out.

    Args:
        subset: suite, file, prompt ids or number of random prompts; None studies random subsets only.
        sizes: of random subsets; None takes `SIZES`.
        difference: true difference to be found, a fraction (0.01 is one point).
        power: chance of finding it.
        alpha: level of the two-sided paired test.
        videos: videos a prompt that widths and power are for; None takes what the runs have.
        seed: of everything drawn.
        draws: random subsets of each size, and resamples of the prompts.
    """

    subset: str | None = None
    sizes: tuple[int, ...] | None = None
    difference: float = 0.01
    power: float = 0.8
    alpha: float = 0.05
    videos: int | None = None
    seed: int = 0
    draws: int = 2000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UserError: a size below 2, or a difference, power or level outside of its range.
        """
        if self.sizes is not None and (not self.sizes or min(self.sizes) < 2):
            raise UserError("--sizes needs whole numbers of at least 2.", "Such as --sizes 10,25,50,100.")
        for name, value in (("difference", self.difference), ("power", self.power), ("alpha", self.alpha)):
            if not 0 < value < 1:
                raise UserError(
                    f"--{name} is {value:g}; it lies between 0 and 1.",
                    "Scores are fractions: one point is --difference 0.01."
                    if name == "difference"
                    else f"Such as --{name} {0.8 if name == 'power' else 0.05}.",
                )
        if self.power <= self.alpha:
            raise UserError(f"A power of {self.power:g} is no more than chance finds.", "Such as --power 0.8.")
        if self.videos is not None and self.videos < 1:
            raise UserError("A prompt has at least one video.", "Such as --videos-per-prompt 5.")


@dataclass(frozen=True, slots=True)
class Width:
    """Expected widths of 95 % intervals on n prompts; fractions.

    Args:
        n: prompts.
        videos: videos of each.
        score: of one model's score, for prompts at large.
        difference: of the paired difference of two models, for prompts at large.
        score_of_suite: of one model's score on this very suite, of which n prompts are scored; 0 for all of them.
    """

    n: int
    videos: float
    score: float
    difference: float
    score_of_suite: float | None


@dataclass(frozen=True, slots=True)
class Power:
    """What a paired comparison of two models can find.

    Args:
        videos: videos a prompt.
        needed: prompts that find the asked difference; None where the number of videos leaves it unknown.
        needed_range: the same for the least and the most variable pair of models, at the recorded number of videos.
        detectable: least difference found on all prompts of the planned suite; None with too few.
        detectable_subset: least difference found on the subset; None without one, or with too few prompts.
    """

    videos: float
    needed: int | None
    needed_range: tuple[int, int] | None
    detectable: float | None
    detectable_subset: float | None


@dataclass(frozen=True, slots=True)
class TargetStudy:
    """All that was found about one dimension or headline score.

    Args:
        name: of the target.
        higher_is_better: its direction.
        models: those that have it.
        n_prompts: prompts of the full suite that all of them scored.
        left_out: prompts that some of them did not score, and which those are.
        curve: random subsets of the full suite.
        planned: the suite whose prompts the components, widths and power are about: the subset's own if it has one.
        n_planned: prompts of that suite that all models scored.
        components: where the variance comes from.
        widths: of intervals.
        power: of comparisons.
        subset: the given subset against the full suite; None without one, or where it lacks this target.
    """

    name: str
    higher_is_better: bool
    models: tuple[str, ...]
    n_prompts: int
    left_out: Mapping[str, tuple[str, ...]]
    curve: tuple[CurvePoint, ...]
    planned: str
    n_planned: int
    components: Components
    widths: tuple[Width, ...]
    power: Power
    subset: Agreement | None

    @property
    def plan_size(self) -> int:
        """Prompts that a plan is shown for: the subset's, if the plan is about its prompts, else all."""
        own = self.subset is not None and self.subset.predictor == self.name
        return self.subset.n_prompts if self.subset is not None and own else self.n_planned

    @property
    def plan_width(self) -> Width | None:
        """The widths on those prompts with the planned number of videos; None if they are unknown."""
        videos = self.power.videos
        return next((width for width in self.widths if width.n == self.plan_size and width.videos == videos), None)

    @property
    def plan_least(self) -> float | None:
        """The least difference found on those prompts; None with too few of them."""
        return self.power.detectable if self.plan_size == self.n_planned else self.power.detectable_subset


@dataclass(frozen=True, slots=True)
class Study:
    """A study of runs.

    Args:
        settings: what was asked.
        profile: of all runs.
        precision: of all runs.
        suite: name, sha256 and size of the full suite.
        models: directory of each model's run.
        subset: the given subset; None without one.
        other_suite: the subset's own suite, where it is not part of the full one.
        targets: dimensions, then headline scores.
        not_studied: dimensions and headline scores, or models, that were left out, and why.
    """

    settings: Settings
    profile: str
    precision: str
    suite: Mapping[str, Any]
    models: Mapping[str, str]
    subset: Subset | None
    other_suite: Mapping[str, Any] | None
    targets: tuple[TargetStudy, ...]
    not_studied: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether every prompt, dimension and model took part."""
        unknown = self.subset is not None and self.subset.unknown
        compared = self.subset is None or any(target.subset for target in self.targets)
        return compared and not (self.not_studied or unknown or any(target.left_out for target in self.targets))
