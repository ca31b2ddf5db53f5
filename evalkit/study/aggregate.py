"""From a study directory or a table to figures, whichever of the forms it has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit import provenance
from evalkit.errors import UserError
from evalkit.files import hash_file
from evalkit.study.forms import as_csv, read_csv
from evalkit.study.forms.imported import IMPORT, is_import, load_import
from evalkit.study.forms.mean_ranks import MeanRanks
from evalkit.study.plan_file import PLAN
from evalkit.study.published import conclude_published
from evalkit.study.published.rank_faults import LEFT_OUT
from evalkit.study.reveal import load_ballots
from evalkit.study.statistics.conclude import conclude
from evalkit.study.types import Ballots, StudyResult


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The figures of a study and what they came from.

    Args:
        result: the figures.
        ballots: the votes; None for a table of mean ranks.
        missing: what could not be aggregated.
        inputs: sha256 of the plan or the table by name, and of the votes that count as `--csv` writes them (the
            database itself has part of them in its journal while the study is served).
    """

    result: StudyResult
    ballots: Ballots | None
    missing: tuple[str, ...]
    inputs: dict[str, str]

    def provenance(self, command: list[str], *, seed: int) -> dict[str, Any]:
        """What the figures came from, for their record."""
        return {
            "sha256": self.inputs,
            "command": command,
            "seed": seed,
            "packages": provenance.packages(),
            "git": provenance.git(),
        }


def read_source(source: Path, *, ties: bool = False) -> Ballots | MeanRanks:
    """Read a planned study, an imported one, or a table in one of the documented forms.

    Raises:
        UserError: it is none of them, or holds faults.
    """
    if not source.is_dir():
        return read_csv(source, ties=ties)
    return load_import(source) if is_import(source) else load_ballots(source)


def aggregate(source: Path, *, ties: bool = False, as_printed: bool = False, seed: int = 0) -> Aggregate:
    """The figures of a study or a published table.

    Args:
        source: study directory or CSV file.
        ties: whether rankings in a file may hold ties (a study knows for itself).
        as_printed: use the misprints of a published table as they are.
        seed: of the resampling.

    Raises:
        UserError: it cannot be read, holds faults, or no vote counts.
    """
    found = read_source(source, ties=ties)
    if isinstance(found, MeanRanks):
        result, ballots = conclude_published(found, as_printed=as_printed, seed=seed), None
    else:
        if as_printed:
            raise UserError(f"{source} holds votes; --as-printed is for tables of mean ranks.", "Leave it out.")
        if not found.votes:
            raise _nothing(source, found)
        result, ballots = conclude(found, seed=seed), found
    return Aggregate(result, ballots, tuple(_missing(result)), _inputs(source, ballots))


def _inputs(source: Path, ballots: Ballots | None) -> dict[str, str]:
    files = [source / PLAN, source / IMPORT] if source.is_dir() else [source]
    hashes = {path.name: hash_file(path) for path in files if path.is_file()}
    votes = {} if ballots is None else {"votes": hashlib.sha256(as_csv(ballots).encode()).hexdigest()}
    return hashes | votes


def _nothing(source: Path, ballots: Ballots) -> UserError:
    screening = ballots.screening
    if not screening.n_raters:
        return UserError(f"{source} has no votes yet.", f"Serve it with `m4v-eval study serve {source}`.")
    return UserError(
        f"{source} has no vote that counts (raters who answered: {screening.n_raters}; excluded for failed attention"
        f" checks: {len(screening.excluded)}).",
        "Collect votes of more raters.",
    )


def _missing(result: StudyResult) -> Iterator[str]:
    """What could not be aggregated, in words."""
    for axis in result.axes:
        if not axis.n_votes:
            yield f"{axis.axis} has no votes"
            continue
        unseen = [standing.model for standing in axis.standings if not standing.n]
        if unseen:
            yield f"{', '.join(unseen)} has no votes on {axis.axis}"
    for fault in result.faults:
        if fault.repair == LEFT_OUT:
            yield f"{fault.where}: {fault.text}"
