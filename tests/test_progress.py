"""Long runs watched: rates and times left, the view on terminals of all sizes, plain lines, and JSON lines."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pydantic_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from evalkit import cli
from evalkit.cli.live.json_lines import EVERY, LOG_SCHEMA, JsonLines
from evalkit.cli.live.plain import EVERY as PLAIN_EVERY
from evalkit.cli.live.plain import PlainLines
from evalkit.cli.live.stage import SETTLING, Stage
from evalkit.cli.live.text import duration, fitted, pace
from evalkit.cli.live.view import LATEST, LiveView
from evalkit.cli.live.watch import Watch
from evalkit.errors import UserError
from evalkit.events import Doing, Failed
from evalkit.untrusted import shown as printable
from tests.clips import gradient_frames, write_clip

ROOT = Path(__file__).parent.parent
HOSTILE = (
    "[bold]red[/bold] car-0.mp4",
    "[/] [link=file:///etc/passwd]x[/link]",
    "a\x1b[2J\x1b]0;title\x07.mp4",
    "two\nlines\r.mp4",
    "\u202egpm.exe",
    "שלום עולם.mp4",
    "\udcff\udc80.mp4",
    "猫が走る" * 30,
    ":boom: " * 20,
    "",
)
NAMES = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()), max_size=80)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), NAMES, st.integers(0, 10**9)),
        st.tuples(st.just("advance"), st.integers(0, 10**6)),
        st.tuples(st.just("doing"), NAMES, NAMES),
        st.tuples(st.just("failed"), NAMES, NAMES),
        st.tuples(st.just("wait"), st.floats(0, 3)),
    ),
    max_size=40,
)


class Clock:
    """Goes on when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def play(events: list[tuple[Any, ...]], watch: Watch, clock: Clock) -> None:
    for kind, *facts in events:
        if kind == "wait":
            clock.now += facts[0]
        elif kind in ("doing", "failed"):
            watch.tell({"doing": Doing, "failed": Failed}[kind](*facts))
        else:
            getattr(watch, kind)(*facts)


# Rates and times left


@given(
    st.floats(1e-4, 1e4),
    st.lists(st.floats(SETTLING, 1e4), min_size=1, max_size=50),
    st.integers(0, 10**6),
)
def test_a_steady_rate_is_found_and_what_was_done_before_does_not_count(
    rate: float, gaps: list[float], before: int
) -> None:
    """Any grouping of steady steps gives their rate, to float64's rounding, with or without a resumed beginning."""
    now, steps = 0.0, [rate * gap for gap in gaps]
    stage = Stage("", 0, now)
    stage.advance(before, now)
    for gap, part in zip(gaps, steps, strict=True):
        now += gap
        stage.advance(part, now)  # type: ignore[arg-type]  # fractions of steps keep the rate exact
    assert stage.rate(now) == pytest.approx(rate, rel=1e-6)
    stage.total = before + sum(steps) + 1000 * rate  # type: ignore[assignment]
    assert stage.left(now) == pytest.approx(1000, rel=1e-4)


def test_steps_that_come_in_batches_leave_the_time_left_steady() -> None:
    """25 clips at once, once a minute: the estimate falls second by second, and jumps by less than a batch's time."""
    stage, found = Stage("", 250, 0.0), []
    for minute in range(1, 11):
        for second in range(60):
            found.append(stage.left(60.0 * (minute - 1) + second))
        for _ in range(25):
            stage.advance(1, 60.0 * minute)
    assert found[:60] == [None] * 60
    for second, left in enumerate(found[60:], 60):
        assert left == pytest.approx(600 - second, abs=1e-6)
    assert stage.left(600.0) == 0


def test_networks_that_load_before_the_first_step_do_not_count_for_long() -> None:
    """A minute of loading, then ten steps a second: from the second minute on the rate is that of the steps."""
    stage, now = Stage("", 10_000, 0.0), 60.0
    for _ in range(620):
        stage.advance(1, now)
        now += 0.1
    assert stage.rate(now) == pytest.approx(10, rel=0.01)
    assert stage.left(now) == pytest.approx((10_000 - 620) / 10, rel=0.01)


