"""The store of votes: what it acknowledges it keeps, once, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import RunFailed, UserError
from evalkit.study.answers import answer_fault
from evalkit.study.plan_file import save_plan
from evalkit.study.submissions import SubmissionRefused
from evalkit.study.types import Plan
from evalkit.study.votes import Progress, VoteStore
from tests.served_study import Kit, make_plan

ROOT = Path(__file__).parent.parent
AXES = ("aesthetic_quality", "motion_smoothness", "semantic_coherence")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(Kit(n_raters=40))


@pytest.fixture
def store(tmp_path: Path, plan: Plan) -> Iterator[VoteStore]:
    opened = VoteStore(tmp_path / "votes.sqlite").open(plan)
    yield opened
    opened.close()


def counted(path: Path, table: str = "answers") -> int:
    db = sqlite3.connect(path)
    n = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    db.close()
    return int(n)


def test_an_answer_is_kept_as_it_was_cast(store: VoteStore) -> None:
    receipt = store.cast("r001", 2, AXES[0], (1, 3, 2), key="key-0001", seconds=4.5)
    assert (receipt.revision, receipt.repeated) == (1, False)
    (cast,) = VoteStore(store.path).answers()
    assert (cast.rater, cast.screen, cast.axis, cast.answer) == ("r001", 2, AXES[0], (1, 3, 2))
    assert (cast.revision, cast.seconds) == (1, 4.5)
    assert cast.cast_at.endswith("+00:00")


def test_a_later_answer_is_a_revision_and_the_log_keeps_both(store: VoteStore) -> None:
    store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001", seconds=3)
    store.cast("r001", 0, AXES[1], (3, 2, 1), key="key-0002")
    assert store.cast("r001", 0, AXES[0], (2, 1, 3), key="key-0003", seconds=9).revision == 2
    assert {(c.axis, c.answer, c.revision) for c in store.answers()} == {
        (AXES[0], (2, 1, 3), 2),
        (AXES[1], (3, 2, 1), 1),
    }
    assert [entry["answer"] for entry in store.log()["answers"]] == [[1, 2, 3], [3, 2, 1], [2, 1, 3]]
    assert store.seconds_on("r001", 0) == 9
    assert store.seconds_on("r001", 1) == 0


def test_a_submission_sent_twice_is_stored_once(store: VoteStore) -> None:
    first = store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001")
    store.cast("r001", 0, AXES[0], (3, 2, 1), key="key-0002")
    again = store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001")
    assert (again.revision, again.repeated) == (first.revision, True)
    assert store.answers()[0].answer == (3, 2, 1), "a late repetition must not undo a newer answer"
    assert counted(store.path) == 2


def test_a_key_cannot_stand_for_two_answers_but_belongs_to_its_rater(store: VoteStore) -> None:
    store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001")
    for other in (("r001", 0, AXES[0], (3, 2, 1)), ("r001", 1, AXES[0], (1, 2, 3)), ("r001", 0, AXES[1], (1, 2, 3))):
        with pytest.raises(SubmissionRefused, match="key"):
            store.cast(*other, key="key-0001")
    store.cast("r002", 0, AXES[0], (3, 2, 1), key="key-0001")
    assert counted(store.path) == 2


def test_a_screen_is_done_only_when_every_question_is_answered(store: VoteStore) -> None:
    store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001")
    store.cast("r001", 1, AXES[1], (1, 2, 3), key="key-0002")
    with pytest.raises(SubmissionRefused, match="motion_smoothness, semantic_coherence"):
        store.finish("r001", 0, AXES, key="done-0001")
    for n, axis in enumerate(AXES[1:]):
        store.cast("r001", 0, axis, (1, 2, 3), key=f"more-000{n}")
    assert store.finish("r001", 0, AXES, key="done-0001", seconds=12).repeated is False
    assert store.finish("r001", 0, AXES, key="done-0001", seconds=12).repeated is True
    assert store.finish("r001", 0, AXES, key="done-0002", seconds=20).revision == 2
    assert counted(store.path, "completions") == 2
    assert store.seconds_on("r001", 0) == 20
    with pytest.raises(SubmissionRefused, match="key"):
        store.finish("r001", 1, (AXES[1],), key="done-0001")
    progress = store.progress_of("r001")
    assert (progress.done, progress.n_answers) == (frozenset({0}), 4)
    assert store.progress_of("r002") == Progress()
    assert store.progress() == {"r001": progress}


def test_only_planned_raters_vote(store: VoteStore) -> None:
    for rater in ("r999", "", "r001'; DROP TABLE answers; --"):
        with pytest.raises(SubmissionRefused, match="planned"):
            store.cast(rater, 0, AXES[0], (1, 2, 3), key="key-0001")
        with pytest.raises(SubmissionRefused, match="planned"):
            store.finish(rater, 0, (), key="key-0001")
    assert store.answers() == []


def test_text_is_never_taken_for_sql(store: VoteStore) -> None:
    axis = "x'); DROP TABLE answers; --\n\u202e"
    store.cast("r001", 0, axis, (1,), key="' OR 1=1 --")
    assert store.answers()[0].axis == axis


SUBMISSIONS = st.lists(
    st.tuples(
        st.sampled_from(["r001", "r002"]),
        st.integers(0, 2),
        st.sampled_from(AXES[:2]),
        st.sampled_from(list(permutations((1, 2, 3)))),
        st.integers(0, 12),
    ),
    max_size=25,
)


@given(submissions=SUBMISSIONS)
@settings(max_examples=40, deadline=None)
def test_any_sequence_ends_as_a_dictionary_would(
    submissions: list[tuple[str, int, str, tuple[int, ...], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    plan = make_plan(Kit())
    by_key: dict[tuple[str, int], tuple[int, str, tuple[int, ...]]] = {}
    newest: dict[tuple[str, int, str], tuple[tuple[int, ...], int]] = {}
    store = VoteStore(tmp_path_factory.mktemp("store") / "votes.sqlite").open(plan)
    for rater, screen, axis, answer, key in submissions:
        content = (screen, axis, answer)
        if by_key.setdefault((rater, key), content) != content:
            with pytest.raises(SubmissionRefused):
                store.cast(rater, screen, axis, answer, key=f"key{key}")
            continue
        receipt = store.cast(rater, screen, axis, answer, key=f"key{key}")
        if not receipt.repeated:
            revision = newest.get((rater, screen, axis), ((), 0))[1] + 1
            assert receipt.revision == revision
            newest[rater, screen, axis] = (answer, revision)
    assert {(c.rater, c.screen, c.axis): (c.answer, c.revision) for c in store.answers()} == newest
    store.close()
    assert counted(store.path) == len(by_key)


# ---- at the same time ------------------------------------------------------------------------------------------------


def test_threads_that_cast_together(store: VoteStore, plan: Plan) -> None:
    """Every rater casts on every screen, some keys twice; all are acknowledged, and all are there once."""
    jobs = [(r.id, screen, axis) for r in plan.raters for screen in range(3) for axis in AXES] * 2
    with ThreadPoolExecutor(24) as pool:
        receipts = list(pool.map(lambda job: store.cast(*job, (1, 2, 3), key=f"{job[1]}-{job[2]}"), jobs))
    assert {receipt.revision for receipt in receipts} == {1}
    assert sum(not receipt.repeated for receipt in receipts) == len(jobs) // 2
    assert len(store.answers()) == counted(store.path) == len(jobs) // 2


def test_a_refusal_spoils_no_other_answer_of_its_transaction(store: VoteStore, plan: Plan) -> None:
    store.cast("r001", 0, AXES[0], (1, 2, 3), key="taken")
    barrier = threading.Barrier(20)

    def cast(n: int) -> bool:
        barrier.wait()
        try:
            answer = (3, 2, 1) if n % 2 else (1, 2, 3)
            store.cast("r001", 1, AXES[0], answer, key="taken" if n % 2 else f"free-{n}")
        except SubmissionRefused:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        stored = list(pool.map(cast, range(20)))
    assert stored == [n % 2 == 0 for n in range(20)]
    assert sorted(entry["revision"] for entry in store.log()["answers"]) == [1, *range(1, 11)]


WRITER = """
import sys, json
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from evalkit.study.plan_file import load_plan
from evalkit.study.votes import VoteStore

