"""What counts as an answer to a screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from evalkit.study.types import Answer, Protocol

Key = TypeVar("Key", int, tuple[int, int])

LEVELS: dict[Protocol, int] = {"pairwise": 1, "likert5": 2}
"""The strongest preference that can be said; 0 is no difference."""


def answer_fault(protocol: Protocol, ties: bool, n_clips: int, answer: Sequence[int]) -> str | None:
    """Why this is no answer, in words for a person; None if it is one.

    Args:
        protocol: how screens of the study are answered.
        ties: whether clips may share a rank.
        n_clips: clips on the screen.
        answer: one rank a clip, or one level.
    """
    if protocol == "rank":
        return _rank_fault(ties, n_clips, answer)
    strongest = LEVELS[protocol]
    if len(answer) != 1 or abs(answer[0]) > strongest:
        return f"An answer is one whole number from {-strongest} to {strongest}."
    return None


def _rank_fault(ties: bool, n_clips: int, ranks: Sequence[int]) -> str | None:
    if len(ranks) != n_clips:
        return f"This screen has {n_clips} clips, and the answer gives {len(ranks)} ranks: it needs one for each."
    if not all(1 <= rank <= n_clips for rank in ranks):
        return f"Ranks go from 1 to {n_clips}."
    if not ties and len(set(ranks)) < n_clips:
        return "Two clips share a rank, and this study allows no ties."
    if tuple(ranks) != competition(ranks):
        return "The ranks have a hole: clips that tie share a rank, and the next one is skipped (1, 1, 3)."
    return None


def competition(keys: Sequence[Key]) -> Answer:
    """Ranks by keys: equal ones share the first of their places and the next ones are skipped, 1, 1, 3."""
    first: dict[Key, int] = {}
    for place, key in enumerate(sorted(keys), 1):
        first.setdefault(key, place)
    return tuple(first[key] for key in keys)
