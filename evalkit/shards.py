"""Parts of a run that are scored apart, each in a folder and with a journal of its own, and taken over by the run.

    RUN/shards/2-of-8/results.jsonl   what the third of eight shards found

No two processes ever append to one file, so that shards may run on different hosts that share nothing but the folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from evalkit.errors import RunFailed
from evalkit.files import write_atomically
from evalkit.job import Shard
from evalkit.lock import holding
from evalkit.run_log import LOG
from evalkit.store import Journal, read_journal
from evalkit.timings import TIMINGS
from evalkit.types import Sample

SHARDS, JOURNAL = "shards", "results.jsonl"


def folder(run: Path, shard: Shard) -> Path:
    return run / SHARDS / f"{shard.index}-of-{shard.count}"


def part(samples: Sequence[Sample], shard: Shard) -> list[Sample]:
    """The samples of a shard: prompts are dealt out in turn, like cards.

    VBench's list stands in the order of its dimensions, some of which cost many times what others do: neighbours must
    not go together. All samples are in just one shard; a prompt's stay together, for the static filter looks at them
    one after the other.
    """
    numbers: dict[str, int] = {}
    for sample in samples:
        numbers.setdefault(sample.prompt.id, len(numbers))
    return [sample for sample in samples if numbers[sample.prompt.id] % shard.count == shard.index]


def take_over(run: Path, journal: Journal) -> int:
    """Copy to the run's journal what its shards found; the folders of shards that nobody writes to are removed.

    Returns:
        How many records were new.
    """
    found = 0
    for shard in sorted((run / SHARDS).glob("*/")):
        found += _copy(read_journal(shard / JOURNAL), journal)
        try:
            with holding(shard):
                found += _copy(read_journal(shard / JOURNAL), journal)  # what came in between
                _append(shard / TIMINGS, run / TIMINGS)
                _append(shard / LOG, run / LOG)
                (shard / JOURNAL).unlink(missing_ok=True)
        except RunFailed:  # it is still being written, or not ours to remove
            continue
        shutil.rmtree(shard, ignore_errors=True)
    return found


def _copy(records: Iterable[tuple[str, dict[str, object]]], journal: Journal) -> int:
    found = 0
    for key, record in records:
        if journal.get(key) != record:
            journal.put(key, record)
            found += 1
    return found


def _append(source: Path, target: Path) -> None:
    if source.exists():
        before = target.read_bytes() if target.exists() else b""
        write_atomically(target, before + source.read_bytes())
        source.unlink()
