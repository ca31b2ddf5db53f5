"""Ending all jobs of a run; what they have finished stays."""

from __future__ import annotations

from pathlib import Path

from evalkit.cluster import notes
from evalkit.cluster.launch import alive
from evalkit.cluster.ledger import Entry, read_ledger
from evalkit.cluster.states import cancel_jobs
from evalkit.errors import UserError


def cancel(run: Path) -> list[Entry]:
    """End every job of a run that is pending or running; a second time there is nothing left to end.

    Returns:
        The jobs that were ended.

    Raises:
        UserError: nothing was submitted for this run.
        RunFailed: the scheduler refuses.
    """
    run = run.resolve()
    submissions = read_ledger(run)
    if not submissions:
        raise UserError(f"Nothing was submitted to a cluster for {run}.", "Runs on this host end with Ctrl-C.")
    found = alive(run, submissions)
    for executor in sorted({executor for executor, _ in found}):
        cancel_jobs(executor, [str(one.entry.job) for which, one in found if which == executor])
    for _, one in found:
        notes.cancelled(run, one.entry.stage, one.entry.name, str(one.entry.job))
    return [one.entry for _, one in found]
