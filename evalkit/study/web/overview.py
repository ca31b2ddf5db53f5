"""What the admin sees: how far everybody is, who fails attention checks, and how well raters agree so far."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.study.links import read_links
from evalkit.study.reveal import reveal
from evalkit.study.types import Axis, Ballots, Estimate
from evalkit.study.votes import Progress
from evalkit.study.web.served import Served

LOG_SCHEMA = "m4v-eval/study-votes/1"
N_RESAMPLES = 300
"""For the intervals of the agreement: rough ones, while people wait for a page."""


@dataclass(frozen=True, slots=True)
class RaterRow:
    """One rater.

    Args:
        id: pseudonym.
        done: screens finished.
        total: screens planned.
        seen: last time, UTC; None if never.
        failed: attention checks failed.
        checks: attention checks answered.
        excluded: why the answers do not count; None if they do.
    """

    id: str
    done: int
    total: int
    seen: str | None
    failed: int
    checks: int
    excluded: str | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well raters agree on one question: Krippendorff's alpha; None if no two have judged the same."""

    title: str
    n_votes: int
    alpha: Estimate | None


@dataclass(frozen=True, slots=True)
class Overview:
    """The study so far."""

    raters: tuple[RaterRow, ...]
    ballots: Ballots
    agreement: tuple[Agreement, ...]

    @property
    def n_done(self) -> int:
        return sum(row.done for row in self.raters)

    @property
    def n_planned(self) -> int:
        return sum(row.total for row in self.raters)

    @property
    def n_finished(self) -> int:
        return sum(row.done == row.total for row in self.raters)

    @property
    def n_begun(self) -> int:
        return self.ballots.screening.n_raters


def overview(here: Served) -> Overview:
    """Read the votes and count.

    Raises:
        RunFailed: the votes cannot be read.
        UserError: they are damaged.
    """
    progress = here.store.progress()
    ballots = reveal(here.plan, here.store.answers())
    rows = tuple(_row(here, id_, progress.get(id_, Progress()), ballots) for id_ in here.raters)
    return Overview(rows, ballots, tuple(_agreement(ballots, axis) for axis in here.plan.axes))


def _agreement(ballots: Ballots, axis: Axis) -> Agreement:
    from evalkit.study.statistics.agreement import study_alpha
    from evalkit.study.statistics.tally import tally

    votes = [vote for vote in ballots.votes if vote.axis == axis.name]
    if not votes:
        return Agreement(axis.title, 0, None)
    alpha = study_alpha(tally(votes, ballots.models, ballots.protocol), n_resamples=N_RESAMPLES, seed=0)
    return Agreement(axis.title, len(votes), alpha)


def _row(here: Served, rater: str, progress: Progress, ballots: Ballots) -> RaterRow:
    times = [at for at in (progress.last_at, here.seen.get(rater)) if at]
    failed, checks = ballots.screening.checks.get(rater, (0, 0))
    return RaterRow(
        id=rater,
        done=len(progress.done),
        total=len(here.screens(rater)),
        seen=max(times)[:16].replace("T", " ") if times else None,
        failed=failed,
        checks=checks,
        excluded=ballots.screening.excluded.get(rater),
    )


def open_links(here: Served) -> str:
    """The links of raters who have not finished, as CSV: to remind them."""
    progress = here.store.progress()
    links = read_links(here.study)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("who", "link", "done", "of"))
    for rater, plan in here.raters.items():
        done = len(progress.get(rater, Progress()).done)
        if done < len(plan.screens):
            link = f"{here.options.public_url or ''}{links[rater]}" if rater in links else ""
            writer.writerow((rater, link, done, len(plan.screens)))
    return stream.getvalue()


def everything(here: Served) -> str:
    """All that was ever submitted, with the plan that gives it meaning, as JSON; no tokens."""
    plan: dict[str, Any] = asdict(here.plan)
    plan.pop("admin_sha256")
    for rater in plan["raters"]:
        rater.pop("token_sha256")
    log: Mapping[str, Any] = here.store.log()
    return json.dumps({"schema": LOG_SCHEMA, "plan": plan, **log}, ensure_ascii=False, indent=1)
