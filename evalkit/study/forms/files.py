"""Votes and mean ranks as CSV, in three forms that are told apart by their headers.

- rankings: `rater,prompt_id,axis,model,rank`, a row for each clip of a ranking, 1 is best; also `seed,screen,prompt`;
- pairs: `rater,prompt_id,axis,model_a,model_b,choice`, with `a`, `b`, `tie` or a level from -2 (a is much better) to 2;
  also `seed,prompt`;
- mean ranks: `prompt_id,axis,model,mean_rank`, without raters; also `source,note`.

Columns may stand in any order. Files are UTF-8 with a header. White space around a cell does not count. Text that
begins with `=`, `+`, `-`, `@` or an apostrophe is written with an apostrophe in front, so that no spreadsheet runs it
as a formula; reading takes it off again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.study.forms import mean_ranks, pairs, rankings
from evalkit.study.forms.csv_rows import Faults, Sheet, read_sheet
from evalkit.study.forms.entries import Entries, asked_once
from evalkit.study.forms.mean_ranks import MeanRanks
from evalkit.study.types import Ballots, Protocol, Screening

_FORMS = (
    ("rankings", rankings.COLUMNS, rankings.OPTIONAL),
    ("pairs", pairs.COLUMNS, pairs.OPTIONAL),
    ("mean ranks", mean_ranks.COLUMNS, mean_ranks.OPTIONAL),
)
FORMS_TEXT = "\n".join(
    f"  {name}: {','.join(columns)} (and, if you like, {', '.join(optional)})" for name, columns, optional in _FORMS
)


def read_csv(path: Path, *, ties: bool = False) -> Ballots | MeanRanks:
    """Read a table in one of the three forms.

    Args:
        path: the file.
        ties: whether clips of a ranking may share a rank.

    Raises:
        UserError: the file cannot be read, has another header, or rows with faults; all of them are counted and the
            first ten named.
    """
    faults = Faults()
    sheet = read_sheet(path, faults)
    if _form(sheet) == "mean ranks":
        table = mean_ranks.read_mean_ranks(sheet, faults)
        faults.refuse()
        if not table.cells:
            raise _empty(sheet.file)
        return table
    return _ballots((_entries(sheet, ties, faults),), faults, ties)


def read_votes(paths: Sequence[Path], *, ties: bool = False) -> Ballots:
    """Read the votes of one or several tables of the same form as one study.

    Raises:
        UserError: as `read_csv`; a table of mean ranks; tables of different forms; a rater who answers the same
            question twice, be it in two files.
    """
    twice = next((path for n, path in enumerate(paths) if path.resolve() in [p.resolve() for p in paths[:n]]), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice.", "Give each file once.")
    faults = Faults()
    read = []
    for path in paths:
        sheet = read_sheet(path, faults)
        if _form(sheet) == "mean ranks":
            raise UserError(
                f"{path} holds mean ranks, not votes of raters.", "Give it to `m4v-eval study aggregate` as it is."
            )
        read.append(_entries(sheet, ties, faults))
    return _ballots(read, faults, ties)


def _form(sheet: Sheet) -> str:
    found = set(sheet.columns)
    for name, columns, optional in _FORMS:
        if found >= set(columns) and found <= {*columns, *optional}:
            return name
    header = ", ".join(sheet.columns) or "nothing"
    hint = " Its cells seem to be separated by semicolons; save it with commas." if ";" in header else ""
    raise UserError(
        f"{sheet.file}, line 1: the header ({header[:300]}) is none of the three forms of a table.{hint}",
        f"Give the file one of these headers:\n{FORMS_TEXT}",
    )


def _entries(sheet: Sheet, ties: bool, faults: Faults) -> Entries:
    if _form(sheet) == "rankings":
        return rankings.read_rankings(sheet, ties, faults)
    return pairs.read_pairs(sheet, faults)


def _ballots(read: Sequence[Entries], faults: Faults, ties: bool) -> Ballots:
    entries = [entry for one in read for entry in one.entries]
    asked_once(entries, faults)
    faults.refuse()
    for one in read:
        if not one.entries:
            raise _empty(one.file)
    protocol = _protocol(read)
    votes = tuple(entry.vote for entry in entries)
    return Ballots(
        source=", ".join(Path(one.file).name for one in read),
        protocol=protocol,
        ties=ties or protocol != "rank",
        models=tuple(dict.fromkeys(model for vote in votes for model in vote.models)),
        axes=tuple(dict.fromkeys(vote.axis for vote in votes)),
        votes=votes,
        screening=Screening(n_raters=len({vote.rater for vote in votes})),
        prompts=_prompts(read),
    )


def _prompts(read: Sequence[Entries]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for one in read:
        for id_, text in one.prompts.items():
            if texts.setdefault(id_, text) != text:
                raise UserError(
                    f"{one.file} gives prompt {id_} another text than the file before.",
                    "Merge votes on one suite only.",
                )
    return texts


def _protocol(read: Sequence[Entries]) -> Protocol:
    first = read[0]
    other = next((one for one in read if one.protocol != first.protocol), None)
    if other is not None or first.protocol is None:
        said = "" if other is None else f"{first.file} holds {first.protocol} votes and {other.file} {other.protocol}."
        raise UserError(said, "Give the votes of one protocol.")
    return first.protocol


def _empty(file: str) -> UserError:
    return UserError(f"{file} has a header and no rows.", "Give a table with at least one row.")


def write_csv(ballots: Ballots, to: Path | TextIO) -> None:
    """Write votes, with the models named, in the form of their protocol; `read_csv` gives the same votes.

    Raises:
        RunFailed: the file cannot be written.
    """
    if isinstance(to, Path):
        write_atomically(to, as_csv(ballots).encode())
    else:
        to.write(as_csv(ballots))


def as_csv(ballots: Ballots) -> str:
    """The text of that table: `seed`, `screen` and `prompt` only where a row has one."""
    if ballots.protocol == "rank":
        rows = list(rankings.ranking_rows(ballots))
        columns, optional = rankings.COLUMNS, rankings.OPTIONAL
    else:
        rows = list(pairs.pair_rows(ballots))
        columns, optional = pairs.COLUMNS, pairs.OPTIONAL
    used = tuple(column for column in optional if any(row.get(column) not in (None, "") for row in rows))
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, (*columns, *used), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
