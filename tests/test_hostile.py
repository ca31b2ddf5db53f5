"""Files made to do harm: each reader refuses them at once, in a sentence that names the file, and does nothing else."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import signal
import sqlite3
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evalkit.cli.console import SafeConsole
from evalkit.errors import UserError
from evalkit.records import RESULT_COLUMNS, load_run
from evalkit.study.vote_file import SCHEMA
from evalkit.untrusted import check_file_name, inside, is_portable, parse_json, read_bytes
from evalkit.untrusted.yaml import parse_yaml
from tests.feed_mutants import TookTooLong, limits, listing, names_it, refusal
from tests.untrusted_files import SUBJECTS

DEEP = "[" * 100_000 + "]" * 100_000
NASTY_JSON = {
    "nested": DEEP,
    "half nested": '{"a":' * 100_000,
    "wide number": "9" * 1_000_000,
    "number beyond 64 bits": '[{"seed": 18446744073709551616}]',
    "a key twice": '{"schema": "a", "schema": "b"}',
    "half a character": '{"file": "\\ud800"}',
    "text": "x" * 300_000,
    "nothing": "",
    "null": "null",
    "NUL": "\x00",
}
NASTY_BYTES = {
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "not UTF-8": b'{"a": "\xff\xfe\x80"}',
    "zeros": bytes(100_000),
    "ones": b"\xff" * 100_000,
    "a line without end": b"a" * 3_000_000,
    "a quote without end": b'model,color\n"' + b"b,\n" * 100_000,
    "commas": b"," * 1_000_000,
    "pickle": pickle.dumps({"a": 1}),
    "gzip": b"\x1f\x8b\x08\x00" + bytes(100),
}
BINARY = {
    "results.parquet",
    "checkpoint",
    "pickle in a checkpoint",
    "weights",
    "weights, old format",
    "statistics",
    "shard",
    "votes",
}


@pytest.fixture(scope="module")
def cases() -> Iterator[Callable[[str], tuple[Path, Path]]]:
    """Each subject's valid files, made once: the folder and the file that is replaced."""
    made: dict[str, tuple[Path, Path, bytes]] = {}
    with tempfile.TemporaryDirectory() as folder:

        def case(name: str) -> tuple[Path, Path]:
            if name not in made:
                root = Path(folder) / str(len(made)) / "case"
                root.mkdir(parents=True)
                target = SUBJECTS[name].make(root)
                assert refusal(SUBJECTS[name], root) is None  # and what it imports is there before memory is limited
                made[name] = root, target, target.read_bytes()
            root, target, valid = made[name]
            target.write_bytes(valid)
            return root, target

        yield case


