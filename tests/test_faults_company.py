"""Two processes at one directory: one goes on, the other hears who is there. And clocks that jump."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evalkit.errors import RunFailed
from evalkit.lock import HOLDER, LOCK, holding
from tests.clips import gradient_frames, write_clip
from tests.test_cli import cli, refused
from tests.test_faults import results

SCRIPT = (
    "import sys; from pathlib import Path; from evalkit.lock import holding\n"
    "with holding(Path(sys.argv[1]), 'It is scored'): print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds a folder."""
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


# --- the lock ---------------------------------------------------------------------------------------------------------


def test_the_holder_is_named_and_its_lock_dies_with_it(tmp_path: Path) -> None:
    with held(tmp_path / "run") as holder:
        words = f"is in use. It is scored by process {holder.pid} on {socket.gethostname()} since 20"
        with pytest.raises(RunFailed, match=words), holding(tmp_path / "run"):
            pass
        holder.kill()
        holder.wait()
        assert json.loads((tmp_path / "run" / HOLDER).read_text())["pid"] == holder.pid
        with holding(tmp_path / "run"):  # what the dead left behind is no obstacle
            assert json.loads((tmp_path / "run" / HOLDER).read_text())["pid"] == os.getpid()
    assert not (tmp_path / "run" / HOLDER).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 1}', "\xff", "[" * 100_000])
def test_a_holder_that_cannot_be_read_still_holds(tmp_path: Path, text: str) -> None:
    with holding(tmp_path):
        (tmp_path / HOLDER).write_text(text, encoding="latin-1")
        with pytest.raises(RunFailed, match="By whom is not known"), holding(tmp_path):
            pass


def test_a_lock_is_let_go_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), holding(tmp_path):
        raise ZeroDivisionError
    with holding(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@pytest.mark.parametrize("private", [False, True])
def test_whose_the_lock_is(tmp_path: Path, private: bool) -> None:
    before = os.umask(0o022)
    try:
        with holding(tmp_path, private=private):
            assert (tmp_path / LOCK).stat().st_mode & 0o777 == (0o600 if private else 0o644)
    finally:
        os.umask(before)


def test_links_to_a_directory_are_held_with_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (tmp_path / "far" / "away").mkdir(parents=True)
    for name in (tmp_path / "link", tmp_path / "far" / "away" / ".." / ".." / "run"):
        with held(tmp_path / "run"), pytest.raises(RunFailed, match="is in use"), holding(name):
            pass
    with held(tmp_path / "link"), pytest.raises(RunFailed, match="is in use"), holding(tmp_path / "run"):
        pass


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(RunFailed, match="Could not write in"), holding(tmp_path / "run"):
        pass


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    texts = ("a red ball", "a blue cube", "a quiet night")
    for n in range(3):
        write_clip(folder / f"p{n}-0.mp4", gradient_frames(6, 48, 64, 40 * n + 40))
    lines = [json.dumps({"id": f"p{n}", "text": text}) + "\n" for n, text in enumerate(texts)]
    (folder / "suite.jsonl").write_text("".join(lines))
    return folder


def vbench(videos: Path, out: Path) -> tuple[str | Path, ...]:
    return ("vbench", "--subset", videos / "suite.jsonl", "--videos", videos, "--profile", "lite", "--out", out)


@pytest.mark.slow
def test_two_runs_at_one_directory(videos: Path, tmp_path: Path) -> None:
    """The first is stopped while it holds the directory, so that the others surely meet it."""
    run, link = tmp_path / "run", tmp_path / "link"
    link.symlink_to(run)
    command = [sys.executable, "-c", "from evalkit.cli import main; main()", *map(str, vbench(videos, run))]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (run / HOLDER).exists() or not (run / HOLDER).read_text():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)
    suite = ("--subset", videos / "suite.jsonl")
    others: dict[str, tuple[str | Path, ...]] = {
        "vbench": vbench(videos, run),
        "vbench, by another name": vbench(videos, link),
        "ablate": ("ablate", "registers", "--steps", "1", "--pretrain-steps", "1", *suite, "--out", link),
    }
    try:
        for args in others.values():
            refused(cli(*args, M4V_EVAL_CACHE=str(tmp_path / "cache")), f"It is scored by process {first.pid} on")
        refused(cli("report", run, "--out", tmp_path / "page.html"), "run.json")  # there is nothing to read yet
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert cli(*vbench(videos, tmp_path / "alone")).returncode == 0
    assert results(run) == results(tmp_path / "alone")


@pytest.mark.slow
def test_a_report_is_written_of_a_run_that_is_held(videos: Path, tmp_path: Path) -> None:
    assert cli(*vbench(videos, tmp_path / "run")).returncode == 0
    with held(tmp_path / "run"):
        done = cli("report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr


# --- clocks -----------------------------------------------------------------------------------------------------------

JUMPING = r"""
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const long offsets[] = {0, 500000000, -1700000000, 3600, -3600, 0, -1};

int clock_gettime(clockid_t clock, struct timespec *t) {
    struct timespec now;
    long failed = syscall(SYS_clock_gettime, clock, t);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
        t->tv_sec += offsets[(now.tv_sec * 50 + now.tv_nsec / 20000000) % 7];
    }
    return failed;
}

int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""
"""A C library's wall clock that jumps by years and hours, 50 times a second; the monotonic clock is left alone."""


@pytest.fixture(scope="module")
def jumping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "jumping.c").write_text(JUMPING)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "jumping.so", folder / "jumping.c"], check=True)
    return folder / "jumping.so"


def test_the_jumping_clock_jumps(jumping: Path) -> None:
    script = "import time; print(max(abs((time.sleep(0.02), time.time())[1] - 1.7e9) for _ in range(40)) > 1e9)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"LD_PRELOAD": str(jumping)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_clock_that_jumps_changes_nothing(videos: Path, jumping: Path, tmp_path: Path, workers: str) -> None:
    """Neither the results nor the waiting, for the command and all its children; files may be from 1970 and 2096."""
    copied = shutil.copytree(videos, tmp_path / "videos")
    for n, path in enumerate(sorted(copied.glob("*.mp4"))):
        os.utime(path, (4e9 * (n % 2), 4e9 * (n % 2)))
    for _ in range(2):  # the second finds everything done
        done = cli(*vbench(copied, tmp_path / "run"), "--workers", workers, LD_PRELOAD=str(jumping))
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 3 * (2 + 7)  # of each video its state, its facts, and seven scores
    assert cli(*vbench(copied, tmp_path / "alone")).returncode == 0
    assert results(tmp_path / "run") == results(tmp_path / "alone")
