"""Where a run keeps what belongs to the cluster.

RUN/cluster.json        what was submitted
RUN/logs/               a log for every job, called after its task
RUN/.submitit/          submitit's own files (pickled tasks, batch scripts)
RUN/.submitit/notes/    what each job said of itself
"""

from __future__ import annotations

import re
from pathlib import Path

LEDGER = "cluster.json"


def submitit_folder(run: Path) -> Path:
    return run / ".submitit"


def notes_folder(run: Path) -> Path:
    return submitit_folder(run) / "notes"


def logs_folder(run: Path) -> Path:
    return run / "logs"


def file_name(stage: str, name: str) -> str:
    """`score`, `2 of 8` -> `score-2-of-8`."""
    return f"{stage}-{re.sub(r'[^A-Za-z0-9._+-]+', '-', name)}".rstrip("-")


def whole_path(name: str) -> str:
    """A file's whole path, for jobs begin in another folder; what is no file (a built-in name, say) stays as it is."""
    path = Path(name)
    return str(path.resolve()) if path.suffix and path.is_file() else name