HEAVY = {"latency --against", "checkpoint", "official results", "run.json"}
"""Subjects whose valid files take long to make; the fuzzer reads these too."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in HEAVY)) for n in SUBJECTS])
def test_nasty_files_are_refused_by_name_and_leave_nothing(
    name: str, cases: Callable[[str], tuple[Path, Path]]
) -> None:
    subject = SUBJECTS[name]
    root, target = cases(name)
    valid = target.read_bytes()
    nasty = NASTY_BYTES | {title: text.encode() for title, text in NASTY_JSON.items()}
    if name in BINARY:  # texts tell such readers nothing
        nasty = {title: nasty[title] for title in ("zeros", "ones", "pickle", "nothing", "nested")}
        nasty |= {"cut": valid[: len(valid) // 2], "twice": valid + valid}
    before = listing(root.parent)
    for title, content in nasty.items():
        target.write_bytes(content)
        with limits():
            said = refusal(subject, root)
        assert said is None or names_it(said, root, target), (title, said)
        assert said is None or len(said) < 5000, title
    target.write_bytes(valid)
    assert listing(root.parent) == before


# --- the central readers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", NASTY_JSON)
def test_json_without_surprises(title: str) -> None:
    if title in ("null",):
        assert parse_json(NASTY_JSON[title], "a.json", "Mend it.") is None
        return
    with limits(), pytest.raises(UserError, match=r"a\.json cannot be read") as caught:
        parse_json(NASTY_JSON[title], "a.json", "Mend it.")
    assert len(str(caught.value)) < 300


def test_numbers_that_are_none() -> None:
    for text in ("NaN", "-Infinity", "1e999", "[-1e999]"):
        with pytest.raises(UserError, match="is no number"):
            parse_json(text, "a.json", "Mend it.")
    assert parse_json("[1e999, -9223372036854775807, 0.1]", "a", "", finite=False) == [float("inf"), 1 - 2**63, 0.1]


def test_only_ordinary_files_of_bounded_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large").write_bytes(b"12345")
    for name in ("pipe", "link", "loop", ".", "absent", "n" * 300, "a\0b"):
        with limits(asleep=10), pytest.raises(UserError):
            read_bytes(tmp_path / name, "Give another.")
    with pytest.raises(UserError, match="larger than 4 bytes"):
        read_bytes(tmp_path / "large", "Give another.", largest=4)
    assert read_bytes(tmp_path / "large", "", largest=5) == b"12345"


def test_a_pipe_that_the_shell_made_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"model,color\n")
    os.close(writer)
    try:
        assert read_bytes(Path(f"/dev/fd/{reader}"), "") == b"model,color\n"
    finally:
        os.close(reader)


BILLION_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        BILLION_LAUGHS,
        "a: &a [*a]",
        "&a {*a : 1}",
        "!!python/object/apply:os.system ['touch hacked']",
        "!!python/name:os.system",
        "a: 2026-99-99",
        "? [a, b]\n: 1",
        "a: 1\na: 2",
        "[" * 50_000,
        "a: \x00",
        "{" * 2000 + "}" * 2000,
        "--- a\n--- b",
        "%YAML 9.9\n---\na",
    ],
)
def test_yaml_is_data(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with limits(), pytest.raises(UserError, match=r"^a\.yaml "):
        parse_yaml(text, "a.yaml", "Mend it.")
    assert not list(tmp_path.iterdir())


def test_yaml_may_repeat_itself_a_little() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: [*a]", "a", "") == {"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}]}


# --- names ------------------------------------------------------------------------------------------------------------

OUTSIDE = ("../x", "/etc/passwd", "a/../../x", "way/out.mp4", "loop", "a\0b", "n" * 5000, "\ud800")
UNFIT = (
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "/x",
    "a\0",
    "a\nb",
    "con",
    "NUL.mp4",
    "com1",
    "a:b",
    "x.",
    "x ",
    ".x",
    "é" * 150,
    "\ud800",
)


def test_names_that_lead_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "way").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (tmp_path / "out.mp4").write_bytes(b"")
    for name in OUTSIDE:
        assert inside(folder, name) is None, name
    assert inside(folder, "sub/a.mp4") == folder / "sub/a.mp4"
    for name in UNFIT:
        assert not is_portable(name), name
        with pytest.raises(UserError, match="cannot name a file"):
            check_file_name(name, "The prompt id")
    assert all(map(is_portable, ("custom50-01", "a red ball, turning", "日本", "v1.2", "console")))


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_does_not_lead_outside(name: str, tmp_path: Path) -> None:
    from evalkit.matching import match
    from evalkit.prompts import load_suite

    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "way").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (tmp_path / "out.mp4").write_bytes(b"")
    (folder / "manifest.jsonl").write_text(json.dumps({"file": name, "prompt_id": "custom50-01"}) + "\n")
    with pytest.raises(UserError, match=r"manifest\.jsonl, line 1"):
        match(folder, load_suite("custom50"))


@pytest.mark.parametrize("name", ["../escaped", "a/b", "con", "x" * 199, ".hidden", 'a"b'])
def test_generate_writes_no_file_of_such_a_name(name: str, tmp_path: Path) -> None:
    from evalkit.generation import Request, generate

    (tmp_path / "p.jsonl").write_text(
        json.dumps({"id": name + "é", "text": "a ball"}) if len(name) > 100 else json.dumps({"id": name, "text": "a"})
    )
    before = listing(tmp_path)
    with pytest.raises(UserError, match="cannot name a file"):
        generate(Request(tmp_path / "absent.pt", str(tmp_path / "p.jsonl"), tmp_path / "videos"))
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_prompt_names_no_picture_outside(name: str, tmp_path: Path) -> None:
    from evalkit.suites.i2v import ImageToVideo
    from evalkit.types import Prompt

    images = tmp_path / "images"
    images.mkdir()
    (images / "way").symlink_to(tmp_path)
    (tmp_path / "out.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="holds no picture"):
        ImageToVideo(images)._picture(Prompt("p", "a ball", (), {"image": name}))


# --- archives, arrays, tables -----------------------------------------------------------------------------------------


def test_parquet_of_other_columns_types_and_sizes(tmp_path: Path, cases: Callable[[str], tuple[Path, Path]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root, target = cases("results.parquet")
    valid = pd.read_parquet(target)
    n = len(valid)
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["x" * (2**31 // n + 1)]))
    bombs = {
        "no rows, no columns": pa.table({}),
        "a column less": pa.table({name: pa.array([None] * 2) for name in list(RESULT_COLUMNS)[:-1]}),
        "nested": pa.table({name: pa.array([[["x"]]] * n) for name in RESULT_COLUMNS}),
        "one long text many times": pa.table(
            {name: text if name == "prompt" else pa.array(valid[name]) for name in RESULT_COLUMNS}
        ),
        "texts as numbers": pa.table({name: pa.array(["x"] * n) for name in RESULT_COLUMNS}),
        "numbers as texts": pa.table({name: pa.array([1.5] * n) for name in RESULT_COLUMNS}),
        "many rows": pa.table({"file": pa.nulls(6_000_000)}),
    }
    for table in bombs.values():
        pq.write_table(table, target)
        with limits(), pytest.raises(UserError, match=r"results\.parquet"):
            load_run(root / "a")


class Runs:
    """Whoever unpickles it runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


