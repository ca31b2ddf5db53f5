"""The table of pairs: `rater,prompt_id,axis,model_a,model_b,choice`, a row a comparison.

`choice` is `a`, `b` or `tie`; or a level from -2 (a is much better) to 2 (b is much better), with 0 for no difference.
"""

from __future__ import annotations

from collections.abc import Iterable

from evalkit.study.forms.csv_rows import Faults, Row, Sheet, guarded, whole
from evalkit.study.forms.entries import Entries, Entry, prompt_texts, seed_of
from evalkit.study.types import Ballots, Protocol, Vote

COLUMNS: tuple[str, ...] = ("rater", "prompt_id", "axis", "model_a", "model_b", "choice")
OPTIONAL: tuple[str, ...] = ("seed", "prompt")
WORDS = {"a": -1, "tie": 0, "b": 1}
MAX_LEVEL = 2

_NAMES = {level: word for word, level in WORDS.items()}


def read_pairs(sheet: Sheet, faults: Faults) -> Entries:
    """The votes of a table of pairs; what is wrong goes to `faults`."""
    entries: list[Entry] = []
    protocol: Protocol | None = None
    for row in sheet.rows:
        found = _choice(row)
        seed, readable = seed_of(row, sheet.file, faults)
        if found is None:
            said = f"the choice {row['choice']!r} is neither a, b or tie, nor a level from -2 to 2"
            faults.add(sheet.file, row.line, said)
            continue
        kind, level = found
        protocol = protocol or kind
        if kind != protocol:
            said = f"the choice {row['choice']!r} mixes words (a, b, tie) and levels (-2 to 2) in one table"
            faults.add(sheet.file, row.line, said)
        elif row["model_a"] == row["model_b"]:
            faults.add(sheet.file, row.line, f"{row['model_a']} is compared with itself")
        elif readable:
            entries.append(_entry(row, sheet.file, seed, protocol, level))
    return Entries(sheet.file, protocol, tuple(entries), prompt_texts(sheet.rows, sheet.file, faults))


def _choice(row: Row) -> tuple[Protocol, int] | None:
    word = row["choice"].lower()
    if word in WORDS:
        return "pairwise", WORDS[word]
    level = whole(word)
    return None if level is None or abs(level) > MAX_LEVEL else ("likert5", level)


def _entry(row: Row, file: str, seed: int | None, protocol: Protocol, level: int) -> Entry:
    models = (row["model_a"], row["model_b"])
    likert = level if protocol == "likert5" else None
    vote = Vote(row["rater"], row["prompt_id"], seed, row["axis"], models, level_ranks(level), likert)
    question = (row["rater"], row["prompt_id"], seed, row["axis"], frozenset(models))
    return Entry(vote, file, row.line, question)


def level_ranks(level: int) -> tuple[int, int]:
    """Ranks of two clips of which the first is better (negative), or the second, or neither."""
    return (1 + (level > 0), 1 + (level < 0))


def pair_rows(ballots: Ballots) -> Iterable[dict[str, str | int | None]]:
    """Votes as rows of such a table."""
    for vote in ballots.votes:
        first, second = vote.ranks
        yield {
            "rater": guarded(vote.rater),
            "prompt_id": guarded(vote.prompt_id),
            "seed": vote.seed,
            "axis": guarded(vote.axis),
            "model_a": guarded(vote.models[0]),
            "model_b": guarded(vote.models[1]),
            # Levels are numbers and need no guard; words cannot be formulas.
            "choice": vote.level if vote.level is not None else _NAMES[(first > second) - (first < second)],
            "prompt": guarded(ballots.prompts.get(vote.prompt_id, "")),
        }
