"""The personal links of a study, `links.csv`."""

from __future__ import annotations

import csv
from pathlib import Path

from evalkit.study.plan_file import LINKS


def read_links(study: Path) -> dict[str, str]:
    """Path of the link by rater, and of `admin`; empty where the table is missing (it may be kept elsewhere)."""
    try:
        with (study / LINKS).open(encoding="utf-8", newline="") as file:
            return {row["who"]: row["link"] for row in csv.DictReader(file) if row.get("who") and row.get("link")}
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