study, rater, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = VoteStore(study / "votes.sqlite").open(load_plan(study))

def cast(k):
    receipt = store.cast(rater, k % 7, "axis", (1, 2, 3), key=f"{rater}-{k}", seconds=k)
    sys.stdout.write(f"{rater}-{k} {receipt.revision}\\n")
    sys.stdout.flush()

with ThreadPoolExecutor(4) as pool:
    list(pool.map(cast, range(n)))
"""


def writer(study: Path, rater: str, n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(study), rater, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_processes_that_cast_together_while_somebody_reads(tmp_path: Path, plan: Plan) -> None:
    save_plan(tmp_path, plan)
    writers = [writer(tmp_path, rater, 60) for rater in ("r001", "r002", "r003")]
    reader, seen = VoteStore(tmp_path / "votes.sqlite"), [0]
    while any(process.poll() is None for process in writers):
        seen.append(sum(cast.revision for cast in reader.answers()))
    assert [process.wait() for process in writers] == [0, 0, 0]
    for process in writers:
        process.communicate()
    assert seen == sorted(seen), "a reader never sees an answer vanish"
    assert sum(cast.revision for cast in reader.answers()) == counted(reader.path) == 180


def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_nothing_half(tmp_path: Path, plan: Plan) -> None:
    save_plan(tmp_path, plan)
    acknowledged: set[str] = set()
    for life, rater in enumerate(("r001", "r002", "r003")):
        process = writer(tmp_path, rater, 100_000)
        assert process.stdout is not None
        for _ in range(20 + 35 * life):
            acknowledged.add(process.stdout.readline().split()[0])
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        acknowledged |= {line.split()[0] for line in rest.splitlines(keepends=True) if line.endswith("\n")}
        assert process.returncode == -signal.SIGKILL
    store = VoteStore(tmp_path / "votes.sqlite")
    store.check(plan)
    db = sqlite3.connect(store.path)
    keys = [key for (key,) in db.execute("SELECT key FROM answers")]
    revisions = db.execute("SELECT max(revision), count(*) FROM answers GROUP BY rater, screen, axis").fetchall()
    db.close()
    assert acknowledged <= set(keys)
    assert len(keys) == len(set(keys))
    assert all(highest == n for highest, n in revisions), "revisions have no holes"
    assert all(len(cast.answer) == 3 and cast.seconds is not None for cast in store.answers())


# ---- files -----------------------------------------------------------------------------------------------------------


def test_durable_by_its_settings(store: VoteStore) -> None:
    db = sqlite3.connect(store.path)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001")
    with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
        db.execute("UPDATE answers SET answer = '[3, 2, 1]'")
    with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
        db.execute("DELETE FROM answers")
    db.close()
    assert store._group is not None
    assert store._group._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._group._db.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_nobody_has_voted_yet(tmp_path: Path, plan: Plan) -> None:
    store = VoteStore(tmp_path / "votes.sqlite")
    assert store.answers() == []
    assert store.progress() == {}
    assert store.log() == {"answers": [], "completions": []}
    store.check(plan)
    assert not store.path.exists(), "reading makes no file"
    store.path.touch()
    assert store.answers() == [], "the file is empty for a moment while it is made"


def test_a_copy_can_be_read_with_its_journal(store: VoteStore, tmp_path: Path) -> None:
    for n in range(5):
        store.cast("r001", n, AXES[0], (1, 2, 3), key=f"key-{n}")
    journal = store.path.with_name("votes.sqlite-wal")
    assert journal.stat().st_size > 0
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (store.path, journal):
        shutil.copy(file, copy)
    assert VoteStore(copy / "votes.sqlite").answers() == store.answers()


def test_a_folder_in_which_nothing_can_be_made_can_be_read(store: VoteStore, tmp_path: Path) -> None:
    store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (store.path, store.path.with_name("votes.sqlite-wal")):
        shutil.copy(file, copy)
    (copy / "votes.sqlite-shm").mkdir()  # the journal's index cannot be made, as on a medium that is read-only
    assert VoteStore(copy / "votes.sqlite").answers() == store.answers()


def test_after_closing_one_file_holds_everything(tmp_path: Path, plan: Plan) -> None:
    store = VoteStore(tmp_path / "votes.sqlite").open(plan)
    store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001")
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["votes.sqlite"]
    again = VoteStore(tmp_path / "votes.sqlite").open(plan)
    assert again.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001").repeated
    again.close()


def damage_text(path: Path) -> None:
    path.write_text("rater,screen,axis\nr001,0,x\n" * 400)


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def damage_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = os.urandom(64)
    path.write_bytes(data)


def damage_header(path: Path) -> None:
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def damage_answer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("DROP TRIGGER answers_stay")
    db.execute("UPDATE answers SET answer = '[1, 2' WHERE screen = 3")
    db.commit()
    db.close()


def damage_tables(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript("DROP TABLE answers; DROP TABLE study;")
    db.close()


def foreign(path: Path) -> None:
    path.unlink()
    db = sqlite3.connect(path)
    db.executescript("CREATE TABLE answers (rater, screen, axis, answer); CREATE TABLE study (fingerprint);")
    db.close()


@pytest.mark.parametrize(
    "damage",
    [damage_text, damage_cut, damage_pages, damage_header, damage_answer, damage_tables, foreign],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_file_is_named(tmp_path: Path, plan: Plan, damage: Callable[[Path], None]) -> None:
    store = VoteStore(tmp_path / "votes.sqlite").open(plan)
    for n in range(300):
        store.cast("r001", n % 4, f"{AXES[n % 3]}{n}", (1, 2, 3), key=f"key-{n}")
    store.close()
    damage(store.path)
    before = store.path.read_bytes()
    with pytest.raises(UserError, match=r"votes\.sqlite.*damaged"):
        store.answers()
    if damage is not damage_answer:  # whose pages are whole
        with pytest.raises(UserError, match=r"votes\.sqlite"):
            store.open(plan)
        with pytest.raises(UserError, match=r"votes\.sqlite"):
            store.check(plan)
    assert store.path.read_bytes() == before, "evidence is left as it was"


def test_another_version_and_another_plan_are_told(tmp_path: Path, plan: Plan) -> None:
    store = VoteStore(tmp_path / "votes.sqlite").open(plan)
    store.close()
    other = make_plan(Kit(n_raters=40, kinds=("vote", "vote")))
    for use in (store.open, store.check):
        with pytest.raises(UserError, match="another plan"):
            use(other)
        renamed = replace(plan, name="another title", max_failed_checks=0.5)
        use(renamed)
    store.close()
    db = sqlite3.connect(store.path)
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(UserError, match="another version"):
        store.open(plan)


def test_a_full_disk_refuses_and_keeps(store: VoteStore) -> None:
    store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001")
    assert store._group is not None
    db = store._group._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for n in range(1000):
            store.cast("r001", 1, f"{'long ' * 300}{n}", (1, 2, 3), key=f"key-{n:04}")

    with pytest.raises(RunFailed, match="cannot be reached"):
        fill()
    kept = len(store.answers())
    db.execute("PRAGMA max_page_count = 1000000")
    store.cast("r001", 2, AXES[0], (1, 2, 3), key="key-after")
    assert len(store.answers()) == kept + 1


def test_a_locked_file_is_waited_for_and_then_named(store: VoteStore) -> None:
    assert store._group is not None
    store._group._db.execute("PRAGMA busy_timeout = 50")
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(RunFailed, match="locked"):
        store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001")
    blocker.execute("COMMIT")
    blocker.close()
    assert not store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001").repeated


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_are_answers_just_when_they_are_a_competition_ranking(ties: bool) -> None:
    """By brute force: all that sorting any scores of three clips can give."""
    possible = {
        tuple(1 + sum(other < score for other in scores) for score in scores) for scores in product(range(3), repeat=3)
    }
    for ranks in product(range(-1, 5), repeat=3):
        valid = ranks in possible and (ties or len(set(ranks)) == 3)
        assert (answer_fault("rank", ties, 3, ranks) is None) == valid, ranks


def test_faults_have_words() -> None:
    assert "no ties" in (answer_fault("rank", False, 3, (1, 1, 3)) or "")
    assert "hole" in (answer_fault("rank", True, 3, (1, 1, 2)) or "")
    assert "from 1 to 3" in (answer_fault("rank", True, 3, (0, 1, 2)) or "")
    assert "3 clips" in (answer_fault("rank", True, 3, (1, 2)) or "")
    assert "-1 to 1" in (answer_fault("pairwise", True, 2, (2,)) or "")
    assert "-2 to 2" in (answer_fault("likert5", True, 2, (1, 1)) or "")
    assert [answer_fault("likert5", False, 2, (level,)) for level in range(-2, 3)] == [None] * 5
    assert [answer_fault("pairwise", False, 2, (level,)) for level in range(-1, 2)] == [None] * 3


def test_the_load_benchmark_would_see_a_lost_answer(store: VoteStore) -> None:
    from benchmarks.study_load import Load, check

    load = Load()
    for n in range(3):
        store.cast("r001", n, AXES[0], (1, 2, 3), key=f"key-{n}")
        load.acknowledged["r001", f"key-{n}"] = ("r001", n, AXES[0], "[1, 2, 3]")
    assert check(store.path, load) == 3
    load.acknowledged["r001", "key-3"] = ("r001", 3, AXES[0], "[1, 2, 3]")
    with pytest.raises(AssertionError, match="1 acknowledged answers are not stored"):
        check(store.path, load)
    del load.acknowledged["r001", "key-3"], load.acknowledged["r001", "key-0"]
    with pytest.raises(AssertionError, match="nobody got acknowledged"):
        check(store.path, load)


def test_the_log_is_json(store: VoteStore) -> None:
    store.cast("r001", 0, AXES[0], (1, 2, 3), key="key-0001")
    store.finish("r001", 0, AXES[:1], key="done-0001", seconds=3)
    log = json.loads(json.dumps(store.log()))
    assert log["answers"][0]["answer"] == [1, 2, 3]
    assert log["completions"][0]["screen"] == 0
