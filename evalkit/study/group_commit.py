"""One transaction for all who wait: while one is flushed to disk, the next gathers."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Outcome = TypeVar("Outcome")


class Refused(Exception):
    """Raised by a piece of work that has written nothing: it fails alone, and the others' transaction goes on."""


class GroupCommit(Generic[Outcome]):
    """Runs pieces of work in transactions, for threads that share one connection.

    Whoever gets the lock first commits for everybody in the queue, so that many threads cost few flushes.

    Args:
        db: the connection, in autocommit mode; nobody else uses it.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._queue: deque[_Turn[Outcome]] = deque()
        self._lock = threading.Lock()

    def run(self, work: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        """Do the work; it is committed when this returns, and undone if this raises."""
        turn = _Turn(work)
        self._queue.append(turn)
        with self._lock:
            if not turn.settled:
                self._commit()
        if turn.error is not None:
            raise turn.error
        return turn.outcome

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._db.close()

    def _commit(self) -> None:
        turns = list(self._drained())
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for turn in turns:
                turn.attempt(self._db)
            self._db.execute("COMMIT")
        except BaseException as e:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            for turn in turns:
                turn.error = e
            if not isinstance(e, Exception):
                raise  # somebody ends the program
        finally:
            for turn in turns:
                turn.settled = True

    def _drained(self) -> Iterator[_Turn[Outcome]]:
        while self._queue:
            yield self._queue.popleft()


class _Turn(Generic[Outcome]):
    """One piece of work that waits, and what became of it."""

    outcome: Outcome

    def __init__(self, work: Callable[[sqlite3.Connection], Outcome]) -> None:
        self._work = work
        self.error: BaseException | None = None
        self.settled = False

    def attempt(self, db: sqlite3.Connection) -> None:
        try:
            self.outcome = self._work(db)
        except Refused as e:
            self.error = e
