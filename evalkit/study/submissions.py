"""What a rater submits, and how it goes into the tables of the vote file. Each runs inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from evalkit.errors import UserError
from evalkit.study.group_commit import Refused
from evalkit.study.types import Answer


class SubmissionRefused(UserError, Refused):
    """A submission that contradicts what is stored; nothing of it was stored."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What has become of a submission.

    Args:
        revision: of the answer, from 1; of a finished screen, how often it was finished.
        repeated: whether it had been stored before.
    """

    revision: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class AnswerGiven:
    """A rater's answer to one question; `key` tells the submission from all others of the rater."""

    rater: str
    screen: int
    axis: str
    answer: Answer
    key: str
    seconds: float | None

    def store(self, db: sqlite3.Connection) -> Receipt:
        """Add the answer as the newest revision, unless it is there already."""
        text = json.dumps(self.answer)
        stored = db.execute(
            "SELECT screen, axis, answer, revision FROM answers WHERE rater = ? AND key = ?", (self.rater, self.key)
        ).fetchone()
        if stored:
            if stored[:3] != (self.screen, self.axis, text):
                raise _used_key()
            return Receipt(stored[3], repeated=True)
        _check_rater(db, self.rater)
        (newest,) = db.execute(
            "SELECT coalesce(max(revision), 0) FROM answers WHERE rater = ? AND screen = ? AND axis = ?",
            (self.rater, self.screen, self.axis),
        ).fetchone()
        db.execute(
            "INSERT INTO answers (rater, key, screen, axis, revision, answer, seconds, cast_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self.rater, self.key, self.screen, self.axis, newest + 1, text, self.seconds, _now()),
        )
        return Receipt(newest + 1, repeated=False)


@dataclass(frozen=True, slots=True)
class ScreenDone:
    """A rater is done with a screen, whose questions are `axes`."""

    rater: str
    screen: int
    axes: frozenset[str]
    key: str
    seconds: float | None

    def store(self, db: sqlite3.Connection) -> Receipt:
        """Add the completion, unless it is there already or a question is open."""
        _check_rater(db, self.rater)
        before = db.execute("SELECT key, screen FROM completions WHERE rater = ?", (self.rater,)).fetchall()
        n_done = sum(screen == self.screen for _, screen in before)
        if (self.key, self.screen) in before:
            return Receipt(n_done, repeated=True)
        if any(key == self.key for key, _ in before):
            raise _used_key()
        answered = db.execute(
            "SELECT DISTINCT axis FROM answers WHERE rater = ? AND screen = ?", (self.rater, self.screen)
        )
        missing = self.axes - {axis for (axis,) in answered}
        if missing:
            raise SubmissionRefused(
                f"Without an answer so far: {', '.join(sorted(missing))}.", "Answer every question of the screen."
            )
        db.execute(
            "INSERT INTO completions (rater, key, screen, seconds, done_at) VALUES (?, ?, ?, ?, ?)",
            (self.rater, self.key, self.screen, self.seconds, _now()),
        )
        return Receipt(n_done + 1, repeated=False)


def _check_rater(db: sqlite3.Connection, rater: str) -> None:
    if not db.execute("SELECT count(*) FROM raters WHERE id = ?", (rater,)).fetchone()[0]:
        raise SubmissionRefused("Nobody planned this rater.", "Use the personal links that the study came with.")


def _used_key() -> SubmissionRefused:
    return SubmissionRefused("This submission's key has been used for another one.", "Load the page again.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
