"""Metrics against people: how well dimensions and headline scores agree with human preference.

Three questions of every score, on every axis: does it prefer the clip of two that people prefer (`PairAgreement`), does
a larger difference go with a larger majority (`ClipCorrelation`), and does it order the models as people do
(`ModelCorrelation`)? The unit of all intervals is the prompt.

Axes: J judged pairs of clips, P prompts, M models, R resamples.
"""

from evalkit.study.people.against import metrics_against_people
from evalkit.study.people.record import (
    PEOPLE_SCHEMA,
    AxisAgainstPeople,
    ClipCorrelation,
    LeftOut,
    ModelCorrelation,
    ModelPoint,
    PairAgreement,
    PeopleResult,
    ScoreAgainstPeople,
    caveats,
    people_to_json,
)

__all__ = [
    "PEOPLE_SCHEMA",
    "AxisAgainstPeople",
    "ClipCorrelation",
    "LeftOut",
    "ModelCorrelation",
    "ModelPoint",
    "PairAgreement",
    "PeopleResult",
    "ScoreAgainstPeople",
    "caveats",
    "metrics_against_people",
    "people_to_json",
]
