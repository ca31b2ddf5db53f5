"""A subset study as tables for the terminal, and what was left out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from evalkit.subset_study import PublishedStudy, Study, label, verdict
from evalkit.subset_study.agreement import Agreement, Bounds
from evalkit.subset_study.findings import SIZES, TargetStudy
from evalkit.subset_study.words import PUBLISHED_LIMITS, limits, published_verdict

SHOWN = 5
"""Names in a list of what was left out; the JSON has all of them."""
WIDE_AGREEMENT, WIDE_PLANNING = 135, 100
"""Columns from which the ranges, and the components of variance, are shown beside the figures."""


def study_lines(study: Study, width: int) -> Iterator[RenderableType]:
    """The tables, the verdict, what was left out, and what the figures do not say."""
    if study.subset is not None and any(target.subset for target in study.targets):
        yield _agreement(study, width >= WIDE_AGREEMENT)
    yield _curves(study, width)
    yield _planning(study, width >= WIDE_PLANNING)
    yield f"[bold]{escape(verdict(study))}[/bold]"
    yield from _left_out(study)
    for limit in limits(study):
        yield f"[dim]- {escape(limit)}[/dim]"


def _title(study: Study, what: str) -> str:
    kind = "lite stand-ins, not VBench" if study.profile == "lite" else "VBench"
    precision = "" if study.precision == "fp32" else f" · {study.precision}, not the official precision"
    return escape(f"{what} · {study.suite['name']} · {len(study.models)} models · {kind}{precision}")


def _table(title: str, caption: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("score", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _agreement(study: Study, wide: bool) -> Table:
    assert study.subset is not None
    caption = "pairs: pairs of models in the order of the full suite; bias: subset - full, points"
    if wide:
        caption += (
            "\ntold apart: those pairs that the full suite itself tells apart; random n: pairs kept by random subsets"
            " of that size; RMSE: of subset - full over models"
        )
    columns = ("n", "pairs", "tau", *(("if drawn anew", "told apart", "random n") if wide else ()), "best", "bias")
    columns += ("95 %", "RMSE") if wide else ()
    table = _table(_title(study, f"{study.subset.name} against the full suite"), caption, columns)
    for target in study.targets:
        if target.subset is not None:
            table.add_row(escape(label(target.name)), *_agreement_cells(target, target.subset, wide))
    return table


def _agreement_cells(target: TargetStudy, found: Agreement, wide: bool) -> list[str]:
    kept = found.best_kept
    best = "[green]kept[/green]" if kept == 1 else "[yellow]lost[/yellow]" if kept == 0 else f"{100 * kept:.0f} %"
    random = next((_share(point.pairs_kept) for point in target.curve if point.n == found.n_prompts), "-")
    ranges = [_bounds(found.tau_range, 1, ".2f"), f"{found.decided_kept:g} of {found.decided}", f"{random} %"]
    spread = [_bounds(found.bias_range, 100, "+.2f"), _points(found.rmse)]
    return [
        str(found.n_prompts),
        f"{found.pairs_kept:g} of {found.pairs}",
        "-" if found.tau is None else f"{found.tau:.2f}",
        *(ranges if wide else ()),
        best,
        _points(found.bias, "+"),
        *(spread if wide else ()),
    ]


def _curves(study: Study, width: int) -> Table:
    """Pairs kept by random subsets: as many sizes as fit, the largest left out first."""
    sizes = list(study.settings.sizes or SIZES)
    sizes = [n for n in sizes if any(n < target.n_prompts for target in study.targets)][: max(1, (width - 40) // 7)]
    caption = "share of pairs of models in the order of the full suite, mean over draws without replacement"
    table = _table(_title(study, "Random subsets, pairs kept %"), caption, [*map(str, sizes), "all"])
    for target in study.targets:
        by_size = {point.n: point.pairs_kept for point in target.curve}
        cells = [_share(by_size.get(n)) if n < target.n_prompts else "" for n in sizes]
        table.add_row(escape(label(target.name)), *cells, f"[dim]{target.n_prompts}[/dim]")
    return table


def _planning(study: Study, wide: bool) -> Table:
    settings = study.settings
    caption = (
        "on n prompts with k videos each: half a 95 % interval of a score and of the paired difference of two models,"
        f" and the least difference found with {100 * settings.power:g} % power (two-sided, 5 %); all in points"
    )
    sds = ("SD prompts", "SD videos") if wide else ()
    columns = ("n", "k", *sds, "score ±", "pair ±", "least", f"n for {100 * settings.difference:g}")
    table = _table(_title(study, "Interval widths and power"), caption, columns)
    for target in study.targets:
        found, power = target.components, target.power
        between = found.observed if found.between is None else found.between
        width = target.plan_width
        within = None if found.within is None else found.within**0.5
        table.add_row(
            escape(label(target.name)),
            str(target.plan_size),
            f"{power.videos:.3g}",
            *((_points(between**0.5), _points(within)) if wide else ()),
            "-" if width is None else _points(width.score / 2),
            "-" if width is None else _points(width.difference / 2),
            _points(target.plan_least),
            "unknown" if power.needed is None else f"{power.needed:,}",
        )
    return table


def _left_out(study: Study) -> Iterator[str]:
    if study.subset is not None:
        lacking = [label(target.name) for target in study.targets if target.subset is None]
        if lacking:
            yield f"not in {escape(study.subset.name)}: {escape(', '.join(lacking))}"
    for name, reason in study.not_studied.items():
        yield f"[yellow]left out:[/yellow] {escape(name)}: {escape(reason)}"
    if study.subset is not None and study.subset.unknown:
        ids = _some(study.subset.unknown)
        yield (
            f"[yellow]left out:[/yellow] {len(study.subset.unknown)} of {study.subset.size} prompts of"
            f" {escape(study.subset.name)} are not among the runs' prompts ({ids})"
        )
    by_reason: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for target in study.targets:
        for absent in dict.fromkeys(target.left_out.values()):
            prompts = tuple(prompt for prompt, models in target.left_out.items() if models == absent)
            by_reason.setdefault((prompts, absent), []).append(label(target.name))
    for (prompts, absent), names in by_reason.items():
        where = "every score" if len(names) == len(study.targets) else ", ".join(names)
        many = f"{len(prompts)} prompt{'s' * (len(prompts) > 1)} ({_some(prompts)})"
        yield f"[yellow]left out:[/yellow] {many} in {escape(where)}: not scored for {escape(', '.join(absent))}"


def _some(names: Sequence[str]) -> str:
    return escape(", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else ""))


def published_lines(study: PublishedStudy, width: int) -> Iterator[RenderableType]:
    """The published tables against each other."""
    title = f"Published custom against official figures · {len(study.models)} models"
    caption = "same: models with figures that agree to the printed digit; bias, RMSE: of the others, custom - official"
    table = _table(title, caption, ("models", "same", "pairs kept", "informative", "tau", "bias", "RMSE"))
    for target in study.targets:
        table.add_row(
            escape(label(target.name)),
            str(len(target.scores)),
            str(target.n_same),
            f"{target.pairs_kept:g} of {target.pairs}",
            f"{target.pairs_informative_kept:g} of {target.pairs_informative}",
            "-" if target.tau is None else f"{target.tau:.2f}",
            _points(target.bias, "+"),
            _points(target.rmse),
        )
    yield table
    yield f"[bold]{escape(published_verdict(study))}[/bold]"
    yield f"compared: {escape(', '.join(study.models))}"
    yield f"only in the custom table: {escape(', '.join(study.only_custom))}"
    for limit in PUBLISHED_LIMITS:
        yield f"[dim]- {escape(limit)}[/dim]"


def _points(fraction: float | None, sign: str = "") -> str:
    return "-" if fraction is None else f"{100 * fraction:{sign}.2f}"


def _share(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.0f}"


def _bounds(bounds: Bounds | None, scale: float, form: str) -> str:
    return "-" if bounds is None else f"{scale * bounds[0]:{form}} to {scale * bounds[1]:{form}}"
