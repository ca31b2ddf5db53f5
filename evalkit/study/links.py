"""The personal links of a study, `links.csv`, and the digests that the plan keeps of their tokens."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

from evalkit.study.plan_file import LINKS, write_private


def digest(token: str) -> str:
    """What the plan holds of a token: its SHA-256."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def write_links(study: Path, admin: str, raters: Iterable[tuple[str, str]]) -> None:
    """Write the links for only their owner to read.

    Args:
        study: its directory.
        admin: token of the admin.
        raters: id and token of each.

    Raises:
        RunFailed: the directory cannot be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("who", "link"))
    rows.writerow(("admin", f"/admin/{admin}"))
    rows.writerows((id_, f"/r/{token}") for id_, token in raters)
    write_private(study / LINKS, text.getvalue().encode())


def read_links(study: Path) -> dict[str, str]:
    """Path of the link by rater, and of `admin`; empty where the table is missing (it may be kept elsewhere)."""
    try:
        with (study / LINKS).open(encoding="utf-8", newline="") as file:
            return {row["who"]: row["link"] for row in csv.DictReader(file) if row.get("who") and row.get("link")}
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
