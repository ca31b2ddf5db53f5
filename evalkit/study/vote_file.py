"""The SQLite file of a study's votes: its tables, how it is opened, and what can be wrong with it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from evalkit.errors import RunFailed, UserError
from evalkit.study.types import Plan

APPLICATION = 0x6D347673  # "m4vs", in the file's header
VERSION = 1
BUSY_S = 30.0

SCHEMA = """
CREATE TABLE study (fingerprint TEXT NOT NULL);
CREATE TABLE raters (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE answers (
  id INTEGER PRIMARY KEY,
  rater TEXT NOT NULL REFERENCES raters (id),
  key TEXT NOT NULL,
  screen INTEGER NOT NULL CHECK (screen >= 0),
  axis TEXT NOT NULL,
  revision INTEGER NOT NULL CHECK (revision >= 1),
  answer TEXT NOT NULL,
  seconds REAL CHECK (seconds >= 0),
  cast_at TEXT NOT NULL,
  UNIQUE (rater, key),
  UNIQUE (rater, screen, axis, revision)
);
CREATE TABLE completions (
  id INTEGER PRIMARY KEY,
  rater TEXT NOT NULL REFERENCES raters (id),
  key TEXT NOT NULL,
  screen INTEGER NOT NULL CHECK (screen >= 0),
  seconds REAL CHECK (seconds >= 0),
  done_at TEXT NOT NULL,
  UNIQUE (rater, key)
);
CREATE INDEX completed_screens ON completions (rater, screen);
CREATE TRIGGER answers_stay BEFORE UPDATE ON answers BEGIN SELECT RAISE (ABORT, 'answers are only ever added'); END;
CREATE TRIGGER answers_last BEFORE DELETE ON answers BEGIN SELECT RAISE (ABORT, 'answers are only ever added'); END;
"""

_STRANGE = """
SELECT
  EXISTS (SELECT * FROM answers WHERE typeof(seconds) NOT IN ('real', 'null') OR
    (typeof(rater), typeof(key), typeof(screen), typeof(axis), typeof(revision), typeof(answer), typeof(cast_at))
    <> ('text', 'text', 'integer', 'text', 'integer', 'text', 'text'))
  OR EXISTS (SELECT * FROM completions WHERE typeof(seconds) NOT IN ('real', 'null') OR
    (typeof(rater), typeof(key), typeof(screen), typeof(done_at)) <> ('text', 'text', 'integer', 'text'))
"""
"""SQLite keeps any kind of value in any column."""

_MACHINE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
}


def fingerprint(plan: Plan) -> str:
    """Hash what gives answers their meaning: the questions, and which clips each rater sees on which screen."""
    meaning = {
        "protocol": plan.protocol,
        "ties": plan.ties,
        "axes": [axis.name for axis in plan.axes],
        "raters": [[rater.id, [asdict(screen) for screen in rater.screens]] for rater in plan.raters],
    }
    return hashlib.sha256(json.dumps(meaning, ensure_ascii=False).encode()).hexdigest()


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite complains of into errors that a person can act on.

    Raises:
        RunFailed: the disk is full, the file locked or not writable.
        UserError: the file is damaged, or holds something else.
    """
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        raise  # a defect of this package
    except UnicodeDecodeError as e:  # of a message of SQLite's about the file
        raise damaged(path, "not UTF-8") from e
    except (sqlite3.DatabaseError, OSError) as e:
        code = getattr(e, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # the low byte is the primary code
        if isinstance(e, OSError) or code in _MACHINE:
            raise RunFailed(
                f"The votes in {path} cannot be reached ({e}).",
                "Free the disk or end the program that holds the file, and try again: stored votes are kept.",
            ) from e
        raise damaged(path, str(e)) from e


def damaged(path: Path, why: str) -> UserError:
    """The error of a file that holds no readable votes."""
    return UserError(
        f"{path} is damaged, or holds no votes of a study ({why}).",
        "Restore it from a copy, or save what can be read with `sqlite3 FILE .recover`.",
    )


def open_for_writing(path: Path, plan: Plan) -> sqlite3.Connection:
    """Open the file, and make it if there is none; every commit is on disk when it returns.

    Raises:
        RunFailed: the file cannot be written.
        UserError: it is damaged, or holds the votes of another plan.
    """
    with explained(path):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db, path, plan)
        except BaseException:
            db.close()
            raise
    return db


def _prepare(db: sqlite3.Connection, path: Path, plan: Plan) -> None:
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("BEGIN IMMEDIATE")
    try:
        if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            _create(db, plan)
        check(db, path)
        check_plan(db, path, plan)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("PRAGMA journal_mode = WAL")  # only now, so that nobody reads a file without tables


def _create(db: sqlite3.Connection, plan: Plan) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {VERSION}")
    _make_tables(db)
    db.execute("INSERT INTO study VALUES (?)", (fingerprint(plan),))
    db.executemany("INSERT INTO raters VALUES (?)", [(rater.id,) for rater in plan.raters])


def _make_tables(db: sqlite3.Connection) -> None:
    statement = ""
    for line in SCHEMA.splitlines():  # `executescript` would commit half-way
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


@contextlib.contextmanager
def opened_for_reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write; a server may go on writing meanwhile.

    Raises:
        RunFailed: the file cannot be opened.
        UserError: it is damaged.
    """
    with explained(path), contextlib.ExitStack() as stack:
        try:
            db = _reader(path)
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
                raise
            # The index of the journal cannot be made beside it: the folder is read-only.
            db = _reader(_copied(path, Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        stack.callback(db.close)
        yield db


def _reader(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("SELECT count(*) FROM sqlite_schema")
    except BaseException:
        db.close()
        raise
    return db


def _copied(path: Path, folder: Path) -> Path:
    for file in (path, path.with_name(f"{path.name}-wal")):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    return folder / path.name


def check(db: sqlite3.Connection, path: Path) -> None:
    """Make sure that the file holds votes, in a form this version knows, and that none of its pages is damaged.

    Raises:
        UserError: it does not.
    """
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise damaged(path, "another program's file")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise UserError(
            f"{path} was written by another version of m4v-eval (its schema is {version}, not {VERSION}).",
            "Use that version.",
        )
    if _tables(db) != _own_tables():  # a view in the place of a table could make a query run for ever
        raise damaged(path, "its tables are not those that m4v-eval makes")
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, found)
    if db.execute(_STRANGE).fetchone()[0]:
        raise damaged(path, "a row holds other kinds of values than m4v-eval writes")


def _tables(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    return db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()


@functools.cache
def _own_tables() -> list[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        _make_tables(db)
        return _tables(db)


def check_plan(db: sqlite3.Connection, path: Path, plan: Plan) -> None:
    """Make sure that the votes are answers to this plan.

    Raises:
        UserError: they are answers to another one.
    """
    row = db.execute("SELECT fingerprint FROM study").fetchone()
    if row is None or row[0] != fingerprint(plan):
        raise UserError(
            f"{path} holds the votes of another plan than the study.json beside it.",
            "Put the study.json back with which the votes were cast, or move the votes away to start anew.",
        )
