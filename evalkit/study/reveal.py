"""The blinding is lifted: answers become votes with models named; what does not count is left out and counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evalkit.errors import UserError
from evalkit.study.answers import answer_fault
from evalkit.study.checks import exclusion, tally
from evalkit.study.forms.pairs import level_ranks
from evalkit.study.plan_file import VOTES, load_plan
from evalkit.study.types import Ballots, CastAnswer, Plan, RaterPlan, Screen, Screening, Vote

_Cast = Mapping[int, Mapping[str, CastAnswer]]
"""A rater's answers by place of the screen and axis."""


def load_ballots(study: Path) -> Ballots:
    """Read the votes of a planned study; it may be served meanwhile.

    Raises:
        UserError: no study, a damaged one, or answers that do not belong to its plan.
    """
    from evalkit.study.votes import VoteStore

    plan = load_plan(study)
    store = VoteStore(study / VOTES)
    store.check(plan)
    return reveal(plan, store.answers())


def reveal(plan: Plan, answers: Sequence[CastAnswer]) -> Ballots:
    """Name the models behind the answers, and leave out raters who failed too many attention checks.

    Every stored answer on a screen of kind `vote` is a vote, also where the rater has not answered the screen's other
    axes; such a screen counts as unfinished. Answers on attention checks are never votes. Unfinished screens are those
    of all raters who answered anything; hasty ones only those of raters who count.

    Raises:
        UserError: an answer does not belong to the plan.
    """
    raters = {rater.id: rater for rater in plan.raters}
    by_rater = _by_rater(plan, raters, answers)
    checks = {id_: _tally(plan, raters[id_], cast) for id_, cast in by_rater.items()}
    excluded = {id_: why for id_, counts in checks.items() if (why := exclusion(*counts, plan))}
    counted = {id_: cast for id_, cast in by_rater.items() if id_ not in excluded}
    return Ballots(
        source=plan.name,
        protocol=plan.protocol,
        ties=plan.ties or plan.protocol != "rank",
        models=plan.models,
        axes=tuple(axis.name for axis in plan.axes),
        votes=tuple(vote for id_, cast in counted.items() for vote in _votes(plan, raters[id_], cast)),
        screening=Screening(
            n_raters=len(by_rater),
            excluded=excluded,
            checks={id_: counts for id_, counts in checks.items() if counts[1]},
            n_unfinished=sum(_unfinished(plan, raters[id_], cast) for id_, cast in by_rater.items()),
            n_planned=len(plan.raters),
            n_hasty=_hasty(plan, raters, counted),
        ),
        prompts=dict(plan.prompts),
    )


def _by_rater(plan: Plan, raters: Mapping[str, RaterPlan], answers: Sequence[CastAnswer]) -> dict[str, _Cast]:
    """Answers by rater (in the order of the plan), screen and axis."""
    axes = {axis.name for axis in plan.axes}
    found: dict[str, dict[int, dict[str, CastAnswer]]] = {}
    for cast in answers:
        rater = raters.get(cast.rater)
        if rater is None or not 0 <= cast.screen < len(rater.screens) or cast.axis not in axes:
            raise _foreign(f"an answer of rater {cast.rater!r} to screen {cast.screen} on {cast.axis!r}")
        n_clips = len(rater.screens[cast.screen].clips)
        if answer_fault(plan.protocol, plan.ties, n_clips, cast.answer):
            raise _foreign(f"the answer {cast.answer} of rater {cast.rater} to screen {cast.screen}")
        found.setdefault(cast.rater, {}).setdefault(cast.screen, {})[cast.axis] = cast
    return {id_: dict(sorted(found[id_].items())) for id_ in raters if id_ in found}


def _foreign(what: str) -> UserError:
    return UserError(
        f"The votes do not belong to the plan: there is {what}.",
        "Restore study.json and votes.sqlite of the same study; the plan must not change once raters vote.",
    )


def _tally(plan: Plan, rater: RaterPlan, cast: _Cast) -> tuple[int, int]:
    said = {place: {axis: one.answer for axis, one in by_axis.items()} for place, by_axis in cast.items()}
    return tally(plan, rater.screens, said)


def _votes(plan: Plan, rater: RaterPlan, cast: _Cast) -> Iterator[Vote]:
    order = [axis.name for axis in plan.axes]
    for place, by_axis in cast.items():
        if rater.screens[place].kind == "vote":
            for axis in order:
                if axis in by_axis:
                    yield _vote(plan, rater.screens[place], by_axis[axis])


def _vote(plan: Plan, screen: Screen, cast: CastAnswer) -> Vote:
    shown = [plan.clips[id_] for id_ in screen.clips]
    models = tuple(clip.model for clip in shown)
    ranks = cast.answer if plan.protocol == "rank" else level_ranks(cast.answer[0])
    level = cast.answer[0] if plan.protocol == "likert5" else None
    return Vote(cast.rater, screen.prompt_id, shown[0].seed, cast.axis, models, ranks, level)


def _unfinished(plan: Plan, rater: RaterPlan, cast: _Cast) -> int:
    return sum(len(cast.get(place, {})) < len(plan.axes) for place in range(len(rater.screens)))


def _hasty(plan: Plan, raters: Mapping[str, RaterPlan], counted: Mapping[str, _Cast]) -> int | None:
    """Screens of votes answered in less time than their longest clip lasts; None if no time was kept."""
    times = [
        (max(seconds), max(plan.clips[clip].duration_s for clip in raters[id_].screens[place].clips))
        for id_, cast in counted.items()
        for place, by_axis in cast.items()
        if raters[id_].screens[place].kind == "vote"
        and (seconds := [one.seconds for one in by_axis.values() if one.seconds is not None])
    ]
    return sum(spent < lasts for spent, lasts in times) if times else None
