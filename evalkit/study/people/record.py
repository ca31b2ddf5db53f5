"""How well metrics agree with people: the records, and their JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from evalkit.study.types import Estimate

PEOPLE_SCHEMA = "m4v-eval/study-people/1"

ALPHA = 0.05

StandingKind = Literal["bradley_terry", "win_rate", "mean_rank"]


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Does the better-scored clip of two win the majority of the votes?

    Args:
        n: pairs of clips of one prompt and seed, both scored and at least once compared by people.
        n_prompts: prompts they are of.
        share: of pairs in agreement, a tie of either side being half; the interval resamples prompts.
        tied_people: pairs that people tie (as many votes for the one as for the other).
        tied_scores: pairs of equal score.
        p_value: two-sided, of an agreement of one half.
        one_rater: agreement of one rater with the majority of the others, on those of the same pairs that several
            raters judged: what one more person would reach; None without such pairs.
        n_one_rater: pairs it rests on.
        p_adjusted: after Holm over all scores and axes.
    """

    n: int
    n_prompts: int
    share: Estimate
    tied_people: int
    tied_scores: int
    p_value: float
    one_rater: Estimate | None
    n_one_rater: int
    p_adjusted: float | None = None


@dataclass(frozen=True, slots=True)
class ClipCorrelation:
    """Do clips that score much better also win by more? Spearman's rho over pairs, each taken both ways round.

    Args:
        rho: of score difference and win rate; the interval resamples prompts.
        p_value: two-sided, of no correlation.
        p_adjusted: after Holm over all scores and axes.
    """

    rho: Estimate
    p_value: float
    p_adjusted: float | None = None


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """One model: its mean score on the clips that people judged, and where people place it."""

    model: str
    score: Estimate
    standing: Estimate


@dataclass(frozen=True, slots=True)
class ModelCorrelation:
    """Does the score order the models as people do?

    Args:
        points: the models, in the order of the study.
        spearman: rank correlation; None where either side ties all models.
        pearson: linear correlation; None likewise.
        p_spearman: two-sided and exact: the share of orders of the models that correlate at least as much.
        p_pearson: the same for the linear correlation.
        p_least: the smallest p-value that so many models can give.
        p_adjusted: `p_spearman` after Holm over all scores and axes.
    """

    points: tuple[ModelPoint, ...]
    spearman: Estimate | None
    pearson: Estimate | None
    p_spearman: float | None
    p_pearson: float | None
    p_least: float
    p_adjusted: float | None = None

    @property
    def enough(self) -> bool:
        """Whether there are so many models that their order says something: four, of which one order in 24 is right."""
        return len(self.points) >= ENOUGH_MODELS


ENOUGH_MODELS = 4


@dataclass(frozen=True, slots=True)
class ScoreAgainstPeople:
    """A dimension or a headline score against people, on one axis.

    Args:
        name: of the dimension (`lite/...` for a stand-in) or headline score.
        is_total: whether it is a headline score.
        higher_is_better: its direction; agreement and correlation are with the better score.
        pairs: agreement over pairs of clips; None if there are none.
        clips: correlation over pairs of clips; None if it cannot be told.
        models: correlation over models; None if it cannot be told.
        unscored: judged clips without this score, by model.
        notes: what is missing, and why.
    """

    name: str
    is_total: bool
    higher_is_better: bool
    pairs: PairAgreement | None
    clips: ClipCorrelation | None
    models: ModelCorrelation | None
    unscored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AxisAgainstPeople:
    """All scores against people, on one axis.

    Args:
        axis: its name.
        standing: what places the models.
        n_votes: votes that compare at least two of the models with a run; of published means, None.
        scores: dimensions, then headline scores.
        notes: what is missing, and why.
    """

    axis: str
    standing: StandingKind
    n_votes: int | None
    scores: tuple[ScoreAgainstPeople, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What one side has and the other lacks.

    Args:
        models_without_run: of the study.
        runs_without_model: labels that the study does not know.
        clips_without_video: reason by clip (`prompt, seed`) by model: judged by people, not to be found in its run.
        clips_without_vote: clips by model: in its run, judged by nobody.
        scores: headline scores that cannot be compared, and why.
    """

    models_without_run: tuple[str, ...] = ()
    runs_without_model: tuple[str, ...] = ()
    clips_without_video: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    clips_without_vote: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scores: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PeopleResult:
    """Metrics against people.

    Args:
        study: where the votes come from.
        unit: `vote`, or `prompt` for published means.
        clips_compared: whether votes were at hand, so that single clips could be compared and not models only.
        profile: of the runs.
        precision: of the runs.
        suite: name, sha256 and size of the runs' prompt suite.
        runs: directory by model, for the models compared.
        axes: one result an axis.
        left_out: what one side has and the other lacks.
        n_resamples: bootstrap resamples of the prompts.
    """

    study: str
    unit: Literal["vote", "prompt"]
    clips_compared: bool
    profile: str
    precision: str
    suite: Mapping[str, Any]
    runs: Mapping[str, str]
    axes: tuple[AxisAgainstPeople, ...]
    left_out: LeftOut
    n_resamples: int

    @property
    def lite(self) -> bool:
        return self.profile == "lite"

    @property
    def complete(self) -> bool:
        """Whether every clip of either side met its score or its votes."""
        sides = (self.left_out.models_without_run, self.left_out.runs_without_model)
        clips = (self.left_out.clips_without_video, self.left_out.clips_without_vote)
        return not any((*sides, *clips, *(score.unscored for axis in self.axes for score in axis.scores)))


def people_to_json(result: PeopleResult) -> dict[str, Any]:
    """The machine-readable result: scores, shares and win rates are fractions, what is unknown is null."""
    return {"schema": PEOPLE_SCHEMA, **asdict(result), "caveats": list(caveats(result))}


def caveats(result: PeopleResult) -> Iterator[str]:
    """What the figures do not show."""
    if result.lite:
        yield "The scores are lite stand-ins: how they agree with people says nothing of VBench's own dimensions."
    n_models = len(result.runs)
    if result.clips_compared:
        yield (
            f"Intervals and tests take the prompts as drawn and the {n_models} models as given: with other models a"
            " metric may agree better or worse. Raters are not redrawn; their noise is in the votes."
        )
    if not result.clips_compared:
        what = (
            "Published means name no rater and hold no vote"
            if result.unit == "prompt"
            else "The votes were not at hand"
        )
        yield f"{what}: nothing is said of single clips, and models are compared without an interval over prompts."
    if n_models < ENOUGH_MODELS:
        yield (f"With {n_models} models no order can be told apart from chance; look at the pairs of clips.")