def test_a_step_that_hangs_lowers_the_rate() -> None:
    stage = Stage("", 100, 0.0)
    for second in range(1, 11):
        stage.advance(1, float(second))
    assert stage.rate(10.5) == pytest.approx(1)
    assert stage.rate(610) == pytest.approx(10 / 610, rel=0.5)
    assert stage.left(610) > 3600


def test_old_steps_are_forgotten() -> None:
    """A thousand cached files in the first seconds say little after an hour of slow ones."""
    stage = Stage("", 2000, 0.0)
    for k in range(1, 1001):
        stage.advance(1, k / 200)
    for k in range(1, 361):
        stage.advance(1, 5 + 10.0 * k)
    assert stage.rate(3605) == pytest.approx(0.1, rel=0.3)


def test_more_steps_than_expected_leave_no_time_to_tell() -> None:
    stage = Stage("", 5, 0.0)
    stage.advance(8, 10.0)
    assert stage.left(10.0) is None


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(-100, 1000)), max_size=30), st.floats(-100, 1000))
def test_a_clock_that_goes_back_harms_nothing(steps: list[tuple[int, float]], later: float) -> None:
    stage, now = Stage("", 1000, 0.0), 0.0
    for count, gap in steps:
        now += gap
        stage.advance(count, now)
    assert (stage.rate(now + later) or 0) >= 0
    assert (stage.left(now + later) or 0) >= 0


# Text


@given(NAMES)
def test_nothing_printable_steers_the_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert text.isprintable() == (shown == text)


@given(NAMES.map(printable), st.integers(0, 100))
def test_fitted_text_fits_and_keeps_its_ends(text: str, width: int) -> None:
    found = fitted(text, width)
    assert cell_len(found) <= width
    if cell_len(text) <= width:
        assert found == text
    elif width > 3:
        cuts = [cut.start() for cut in re.finditer(r"(?=\.\.\.)", found)]  # the text may have dots of its own
        assert any(text.startswith(found[:cut]) and text.endswith(found[cut + 3 :]) for cut in cuts)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (59.6, "1:00"),
        (754, "12:34"),
        (3599.9, "1:00:00"),
        (18367, "5:06:07"),
        (183845, "2d 03:04:05"),
        (None, "-:--"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(12345.6, "12,346/s"), (12.34, "12.3/s"), (1, "1.00/s"), (0.5, "30.0/min"), (0.001, "3.60/h"), (None, "-/s")],
)
def test_paces(rate: float | None, shown: str) -> None:
    assert pace(rate) == shown


# The view


def view_of(width: int, height: int, clock: Clock | None = None) -> LiveView:
    """A view on a terminal without colours whose text is kept."""
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None, _environ={}
    )
    view = LiveView(console)
    view.clock = clock or Clock()
    return view


