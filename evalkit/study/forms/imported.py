"""An imported study: votes that came as tables, checked once and kept in the form that export writes.

`STUDY/` holds `votes.csv` (all votes, models named) and `import.json` (where they came from). It has no plan.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit import provenance
from evalkit.errors import RunFailed, UserError
from evalkit.files import hash_file, write_atomically
from evalkit.records import read_json
from evalkit.study.forms import read_votes, write_csv
from evalkit.study.types import Ballots

IMPORT_SCHEMA = "m4v-eval/study-import/1"
IMPORT, VOTES = "import.json", "votes.csv"


def is_import(path: Path) -> bool:
    """Whether a directory holds an imported study."""
    return (path / IMPORT).is_file()


def import_votes(files: Sequence[Path], folder: Path, *, ties: bool = False, command: Sequence[str] = ()) -> Ballots:
    """Check tables of votes and keep them as a study, whole or not at all.

    Args:
        files: tables of one form; together they are one study.
        folder: to make.
        ties: whether clips of a ranking may share a rank.
        command: for the record.

    Raises:
        UserError: a table has faults, or the folder exists.
        RunFailed: it cannot be written.
    """
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists.", "Choose another --out; an import never changes a study.")
    ballots = read_votes(files, ties=ties)
    record = {
        "schema": IMPORT_SCHEMA,
        "protocol": ballots.protocol,
        "ties": ballots.ties,
        "sources": [{"name": file.name, "sha256": hash_file(file)} for file in files],
        "n_votes": len(ballots.votes),
        "n_raters": ballots.screening.n_raters,
        "n_prompts": len({vote.prompt_id for vote in ballots.votes}),
        "models": list(ballots.models),
        "axes": list(ballots.axes),
        "command": list(command),
        "packages": provenance.packages(),
    }
    _write(folder, ballots, record)
    return replace(ballots, source=folder.name)


def _write(folder: Path, ballots: Ballots, record: dict[str, Any]) -> None:
    """Make the folder beside its place and move it there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            write_csv(ballots, new / VOTES)
            write_atomically(new / IMPORT, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
            new.chmod(0o755)
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    except OSError as e:
        raise RunFailed(f"Could not write {folder}: {e.strerror or e}.", "Free space or choose another --out.") from e


def load_import(folder: Path) -> Ballots:
    """Read an imported study.

    Raises:
        UserError: it is damaged.
    """
    record = read_json(folder / IMPORT, IMPORT_SCHEMA)
    ballots = read_votes([folder / VOTES], ties=bool(record.get("ties")))
    if (ballots.protocol, len(ballots.votes)) != (record.get("protocol"), record.get("n_votes")):
        raise UserError(
            f"{folder / VOTES} is not what was imported: {len(ballots.votes)} votes ({ballots.protocol}), not"
            f" {record.get('n_votes')} ({record.get('protocol')}).",
            "Import the tables again.",
        )
    return replace(ballots, source=folder.resolve().name)
