"""The page of a subset study: one self-contained file, with the style and the lock of all pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from evalkit.files import write_atomically
from evalkit.report import subset_plots
from evalkit.report.page import Part, compose_parts
from evalkit.subset_study import PublishedStudy, Study, label, verdict
from evalkit.subset_study.findings import TargetStudy
from evalkit.subset_study.words import PUBLISHED_LIMITS, limits, published_verdict


def render_subset_study(study: Study | PublishedStudy, out: Path) -> None:
    """Write the page of a study; the same study gives the same bytes.

    Raises:
        RunFailed: the file cannot be written.
    """
    write_atomically(out, compose_subset_study(study, out).encode("utf-8", "replace"))


def compose_subset_study(study: Study | PublishedStudy, path: Path) -> str:
    """Return the HTML of the page that will be written to `path`."""
    if isinstance(study, PublishedStudy):
        heading, parts = "Published custom against official scores", _published_parts(study)
    else:
        heading, parts = _heading(study), _parts(study)
    return compose_parts(
        heading, path, ((title, template, {"label": label, **values}) for title, template, values in parts)
    )


def _heading(study: Study) -> str:
    who = "Random prompts" if study.subset is None else study.subset.name[0].upper() + study.subset.name[1:]
    return f"{who} against the suite {study.suite['name']}"


def _parts(study: Study) -> Iterator[Part]:
    """Title, template and values of each section."""
    yield "Overview", "subset_header.html", {"study": study, "verdict": verdict(study)}
    plots = [(target, subset_plots.order_kept(target)) for target in study.targets]
    values = {"study": study, "compared": [t for t in study.targets if t.subset], "plots": _drawn(plots)}
    yield "Order of the models", "subset_order.html", values | {"random": _random(study)}
    plots = [(target, subset_plots.widths(target)) for target in study.targets]
    yield "Widths and power", "subset_power.html", {"study": study, "plots": _drawn(plots)}
    left_out = [target for target in study.targets if target.left_out]
    yield "Method", "subset_method.html", {"study": study, "limits": limits(study), "left_out": left_out}


def _drawn(plots: list[tuple[TargetStudy, Markup | None]]) -> list[tuple[TargetStudy, Markup]]:
    return [(target, plot) for target, plot in plots if plot is not None]


def _random(study: Study) -> dict[str, float | None]:
    """Share of pairs that random subsets of the given subset's size keep, by target."""
    return {
        target.name: next(
            (p.pairs_kept for p in target.curve if target.subset and p.n == target.subset.n_prompts), None
        )
        for target in study.targets
    }


def _published_parts(study: PublishedStudy) -> Iterator[Part]:
    yield "Overview", "subset_published.html", {"study": study, "verdict": published_verdict(study)}
    yield "Method", "subset_published_method.html", {"study": study, "limits": PUBLISHED_LIMITS}
