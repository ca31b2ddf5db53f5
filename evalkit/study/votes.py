"""The votes of a study, in SQLite: stored the moment they are cast, never changed, only followed by newer ones.

Each submission carries a key of its own: sent again (a second click, a retry after the network failed), it is
recognised and not stored twice. Each further answer to the same question is a new revision; the newest counts.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.study import vote_file
from evalkit.study.group_commit import GroupCommit
from evalkit.study.submissions import AnswerGiven, Receipt, ScreenDone
from evalkit.study.types import Answer, CastAnswer, Plan

NEWEST = """
SELECT rater, screen, axis, answer, revision, cast_at, seconds
FROM answers
JOIN (SELECT rater, screen, axis, max(revision) AS revision FROM answers {where} GROUP BY rater, screen, axis)
USING (rater, screen, axis, revision) ORDER BY rater, screen, id
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one rater is: screens finished, questions answered, and the time of the last one."""

    done: frozenset[int] = frozenset()
    n_answers: int = 0
    last_at: str | None = None


class VoteStore:
    """`votes.sqlite` of a study. Reading needs no more than the path; `open` before casting. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._group: GroupCommit[Receipt] | None = None

    def open(self, plan: Plan) -> VoteStore:
        """Make the file if there is none, and open it for writing.

        Raises:
            RunFailed: it cannot be written.
            UserError: it is damaged, or holds the votes of another plan.
        """
        self._group = GroupCommit(vote_file.open_for_writing(self.path, plan))
        return self

    def close(self) -> None:
        """Close the file for writing; what was in its journal moves into it."""
        if self._group:
            self._group.close()
            self._group = None

    # ---- writing -----------------------------------------------------------------------------------------------------

    def cast(
        self, rater: str, screen: int, axis: str, answer: Answer, *, key: str, seconds: float | None = None
    ) -> Receipt:
        """Store an answer; it is on disk when this returns.

        Args:
            rater: pseudonym of a planned rater.
            screen: place of the screen in the rater's plan, from 0.
            axis: name of the question.
            answer: what the rater said; see `types.Answer`.
            key: of the submission, the rater's own: the same one is stored once.
            seconds: that the rater has looked at the screen.

        Raises:
            RunFailed: the disk is full or the file cannot be written.
            SubmissionRefused: the key has been used for another answer, or nobody planned such a rater.
        """
        return self._writing(AnswerGiven(rater, screen, axis, answer, key, seconds))

    def finish(
        self, rater: str, screen: int, axes: Collection[str], *, key: str, seconds: float | None = None
    ) -> Receipt:
        """Store that a rater is done with a screen.

        Args:
            rater: pseudonym of a planned rater.
            screen: place of the screen in the rater's plan, from 0.
            axes: questions that must have an answer.
            key: of the submission.
            seconds: that the rater has looked at the screen.

        Raises:
            RunFailed: the disk is full or the file cannot be written.
            SubmissionRefused: a question is without an answer, or the key has been used for another screen.
        """
        return self._writing(ScreenDone(rater, screen, frozenset(axes), key, seconds))

    def _writing(self, submission: AnswerGiven | ScreenDone) -> Receipt:
        assert self._group is not None, "open the store before casting"
        with vote_file.explained(self.path):
            return self._group.run(submission.store)

    # ---- reading -----------------------------------------------------------------------------------------------------

    def answers(self) -> list[CastAnswer]:
        """The newest revision of every answer, by rater and screen; none if nobody has voted.

        Raises:
            UserError: the file is damaged.
        """
        return self._newest("", ())

    def answers_of(self, rater: str, screen: int) -> dict[str, CastAnswer]:
        """The newest answers to one screen, by axis."""
        return {cast.axis: cast for cast in self._newest("WHERE rater = ? AND screen = ?", (rater, screen))}

    def progress(self) -> dict[str, Progress]:
        """How far the raters are who have begun."""
        return self._progress("", ())

    def progress_of(self, rater: str) -> Progress:
        """How far one rater is."""
        return self._progress("WHERE rater = ?", (rater,)).get(rater, Progress())

    def seconds_on(self, rater: str, screen: int) -> float:
        """How long a rater has looked at a screen so far, as far as it is known."""
        spent = "SELECT max(seconds) FROM {} WHERE rater = ? AND screen = ?"
        tables = ("answers", "completions")
        return max(row[0] or 0.0 for name in tables for row in self._rows(spent.format(name), (rater, screen)))

    def log(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that was ever submitted, in the order in which it came."""
        answers = "SELECT rater, screen, axis, revision, answer, seconds, cast_at FROM answers ORDER BY id"
        done = "SELECT rater, screen, seconds, done_at FROM completions ORDER BY id"
        names = ("rater", "screen", "axis", "revision", "answer", "seconds", "cast_at")
        entries = [dict(zip(names, row, strict=True)) for row in self._rows(answers)]
        for entry in entries:
            entry["answer"] = list(self._answer(entry["answer"]))
        return {
            "answers": entries,
            "completions": [
                dict(zip(("rater", "screen", "seconds", "done_at"), row, strict=True)) for row in self._rows(done)
            ],
        }

    def check(self, plan: Plan) -> None:
        """Make sure that the votes, if there are any, are whole and answers to this plan.

        Raises:
            UserError: they are not.
        """
        if _begun(self.path):
            with vote_file.opened_for_reading(self.path) as db:
                vote_file.check(db, self.path)
                vote_file.check_plan(db, self.path, plan)

    def _newest(self, where: str, values: tuple[str | int, ...]) -> list[CastAnswer]:
        rows = self._rows(NEWEST.format(where=where), values)
        return [
            CastAnswer(rater, screen, axis, self._answer(answer), revision, cast_at, seconds)
            for rater, screen, axis, answer, revision, cast_at, seconds in rows
        ]

    def _progress(self, where: str, values: tuple[str, ...]) -> dict[str, Progress]:
        answered = (
            f"SELECT rater, count(DISTINCT screen || ':' || axis), max(cast_at) FROM answers {where} GROUP BY rater"
        )
        finished = f"SELECT rater, screen, max(done_at) FROM completions {where} GROUP BY rater, screen"
        done: dict[str, set[int]] = {}
        last: dict[str, str] = {}
        for rater, screen, at in self._rows(finished, values):
            done.setdefault(rater, set()).add(screen)
            last[rater] = max(at, last.get(rater, ""))
        return {
            rater: Progress(frozenset(done.get(rater, ())), n, max(at, last.get(rater, "")))
            for rater, n, at in self._rows(answered, values)
        }

    def _rows(self, query: str, values: tuple[str | int, ...] = ()) -> list[Any]:
        if not _begun(self.path):
            return []
        with vote_file.opened_for_reading(self.path) as db:
            return db.execute(query, values).fetchall()

    def _answer(self, text: str) -> Answer:
        try:
            found = json.loads(text)
            if not (isinstance(found, list) and all(type(number) is int for number in found)):
                raise ValueError
            return tuple(found)
        except (TypeError, ValueError, RecursionError):
            raise vote_file.damaged(self.path, f"an answer reads {str(text)[:80]!r}") from None


def _begun(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0  # the file is empty for a moment while it is made
