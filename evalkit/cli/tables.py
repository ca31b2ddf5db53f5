"""The scores of a run as a table for the terminal, and what to know about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from evalkit.records import RunRecord

AGGREGATES = {
    "quality": "Quality (7 dimensions)",
    "semantic": "Semantic (9 dimensions)",
    "total": "Total (16 dimensions)",
    "mean7": "Mean of the customised seven",
    "m4v_avg4": "M4V's four-dimension average",
    "lingen_quality6": "LinGen's six-dimension quality",
    "lite/mean7": "Mean of the seven stand-ins (not VBench)",
}


TITLES = {
    "official": "VBench",
    "lite": "lite stand-ins, not VBench scores",
    "vbench-long": "VBench-Long, not comparable with VBench",
    "vbench-i2v": "VBench-I2V, not comparable with VBench",
}


def scores(record: RunRecord) -> Group:
    """Dimensions with intervals, then headline scores; fits a terminal of 80 columns."""
    return Group(_dimensions(record.summary), _headlines(record.summary["aggregate"]))


def _dimensions(summary: Mapping[str, Any]) -> Table:
    lite = summary["profile"] == "lite"
    title = f"{summary['subset']['name']} · " + TITLES[summary["profile"]]
    if summary["precision"] != "fp32" and not lite:
        title += f" · {summary['precision']}, not the official precision"
    if summary["foreign_weights"]:
        title += " · not the published weights"
    table = Table(title=title, title_justify="left")
    table.add_column("dimension", no_wrap=True)
    for column in ("score %", "95 % interval", "scored", "not scored"):
        table.add_column(column, justify="right")
    for name, dimension in summary["dimensions"].items():
        unscored = dimension["unscored"]
        table.add_row(
            name,
            _percent(dimension["score"]),
            _interval(dimension),
            str(dimension["n"]),
            f"[bold yellow]{unscored}[/bold yellow]" if unscored else "0",
        )
    return table


def _headlines(aggregate: Mapping[str, Any]) -> Table:
    table = Table(show_header=False)
    table.add_column("score", no_wrap=True)
    table.add_column("percent", justify="right")
    own = [name for name in aggregate if name not in AGGREGATES and name != "coverage"]  # of another suite
    for name in (*AGGREGATES, *own):
        if name in aggregate:
            value = aggregate[name]
            shown = "[dim]not all of them scored[/dim]" if value is None else f"{value:.2f}"
            table.add_row(AGGREGATES.get(name, name), shown)
    return table


def notes(record: RunRecord) -> Iterator[str]:
    """What was not scored and why, one line a reason."""
    summary = record.summary
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for video in summary["videos"]:
        for reason in set(video["unscored"].values()):
            reasons[reason] += 1
            examples.setdefault(reason, video["file"])
    for reason, n in reasons.most_common():
        videos = f"{n} video{'s' * (n > 1)}"
        yield f"[yellow]not scored:[/yellow] {videos}, {escape(reason)} (such as {escape(_short(examples[reason]))})"
    if missing := summary["missing_prompts"]:
        ids = ", ".join(escape(p["id"]) for p in missing[:5]) + (", ..." if len(missing) > 5 else "")
        yield f"[yellow]no video:[/yellow] {len(missing)} of {summary['subset']['n_prompts']} prompts ({ids})"
    for unmatched in summary["unmatched_files"][:5]:
        near = f"; nearest: {escape(_short(unmatched['nearest'][0]))}" if unmatched["nearest"] else ""
        yield f"[yellow]not matched:[/yellow] {escape(_short(unmatched['file']))}, {escape(unmatched['reason'])}{near}"
    if (more := len(summary["unmatched_files"]) - 5) > 0:
        yield f"[yellow]not matched:[/yellow] {more} more; the report lists them all"


def comparability(record: RunRecord) -> Iterator[str]:
    """What keeps the scores from being comparable with published ones, one line each."""
    for caveat in record.summary.get("comparability", []):
        yield f"[yellow]not as on the leaderboard:[/yellow] {escape(caveat['text'])}"


def unavailable(record: RunRecord) -> Iterator[str]:
    """Dimensions that belong to the suite and are not computed, one line each."""
    for name, why in record.summary.get("unavailable", {}).items():
        yield f"[yellow]not available:[/yellow] {escape(name)}, {escape(why)}"


def incomplete(record: RunRecord) -> bool:
    """Whether anything could not be scored."""
    summary = record.summary
    unscored = any(video["unscored"] for video in summary["videos"])
    return bool(unscored or summary["missing_prompts"] or summary["unmatched_files"])


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def _interval(dimension: Mapping[str, Any]) -> str:
    if dimension["ci95"] is None:
        return "-" if dimension["n"] == 0 else "needs 2 prompts"
    low, high = dimension["ci95"]
    return f"{100 * low:.2f} to {100 * high:.2f}"


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
