"""The journal survives being killed at any byte, full disks and damage; files are whole or not there."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import RunFailed
from evalkit.files import remove_unfinished, write_atomically
from evalkit.store import Journal, content_key, read_journal

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


def test_a_second_writer_is_noticed_where_no_lock_keeps_it_out(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as one, Journal(tmp_path / "j") as other:
        one.put("a", {"x": 1})
        with pytest.raises(RunFailed, match="Another process writes to"):
            other.put("b", {"x": 2})
        one.put("c", {"x": 3})
    with Journal(tmp_path / "j") as journal:
        assert [journal.get(key) for key in "abc"] == [{"x": 1}, None, {"x": 3}]
        assert journal.dropped == 0


def test_a_journal_is_read_while_it_is_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.put("a", {"x": 1})
        with (tmp_path / "j").open("ab") as file:
            file.write(b"half a li")
        assert dict(read_journal(tmp_path / "j")) == {"a": {"x": 1}}
    assert dict(read_journal(tmp_path / "nothing")) == {}


def test_lines_that_fit_their_checksum_and_are_no_records_are_dropped(tmp_path: Path) -> None:
    bodies = [b"{", b"[]", b"3", b"{}", b"null", b"[" * 10_000, "\u00e9".encode("latin-1")]
    (tmp_path / "j").write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(body), body) for body in bodies))
    with Journal(tmp_path / "j") as journal:
        assert journal.dropped == len(bodies)


def test_names_that_are_no_text_can_be_kept(tmp_path: Path) -> None:
    name = b"caf\xe9.mp4".decode(errors="surrogateescape")
    with Journal(tmp_path / "j") as journal:
        journal.put(content_key(file=name), {"file": name})
    with Journal(tmp_path / "j") as journal:
        assert journal.get(content_key(file=name)) == {"file": name}


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 100_000])
def test_what_a_kill_leaves_half_written_is_removed(tmp_path: Path, data: bytes) -> None:
    script = (
        "import os, sys; from pathlib import Path; from evalkit.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file: file.write_bytes(sys.stdin.buffer.read()); os.kill(os.getpid(), 9)"
    )
    write_atomically(tmp_path / "file", b"before")
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "file"], input=data, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"