@pytest.mark.parametrize("name", ["checkpoint", "weights", "weights, old format", "statistics"])
def test_pickles_run_nothing(
    name: str, cases: Callable[[str], tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    root, target = cases(name)
    monkeypatch.chdir(root)
    inner = io.BytesIO()
    np.savez(inner, allow_pickle=True, about=np.array(Runs(), dtype=object), mu=np.array(Runs(), dtype=object))
    packed = io.BytesIO()
    torch.save({"format": 1, "state_dict": Runs()}, packed)
    script = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)  # torch.load would run it
    for content in (pickle.dumps(Runs()), inner.getvalue(), packed.getvalue(), script.getvalue()):
        target.write_bytes(content)
        assert refusal(SUBJECTS[name], root) is not None
    assert not (root / "hacked").exists()


@pytest.mark.parametrize("name", ["checkpoint", "weights", "statistics"])
def test_archives_that_unpack_to_more_than_they_are(name: str, cases: Callable[[str], tuple[Path, Path]]) -> None:
    root, target = cases(name)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(3_000_000))
    claim = struct.pack("<I", 3_000_000), struct.pack("<I", 2**30)
    target.write_bytes(target.read_bytes().replace(*claim))
    with limits():
        said = refusal(SUBJECTS[name], root)
    assert said is not None
    assert "unpacks to more" in said or name == "checkpoint", said


