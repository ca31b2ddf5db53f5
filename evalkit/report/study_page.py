"""The page of a human study: one self-contained file, with the style and the lock of all pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from evalkit.files import write_atomically
from evalkit.report import study_parts
from evalkit.report.page import Part, compose_parts
from evalkit.report.study_view import ShownStudy, axis_title
from evalkit.study.people import PeopleResult
from evalkit.study.types import StudyResult


def render_study(
    result: StudyResult, out: Path, people: PeopleResult | None = None, prompts: Mapping[str, str] | None = None
) -> None:
    """Write the page of a study; the same study gives the same bytes.

    Args:
        result: the study.
        out: the file to write.
        people: metrics against people, where runs of the study's videos were given.
        prompts: text by prompt id, to be listed.

    Raises:
        RunFailed: the file cannot be written.
    """
    write_atomically(out, compose_study(result, out, people, prompts).encode("utf-8", "replace"))


def compose_study(
    result: StudyResult, path: Path, people: PeopleResult | None = None, prompts: Mapping[str, str] | None = None
) -> str:
    """Return the HTML of the page that will be written to `path`."""
    return compose_parts(result.source, path, _parts(ShownStudy(result, people, prompts or {})))


def _parts(study: ShownStudy) -> Iterator[Part]:
    """Title, template and values of each section."""
    yield "Overview", "study_header.html", study_parts.overview(study)
    yield from study_parts.parts(study)
    yield from study_parts.faults(study)
    yield (
        "Method",
        "study_method.html",
        {"study": study, "method": list(_method(study)), "caveats": list(_caveats(study))},
    )


def _method(study: ShownStudy) -> Iterator[str]:
    """How the figures came about."""
    if study.published:
        yield "Mean ranks of prompts were published; nothing is known of single raters, whose answers they average."
        yield "Intervals resample prompts. A duel is tested by turning the differences of prompts round."
    else:
        yield (
            "Intervals let raters and prompts vary together (two-way clustered bootstrap): they hold for other raters"
            " and other prompts of the same kinds."
        )
        yield "A mean rank gives equal clips the mean of their places; it exists where every screen shows all models."
        yield (
            "Bradley–Terry log-strengths put the models on one line: a difference of d means odds of e^d in a duel;"
            " ties enter as Davidson's (1970). Plackett–Luce worths do the same from whole rankings. The models'"
            " mean is 0."
        )
    yield "A win rate counts a tie as half a win; a model's own is over its opponents, each weighing alike."
    yield "P-values are two-sided and corrected over all duels of all axes (Holm 1979)."


def _caveats(study: ShownStudy) -> Iterator[str]:
    """What the study says of itself, and what is to know of an axis or of all."""
    yield from study.result.caveats
    axes: dict[str, list[str]] = {}
    for axis in study.result.axes:
        for note in axis.notes:
            axes.setdefault(note, []).append(axis_title(axis.axis))
    for note, titles in axes.items():
        yield note if len(titles) == len(study.result.axes) else f"{', '.join(titles)}: {note}"
