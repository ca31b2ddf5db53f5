"""The study directory, and its plan on disk.

`STUDY/` holds `study.json` (the plan: it lifts the blinding, so raters must not see it), `clips/` (blinded copies of
the videos), `links.csv` (the raters' personal links and the admin's), `secret` (signs sessions), and `votes.sqlite`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.records import read_json
from evalkit.study.types import Axis, Plan, RaterPlan, Screen, StudyClip

PLAN_SCHEMA = "m4v-eval/study-plan/1"
PLAN, CLIPS, LINKS, SECRET, VOTES, LOCK = "study.json", "clips", "links.csv", "secret", "votes.sqlite", ".lock"
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
    record.pop("schema")
    try:
        return _plan(record)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise UserError(
            f"{study / PLAN} is damaged ({type(e).__name__}: {e}).", "Restore it from a copy; votes refer to it."
        ) from None


def _plan(record: Mapping[str, Any]) -> Plan:
    return Plan(
        **{
            **record,
            "models": tuple(record["models"]),
            "axes": tuple(Axis(**axis) for axis in record["axes"]),
            "clips": {id_: StudyClip(**clip) for id_, clip in record["clips"].items()},
            "raters": tuple(_rater(rater) for rater in record["raters"]),
        }
    )


def _rater(record: Mapping[str, Any]) -> RaterPlan:
    screens = tuple(Screen(s["kind"], s["prompt_id"], tuple(s["clips"])) for s in record["screens"])
    return RaterPlan(record["id"], record["token_sha256"], screens)
