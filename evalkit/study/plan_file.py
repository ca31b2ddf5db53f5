"""The study directory, and its plan on disk.

`STUDY/` holds `study.json` (the plan: it lifts the blinding, so raters must not see it), `clips/` (blinded copies of
the videos), `links.csv` (the raters' personal links and the admin's), `secret` (signs sessions), and `votes.sqlite`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.records import read_json
from evalkit.study.types import Plan
from evalkit.untrusted import shown

PLAN_SCHEMA = "m4v-eval/study-plan/1"
PLAN, CLIPS, LINKS, SECRET, VOTES = "study.json", "clips", "links.csv", "secret", "votes.sqlite"
PRIVATE = 0o600


def is_study(path: Path) -> bool:
    """Whether a directory holds a plan."""
    return (path / PLAN).is_file()


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read.

    Raises:
        RunFailed: the folder cannot be written.
    """
    write_atomically(path, data, mode=PRIVATE)


def save_plan(study: Path, plan: Plan) -> None:
    """Write `study.json`.

    Raises:
        RunFailed: the folder cannot be written.
    """
    text = json.dumps({"schema": PLAN_SCHEMA, **asdict(plan)}, ensure_ascii=False, indent=1)
    write_private(study / PLAN, text.encode())


def load_plan(study: Path) -> Plan:
    """Read `study.json`.

    Raises:
        UserError: the directory holds no study, or a damaged one.
    """
    if not is_study(study):
        raise UserError(f"{study} holds no study.", "Give a directory that `m4v-eval study new --out` has made.")
    record = read_json(study / PLAN, PLAN_SCHEMA)
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Plan).validate_json(json.dumps(record), strict=True)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        place = shown(".".join(str(part)[:60] for part in first["loc"]))
        raise UserError(
            f"{study / PLAN} is damaged ({place}: {first['msg']}).", "Restore it from a copy; votes refer to it."
        ) from None
