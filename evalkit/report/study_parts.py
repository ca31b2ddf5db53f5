"""The parts of a study's figures, for its own page and for the section of the runs' page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evalkit.report.page import Part
from evalkit.report.study_people import people_values
from evalkit.report.study_view import (
    ShownStudy,
    axis_title,
    duel_plots,
    interval,
    is_decided,
    matrix,
    plain,
    question,
    share,
    signed,
    standing_plots,
)
from evalkit.report.study_words import certainty, lead, screening, verdicts
from evalkit.study.types import Screening

HELPERS: Mapping[str, Any] = {
    "axis_title": axis_title,
    "interval": interval,
    "is_decided": is_decided,
    "plain": plain,
    "question": question,
    "share": share,
    "signed": signed,
}
"""What the templates call."""


def overview(study: ShownStudy) -> dict[str, Any]:
    """Who is preferred and how surely, and who was asked."""
    excluded = () if study.result.screening is None else tuple(study.result.screening.excluded)
    return _filled(
        study, lead=lead(study), verdicts=list(verdicts(study)), certainty=certainty(study), left_out=excluded
    )


def parts(study: ShownStudy) -> Iterator[Part]:
    """Title, template and values of each part that the study has."""
    if study.voted:
        plotted = [(measure, list(standing_plots(study, measure))) for measure in study.plotted]
        yield "Standings", "study_standings.html", _filled(study, plotted=plotted)
    if study.n_duels:
        yield (
            "Duels",
            "study_duels.html",
            _filled(
                study,
                plots=list(duel_plots(study)),
                matrices=[(axis, matrix(axis)) for axis in study.voted if axis.duels],
                levels=any(duel.level for axis in study.voted for duel in axis.duels),
            ),
        )
    if study.result.screening is not None:
        yield "Raters", "study_raters.html", _filled(study, **_raters(study, study.result.screening))
    if study.people is not None:
        yield "Metrics against people", "study_people.html", _filled(study, **people_values(study, study.people))


def faults(study: ShownStudy) -> Iterator[Part]:
    """What is wrong with the input, if anything is."""
    if study.result.faults:
        yield "Faults", "study_faults.html", _filled(study)


def _filled(study: ShownStudy, **values: Any) -> dict[str, Any]:
    return {"study": study, **HELPERS, **values}


def _raters(study: ShownStudy, found: Screening) -> dict[str, Any]:
    nothing = (0, None)
    return {
        "agreement": any(axis.kendall_w or axis.krippendorff_alpha for axis in study.voted),
        "screening": screening(found),
        "excluded": [(rater, *found.checks.get(rater, nothing), why) for rater, why in found.excluded.items()],
        "checked": [(rater, *counts, rater not in found.excluded) for rater, counts in sorted(found.checks.items())],
    }
