"""The page: finds its sections, fills its templates, and locks itself with a content security policy."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from evalkit.cost_record import CostRecord
from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.records import RunRecord
from evalkit.report import format as formats
from evalkit.report.ablation_view import Row, ShownAblation, sample_rows, show_ablation
from evalkit.report.media import Media, gather
from evalkit.report.study_view import ShownStudy
from evalkit.report.view import ShownCost, ShownRun, Video, all_dimensions, extremes, list_videos, place
from evalkit.resources import resource

N_EXTREMES = 3
"""Best and worst videos shown per dimension; their clips are embedded before all others."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the page.

    Args:
        title: its heading and its entry in the list of contents; the header has none.
        order: where it stands, ascending.
        body: makes its markup from the page's runs; None leaves the section out.
        reads_scores: whether it stays away from a page without a scored run.
        of_ablation: whether it stands on the page of an ablation. There the runs are the seeds of a few variants: a
            section that takes each run for a model of its own would repeat, seed by seed and without the correction
            for several comparisons, what the ablation section says of variants.
    """

    title: str
    order: int
    body: Callable[[Page], Markup | None]
    reads_scores: bool = True
    of_ablation: bool = False

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True)
class Page:
    """What a section can see: the scored runs, their videos and media, costs, a human study, and the templates."""

    runs: tuple[ShownRun, ...]
    videos: tuple[Video, ...]
    path: Path
    costs: tuple[ShownCost, ...] = ()
    ablation: ShownAblation | None = None
    study: ShownStudy | None = None

    @property
    def title(self) -> str:
        """What the browser's tab calls it."""
        return ", ".join(entry.name for entry in self.shown) if self.ablation is None else self.ablation.name

    @property
    def lite(self) -> bool:
        return any(run.lite for run in self.runs)

    @property
    def cost_only(self) -> tuple[ShownCost, ...]:
        """Directories in which nothing was scored."""
        return tuple(cost for cost in self.costs if cost.run is None)

    @property
    def shown(self) -> tuple[ShownRun | ShownCost, ...]:
        """All directories of the page, in the order of their labels."""
        return (*self.runs, *self.cost_only)

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        return all_dimensions(self.runs)

    @cached_property
    def same_suite(self) -> bool:
        """Whether all runs answered the same prompts; otherwise their numbers cannot be compared."""
        return len({run.summary["subset"]["sha256"] for run in self.runs}) <= 1

    @cached_property
    def samples(self) -> tuple[Row, ...]:
        """The prompts of an ablation whose videos stand side by side; their clips are embedded before all others."""
        return () if self.ablation is None else sample_rows(self.ablation, self.videos)

    @cached_property
    def media(self) -> Media:
        seeds = self.ablation.record.seeds if self.ablation is not None else ()
        side_by_side = [video for seed in seeds for row in self.samples for video in row.cells[seed] if video]
        wanted = [
            video
            for dimension in self.dimensions
            for run in self.runs
            if dimension in run.dimensions
            for end in extremes(self.videos, run, dimension, N_EXTREMES)
            for video in end
        ]
        return gather(self.runs, [*side_by_side, *wanted, *self.videos], self.path)

    def fill(self, template: str, **values: Any) -> Markup:
        """Render a template of `reports/templates/`; every value is escaped unless it is Markup."""
        return Markup(_templates().get_template(template).render(page=self, **values))


@dataclass(frozen=True)
class HeadedPage(Page):
    """A page without runs of its own, under a heading."""

    heading: str = ""

    @property
    def title(self) -> str:
        return self.heading


@cache
def _templates() -> Environment:
    folder = FileSystemLoader(resource("reports") / "templates")
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=formats.percent,
        points=formats.points,
        change=formats.change,
        counted=formats.count,
        title_of=formats.title,
        moment=formats.moment,
        significant=formats.significant,
        whole=formats.whole,
        relative=formats.relative,
        parameters=formats.parameters,
        gib=formats.gib,
        p_value=formats.p_value,
    )
    return environment


def _load(file: Path) -> ModuleType:
    """Import a section by path: `reports/` is data, not a package."""
    name = f"evalkit_report_section_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses of a section look themselves up there
    spec.loader.exec_module(module)
    return module


@cache
def sections() -> tuple[Section, ...]:
    """The sections of `reports/sections/`, in order.

    Raises:
        RuntimeError: a file there has no `SECTION`.
    """
    found = []
    for file in sorted((resource("reports") / "sections").glob("*.py")):
        section = getattr(_load(file), "SECTION", None)
        if not isinstance(section, Section):
            raise RuntimeError(f"{file} holds no SECTION")
        found.append(section)
    return tuple(sorted(found, key=lambda section: section.order))


def compose(
    runs: Sequence[RunRecord], path: Path, costs: Sequence[CostRecord] = (), study: ShownStudy | None = None
) -> str:
    """Return the HTML of the page that will be written to `path` (links are relative to it).

    Raises:
        UserError: neither run nor cost, or runs of different profiles.
    """
    return _html(_page(runs, path, costs, study))


