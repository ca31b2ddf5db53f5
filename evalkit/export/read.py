"""Which kind of run a directory holds."""

from __future__ import annotations

from pathlib import Path

from evalkit.ablation_record import is_ablation
from evalkit.export.entry import Entry
from evalkit.records import load_run


def read_entry(path: Path) -> Entry:
    """The run in a directory: an ablation, or a scored run of VBench or a sister suite.

    Raises:
        UserError: it holds neither, or a record is damaged.
    """
    if is_ablation(path):
        from evalkit.export.ablated import ablation_entry

        return ablation_entry(path)
    from evalkit.export.scored import scored_entry

    return scored_entry(load_run(path, whole=True))
