"""A human study in plain language: who is preferred, how surely, and who was asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evalkit.report.format import count
from evalkit.report.study_view import ALPHA, ShownStudy, axis_title, interval, is_decided, plain, share, signed
from evalkit.study.types import AxisResult, Duel, Screening, Standing

PROTOCOLS = {
    "rank": "blind ranking",
    "pairwise": "blind pairs",
    "likert5": "blind pairs, five levels",
}
FEW_NAMES = 4


def listed(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def some(names: Sequence[str], n: int = FEW_NAMES) -> str:
    """The first names, and how many more there are."""
    return listed(names) if len(names) <= n + 1 else f"{', '.join(names[:n])} and {len(names) - n} more"


def lead(study: ShownStudy) -> str:
    """What was asked of whom, in a line."""
    result = study.result
    parts = [count(len(result.models), "model"), PROTOCOLS[result.protocol]]
    prompts = max((axis.n_prompts for axis in result.axes), default=0)
    if study.published:
        return " · ".join([*parts, count(prompts, "prompt"), "mean ranks as published, no single votes"])
    raters = max((axis.n_raters or 0 for axis in result.axes), default=0)
    votes = sum(axis.n_votes for axis in result.axes)
    return " · ".join([*parts, count(prompts, "prompt"), count(raters, "rater"), count(votes, "vote")])


def verdicts(study: ShownStudy) -> Iterator[tuple[str, str]]:
    """Of each axis its title, and a sentence or two on who is preferred and how surely."""
    for axis in study.result.axes:
        sentences = _verdict(axis, study.published) if axis.n_votes and axis.standings else ["No vote counts."]
        yield axis_title(axis.axis), kept_together(" ".join(sentences))


def kept_together(text: str) -> str:
    """No line breaks between a number and its percent sign."""
    return text.replace(" %", "\u00a0%")


def _verdict(axis: AxisResult, published: bool) -> Iterator[str]:
    leader = axis.standings[0]
    yield f"{leader.model} leads ({_figure(leader)})."
    yield from _leads_over(leader.model, axis, published)
    undecided = [duel for duel in axis.duels if not is_decided(duel) and leader.model not in (duel.a, duel.b)]
    if undecided:
        yield f"Also not told apart: {_pairs(undecided)}."


def _leads_over(leader: str, axis: AxisResult, published: bool) -> Iterator[str]:
    """From whom the leader is told apart."""
    met = [duel for duel in axis.duels if leader in (duel.a, duel.b)]
    beaten = [_other(duel, leader) for duel in met if is_decided(duel) and _winner(duel) == leader]
    beaten_by = [_other(duel, leader) for duel in met if is_decided(duel) and _winner(duel) != leader]
    alike = [_other(duel, leader) for duel in met if not is_decided(duel)]
    ahead = "ahead of" if published else "preferred to"
    n_others = len(axis.standings) - 1
    if beaten and len(beaten) == n_others:
        who = "the other model" if n_others == 1 else f"each of the other {n_others} models"
        yield f"It is {ahead} {who} beyond chance."
    elif beaten:
        yield f"It is {ahead} {some(beaten)} beyond chance."
    if alike:
        yield f"It cannot be told apart from {some(alike)}."
    if beaten_by:
        yield f"In their own duels, {some(beaten_by)} {'is' if len(beaten_by) == 1 else 'are'} {ahead} it."


def _winner(duel: Duel) -> str:
    return duel.a if duel.win_rate.value > 0.5 else duel.b


def _other(duel: Duel, model: str) -> str:
    return duel.b if duel.a == model else duel.a


def _pairs(duels: Sequence[Duel]) -> str:
    shown = "; ".join(f"{duel.a} and {duel.b}" for duel in duels[:FEW_NAMES])
    return shown if len(duels) <= FEW_NAMES else f"{shown}; and {count(len(duels) - FEW_NAMES, 'more pair')}"


def _figure(standing: Standing) -> str:
    """The most telling figure with its interval."""
    for name, found, write, unit in (
        ("mean rank", standing.mean_rank, plain, ""),
        ("wins", standing.win_rate, share, " % of its duels"),
        ("strength", standing.bradley_terry, signed, ""),
    ):
        if found is not None:
            bounds = interval(found, write)
            return f"{name} {write(found.value)}{unit}" + (f"; 95 %: {bounds}" if found.low is not None else "")
    return "no figure"


def certainty(study: ShownStudy) -> str:
    """How the words of the verdicts are meant."""
    unit = "prompts" if study.published else "raters and prompts"
    decided = "none" if not study.decided else "all" if study.decided == study.n_duels else f"{study.decided}"
    return kept_together(
        f"Beyond chance: at {100 * ALPHA:g} % for all {count(study.n_duels, 'duel')} of the study together (Holm);"
        f" {decided} {'is' if study.decided == 1 else 'are'} decided so. Intervals hold for other {unit}."
    )


def screening(found: Screening) -> list[tuple[str, str]]:
    """Name and value of what was planned, done and left out."""
    rows = [("Raters who answered", f"{found.n_raters:,}")]
    if found.n_planned is not None:
        rows[0] = ("Raters who answered", f"{found.n_raters:,} of {found.n_planned:,} planned")
    rows.append(("Raters left out", f"{len(found.excluded):,}"))
    if found.n_planned is None:
        return [*rows, ("Attention checks", "unknown: the votes were imported")]
    checks = found.checks.values()
    failed, answered = sum(f for f, _ in checks), sum(n for _, n in checks)
    rows.append(("Attention checks failed", f"{failed:,} of {answered:,} answered"))
    rows.append(("Screens without a complete answer", f"{found.n_unfinished:,}"))
    hasty = "unknown" if found.n_hasty is None else f"{found.n_hasty:,}, counted all the same"
    return [*rows, ("Screens answered before a clip could end", hasty)]
