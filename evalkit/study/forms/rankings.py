"""The table of rankings: `rater,prompt_id,axis,model,rank`, a row for each clip of a ranking.

`screen` tells several rankings by one rater of one prompt and axis apart, where each shows only some of the models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from evalkit.study.answers import competition
from evalkit.study.forms.csv_rows import Faults, Row, Sheet, guarded, whole
from evalkit.study.forms.entries import Entries, Entry, prompt_texts, seed_of
from evalkit.study.types import Ballots, Vote

COLUMNS: tuple[str, ...] = ("rater", "prompt_id", "axis", "model", "rank")
OPTIONAL: tuple[str, ...] = ("seed", "screen", "prompt")

_Question = tuple[str, str, int | None, str, str]
_Clips = dict[str, tuple[int | None, int]]  # rank (None if it cannot be read) and line by model


def read_rankings(sheet: Sheet, ties: bool, faults: Faults) -> Entries:
    """The votes of a table of rankings; what is wrong goes to `faults`.

    Args:
        sheet: its rows.
        ties: whether two clips may share a rank: 1, 1, 3 and 1, 1, 2 both mean that the first two are equal.
        faults: collects what is wrong.
    """
    rankings: dict[_Question, _Clips] = {}
    for row in sheet.rows:
        seed, readable = seed_of(row, sheet.file, faults)
        rank = _rank(row, sheet.file, faults) if readable else None
        question = (row["rater"], row["prompt_id"], seed, row["axis"], row.get("screen"))
        _place(rankings.setdefault(question, {}), row, rank, sheet.file, faults)
    entries = tuple(_entries(rankings, sheet, ties, faults))
    return Entries(sheet.file, "rank", entries, prompt_texts(sheet.rows, sheet.file, faults))


def _rank(row: Row, file: str, faults: Faults) -> int | None:
    rank = whole(row["rank"])
    if rank is None or rank < 1:
        faults.add(file, row.line, f"the rank {row['rank']!r} is no whole number from 1 on")
        return None
    return rank


def _place(clips: _Clips, row: Row, rank: int | None, file: str, faults: Faults) -> None:
    first = clips.setdefault(row["model"], (rank, row.line))[1]
    if first != row.line:
        faults.add(
            file,
            row.line,
            f"rater {row['rater']} ranks {row['model']} twice on {row['axis']} of prompt {row['prompt_id']}"
            f" (first in line {first}): a model twice, or a question answered twice",
        )


def _entries(rankings: Mapping[_Question, _Clips], sheet: Sheet, ties: bool, faults: Faults) -> Iterator[Entry]:
    for question, clips in rankings.items():
        ranks = [rank for rank, _ in clips.values() if rank is not None]
        line = min(line for _, line in clips.values())
        if len(ranks) < len(clips):
            continue  # already a fault
        rater, prompt_id, seed, axis, _ = question
        # Rows that could not be read may be what is missing here: only whole files are searched for holes.
        reason = _tied(ranks, ties) or (_hole(ranks) if sheet.complete else None)
        if reason:
            faults.add(sheet.file, line, f"rater {rater}, prompt {prompt_id}, {axis}: {reason}")
            continue
        vote = Vote(rater, prompt_id, seed, axis, tuple(clips), competition(ranks))
        yield Entry(vote, sheet.file, line, question)


def _tied(ranks: Sequence[int], ties: bool) -> str | None:
    if ties or len(set(ranks)) == len(ranks):
        return None
    return f"the ranks {_listed(ranks)} hold a tie (if the study allowed ties, say so with --ties)"


def _hole(ranks: Sequence[int]) -> str | None:
    if len(ranks) < 2:
        return "only one model is ranked; a ranking has two or more"
    if tuple(ranks) in (competition(ranks), _dense(ranks)):
        return None
    missing = min(set(range(1, len(set(ranks)) + 1)) - set(ranks))
    return f"the ranks {_listed(ranks)} have a hole: no clip has rank {missing}"


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))


def _dense(ranks: Sequence[int]) -> tuple[int, ...]:
    place = {rank: n for n, rank in enumerate(sorted(set(ranks)), 1)}
    return tuple(place[rank] for rank in ranks)


def ranking_rows(ballots: Ballots) -> Iterable[dict[str, str | int | None]]:
    """Votes as rows of such a table, in the order of the votes and of the clips shown."""
    asked = Counter(map(_question, ballots.votes))
    met: Counter[tuple[str, str, int | None, str]] = Counter()
    for vote in ballots.votes:
        question = _question(vote)
        met[question] += 1
        screen = met[question] if asked[question] > 1 else None
        for model, rank in zip(vote.models, vote.ranks, strict=True):
            yield {
                "rater": guarded(vote.rater),
                "prompt_id": guarded(vote.prompt_id),
                "seed": vote.seed,
                "axis": guarded(vote.axis),
                "screen": screen,
                "model": guarded(model),
                "rank": rank,
                "prompt": guarded(ballots.prompts.get(vote.prompt_id, "")),
            }


def _question(vote: Vote) -> tuple[str, str, int | None, str]:
    return vote.rater, vote.prompt_id, vote.seed, vote.axis
