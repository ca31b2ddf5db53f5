"""Which change helped: verdicts, differences with intervals, training, samples, and what was changed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evalkit.ablation_record import ComparedMetric, MetricMean, PublishedEffect
from evalkit.report import Page, Section, ShownAblation, ShownVariant, ablation_plots, moment, title
from evalkit.report.ablation_plots import Difference, LossCurve
from evalkit.report.ablation_view import TRUTH, moving_mean
from evalkit.report.view import Video
from evalkit.scoring import BOUNDS

LITE = "lite/"
POINTS = "percent"
"""Unit of published effects that share their scale with ours."""
SIGNS = {"better": "▲", "worse": "▼", "not distinguishable": "≈"}
TONES = {"better": "complete", "worse": "incomplete"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A variant with what may be said of it: its comparisons by verdict."""

    variant: ShownVariant
    against: ShownVariant
    by_verdict: dict[str, list[ComparedMetric]]

    @property
    def all(self) -> list[ComparedMetric]:
        return [found for group in self.by_verdict.values() for found in group]

    @property
    def covers_training(self) -> bool:
        """Whether every interval that there is includes the spread between training seeds."""
        return all(found.covers_training for found in self.all if found.ci95 is not None)


def verdicts(shown: ShownAblation) -> list[Verdict]:
    """One for each variant that is compared with another, truth metrics first in each list."""
    found = []
    for variant in shown.variants:
        if variant.record.against is not None:
            compared = shown.compared(variant)
            ordered = [compared[metric] for metric in shown.metrics if metric in compared]
            kinds = dict.fromkeys([*SIGNS, *(c.verdict for c in ordered)])
            by_verdict = {kind: group for kind in kinds if (group := [c for c in ordered if c.verdict == kind])}
            found.append(Verdict(variant, shown.variant(variant.record.against), by_verdict))
    return found


@dataclass(frozen=True, slots=True)
class Group:
    """Metrics of one kind, with what that kind may be called."""

    heading: str
    note: str
    metrics: list[str]


def groups(metrics: Iterable[str]) -> list[Group]:
    """Truth metrics, VBench's dimensions, stand-ins: never one list."""
    kinds = [
        Group("Ground truth of the procedural world", "exact: the prompt says what must be seen, pixels decide", []),
        Group("VBench dimensions", "computed as VBench computes them", []),
        Group("Lite stand-ins", "not VBench scores: classical image statistics in place of networks", []),
    ]
    for name in metrics:
        kinds[0 if name.startswith(TRUTH) else 2 if name.startswith(LITE) else 1].metrics.append(name)
    return [kind for kind in kinds if kind.metrics]


@dataclass(frozen=True, slots=True)
class Cell:
    """A metric of a variant: its mean, and the difference to what the variant is compared with."""

    mean: MetricMean | None
    compared: ComparedMetric | None


def table(shown: ShownAblation, metrics: Sequence[str]) -> list[tuple[str, bool, list[Cell]]]:
    """Metric, whether higher is better, and a cell a variant."""
    higher = {c.metric: c.higher_is_better for c in shown.record.comparisons}
    columns = [(variant.record.metrics, shown.compared(variant)) for variant in shown.variants]
    return [(m, higher.get(m, True), [Cell(means.get(m), found.get(m)) for means, found in columns]) for m in metrics]


def published(variant: ShownVariant, metric: str) -> PublishedEffect | None:
    """What the paper found in the VBench dimension that a metric is, or stands in for, in percentage points."""
    name = metric.removeprefix(LITE)
    effects = (effect for effect in variant.record.published if effect.unit == POINTS and effect.metric == name)
    return None if name not in BOUNDS else next(effects, None)


def forests(shown: ShownAblation, metrics: Sequence[str]) -> list[tuple[str, Markup]]:
    """A plot for each metric with a difference. Truth metrics are all shares of videos and share one axis.

    Published differences are drawn for VBench's own dimensions only: a stand-in's points are other points.
    """
    rows = {metric: found for metric in metrics if (found := _differences(shown, metric))}
    shares = [row for metric, found in rows.items() if metric.startswith(TRUTH) for row in found]
    common = ablation_plots.span(shares)
    return [
        (m, ablation_plots.forest(found, title(m), common if m.startswith(TRUTH) else ablation_plots.span(found)))
        for m, found in rows.items()
    ]


