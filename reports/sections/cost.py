"""What a model costs: FLOPs by part of the model and clip length, latency, and quality for that cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evalkit.cost_record import CostRow, FlopsRecord, Hardware, LatencyRow
from evalkit.report import Page, Quality, Section, ShownCost, ShownRun, cost_plots, quality_of, undominated
from evalkit.report.cost_plots import Bar, Point
from evalkit.report.view import N_COLOURS

HARMLESS = ("model", "seed", "repeats")
"""Settings of a timing that may differ between times that are compared; the rows show the first and the last."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the cost table under a name that no other row of its directory has."""

    cost: ShownCost
    row: CostRow
    name: str
    own: bool


@dataclass(frozen=True, slots=True)
class Plot:
    """The same plot for wide and for narrow screens."""

    wide: Markup
    narrow: Markup


def clip(row: CostRow | LatencyRow) -> str:
    """Length and size of a clip; a model of the user's own may be timed on something else."""
    return "inputs of its own" if row.frames is None else f"{row.frames:,} frames of {row.height} × {row.width}"


def names(rows: Sequence[CostRow] | Sequence[LatencyRow]) -> list[str]:
    """Short names that tell rows apart: the variant, then what else is needed of model, blocks and clip."""
    found = [row.variant for row in rows]
    details = [
        [f"{row.model}" if row.model != row.variant else "" for row in rows],
        [f"L {row.dual_blocks}" if isinstance(row, CostRow) and row.dual_blocks is not None else "" for row in rows],
        [clip(row) for row in rows],
    ]
    for detail in details:
        n = Counter(found)
        groups = {name: {d for f, d in zip(found, detail, strict=True) if f == name} for name in n}
        found = [
            f"{f}, {d}" if d and n[f] > 1 and len(groups[f]) > 1 else f for f, d in zip(found, detail, strict=True)
        ]
    return found


def lines(cost: ShownCost) -> list[Line]:
    """The counted rows of a directory."""
    rows = cost.record.flops.rows if cost.record.flops is not None else ()
    own = cost.record.own_row
    return [Line(cost, row, name, row is own) for row, name in zip(rows, names(rows), strict=True)]


@dataclass(frozen=True, slots=True)
class Rules:
    """How the rows of some directories were counted: in words, and as recorded."""

    costs: list[ShownCost]
    notes: list[str]
    settings: str


def conventions(costs: Sequence[ShownCost]) -> list[Rules]:
    """Each convention once, with the directories that follow it."""
    found: dict[str, Rules] = {}
    for cost in costs:
        if cost.record.flops is not None:
            key = json.dumps(cost.record.flops.convention, sort_keys=True)
            found.setdefault(key, _rules(cost.record.flops)).costs.append(cost)
    return list(found.values())


def _rules(record: FlopsRecord) -> Rules:
    settings = {name: value for name, value in record.convention.items() if name != "notes" and value is not None}
    return Rules([], [str(note) for note in record.convention.get("notes") or ()], _settings(settings))


def _settings(found: dict[str, Any]) -> str:
    """`batch 1, compiled no`: recorded settings in one line."""
    words = {True: "yes", False: "no", None: "not set"}
    shown = {name: words[value] if value is None or isinstance(value, bool) else value for name, value in found.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())


def breakdown(page: Page, found: Sequence[Line]) -> dict[str, Any] | None:
    """Bars, their legend, and the same figures as a table; None if no row has parts."""
    several = len({line.cost.index for line in found}) > 1
    bars = [
        Bar(f"{line.cost.label} {line.name}" if several else line.name, line.row.breakdown)
        for line in found
        if sum(line.row.breakdown.values()) > 0
    ]
    if not bars:
        return None
    parts = cost_plots.part_order(bars)
    plot = Plot(cost_plots.stacked(bars, 860, 180, 24), cost_plots.stacked(bars, 350, 96, 13))
    legend = [(part, place % N_COLOURS, place >= N_COLOURS) for place, part in enumerate(parts)]
    return {"bars": bars, "parts": parts, "legend": legend, "plot": plot}


def sweeps(costs: Sequence[ShownCost]) -> list[dict[str, Any]]:
    """One plot and table for each directory with a sweep."""
    found = []
    for cost in costs:
        swept = cost.record.flops.sweep if cost.record.flops is not None else None
        if swept is not None and swept.rows and cost_plots.curves(swept):
            plot = Plot(cost_plots.sweep(swept, 860, 380), cost_plots.sweep(swept, 350, 300))
            marked = cost_plots.meeting(swept) is not None
            found.append({"cost": cost, "sweep": swept, "plot": plot, "marked": marked})
    return found


