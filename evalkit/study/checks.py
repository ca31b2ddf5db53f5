"""Attention checks: did a rater see that two clips are the same one, and that one clip is spoiled?

Each check screen is judged on some axes, and failed if at least half of the judged axes are failed.

- `identical` (one clip shown twice), on every axis: in `rank` the two may not have another clip between them; in
  `pairwise` the answer must be that there is no difference; in `likert5` neither may be much better.
- `degraded` (one clip spoiled), on aesthetic quality and motion smoothness: in `rank` it must come last, alone or tied,
  but not tied with the best; with two clips the other one must be preferred.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from evalkit.study.types import Answer, Plan, Protocol, Screen, StudyClip

SPOILED_AXES = ("aesthetic_quality", "motion_smoothness")
"""What a spoiled clip is worse at; its meaning may survive."""


def failed(
    screen: Screen, clips: Mapping[str, StudyClip], answers: Mapping[str, Answer], protocol: Protocol
) -> bool | None:
    """Whether a rater failed an attention check.

    Args:
        screen: a screen of kind `identical` or `degraded`.
        clips: the study's clips by id.
        answers: what the rater said of this screen, by axis.
        protocol: of the study.

    Returns:
        None if the screen is no check, or no axis that it is judged on was answered.
    """
    if screen.kind == "vote":
        return None
    if screen.kind == "identical":
        first, second = _twins(screen)
        found = [_tells_twins_apart(answer, first, second, protocol) for answer in answers.values()]
    else:
        spoiled = next(n for n, id_ in enumerate(screen.clips) if clips[id_].degraded)
        judged = [axis for axis in SPOILED_AXES if axis in answers]
        found = [not _worst(answers[axis], spoiled, protocol) for axis in judged]
    return 2 * sum(found) >= len(found) if found else None


def _twins(screen: Screen) -> tuple[int, int]:
    """The places of the clip that is shown twice."""
    twin = Counter(screen.clips).most_common(1)[0][0]
    first, second = (n for n, id_ in enumerate(screen.clips) if id_ == twin)
    return first, second


def _tells_twins_apart(answer: Answer, first: int, second: int, protocol: Protocol) -> bool:
    if protocol == "rank":
        low, high = sorted((answer[first], answer[second]))
        return any(low < rank < high for rank in answer)
    return abs(answer[0]) >= (1 if protocol == "pairwise" else 2)


def _worst(answer: Answer, place: int, protocol: Protocol) -> bool:
    if protocol == "rank":
        return min(answer) < answer[place] == max(answer)  # who calls all clips equal has not seen it either
    return answer[0] > 0 if place == 0 else answer[0] < 0


def tally(plan: Plan, screens: Sequence[Screen], answers: Mapping[int, Mapping[str, Answer]]) -> tuple[int, int]:
    """How many attention checks a rater failed and answered.

    Args:
        plan: the study.
        screens: the rater's.
        answers: by place of the screen and axis.
    """
    verdicts = [failed(screens[place], plan.clips, said, plan.protocol) for place, said in answers.items()]
    judged = [verdict for verdict in verdicts if verdict is not None]
    return sum(judged), len(judged)


def exclusion(n_failed: int, n_checks: int, plan: Plan) -> str | None:
    """Why a rater's answers do not count; None if they do."""
    if not n_checks or n_failed / n_checks <= plan.max_failed_checks:
        return None
    return f"failed {n_failed} of {n_checks} attention check{'s' * (n_checks > 1)}"
