"""Mutants of a valid file, fed to its reader.

    python -m tests.feed_mutants NAME COUNT SEED

reads COUNT mutants of the subject's file, each within a time limit and all within a memory limit, and prints as JSON
how many were read, how many refused, and every one that ended otherwise. A reader may return or raise its error, whose
text names the file; it may write nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.mutants import MUTATIONS
from tests.untrusted_files import SUBJECTS, Subject

SECONDS, MEMORY = 10, 2 * 2**30
"""Of the processor for one file, and memory that the reader takes beyond what the process holds when it begins."""
ASLEEP = 120
"""Seconds by the clock, for a reader that waits for something."""


class TookTooLong(BaseException):
    """Not an Exception, so that no reader takes it for a fault of the file."""


@contextlib.contextmanager
def limits(seconds: float = SECONDS, memory: int = MEMORY, asleep: float = ASLEEP) -> Iterator[None]:
    """Raise `TookTooLong` after some seconds of work, and MemoryError beyond some memory more than is in use."""

    def ring(*_: object) -> None:
        raise TookTooLong

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = [(number, signal.signal(number, ring)) for number in (signal.SIGPROF, signal.SIGALRM)]
    resource.setrlimit(resource.RLIMIT_AS, (in_use + memory, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, asleep)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before:
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder: mode and size."""
    return {str(p.relative_to(folder)): (p.lstat().st_mode, p.lstat().st_size) for p in sorted(folder.rglob("*"))}


def refusal(subject: Subject, root: Path) -> str | None:
    """The text of the reader's refusal; None if it read the file. Whatever else is raised passes."""
    try:
        with warnings.catch_warnings(action="ignore"):
            subject.read(root)
    except subject.errors as e:
        return str(e)
    return None


def names_it(said: str, root: Path, target: Path) -> bool:
    """Whether a refusal names the file, or the run that it belongs to."""
    return any(name in said for name in (str(root), target.name, target.parent.name))


def feed(name: str, count: int, seed: int) -> dict[str, Any]:
    """Feed a subject mutants of its file."""
    subject, draw = SUBJECTS[name], random.Random(f"{name} {seed}")
    read, refused, wrong = 0, 0, []
    with tempfile.TemporaryDirectory() as surroundings:
        root = Path(surroundings) / "case"
        root.mkdir()
        target = subject.make(root)
        valid = target.read_bytes()
        assert refusal(subject, root) is None, "the valid file is refused"
        before = listing(Path(surroundings))
        for k in range(count):
            mutant = MUTATIONS[subject.kinds[k % len(subject.kinds)]](valid, draw)
            target.write_bytes(mutant)
            fault = None
            try:
                with limits():
                    said = refusal(subject, root)
                read, refused = read + (said is None), refused + (said is not None)
                if said is not None and not names_it(said, root, target):
                    fault = f"names no file: {said}"
            except TookTooLong:
                fault = f"took more than {SECONDS} s"
            except Exception:  # noqa: BLE001 - whatever it is, it is what this looks for
                fault = traceback.format_exc(limit=-4)
            if fault is not None:
                wrong.append({"mutant": k, "bytes": repr(mutant[:200]), "fault": fault})
        target.write_bytes(valid)
        changed = set(before.items()) ^ set(listing(Path(surroundings)).items())
        if changed:
            wrong.append({"mutant": -1, "bytes": "", "fault": f"files changed: {changed}"})
    return {"subject": name, "read": read, "refused": refused, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(feed(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