@dataclass(frozen=True, slots=True)
class Bench:
    """Latencies that compare: one hardware, one set of settings."""

    hardware: Hardware
    settings: str
    rows: list[tuple[ShownCost, LatencyRow, str]]

    @property
    def timed_modules(self) -> list[tuple[ShownCost, LatencyRow, str]]:
        """The rows whose modules were timed."""
        return [entry for entry in self.rows if entry[1].modules]

    def notes(self, name: str) -> list[str]:
        """The distinct words of the rows on how something was found out."""
        found = dict.fromkeys(value for _, row, _ in self.rows if (value := getattr(row, name)) is not None)
        return [value.rstrip(".") for value in found]


def benches(costs: Sequence[ShownCost]) -> list[Bench]:
    """The timed rows of all directories, apart by hardware and settings."""
    found: dict[str, Bench] = {}
    for cost in costs:
        record = cost.record.latency
        if record is not None:
            settings = {name: value for name, value in record.settings.items() if name not in HARMLESS}
            key = json.dumps([record.hardware.model_dump(), settings], sort_keys=True)
            bench = found.setdefault(key, Bench(record.hardware, _settings(settings), []))
            bench.rows.extend((cost, row, name) for row, name in zip(record.rows, names(record.rows), strict=True))
    return sorted(found.values(), key=lambda bench: bench.hardware.title)


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """Runs whose quality compares: one kind of score on one suite."""

    quality: str
    suite: str
    entries: list[tuple[ShownRun, Quality, CostRow, bool]]
    plot: Plot

    @property
    def unlike(self) -> bool:
        """Whether the points' clips differ in length or size."""
        return len({clip(row) for _, _, row, _ in self.entries}) > 1


def tradeoffs(page: Page) -> list[Tradeoff]:
    """Runs with a quality and a cost, apart by kind of score and suite."""
    rows = {cost.index: cost.record.own_row for cost in page.costs}
    groups: dict[tuple[str, str, str], list[tuple[ShownRun, Quality, CostRow]]] = {}
    for run in page.runs:
        found, row = quality_of(run), rows.get(run.index)
        if found is not None and row is not None and row.clip_tflops:
            suite = run.summary["subset"]
            groups.setdefault((found.name, suite["name"], suite["sha256"]), []).append((run, found, row))
    return [_tradeoff(name, suite, group) for (name, suite, _), group in groups.items()]


def _tradeoff(name: str, suite: str, group: Sequence[tuple[ShownRun, Quality, CostRow]]) -> Tradeoff:
    best = undominated([(row.clip_tflops or 0.0, found.value) for _, found, row in group])
    marked = [len(group) > 1 and place in best for place in range(len(group))]
    points = [
        Point(f"{run.label} {run.name}", run.series, row.clip_tflops or 0.0, found.value, found.ci95, mark)
        for (run, found, row), mark in zip(group, marked, strict=True)
    ]
    plot = Plot(cost_plots.tradeoff(points, name, 860, 380), cost_plots.tradeoff(points, name, 350, 320))
    entries = [(run, found, row, mark) for (run, found, row), mark in zip(group, marked, strict=True)]
    return Tradeoff(name, suite, entries, plot)


def left_out(page: Page, shown: Sequence[Tradeoff]) -> list[tuple[ShownRun | ShownCost, str]]:
    """What has no point in the plot, and why."""
    placed = {run.index for group in shown for run, *_ in group.entries}
    return [(entry, _lack(page, entry)) for entry in page.shown if entry.index not in placed]


def _lack(page: Page, entry: ShownRun | ShownCost) -> str:
    if isinstance(entry, ShownCost):
        return "no quality recorded"
    cost = next((cost for cost in page.costs if cost.index == entry.index), None)
    if cost is None or cost.record.flops is None:
        return "no cost recorded"
    row = cost.record.own_row
    if row is None:
        return "no cost recorded: none of its rows is marked as this model"
    return "no headline score" if row.clip_tflops else "no cost of a whole clip recorded"


def body(page: Page) -> Markup | None:
    """Counted cost, timed cost, and quality against cost; nothing if no directory has a cost."""
    if not page.costs:
        return None
    found = [line for cost in page.costs for line in lines(cost)]
    timed = benches(page.costs)
    shown = tradeoffs(page)
    return page.fill(
        "cost.html",
        counted=[(cost, rows) for cost in page.costs if (rows := [line for line in found if line.cost is cost])],
        conventions=conventions(page.costs),
        breakdown=breakdown(page, found),
        sweeps=sweeps(page.costs),
        benches=timed,
        several_machines=len({bench.hardware for bench in timed}) > 1,
        tradeoffs=shown,
        left_out=left_out(page, shown) if page.runs else [],
        clip=clip,
    )


SECTION = Section("Cost", 35, body, reads_scores=False)
