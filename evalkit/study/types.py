"""Records of the human study: what is planned, what raters answer, what is concluded.

plan -> serve -> answers -> votes -> figures -> page. A *screen* shows the clips of one prompt side by side and asks one
question an *axis*. A *vote* is one rater's answer to one question on one screen, with the models named: it exists only
after the blinding has been lifted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Protocol = Literal["rank", "pairwise", "likert5"]
"""`rank`: order all clips of a screen (M4V supplement B.2). `pairwise`: the better of two, or no difference
(PyramidFlow, Appendix B). `likert5`: two clips, five levels from "left is much better" to "right is much better"
(STIV)."""

ScreenKind = Literal["vote", "identical", "degraded"]
"""Attention checks look like any screen: `identical` shows one clip twice, `degraded` one spoiled on purpose."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One question that is asked of every screen."""

    name: str
    title: str
    question: str


AXES = (
    Axis("aesthetic_quality", "Aesthetic quality", "Which looks better?"),
    Axis("motion_smoothness", "Motion smoothness", "Which moves more naturally and smoothly?"),
    Axis("semantic_coherence", "Semantic coherence", "Which fits the description better?"),
)
"""The questions of the M4V, PyramidFlow and LinGen studies."""


@dataclass(frozen=True, slots=True)
class StudyClip:
    """One clip of a study.

    Args:
        id: opaque name of its file, `clips/<id>.mp4`.
        model: label of the model that made it.
        prompt_id: of the suite.
        seed: which of a prompt's videos it is; None if its name gave none.
        sha256: of the file in `clips/`.
        width: pixels.
        height: pixels.
        duration_s: seconds.
        degraded: spoiled on purpose, for attention checks only.
    """

    id: str
    model: str
    prompt_id: str
    seed: int | None
    sha256: str
    width: int
    height: int
    duration_s: float
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Screen:
    """The clips that a rater sees at once, by clip id, in the order shown (left to right, top to bottom)."""

    kind: ScreenKind
    prompt_id: str
    clips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RaterPlan:
    """The screens of one rater, in order.

    Args:
        id: pseudonym such as `r001`.
        token_sha256: of the token in the rater's personal link; the token itself is in `links.csv` only.
        screens: in the order shown; a screen is addressed by its place, from 0.
    """

    id: str
    token_sha256: str
    screens: tuple[Screen, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A study, complete: `study.json` holds nothing else, and nothing in it changes once raters vote.

    Args:
        name: shown to raters as the title of the study; says nothing of models.
        protocol: how a screen is answered.
        ties: whether two clips of a screen may be called equal (always so in `pairwise` and `likert5`).
        models: labels, in the order given.
        axes: the questions.
        suite: `name`, `sha256` and `n_prompts` of the prompt suite.
        prompts: text by prompt id, for the prompts of the study.
        clips: by clip id.
        raters: planned raters.
        seed: of the assignment.
        max_failed_checks: share of attention checks that a rater may fail and still count.
        admin_sha256: of the admin token.
        created: ISO 8601, UTC.
        settings: other options as given, for the record.
    """

    name: str
    protocol: Protocol
    ties: bool
    models: tuple[str, ...]
    axes: tuple[Axis, ...]
    suite: Mapping[str, Any]
    prompts: Mapping[str, str]
    clips: Mapping[str, StudyClip]
    raters: tuple[RaterPlan, ...]
    seed: int
    max_failed_checks: float
    admin_sha256: str
    created: str
    settings: Mapping[str, Any] = field(default_factory=dict)


Answer = tuple[int, ...]
"""What a rater said of one screen on one axis, in the order shown.

`rank`: the rank of each clip, 1 is best; equal clips share a rank and the next one is skipped (1, 1, 3).
`pairwise` and `likert5`: one level, negative if the first clip is better, 0 for no difference; -1 to 1, or -2 to 2.
"""


@dataclass(frozen=True, slots=True)
class CastAnswer:
    """A stored answer, still blind: the newest revision of it."""

    rater: str
    screen: int
    axis: str
    answer: Answer
    revision: int
    cast_at: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer of one rater with the models named.

    Args:
        rater: pseudonym.
        prompt_id: of the suite.
        seed: which of the prompt's videos; None if unknown.
        axis: name of the question.
        models: shown models, in the order shown; all different.
        ranks: rank of each, 1 is best; equal models share a rank and the next one is skipped (1, 1, 3).
        level: in `likert5` how much, -2 to 2, negative if the first model is better; None in the other protocols.
    """

    rater: str
    prompt_id: str
    seed: int | None
    axis: str
    models: tuple[str, ...]
    ranks: tuple[int, ...]
    level: int | None = None


@dataclass(frozen=True, slots=True)
class Screening:
    """What was left out before counting, and why.

    Args:
        n_raters: raters with at least one answer.
        excluded: reason by rater, for raters whose answers do not count.
        checks: of each rater who met one, attention checks failed and answered.
        n_unfinished: planned screens of these raters without a complete answer.
        n_planned: raters planned; None for imported votes.
        n_hasty: screens answered in less time than their longest clip lasts (counted, not excluded); None if unknown.
    """

    n_raters: int
    excluded: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    n_unfinished: int = 0
    n_planned: int | None = None
    n_hasty: int | None = None


@dataclass(frozen=True, slots=True)
class Ballots:
    """All votes that count, and what did not."""

    source: str
    protocol: Protocol
    ties: bool
    models: tuple[str, ...]
    axes: tuple[str, ...]
    votes: tuple[Vote, ...]
    screening: Screening
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Text by prompt id, where it is known."""


# ---- conclusions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; bounds are None where they cannot be known (one rater and one prompt)."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One model on one axis.

    Args:
        model: its label.
        n: votes in which it was shown.
        mean_rank: of full rankings, 1 is best; ties share the mean of their places. None outside `rank`, or where
            screens show only some of the models (mean ranks of different company do not compare).
        win_rate: share of its meetings with other models that it won, a tie being half, each opponent weighing alike.
        bradley_terry: log-strength, the models' mean is 0; None if it has no finite maximum.
        plackett_luce: log-worth, the models' mean is 0; None outside `rank`, with ties, or without a finite maximum.
    """

    model: str
    n: int
    mean_rank: Estimate | None
    win_rate: Estimate | None
    bradley_terry: Estimate | None
    plackett_luce: Estimate | None


@dataclass(frozen=True, slots=True)
class Duel:
    """Model `a` against model `b` on one axis.

    Args:
        a: a model.
        b: another one.
        n: votes (or prompts, of published means) in which both were shown.
        win: share in which `a` is preferred.
        tie: share in which they are called equal.
        lose: share in which `b` is preferred.
        win_rate: `win + tie / 2`.
        level: in `likert5`, the mean level, positive if `a` is preferred; else None.
        p_value: two-sided, of no preference; None if it cannot be told.
        p_adjusted: after Holm over all duels of all axes of the study.
    """

    a: str
    b: str
    n: int
    win: Estimate
    tie: Estimate
    lose: Estimate
    win_rate: Estimate
    level: Estimate | None = None
    p_value: float | None = None
    p_adjusted: float | None = None


@dataclass(frozen=True, slots=True)
class AxisResult:
    """One axis of a study.

    Args:
        axis: its name.
        n_votes: answers counted.
        n_raters: raters they came from; None for published means.
        n_prompts: prompts they were about.
        standings: best first (by Bradley-Terry, else by win rate).
        duels: every pair of models once, the better-placed one as `a`.
        tie_log_odds: log of Davidson's tie parameter; None without ties.
        kendall_w: agreement on full rankings, the mean over prompts; None if it does not apply.
        krippendorff_alpha: agreement over everything that two raters judged alike; None without such.
        notes: what to know, such as why a figure is missing.
    """

    axis: str
    n_votes: int
    n_raters: int | None
    n_prompts: int
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]
    tie_log_odds: float | None = None
    kendall_w: Estimate | None = None
    krippendorff_alpha: Estimate | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """Where the input contradicts itself or was mended, as the validator found it."""

    where: str
    text: str
    repair: str | None = None
    """What was done about it; None if nothing was."""


@dataclass(frozen=True, slots=True)
class StudyResult:
    """The figures of a study.

    Args:
        source: study directory, file, or publication.
        unit: `vote` for raters' answers; `prompt` for published means, whose win rates are not rater-level.
        protocol: as planned; `rank` for published mean ranks.
        models: labels, in the order given.
        axes: one result an axis.
        screening: what was left out; None for published means.
        scale: factor from the input's ranks to ranks (2 for halved ranks).
        direction: of the input's figures, "lower is better" for ranks.
        faults: where the input contradicts itself.
        caveats: what the figures do not show.
    """

    source: str
    unit: Literal["vote", "prompt"]
    protocol: Protocol
    models: tuple[str, ...]
    axes: tuple[AxisResult, ...]
    screening: Screening | None
    scale: float = 1.0
    direction: str = "lower is better"
    faults: tuple[Fault, ...] = ()
    caveats: tuple[str, ...] = ()
