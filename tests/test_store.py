"""The journal survives being killed at any byte, full disks and damage; one run directory has one writer."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import RunFailed
from evalkit.files import write_atomically
from evalkit.store import Journal, content_key, only_writer

records = st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(max_size=9)), max_size=3)


def test_keys_depend_on_content_and_not_on_order() -> None:
    assert content_key(a=1, b=[2, None]) == content_key(b=[2, None], a=1)
    assert content_key(a=1) != content_key(a="1")


def test_later_records_win(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.put("k", {"x": 1})
        journal.put("k", {"x": 2})
    with Journal(tmp_path / "j") as journal:
        assert journal.get("k") == {"x": 2}
        assert journal.get("other") is None


@given(st.lists(records.map(lambda r: {k: v for k, v in r.items() if k != "key"}), min_size=1, max_size=5), st.data())
def test_a_journal_cut_at_any_byte_keeps_every_whole_line(
    tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, object]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    with Journal(path) as journal:
        for n, record in enumerate(written):
            journal.put(str(n), record)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    survivors = whole[:cut].count(b"\n")
    with Journal(path) as journal:
        assert [journal.get(str(n)) for n in range(len(written))] == written[:survivors] + [None] * (
            len(written) - survivors
        )
        journal.put("next", {"after": "the crash"})
    with Journal(path) as journal:
        assert journal.get("next") == {"after": "the crash"}
        assert journal.dropped == 0


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_damaged_byte_costs_at_most_the_lines_it_touches(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    with Journal(path) as journal:
        for n in range(4):
            journal.put(f"key {n}", {"value": n / 7})
    whole = bytearray(path.read_bytes())
    position %= len(whole)
    whole[position] ^= flip
    path.write_bytes(bytes(whole))
    with Journal(path) as journal:
        found = [journal.get(f"key {n}") for n in range(4)]
    assert all(record in (None, {"value": n / 7}) for n, record in enumerate(found))
    assert found.count(None) <= 2


def test_a_full_disk_is_reported_and_leaves_a_clean_journal(tmp_path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with Journal(tmp_path / "j") as journal:
            journal.put("first", {"x": 1})
            resource.setrlimit(resource.RLIMIT_FSIZE, (60, limits[1]))
            with pytest.raises(RunFailed, match=r"Could not write .* Free space"):
                journal.put("second", {"x": "a record that does not fit"})
            with pytest.raises(RunFailed, match="Free space"):
                write_atomically(tmp_path / "report.html", b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["j"]
    with Journal(tmp_path / "j") as journal:
        assert journal.dropped == 0
        assert journal.get("first") == {"x": 1}
        assert journal.get("second") is None


def test_an_atomic_write_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_one_writer(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from evalkit.store import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunFailed, match=f'"pid": {holder.pid}'), only_writer(tmp_path):
            pass
        holder.kill()
    with only_writer(tmp_path):  # the lock died with its holder
        pass


def test_a_file_in_place_of_the_run_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(RunFailed, match="Could not write"), only_writer(tmp_path / "run"):
        pass
