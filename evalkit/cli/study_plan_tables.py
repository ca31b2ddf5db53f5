"""A new study's plan as tables for the terminal, and as a JSON record."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from evalkit.study.plan_file import LINKS
from evalkit.study.planning.balance import Range
from evalkit.study.planning.new import NewStudy
from evalkit.study.planning.precision import Precision

SCHEMA = "m4v-eval/study-new/1"
SHOWN = 10
"""Notes that are printed; the JSON has all of them."""


def plan_lines(made: NewStudy) -> Iterator[RenderableType]:
    """The plan, its balance, what precision to expect, what to know, and what to do next."""
    yield _summary(made)
    yield _balance(made)
    yield _precision(made)
    for note in made.notes[:SHOWN]:
        yield f"[yellow]note:[/yellow] {escape(note)}"
    if len(made.notes) > SHOWN:
        yield f"[yellow]note:[/yellow] and {len(made.notes) - SHOWN} more (--json has all)"
    yield f"Links for {len(made.plan.raters)} raters and the admin: {escape(str(made.path / LINKS))}"
    yield f"Next: m4v-eval study serve {escape(shlex.quote(str(made.path)))}"


def _table(title: str, caption: str | None = None) -> Table:
    return Table(title=title, title_justify="left", caption=caption, caption_justify="left")


def _summary(made: NewStudy) -> Table:
    plan = made.plan
    votes = [screen for screen in plan.raters[0].screens if screen.kind == "vote"]
    spoiled = sum(clip.degraded for clip in plan.clips.values())
    table = _table(f"Study plan · {escape(plan.name)}")
    table.show_header = False
    table.add_column()
    table.add_column()
    checks = len(plan.raters[0].screens) - len(votes)
    for what, how in (
        ("models", f"{len(plan.models)}: {', '.join(plan.models)}"),
        ("protocol", f"{plan.protocol}, {len(votes[0].clips)} clips a screen, {'ties' if plan.ties else 'no ties'}"),
        ("prompts", f"{len(plan.prompts)} of {plan.suite['n_prompts']} of {plan.suite['name']}"),
        ("clips", f"{len(plan.clips) - spoiled}, and {spoiled} spoiled for attention checks"),
        ("questions", ", ".join(axis.title for axis in plan.axes)),
        ("raters", f"{len(plan.raters)}, each {len(votes)} votes and {checks} attention checks"),
        ("time", f"about {made.minutes:.0f} minutes a rater (a guess: try one)"),
    ):
        table.add_row(what, escape(how))
    return table


def _balance(made: NewStudy) -> Table:
    found = made.balance
    design = "balanced" if made.balanced_design else "nearly balanced: no balanced blocks of reasonable size exist"
    table = _table("Balance", f"design: {design}; least and most of each count, attention checks left out")
    table.add_column("how often")
    table.add_column("in all", justify="right")
    table.add_column("for one rater, at worst", justify="right")
    table.add_row("a pair of models meets", _range(found.pairs), _range(found.rater_pairs))
    table.add_row("a model stands in a place", _range(found.places), _range(found.rater_places))
    table.add_row("one of a pair stands left of the other", _range(found.orders), "")
    table.add_row("a prompt is shown", _range(found.items), "")
    table.add_row("prompts on which a pair meets", _range(found.pair_items), "")
    return table


def _range(counts: Range) -> str:
    return str(counts[0]) if counts[0] == counts[1] else f"{counts[0]} to {counts[1]}"


def _precision(made: NewStudy) -> Table:
    spreads = made.plan.settings
    caption = (
        f"if raters' own win rates spread by {spreads['rater_spread']:g} and prompts' by {spreads['prompt_spread']:g}"
        "\nwin ±, rank ±: half a 95 % interval of a win rate near 50 % and of a mean rank"
        "\nfound: least true win rate that 80 % of such studies tell from 50 %"
        "\nof all: the same after correction for all duels of all questions"
    )
    table = _table("Expected precision by raters who finish", caption)
    for column in ("raters", "votes a pair", "win ±", "rank ±", "found", "of all"):
        table.add_column(column, justify="right")
    for row in made.precision:
        cells = _cells(row)
        table.add_row(*cells, style="bold" if row.n_raters == len(made.plan.raters) else None)
    return table


def _cells(row: Precision) -> list[str]:
    return [
        str(row.n_raters),
        f"{row.votes_per_pair:.0f}",
        _percent(row.half_width),
        "-" if row.rank_half_width is None else f"{row.rank_half_width:.2f}",
        _percent(row.detectable),
        _percent(row.detectable_holm),
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def to_json(made: NewStudy) -> dict[str, Any]:
    """The plan's figures; neither links nor who judges what."""
    plan = made.plan
    kinds = [screen.kind for screen in plan.raters[0].screens]
    return {
        "schema": SCHEMA,
        "study": str(made.path),
        "protocol": plan.protocol,
        "ties": plan.ties,
        "models": list(plan.models),
        "axes": [axis.name for axis in plan.axes],
        "suite": dict(plan.suite),
        "n_prompts": len(plan.prompts),
        "n_raters": len(plan.raters),
        "screens": kinds.count("vote"),
        "checks": len(kinds) - kinds.count("vote"),
        "minutes": made.minutes,
        "balanced_design": made.balanced_design,
        "balance": asdict(made.balance),
        "precision": [asdict(row) for row in made.precision],
        "spreads": {key: plan.settings[key] for key in ("rater_spread", "prompt_spread")},
        "notes": list(made.notes),
        "seed": plan.seed,
    }
