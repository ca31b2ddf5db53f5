"""Metrics against people as pages show it: plots, tables, and words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evalkit.report import format as formats
from evalkit.report import study_plots
from evalkit.report.study_plots import Dot, Model, Scale
from evalkit.report.study_view import ALPHA, ShownStudy, axis_title, interval, scaled, share, signed
from evalkit.report.study_words import kept_together
from evalkit.study.people import (
    AxisAgainstPeople,
    LeftOut,
    ModelCorrelation,
    PeopleResult,
    ScoreAgainstPeople,
    caveats,
)
from evalkit.study.types import Estimate

DIMENSION, TOTAL = 0, 1
"""Series of the two kinds of score."""
TOTALS = {
    "total": "VBench total",
    "quality": "VBench quality",
    "semantic": "VBench semantic",
    "mean7": "Mean of the seven",
    "lite/mean7": "Mean of the seven (lite)",
    "m4v_avg4": "Mean of four (M4V)",
    "lingen_quality6": "Quality of six (LinGen)",
}
STANDINGS = {
    "bradley_terry": ("strength", 1.0, "the log-strength of Bradley and Terry"),
    "win_rate": ("win rate, %", 100.0, "the win rate, each opponent weighing alike"),
    "mean_rank": ("− mean rank", 1.0, "minus the mean rank"),
}
HEADLINES = ("total", "mean7", "lite/mean7", "quality", "semantic")
"""Headline scores whose plots are open, the most telling first; those of other scores are folded."""
NO_BREAK = "\u00a0"
SHOWN = 8
"""Names in a list of what was left out."""


def score_title(score: ScoreAgainstPeople) -> str:
    """What the page calls a dimension or headline score."""
    return TOTALS.get(score.name, formats.title(score.name)) if score.is_total else formats.title(score.name)


def score_range(score: ScoreAgainstPeople) -> str:
    """A note on the direction, where it is not the usual one."""
    return "" if score.higher_is_better else "less is better"


Scatter = tuple[str, str, Markup]
"""Title, caption and plot."""


@dataclass(frozen=True, slots=True)
class AxisView:
    """One axis: its verdict, plots and scores.

    Args:
        axis: the figures.
        title: of the axis.
        verdict: in words.
        agreement: plot of agreement over pairs of clips; None without any.
        others: scatter plots of models, for all scores but the most telling ones.
        standing: what places the models, in words.
    """

    axis: AxisAgainstPeople
    title: str
    verdict: str
    agreement: Markup | None
    others: list[Scatter]
    standing: str


def axis_views(study: ShownStudy, people: PeopleResult) -> list[AxisView]:
    """Every axis of the comparison."""
    scale = _agreement_scale(people)
    return [
        AxisView(
            axis,
            axis_title(axis.axis),
            kept_together(" ".join(_verdict(axis))),
            None if scale is None else _agreement(axis, scale),
            [
                (score_title(score), correlation_words(score.models), _scatter(study, axis, score, score.models))
                for score in axis.scores
                if score.models is not None and score.name not in HEADLINES
            ],
            STANDINGS[axis.standing][2],
        )
        for axis in people.axes
    ]


def headlines(study: ShownStudy, people: PeopleResult) -> list[tuple[str, list[Scatter]]]:
    """Scatter plots of models for the most telling scores: a row a score, a plot an axis."""
    found = {
        name: [
            (
                score,
                (axis_title(axis.axis), correlation_words(score.models), _scatter(study, axis, score, score.models)),
            )
            for axis in people.axes
            for score in axis.scores
            if score.models is not None and score.name == name
        ]
        for name in HEADLINES
    }
    return [(score_title(plots[0][0]), [plot for _, plot in plots]) for plots in found.values() if plots]


# ---- agreement -------------------------------------------------------------------------------------------------------


def _agreement_scale(people: PeopleResult) -> Scale | None:
    """One scale for all axes, in percent; None where no clips could be compared."""
    pairs = [score.pairs for axis in people.axes for score in axis.scores if score.pairs is not None]
    if not pairs:
        return None
    figures = [scaled(found, 100.0) for pair in pairs for found in (pair.share, pair.one_rater) if found is not None]
    low, high = study_plots.span([*figures, Estimate(50.0)], 10.0)
    return Scale("pairs of clips in agreement, %", max(low, -2.0), min(high, 102.0), 50.0)


def _agreement(axis: AxisAgainstPeople, scale: Scale) -> Markup | None:
    rows = [
        Dot(
            score_title(score),
            TOTAL if score.is_total else DIMENSION,
            scaled(found.share, 100.0),
            f"{share(found.share.value)} %",
            is_told_apart(found.p_adjusted),
            None if found.one_rater is None else 100 * found.one_rater.value,
        )
        for score in axis.scores
        if (found := score.pairs) is not None
    ]
    return study_plots.dots(rows, scale, f"Agreement with people, {axis_title(axis.axis)}") if rows else None


def is_told_apart(p_adjusted: float | None) -> bool:
    """Whether a figure is told apart from chance, at 5 % for all scores and axes together."""
    return p_adjusted is not None and p_adjusted <= ALPHA


# ---- models ----------------------------------------------------------------------------------------------------------


def _scatter(study: ShownStudy, axis: AxisAgainstPeople, score: ScoreAgainstPeople, models: ModelCorrelation) -> Markup:
    name, factor, _ = STANDINGS[axis.standing]
    points = [
        Model(p.model, study.series(p.model), scaled(p.score, 100.0), scaled(p.standing, factor)) for p in models.points
    ]
    unit = "; ".join(filter(None, ("lite score, %" if "lite" in score.name else "score, %", score_range(score))))
    label = f"{score_title(score)} against people, {axis_title(axis.axis)}"
    return study_plots.scatter(points, unit, name, label)


def correlation_words(models: ModelCorrelation) -> str:
    """The rank correlation over models, or that so few of them cannot tell."""
    n = len(models.points)
    if models.spearman is None or models.p_spearman is None:
        return f"{n} models; one side ties them all"
    p = formats.p_value(models.p_spearman)
    said = (f"p {p}" if p.startswith("<") else f"p = {p}").replace(" ", NO_BREAK)
    if not models.enough:
        return f"{n} models: not told apart from chance ({said})"
    bounds = interval(models.spearman, signed)
    return (
        f"Spearman {signed(models.spearman.value)}{f' ({bounds})' if models.spearman.low is not None else ''}, {said}"
    )


# ---- words -----------------------------------------------------------------------------------------------------------


def _verdict(axis: AxisAgainstPeople) -> Iterator[str]:
    judged = [(score, score.pairs) for score in axis.scores if score.pairs is not None]
    if not judged:
        yield "Single clips could not be compared: only the order of the models can."
        return
    good = sorted(
        ((s, p) for s, p in judged if is_told_apart(p.p_adjusted) and p.share.value > 0.5),
        key=lambda pair: -pair[1].share.value,
    )
    bad = [s for s, p in judged if is_told_apart(p.p_adjusted) and p.share.value < 0.5]
    n = formats.count(len(judged), "score")
    if good:
        score, found = good[0]
        bounds = f" (95 %: {interval(found.share, share)})" if found.share.low is not None else ""
        most = f"{score_title(score)} most, on {share(found.share.value)} %{bounds} of the pairs"
        yield f"{len(good)} of {n} {'agrees' if len(good) == 1 else 'agree'} with people beyond chance: {most}."
    else:
        yield f"None of {n} agrees with people beyond chance."
    if bad:
        names = ", ".join(score_title(score) for score in bad[:SHOWN])
        yield f"Against people beyond chance: {names}{' and others' if len(bad) > SHOWN else ''}."
    ceiling = next((p.one_rater for _, p in judged if p.one_rater is not None), None)
    if ceiling is not None:
        yield f"One more rater would agree on {share(ceiling.value)} %."


def left_out_lines(left_out: LeftOut) -> list[str]:
    """What one side has and the other lacks, in sentences."""
    lines = []
    if left_out.models_without_run:
        lines.append(f"Models of the study without a run: {_some(left_out.models_without_run)}.")
    if left_out.runs_without_model:
        lines.append(f"Runs of models that the study does not know: {_some(left_out.runs_without_model)}.")
    for model, reasons in left_out.clips_without_video.items():
        by_reason: dict[str, list[str]] = {}
        for clip, reason in reasons.items():
            by_reason.setdefault(reason, []).append(clip)
        parts = "; ".join(f"{reason}: {_some(clips)}" for reason, clips in by_reason.items())
        lines.append(f"{formats.count(len(reasons), 'judged clip')} of {model} not in its run ({parts}).")
    for model, clips in left_out.clips_without_vote.items():
        lines.append(f"{formats.count(len(clips), 'clip')} in the run of {model} that nobody judged: {_some(clips)}.")
    lines += [f"{TOTALS.get(name, name)}: {reason}." for name, reason in left_out.scores.items()]
    return lines


def unscored_lines(people: PeopleResult) -> list[str]:
    """Judged clips without a score, where all axes say the same in one line."""
    found: dict[tuple[str, str], list[str]] = {}
    for axis in people.axes:
        for score in axis.scores:
            if score.unscored:
                counts = ", ".join(f"{n} of {model}" for model, n in score.unscored.items())
                found.setdefault((score_title(score), counts), []).append(axis_title(axis.axis))
    return [
        f"{name} is missing for {counts}{_where(axes, len(people.axes))}." for (name, counts), axes in found.items()
    ]


def _where(axes: Sequence[str], everywhere: int) -> str:
    return "" if len(axes) == everywhere else f" ({', '.join(axes)})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def people_values(study: ShownStudy, people: PeopleResult) -> Mapping[str, Any]:
    """What the template of the comparison needs."""
    return {
        "people": people,
        "views": axis_views(study, people),
        "headlines": headlines(study, people),
        "left_out": [*left_out_lines(people.left_out), *unscored_lines(people)],
        "people_caveats": list(caveats(people)),
        "score_title": score_title,
        "score_range": score_range,
        "correlation_words": correlation_words,
        "is_told_apart": is_told_apart,
    }