def painted(view: LiveView) -> list[str]:
    with view.console.capture() as captured:
        view.console.print(view)
    return captured.get().removesuffix("\n").split("\n")


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.integers(10, 200), st.integers(1, 50))
def test_any_run_fits_any_terminal(events: list[tuple[Any, ...]], width: int, height: int) -> None:
    """Never wider or taller than the terminal, never a character that steers it."""
    clock = Clock()
    view = view_of(width, height, clock)
    play(events, view, clock)
    lines = painted(view)
    assert len(lines) <= max(1, height - 1)
    for line in lines:
        assert cell_len(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize("width", [60, 120])
def test_the_view_says_what_is_going_on(width: int) -> None:
    clock = Clock()
    view = view_of(width, 30, clock)
    view.start("scoring 40 videos", 1000)
    view.advance(400)  # of an earlier command
    view.tell(Doing("cuda:0", "[bold]p1-0.mp4"))
    view.tell(Doing("cuda:1", "p2-0.mp4"))
    view.tell(Doing("cuda:1", ""))
    for k in range(5):
        view.tell(Failed(f"bad{k}.mp4", "it cannot be decoded"))
    for second in range(100):
        clock.now += 1
        view.advance(2)
        if second % 2:
            view.tell(Doing("cuda:0", f"[bold]p{100 - second}-0.mp4"))
    lines = [line.rstrip() for line in painted(view)]
    head, rest = (lines[:1], lines[1:]) if width == 120 else (lines[:2], lines[2:])
    assert head[0].startswith("scoring 40 videos")
    assert head[-1].endswith("  600/1,000  3:20 left  2.00/s  1:40" + ("  30.0 files/min" if width == 120 else ""))
    assert rest == [
        "  cuda:0  [bold]p1-0.mp4",
        "  cuda:1  idle",
        "5 failed, the latest:",
        *(f"  bad{k}.mp4: it cannot be decoded" for k in (2, 3, 4)),
    ]
    view.start("writing the report", 1)
    assert not any("cuda" in line for line in painted(view))


def test_workers_without_room_are_counted() -> None:
    view = view_of(80, 12)
    view.start("scoring", 10)
    for k in range(40):
        view.tell(Doing(f"cuda:{k}", f"p{k}.mp4"))
    lines = [line.rstrip() for line in painted(view)]
    shown = [line for line in lines if "cuda:" in line]
    assert len(lines) == 11
    assert lines[-1] == f"  and {40 - len(shown)} more"


def test_the_view_leaves_only_the_failures() -> None:
    view = view_of(80, 20)
    with view:
        view.start("scoring", 10)
        for k in range(LATEST + 2):
            view.tell(Failed(f"p{k}.mp4", "broken"))
    written = view.console.file.getvalue()  # type: ignore[attr-defined]
    left = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.rpartition("\x1b[2K")[2])
    assert left.split("\n")[:1] == ["5 failed, the latest:"]
    assert left.count("broken") == LATEST
    assert "scoring" not in left


WATCHED = """
import signal, sys, time
from evalkit.cli.progress import watching
signal.signal(signal.SIGINT, signal.default_int_handler)
with watching() as bars:
    bars.start("scoring", 10)
    bars.advance()
    print("begun", flush=True)
    time.sleep(600)
"""


