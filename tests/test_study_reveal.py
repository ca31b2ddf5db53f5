"""Answers become votes: by hand-made plans whose every outcome is known, and by properties of any answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import UserError
from evalkit.study.checks import exclusion, failed
from evalkit.study.forms import as_csv, read_csv
from evalkit.study.plan_file import VOTES, save_plan
from evalkit.study.reveal import load_ballots, reveal
from evalkit.study.types import AXES, Answer, CastAnswer, Plan, Protocol, RaterPlan, Screen, StudyClip, Vote
from evalkit.study.votes import VoteStore

AESTHETIC, MOTION, SEMANTIC = (axis.name for axis in AXES)
MODELS = ("A", "B", "C")
CLIP_SECONDS = 5.0


def clip(model: str, *, degraded: bool = False) -> StudyClip:
    id_ = f"{model}-spoiled" if degraded else model
    return StudyClip(id_, model, "p1", 7, "0" * 64, 64, 48, CLIP_SECONDS, degraded)


CLIPS = {c.id: c for c in (*map(clip, MODELS), clip("B", degraded=True))}
VOTE = Screen("vote", "p1", ("B", "A", "C"))
TWINS = Screen("identical", "p1", ("A", "B", "A"))
SPOILED = Screen("degraded", "p1", ("A", "B-spoiled", "C"))
PAIR = Screen("vote", "p1", ("B", "A"))
PAIR_TWINS = Screen("identical", "p1", ("A", "A"))
PAIR_SPOILED = Screen("degraded", "p1", ("B-spoiled", "C"))


def plan(screens: tuple[Screen, ...] = (VOTE,), protocol: Protocol = "rank", n_raters: int = 2) -> Plan:
    return Plan(
        name="a study",
        protocol=protocol,
        ties=False,
        models=MODELS,
        axes=AXES,
        suite={"name": "s", "sha256": "0" * 64, "n_prompts": 1},
        prompts={"p1": "a red ball"},
        clips=CLIPS,
        raters=tuple(RaterPlan(f"r{n}", f"{n:064d}", screens) for n in range(1, n_raters + 1)),
        seed=0,
        max_failed_checks=1 / 3,
        admin_sha256="f" * 64,
        created="2025-01-01T00:00:00+00:00",
    )


def cast(rater: str, screen: int, axis: str, *answer: int, seconds: float | None = None) -> CastAnswer:
    return CastAnswer(rater, screen, axis, answer, 1, "2025-01-01T00:00:00+00:00", seconds)


# ---- votes -----------------------------------------------------------------------------------------------------------


def test_a_ranking_names_the_models_in_the_order_shown() -> None:
    ballots = reveal(plan(), [cast("r1", 0, MOTION, 2, 1, 3)])
    assert ballots.votes == (Vote("r1", "p1", 7, MOTION, ("B", "A", "C"), (2, 1, 3)),)
    assert (ballots.models, ballots.axes, ballots.prompts) == (
        MODELS,
        tuple(a.name for a in AXES),
        {"p1": "a red ball"},
    )


@pytest.mark.parametrize(("level", "ranks"), [(-1, (1, 2)), (0, (1, 1)), (1, (2, 1))])
def test_a_pairwise_answer_is_negative_if_the_first_is_better(level: int, ranks: tuple[int, int]) -> None:
    ballots = reveal(plan((PAIR,), "pairwise"), [cast("r1", 0, MOTION, level)])
    assert ballots.votes == (Vote("r1", "p1", 7, MOTION, ("B", "A"), ranks),)
    assert ballots.ties


@pytest.mark.parametrize(("level", "ranks"), [(-2, (1, 2)), (-1, (1, 2)), (0, (1, 1)), (1, (2, 1)), (2, (2, 1))])
def test_a_level_is_kept_beside_the_ranks(level: int, ranks: tuple[int, int]) -> None:
    ballots = reveal(plan((PAIR,), "likert5"), [cast("r1", 0, MOTION, level)])
    assert ballots.votes == (Vote("r1", "p1", 7, MOTION, ("B", "A"), ranks, level),)


def test_single_axes_count_and_their_screens_are_unfinished() -> None:
    answers = [cast("r1", 0, axis, 1, 2, 3) for axis in (AESTHETIC, MOTION, SEMANTIC)] + [
        cast("r1", 1, MOTION, 3, 2, 1)
    ]
    ballots = reveal(plan((VOTE, VOTE, TWINS)), answers)
    assert len(ballots.votes) == 4
    assert ballots.screening.n_raters == 1
    assert ballots.screening.n_planned == 2
    assert ballots.screening.n_unfinished == 2  # the second vote and the check; r2, who never came, is no such case


def test_nobody_voted() -> None:
    ballots = reveal(plan(), [])
    assert ballots.votes == ()
    assert (ballots.screening.n_raters, ballots.screening.n_unfinished, ballots.screening.n_hasty) == (0, 0, None)


def test_hasty_is_less_than_the_longest_clip() -> None:
    times = {0: (1.0, 4.9), 1: (1.0, 5.0), 2: (2.0, None), 3: (None, None)}
    answers = [
        cast("r1", screen, axis, 1, 2, 3, seconds=seconds)
        for screen, both in times.items()
        for axis, seconds in zip((AESTHETIC, MOTION), both, strict=True)
    ]
    assert reveal(plan((VOTE,) * 4), answers).screening.n_hasty == 2
    untimed = [replace(answer, seconds=None) for answer in answers]
    assert reveal(plan((VOTE,) * 4), untimed).screening.n_hasty is None


# ---- attention checks ------------------------------------------------------------------------------------------------


def judged(screen: Screen, protocol: Protocol, answers: Mapping[str, Answer]) -> bool | None:
    return failed(screen, CLIPS, answers, protocol)


def on_all(*answer: int) -> dict[str, Answer]:
    return {axis.name: answer for axis in AXES}


@pytest.mark.parametrize(
    ("answer", "fails"),
    [
        ((1, 3, 2), False),  # neighbours
        ((2, 1, 3), False),
        ((1, 2, 3), True),  # another clip between them
        ((3, 2, 1), True),
        ((1, 3, 1), False),  # tied
        ((1, 1, 3), False),  # one of them tied with the other clip: nothing is between
        ((1, 1, 1), False),
    ],
)
def test_equal_clips_in_a_ranking_may_have_none_between(answer: Answer, fails: bool) -> None:
    assert judged(TWINS, "rank", on_all(*answer)) is fails


def test_equal_clips_among_five() -> None:
    five = Screen("identical", "p1", ("A", "B", "C", "D", "A"))
    assert judged(five, "rank", on_all(2, 1, 4, 5, 3)) is False
    assert judged(five, "rank", on_all(2, 1, 3, 5, 4)) is True
    assert judged(five, "rank", on_all(1, 1, 3, 3, 5)) is True


@pytest.mark.parametrize("protocol", ["pairwise", "likert5"])
@pytest.mark.parametrize("level", [-2, -1, 0, 1, 2])
def test_equal_clips_in_a_pair(protocol: Protocol, level: int) -> None:
    if protocol == "likert5":
        assert judged(PAIR_TWINS, protocol, on_all(level)) is (abs(level) == 2)
    elif abs(level) < 2:
        assert judged(PAIR_TWINS, protocol, on_all(level)) is (level != 0)


@pytest.mark.parametrize(
    ("answer", "fails"),
    [((1, 3, 2), False), ((2, 3, 1), False), ((1, 2, 3), True), ((1, 2, 2), False), ((1, 1, 1), True)],
)
def test_a_spoiled_clip_comes_last_or_ties_for_it(answer: Answer, fails: bool) -> None:
    assert judged(SPOILED, "rank", on_all(*answer)) is fails


@pytest.mark.parametrize("protocol", ["pairwise", "likert5"])
@pytest.mark.parametrize("level", [-1, 0, 1])
def test_the_other_clip_of_a_pair_is_preferred(protocol: Protocol, level: int) -> None:
    assert judged(PAIR_SPOILED, protocol, on_all(level)) is (level <= 0)
    turned = Screen("degraded", "p1", PAIR_SPOILED.clips[::-1])
    assert judged(turned, protocol, on_all(level)) is (level >= 0)


def test_half_of_the_judged_axes_fail_a_check() -> None:
    good, bad = (1, 3, 2), (1, 2, 3)
    assert judged(SPOILED, "rank", {AESTHETIC: good, MOTION: bad, SEMANTIC: good}) is True
    assert judged(SPOILED, "rank", {AESTHETIC: good, MOTION: good, SEMANTIC: bad}) is False  # meaning is not judged
    assert judged(SPOILED, "rank", {SEMANTIC: bad}) is None
    assert judged(TWINS, "rank", {AESTHETIC: (1, 2, 3), MOTION: (1, 3, 2), SEMANTIC: (1, 3, 2)}) is False
    assert judged(TWINS, "rank", {AESTHETIC: (1, 2, 3), MOTION: (1, 2, 3), SEMANTIC: (1, 3, 2)}) is True
    assert judged(TWINS, "rank", {}) is None
    assert judged(VOTE, "rank", on_all(1, 2, 3)) is None


@pytest.mark.parametrize(
    ("n_failed", "n_checks", "limit", "out"),
    [
        (0, 0, 0.0, False),
        (0, 2, 0.0, False),
        (1, 2, 1 / 3, True),
        (1, 3, 1 / 3, False),  # no greater than the limit
        (2, 3, 1 / 3, True),
        (2, 2, 1.0, False),
    ],
)
def test_who_fails_too_many_is_out(n_failed: int, n_checks: int, limit: float, out: bool) -> None:
    reason = exclusion(n_failed, n_checks, replace(plan(), max_failed_checks=limit))
    assert reason == (f"failed {n_failed} of {n_checks} attention check{'s' * (n_checks > 1)}" if out else None)


def test_excluded_raters_are_counted_and_their_votes_are_not() -> None:
    attentive = [cast("r1", 0, MOTION, 1, 2, 3), cast("r1", 1, MOTION, 1, 3, 2), cast("r1", 2, MOTION, 1, 3, 2)]
    careless = [cast("r2", 0, MOTION, 3, 2, 1), cast("r2", 1, MOTION, 1, 2, 3), cast("r2", 2, MOTION, 1, 3, 2)]
    ballots = reveal(plan((VOTE, TWINS, SPOILED)), attentive + careless)
    assert [(vote.rater, vote.ranks) for vote in ballots.votes] == [("r1", (1, 2, 3))]
    assert ballots.screening.excluded == {"r2": "failed 1 of 2 attention checks"}
    assert ballots.screening.checks == {"r1": (0, 2), "r2": (1, 2)}
    assert ballots.screening.n_raters == 2
    assert ballots.screening.n_unfinished == 6


ranking = st.permutations([1, 2, 3]).map(tuple)
said = st.dictionaries(
    st.tuples(st.sampled_from(["r1", "r2", "r3"]), st.integers(0, 3), st.sampled_from([a.name for a in AXES])), ranking
)


@settings(deadline=None)
@given(said, st.floats(0, 1))
def test_votes_are_the_answers_of_counted_raters_on_vote_screens(
    answers: Mapping[tuple[str, int, str], Answer], limit: float
) -> None:
    screens = (VOTE, TWINS, VOTE, SPOILED)
    study = replace(plan(screens, n_raters=3), max_failed_checks=limit)
    ballots = reveal(study, [cast(*where, *answer) for where, answer in answers.items()])
    expected = [r for r, screen, _ in answers if screen in (0, 2) and r not in ballots.screening.excluded]
    assert sorted(vote.rater for vote in ballots.votes) == sorted(expected)
    for rater, (n_failed, n_checks) in ballots.screening.checks.items():
        assert 0 <= n_failed <= n_checks <= 2
        assert (rater in ballots.screening.excluded) == (n_failed / n_checks > limit)
    assert ballots.screening.n_raters == len({rater for rater, _, _ in answers})


# ---- what does not belong together -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stray",
    [
        cast("r9", 0, MOTION, 1, 2, 3),
        cast("r1", 1, MOTION, 1, 2, 3),
        cast("r1", -1, MOTION, 1, 2, 3),
        cast("r1", 0, "colour", 1, 2, 3),
        cast("r1", 0, MOTION, 1, 2),
    ],
)
def test_answers_to_another_plan_are_refused(stray: CastAnswer) -> None:
    with pytest.raises(UserError, match="do not belong to the plan"):
        reveal(plan(), [stray])


@pytest.mark.parametrize(("protocol", "answer"), [("pairwise", (2,)), ("likert5", (-3,)), ("likert5", (0, 0))])
def test_levels_out_of_range_are_refused(protocol: Protocol, answer: Answer) -> None:
    with pytest.raises(UserError, match="do not belong to the plan"):
        reveal(plan((PAIR,), protocol), [cast("r1", 0, MOTION, *answer)])


def test_from_the_study_directory_and_back_from_its_export(tmp_path: Path) -> None:
    study = plan()
    save_plan(tmp_path, study)
    assert load_ballots(tmp_path).votes == ()
    store = VoteStore(tmp_path / VOTES).open(study)
    store.cast("r1", 0, MOTION, (1, 2, 3), key="one", seconds=9.0)
    store.cast("r1", 0, MOTION, (2, 1, 3), key="two", seconds=9.5)
    store.cast("r2", 0, MOTION, (3, 1, 2), key="one")
    ballots = load_ballots(tmp_path)  # while the store is open
    store.close()
    assert [(vote.rater, vote.ranks) for vote in ballots.votes] == [("r1", (2, 1, 3)), ("r2", (3, 1, 2))]
    assert load_ballots(tmp_path) == ballots
    (tmp_path / "export.csv").write_text(as_csv(ballots))
    again = read_csv(tmp_path / "export.csv")
    assert not hasattr(again, "cells")
    assert again.votes == ballots.votes
    assert again.prompts == ballots.prompts


def test_a_directory_without_a_plan(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no study"):
        load_ballots(tmp_path)