def compose_ablation(directory: Path, path: Path) -> str:
    """Return the HTML of the one page of an ablation and its scored runs, which will be written to `path`.

    Raises:
        UserError: the ablation's record, or one of its runs, cannot be read.
    """
    shown = show_ablation(directory)
    return _html(Page(shown.runs, list_videos(shown.runs), path, ablation=shown))


Part = tuple[str, str, Mapping[str, Any]]
"""A section of a page that is made in one place: its title, its template, and what that is filled with."""


def compose_parts(heading: str, path: Path, parts: Iterable[Part]) -> str:
    """Return the HTML of a page without runs that will be written to `path`."""
    page = HeadedPage((), (), path, heading=heading)
    return _filled(
        page,
        [
            (Section(title, order, lambda _: None), page.fill(template, **values))
            for order, (title, template, values) in enumerate(parts)
        ],
    )


def _html(page: Page) -> str:
    possible = [section for section in sections() if _belongs(section, page)]
    filled = [(section, section.body(page)) for section in possible]
    return _filled(page, [(section, body) for section, body in filled if body is not None])


def _filled(page: Page, shown: Sequence[tuple[Section, Markup]]) -> str:
    style, script = (_inline(name) for name in ("page.css", "page.js"))
    return str(
        page.fill(
            "page.html", sections=shown, style=style, script=script, policy=_policy(style, script), data=_data(page)
        )
    )


def _belongs(section: Section, page: Page) -> bool:
    return section.of_ablation if page.ablation is not None else bool(page.runs) or not section.reads_scores


def render(
    runs: Sequence[RunRecord], out: Path, costs: Sequence[CostRecord] = (), study: ShownStudy | None = None
) -> None:
    """Write the page of one run, or of several side by side, as one HTML file.

    The same run directories give the same bytes. `costs` belong to the runs of the same directories, or stand alone;
    `study` is a human study of the runs' videos.

    Raises:
        UserError: neither run nor cost, or runs of different profiles.
        RunFailed: the file cannot be written.
    """
    write_atomically(out, compose(runs, out, costs, study).encode("utf-8", "replace"))


def render_ablation(directory: Path, out: Path) -> None:
    """Write the page of an ablation, as `m4v-eval ablate` leaves it, as one HTML file.

    Raises:
        UserError: the ablation's record, or one of its runs, cannot be read.
        RunFailed: the file cannot be written.
    """
    write_atomically(out, compose_ablation(directory, out).encode("utf-8", "replace"))


def _page(runs: Sequence[RunRecord], path: Path, costs: Sequence[CostRecord], study: ShownStudy | None = None) -> Page:
    if not (runs or costs):
        raise UserError("There is no run to report.", "Give the directory of at least one finished run.")
    profiles = {run.summary["profile"] for run in runs}
    if len(profiles) > 1:
        raise UserError(
            f"Runs of different profiles ({', '.join(sorted(profiles))}) cannot share a page: their numbers do not"
            " compare, and only those of the official profile are VBench scores.",
            "Make one page for each profile.",
        )
    shown, shown_costs = place(runs, costs)
    return Page(shown, list_videos(shown), path, shown_costs, study=_coloured(study, shown))


def _coloured(study: ShownStudy | None, runs: Sequence[ShownRun]) -> ShownStudy | None:
    """A study whose models have the colours of their runs."""
    if study is None or study.people is None:
        return study
    by_path = {str(run.record.path): run.series for run in runs}
    return replace(
        study, colours={model: by_path[path] for model, path in study.people.runs.items() if path in by_path}
    )


def _inline(name: str) -> Markup:
    """A style sheet or script of ours, verbatim: its hash must match the policy."""
    return Markup((resource("reports") / "templates" / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    """Nothing runs, loads or leaves but our own style and script, embedded media, and files beside the page."""
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_sha256(style)}'",
            f"script-src '{_sha256(script)}'",
            "img-src data: 'self' file:",
            "media-src data: 'self' file:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(page: Page) -> dict[str, Any]:
    """What the script shows: prompts once each, a row per video, scores in percent."""
    prompts = list(dict.fromkeys((video.prompt_id, video.prompt) for video in page.videos))
    place = {prompt: index for index, prompt in enumerate(prompts)}
    return {
        "runs": [{"label": run.label, "name": run.name, "series": run.series} for run in page.runs],
        "dimensions": [formats.title(name) for name in page.dimensions],
        "prompts": prompts,
        "videos": [_row(page, video, place[video.prompt_id, video.prompt]) for video in page.videos],
        "posters": page.media.posters,
        "clips": {name: [clip.src, clip.type] for name, clip in page.media.clips.items()},
    }


def _row(page: Page, video: Video, prompt: int) -> list[Any]:
    scores = [None if (value := video.scores.get(name)) is None else round(100 * value, 4) for name in page.dimensions]
    reasons = {place: video.unscored[name] for place, name in enumerate(page.dimensions) if name in video.unscored}
    return [video.run, video.file, prompt, video.seed, video.media, video.facts, scores, reasons]