def test_ctrl_c_gives_the_cursor_back() -> None:
    """On a real (pseudo) terminal; without the end of the view the last word would be that the cursor is hidden."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    child = subprocess.Popen(
        [sys.executable, "-c", WATCHED], cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    while b"begun" not in seen:
        seen += os.read(ours, 4096)
    assert b"\x1b[?25l" in seen
    child.send_signal(signal.SIGINT)
    while True:
        try:
            seen += os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
    assert child.wait(timeout=60) != 0
    os.close(ours)
    assert b"scoring" in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TTY_INTERACTIVE": "0"}])
def test_terminals_that_cannot_repaint_get_plain_lines(environment: dict[str, str]) -> None:
    done = seen_on_a_terminal("with watching() as b:\n b.start('scoring', 2)\n b.advance(2)", **environment)
    assert done.replace("\r", "") == "scoring (2)\n"


def test_no_color_means_none() -> None:
    """Attributes other than colours are allowed."""
    seen = seen_on_a_terminal("with watching() as b:\n b.start('scoring', 2)\n b.advance(1)", NO_COLOR="1")
    assert "scoring" in seen
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d)[;m]", seen)


def seen_on_a_terminal(script: str, **environment: str) -> str:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", f"from evalkit.cli.progress import watching\n{script}"]
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", "COLUMNS": "80"} | environment
    child = subprocess.Popen(command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 4096)
        except OSError:
            break
    child.wait(timeout=60)
    os.close(ours)
    return seen.decode()


# Plain lines


def plain(clock: Clock) -> tuple[PlainLines, Callable[[], list[str]]]:
    console = Console(file=io.StringIO(), width=60, _environ={})
    return PlainLines(console, clock), lambda: console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_plain_lines() -> None:
    clock = Clock()
    lines, said = plain(clock)
    with lines:
        lines.start("nothing to do", 0)
        lines.start("scoring 3 videos", 3600)
        for _ in range(1800):
            clock.now += 1
            lines.advance(1)
        lines.tell(Doing("cuda:0", "p1.mp4"))
        lines.tell(Failed("[bold]x\ny[/].mp4", "it is broken " + 20 * "very "))
    found = said()
    assert found[0] == "scoring 3 videos (3600)"
    assert found[1] == "scoring 3 videos: 300/3600, 1.00/s, 55:00 left"
    assert len(found) == 1 + 1800 // PLAIN_EVERY + 1
    assert found[-1].startswith(r"failed: [bold]x\ny[/].mp4: it is broken very")


@given(EVENTS)
@settings(deadline=None)
def test_plain_lines_are_a_line_a_stage_and_a_failure(events: list[tuple[Any, ...]]) -> None:
    clock = Clock()
    lines, said = plain(clock)
    play(events, lines, clock)
    expected = sum(kind == "failed" or (kind == "start" and facts[1] > 0) for kind, *facts in events)
    assert len(said()) == expected  # all of it takes less than five minutes
    assert all(line.isprintable() for line in said())


def test_failures_are_in_the_log_one_line_each(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "run.log", encoding="utf-8")
    logger = logging.getLogger("evalkit")
    logger.addHandler(handler)
    try:
        for watch in (plain(Clock())[0], JsonLines(io.StringIO), view_of(60, 20)):
            for name in HOSTILE:
                watch.tell(Failed(name, "broken"))
    finally:
        logger.removeHandler(handler)
        handler.close()
    written = (tmp_path / "run.log").read_text(encoding="utf-8").split("\n")
    assert written == [f"{printable(name)}: broken" for name in HOSTILE] * 3 + [""]


# JSON lines

FIELDS = {
    "stage": {"what": str, "total": int},
    "progress": {
        "what": str,
        "done": int,
        "total": int,
        "rate_per_s": float | None,
        "eta_s": float | None,
    },
    "doing": {"worker": str, "what": str},
    "failed": {"what": str, "why": str, "failed": int},
    "done": {"exit_code": int},
    "error": {"what": str, "remedy": str, "exit_code": int},
}


def checked(line: str) -> dict[str, Any]:
    """The record of a line: JSON for Python and for a stricter reader (lone surrogates, NaN), of the schema."""
    record = pydantic_core.from_json(line, allow_inf_nan=False)
    assert record == json.loads(line)
    assert record["schema"] == LOG_SCHEMA
    assert datetime.fromisoformat(record["time"]).utcoffset() == UTC.utcoffset(None)
    assert record["elapsed_s"] >= 0
    fields = FIELDS[record["event"]]
    assert set(record) == {"schema", "time", "elapsed_s", "event", *fields}
    for name, kind in fields.items():
        assert isinstance(record[name], kind), name
    return record


@given(EVENTS)
def test_every_line_is_json_whatever_the_names(events: list[tuple[Any, ...]]) -> None:
    clock, stream = Clock(), io.StringIO()
    lines = JsonLines(lambda: stream, clock)
    with lines:
        play(events, lines, clock)
    lines.error("a\udcff\n", "", 2)
    records = [checked(line) for line in stream.getvalue().splitlines()]
    told = [kind for kind, *_ in events]
    for event, kind in (("stage", "start"), ("doing", "doing"), ("failed", "failed")):
        assert sum(r["event"] == event for r in records) == told.count(kind)
    elapsed = [r["elapsed_s"] for r in records]
    assert elapsed == sorted(elapsed)
    for name in (facts[0] for kind, *facts in events if kind == "start"):
        exact = name.encode("utf-8", "backslashreplace").decode()
        assert any(r["event"] == "stage" and r["what"] == exact for r in records)


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 0.9)), max_size=60))
def test_progress_is_told_about_once_a_second_and_at_the_end(steps: list[tuple[int, float]]) -> None:
    clock, stream = Clock(), io.StringIO()
    lines = JsonLines(lambda: stream, clock)
    with lines:
        lines.start("scoring", 1000)
        for count, gap in steps:
            clock.now += gap
            lines.advance(count)
    told = [r for r in map(checked, stream.getvalue().splitlines()) if r["event"] == "progress"]
    assert sum(count for count, _ in steps) == (told[-1]["done"] if told else 0)
    gaps = [b["elapsed_s"] - a["elapsed_s"] for a, b in pairwise(told)]
    assert all(gap >= EVERY - 0.001 for gap in gaps[:-1])  # the last comes when it comes
    assert len(told) <= sum(gap for _, gap in steps) / EVERY + 2


def test_a_reader_that_has_gone_does_not_stop_the_run() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    JsonLines(Gone).start("scoring", 3)


def run_command(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> int:
    """The exit code of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["m4v-eval", *map(str, args)])
    monkeypatch.setattr(cli, "log", None)  # put back afterwards
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_bad_input_is_a_line_of_json_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Raised before anything is watched."""
    monkeypatch.setattr("evalkit.ablation.load_all", raising(UserError("x\udcff is wrong.", "Mend it.")))
    assert run_command(monkeypatch, "ablate", "--list", "--log-json") == 2
    assert last(capsys) == {"event": "error", "what": "x\\udcff is wrong.", "remedy": "Mend it.", "exit_code": 2}
    assert run_command(monkeypatch, "ablate", "--list") == 2
    assert capsys.readouterr().err.startswith("error: x")


def test_every_end_is_the_last_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Success, Ctrl-C, and a defect, whose traceback is left to the interpreter."""
    monkeypatch.setattr("evalkit.ablation.load_all", dict)
    assert run_command(monkeypatch, "ablate", "--list", "--log-json") == 0
    assert last(capsys) == {"event": "done", "exit_code": 0}

    monkeypatch.setattr("evalkit.ablation.load_all", raising(KeyboardInterrupt))
    assert run_command(monkeypatch, "ablate", "--list", "--log-json") == 130
    assert last(capsys)["event"] == "error"

    monkeypatch.setattr("evalkit.ablation.load_all", raising(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        run_command(monkeypatch, "ablate", "--list", "--log-json")
    assert last(capsys) == {"event": "error", "what": "ZeroDivisionError: ", "remedy": "", "exit_code": 1}


def raising(error: BaseException | type[BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def last(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (record,) = map(checked, capsys.readouterr().err.splitlines())
    return {name: value for name, value in record.items() if name not in ("schema", "time", "elapsed_s")}


@pytest.mark.slow
def test_a_whole_run_told_to_machines(tmp_path: Path) -> None:
    """Nothing but JSON on stderr; the stages in order, all steps of each, and every file that a worker took up."""
    (tmp_path / "videos").mkdir()
    for k in range(4):
        write_clip(tmp_path / "videos" / f"p{k}-0.mp4", gradient_frames(12, 48, 64, 40 * k))
    prompts = [{"id": f"p{k}", "text": f"{k} dark red balls roll"} for k in range(4)]
    (tmp_path / "suite.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from evalkit.cli import main; main()", "vbench", "--subset", "suite.jsonl"),
            *("--videos", "videos", "--profile", "lite", "--out", "run", "--workers", "2", "--log-json"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    records = [checked(line) for line in done.stderr.splitlines()]
    assert done.returncode == 0
    assert records[-1]["event"] == "done"
    stages = [r["what"] for r in records if r["event"] == "stage"]
    assert stages[-3:] == ["reading files", "scoring 4 videos", "writing the report"]
    told = {r["what"]: (r["done"], r["total"]) for r in records if r["event"] == "progress"}
    assert (told["reading files"], told["scoring 4 videos"]) == ((4, 4), (48, 48))
    assert {r["what"] for r in records if r["event"] == "doing"} - {""} == {f"p{k}-0.mp4" for k in range(4)}
