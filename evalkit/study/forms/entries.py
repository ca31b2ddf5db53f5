"""Votes as they are read from tables: each with the place it came from, and nobody asked the same question twice."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from evalkit.study.forms.csv_rows import Faults, Row, whole
from evalkit.study.types import Protocol, Vote


@dataclass(frozen=True, slots=True)
class Entry:
    """A vote and where it stands.

    Args:
        vote: the vote.
        file: path of the file as given.
        line: on which it begins.
        question: what was asked of this rater; nobody answers the same question twice.
    """

    vote: Vote
    file: str
    line: int
    question: Hashable


@dataclass(frozen=True, slots=True)
class Entries:
    """The votes of one file; `protocol` is None if it could not be told."""

    file: str
    protocol: Protocol | None
    entries: tuple[Entry, ...]
    prompts: dict[str, str]


def seed_of(row: Row, file: str, faults: Faults) -> tuple[int | None, bool]:
    """The seed of a row, and whether the cell can be read (it may be empty)."""
    cell = row.get("seed")
    seed = whole(cell)
    if cell and seed is None:
        faults.add(file, row.line, f"the seed {cell!r} is no whole number")
    return seed, not cell or seed is not None


def prompt_texts(rows: Sequence[Row], file: str, faults: Faults) -> dict[str, str]:
    """Text by prompt id, where rows give it; two texts for one prompt are a fault."""
    texts: dict[str, str] = {}
    for row in rows:
        text = row.get("prompt")
        if text and texts.setdefault(row["prompt_id"], text) != text:
            faults.add(file, row.line, f"prompt {row['prompt_id']} has another text here than further up")
    return texts


def asked_once(entries: Sequence[Entry], faults: Faults) -> None:
    """Find raters who answer the same question twice: the same screen, or the same models of one prompt again."""
    seen: dict[Hashable, Entry] = {}
    for entry in entries:
        vote = entry.vote
        same_models = (vote.rater, vote.prompt_id, vote.seed, vote.axis, frozenset(vote.models))
        first = next((seen[key] for key in (entry.question, same_models) if key in seen), None)
        if first is not None:
            where = f"line {first.line}" if first.file == entry.file else f"{first.file}, line {first.line}"
            faults.add(
                entry.file,
                entry.line,
                f"rater {vote.rater} answers {vote.axis} of prompt {vote.prompt_id} a second time (first in {where})",
            )
        seen.setdefault(entry.question, entry)
        seen.setdefault(same_models, entry)