def test_an_array_that_claims_to_be_huge(cases: Callable[[str], tuple[Path, Path]]) -> None:
    root, target = cases("statistics")
    header = str({"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}).encode().ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("mu.npy", array)
    with limits():
        assert "s.npz" in str(refusal(SUBJECTS["statistics"], root))


def test_a_recipe_that_claims_a_network_beyond_its_weights(cases: Callable[[str], tuple[Path, Path]]) -> None:
    root, target = cases("recipe in a checkpoint")
    fields = json.loads(target.read_text())
    claims: list[tuple[str, str, Any]] = [
        ("model", "layers", 10**9),
        ("model", "width", 2**30),
        ("model", "clip", [10**6, 10**6, 10**6]),
        ("text", "buckets", 10**12),
        ("text", "tokens", 10**9),
        ("text", "layers", 10**9),
        ("sampler", "steps", 10**12),
    ]
    for part, field, value in claims:
        changed = json.loads(json.dumps(fields))
        changed[part][field] = value
        target.write_text(json.dumps(changed))
        with limits():
            assert refusal(SUBJECTS["recipe in a checkpoint"], root) is not None, field


def test_tar_headers_that_go_in_circles(cases: Callable[[str], tuple[Path, Path]]) -> None:
    root, target = cases("shard")
    for size, kind in ((-512, b"0"), (-1536, b"x"), (-512, b"L"), (2**62, b"0"), (2**62, b"x"), (-512, b"S")):
        info = tarfile.TarInfo("a.mp4")
        info.type = kind
        block = bytearray(info.tobuf())
        block[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
        block[148:156] = b"        "
        block[148:156] = b"%06o\0 " % sum(block)
        target.write_bytes(bytes(block) * 4 + bytes(1024))
        with limits(seconds=5):
            refusal(SUBJECTS["shard"], root)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE completions",
        "ALTER TABLE answers RENAME TO kept; CREATE VIEW answers AS"
        " WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
        " SELECT x AS id, 'r1' AS rater, '' AS key, 0 AS screen, 'x' AS axis, x AS revision, '[1]' AS answer,"
        " 1.0 AS seconds, '' AS cast_at FROM c",
        "CREATE TRIGGER more AFTER INSERT ON answers BEGIN INSERT INTO raters VALUES (randomblob(9)); END",
        "CREATE INDEX other ON answers (cast_at)",
    ],
)
def test_votes_of_other_tables(change: str, cases: Callable[[str], tuple[Path, Path]]) -> None:
    root, target = cases("votes")
    db = sqlite3.connect(target)
    db.executescript(change)
    db.close()
    with limits():
        assert "votes.sqlite is damaged" in str(refusal(SUBJECTS["votes"], root))


def test_answers_that_are_none(cases: Callable[[str], tuple[Path, Path]]) -> None:
    root, target = cases("votes")
    valid = target.read_bytes()
    for answer in (DEEP, "9" * 10_000, "[1e999]", "{}", '"123"', "[1, 2, 3, 4]", "null"):
        target.write_bytes(valid)
        db = sqlite3.connect(target)
        db.execute("DROP TRIGGER answers_stay")
        db.execute("UPDATE answers SET answer = ?", (answer,))
        db.execute(next(line for line in SCHEMA.splitlines() if "answers_stay" in line))
        db.commit()
        db.close()
        with limits():
            assert refusal(SUBJECTS["votes"], root) is not None, answer[:20]


def test_values_of_other_kinds_than_their_columns(cases: Callable[[str], tuple[Path, Path]]) -> None:
    root, target = cases("votes")
    valid = target.read_bytes()
    for column, value in (("cast_at", b"\xff"), ("screen", "x"), ("seconds", "x"), ("answer", b"[1]")):
        target.write_bytes(valid)
        db = sqlite3.connect(target)
        db.execute("DROP TRIGGER answers_stay")
        db.execute(f"UPDATE answers SET {column} = ?", (value,))
        db.execute(next(line for line in SCHEMA.splitlines() if "answers_stay" in line))
        db.commit()
        db.close()
        with limits():
            assert "other kinds of values" in str(refusal(SUBJECTS["votes"], root)), column


# --- what people see --------------------------------------------------------------------------------------------------

TERMINAL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\u202edrow\u2066 [bold red]markup[/] [link=http://x]l[/link]"


def test_a_terminal_is_told_nothing_by_data() -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, force_terminal=True, width=200)
    console.print("[bold]ours[/bold]", TERMINAL.replace("[", r"\["), "é 日本\ttab")
    written = file.getvalue()
    assert "\x1b[1mours\x1b[0m" in written
    assert "é 日本" in written
    assert not set(written.replace("\x1b[1mours\x1b[0m", "")) & set("\x07\x08\x9b\r\u202e\u2066")
    assert "\x1b]0" not in written


def test_a_page_of_hostile_texts_is_text(tmp_path: Path) -> None:
    from evalkit.report import compose, load
    from tests.fabricate import Spec, write_run

    evil = "</script><script>alert(1)</script>{{ 7*7 }}{% raw %}\"'><img src=x onerror=alert(1)>"
    write_run(
        tmp_path / "a",
        Spec((evil, "\x00\x1b[2J"), {"color": 0.5}, clip_size=None, missing=[{"id": evil, "text": evil}]),
    )
    record = json.loads((tmp_path / "a" / "run.json").read_text()) | {
        "command": [evil],
        "finished": evil,
        "packages": {evil: evil},
    }
    (tmp_path / "a" / "run.json").write_text(json.dumps(record))
    page = compose(*_swapped(load([tmp_path / "a"]), tmp_path / "page.html"))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "7*7" in page


def _swapped(loaded: tuple[Any, Any], page: Path) -> tuple[Any, Path, Any]:
    return loaded[0], page, loaded[1]


# --- the command line -------------------------------------------------------------------------------------------------

COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "scores.json": lambda root: ["score", str(root / "s.json")],
    "scores.csv": lambda root: ["score", str(root / "s.csv")],
    "vbench.json": lambda root: ["compare", str(root / "a"), str(root / "b")],
    "run.json": lambda root: ["report", str(root / "a"), "--out", str(root / "page.html")],
    "results.parquet": lambda root: ["subset-study", str(root / "a"), str(root / "b")],
    "rankings": lambda root: ["study", "aggregate", str(root / "votes.csv")],
    "study plan": lambda root: ["study", "aggregate", str(root)],
    "prompts.jsonl": lambda root: [
        "vbench",
        "--subset",
        str(root / "p.jsonl"),
        "--videos",
        str(root),
        "--out",
        str(root / "run"),
    ],
}