def _differences(shown: ShownAblation, metric: str) -> list[Difference]:
    found = []
    for variant in shown.variants:
        compared = shown.compared(variant).get(metric)
        if compared is not None and compared.delta is not None:
            effect = None if metric.startswith(LITE) else published(variant, metric)
            found.append(
                Difference(
                    f"{variant.label} {variant.name}",
                    variant.series,
                    100 * compared.delta,
                    None if compared.ci95 is None else (100 * compared.ci95[0], 100 * compared.ci95[1]),
                    compared.verdict in TONES,
                    None if effect is None else effect.delta,
                )
            )
    return found


@dataclass(frozen=True, slots=True)
class Beside:
    """A published effect with what was measured of it here, None if it was not."""

    variant: ShownVariant
    effect: PublishedEffect
    ours: ComparedMetric | None

    @property
    def direction(self) -> str:
        """Whether both point the same way, in words; a difference that could be none points nowhere."""
        if self.ours is None or self.ours.delta is None:
            return "not measured here"
        if self.ours.verdict not in TONES:
            return "undecided: ours may be none"
        same = (self.ours.delta > 0) == (self.effect.delta > 0)
        return "no change in theirs" if self.effect.delta == 0 else "same direction" if same else "opposite direction"


def beside_published(shown: ShownAblation) -> list[Beside]:
    """Every published effect, VBench's dimensions beside ours."""
    found = []
    for variant in shown.variants:
        ours = {
            id(effect): compared
            for metric, compared in shown.compared(variant).items()
            if (effect := published(variant, metric))
        }
        found += [Beside(variant, effect, ours.get(id(effect))) for effect in variant.record.published]
    return found


def unpublished(shown: ShownAblation) -> list[tuple[list[ShownVariant], list[str]]]:
    """The metrics that a paper could have printed of a variant and did not; none where it printed nothing at all.

    Variants that lack the same stand together.
    """
    found: dict[tuple[str, ...], list[ShownVariant]] = {}
    for variant in shown.variants:
        names = [m for m in shown.compared(variant) if m.removeprefix(LITE) in BOUNDS and published(variant, m) is None]
        if variant.record.against is not None and (names or not variant.record.published):
            found.setdefault(tuple(names if variant.record.published else ()), []).append(variant)
    return [(variants, list(names)) for names, variants in found.items()]


def loss_curves(shown: ShownAblation) -> list[LossCurve]:
    """Smoothed curves, those of a variant one after the other."""
    return [
        LossCurve(
            f"{variant.label} {variant.name}",
            variant.series,
            list(zip([step for step, _ in curve], moving_mean([loss for _, loss in curve]), strict=True)),
        )
        for variant in shown.variants
        for curve in variant.record.train.curves
        if curve
    ]


def training(shown: ShownAblation) -> dict[str, Any] | None:
    """The loss curves for wide and for narrow screens; None if no curve was kept."""
    lines = loss_curves(shown)
    if not lines:
        return None
    wide, narrow = ablation_plots.losses(lines, 860, 360), ablation_plots.losses(lines, 350, 300)
    return {"wide": wide, "narrow": narrow, "logarithmic": ablation_plots.is_logarithmic(lines)}


def marks(video: Video) -> list[tuple[str, str, str]]:
    """Of each fact that was judged its sign, its name and its tone: right, wrong, or right in part."""
    found = []
    for name, value in video.scores.items():
        if name.startswith(TRUTH):
            fact = name.removeprefix(TRUTH)
            if value in (0, 1):
                found.append(("✓", fact, "complete") if value else ("✗", fact, "incomplete"))
            else:
                found.append(("~", f"{fact} {100 * value:.0f} %", "muted"))
    return found


def reason(video: Video) -> str | None:
    """Why nothing of a video was scored; None if something was."""
    return None if video.scores else next(iter(video.unscored.values()), None)


def value(found: Any) -> str:
    """A recipe's value as it is written in one."""
    return found if isinstance(found, str) else json.dumps(found)


def body(page: Page) -> Markup | None:
    """The whole result of an ablation; nothing on the page of runs."""
    shown = page.ablation
    if shown is None:
        return None
    command = shown.record.provenance.get("command")
    finished = shown.record.provenance.get("finished")
    return page.fill(
        "ablation.html",
        shown=shown,
        n_seeds=len(shown.record.seeds),
        verdicts=verdicts(shown),
        groups=[(group, table(shown, group.metrics), forests(shown, group.metrics)) for group in groups(shown.metrics)],
        published=beside_published(shown),
        unpublished=unpublished(shown),
        training=training(shown),
        marks=marks,
        reason=reason,
        value=value,
        signs=SIGNS,
        tones=TONES,
        command=shlex.join(map(str, command)) if command else None,
        finished=moment(finished) if finished else None,
    )


SECTION = Section("Ablation", 8, body, of_ablation=True)