def command(arguments: list[str], seconds: int = 300) -> tuple[int, str]:
    """Run a command in a forked process under limits; its exit code and all that it says."""
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:  # pragma: no cover
            code = 70
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                signal.alarm(seconds)
                code = _main(arguments)
            finally:
                os._exit(code)
        status = os.waitpid(pid, 0)[1]
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read().decode("utf-8", "replace")


def _main(arguments: list[str]) -> int:
    import traceback

    from evalkit import cli

    sys.argv = ["m4v-eval", *arguments]
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    cli.out.file, cli.err.file = sys.stdout, sys.stderr
    try:
        cli.main()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 0
    except Exception:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
        return 71
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_with_a_sentence(name: str, cases: Callable[[str], tuple[Path, Path]]) -> None:
    root, target = cases(name)
    target.write_bytes(f'{{"x{TERMINAL}": "{TERMINAL}"}}'.encode())
    code, said = command(COMMANDS[name](root))
    assert (code, "Traceback" in said) == (2, False), said
    assert "error:" in said
    assert not set(said) & set("\x1b\x07\x9b\u202e")


def test_too_slow_is_no_fault_of_a_file() -> None:
    with pytest.raises(TookTooLong), limits(asleep=0.1):
        signal.pause()
    with pytest.raises(TookTooLong), limits(seconds=0.1):
        sum(1 for _ in itertools.count())
