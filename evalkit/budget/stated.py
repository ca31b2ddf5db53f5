"""What is reckoned with where nothing was measured: each figure with its source, none of them this machine's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evalkit.budget.rates import Affine, Rate, Rates
from evalkit.budget.work import Work, work_of
from evalkit.errors import UserError
from evalkit.types import Profile

HOUR = 3600.0
M4V = "M4V supplement C.1"


@dataclass(frozen=True, slots=True)
class Published:
    """A published cost of a whole evaluation.

    Args:
        suite: that was scored.
        hours: A100-hours a model.
        quote: what the source says.
    """

    suite: str
    hours: float
    quote: str

    def per_result(self) -> float:
        """Seconds of one video in one dimension, if all cost the same."""
        return self.hours * HOUR / sum(work_of(self.suite, "official").results.values())


PAPER_FULL = Published("full", 160.0, "over 160 hours per model variant on a standard NVIDIA A100 GPU")
PAPER_CUSTOM = Published("custom50", 4.0, "the average evaluation time to 4 hours per model")

STARTUP_S = 4.0
STARTUP_SOURCE = "benchmarks/README.md: a run of two clips with everything cached takes 3.8 s, mostly start-up"

WORKER_S: Mapping[Profile, float] = {"lite": 1.0, "official": STARTUP_S}
"""Seconds until a further worker process is ready. Two of the lite profile took 0.6 to 2 s each on two busy cores; the
official profile imports torch, and is taken to need as long as a command."""

DECODE_S_PER_PIXEL = 0.057 / (33 * 854 * 480)
DECODE_SOURCE = "benchmarks/README.md: 57 ms for 33 frames of 854x480 on one core of an AMD EPYC"

SERIAL = {"identify": Affine(0.0, 0.008), "summarise": Affine(0.1, 0.0002), "report": Affine(0.4, 0.0001)}
"""Hashing and probing a file; intervals and tables; a page. Seconds on one core of an AMD EPYC, runs of 8 to 4,730
videos. Where a stage was measured on another number of videos, it is scaled by these shapes."""

BYTES_PER_PIXEL = 0.11
BYTES_SOURCE = "the demo clips (320x240, 24 fps) at CRF 12, the quality that m4v-eval generate writes, take 0.109"
POSTER_BYTES = 14_000
RECORD_BYTES_PER_RESULT = 440
RECORD_SOURCE = "a run of the demo clips"

UTILISATION = 0.4
UTILISATION_SOURCE = "an assumption: 40 % of the data sheet's peak, as m4v-eval ablate reckons; measure yours"


def stated_rates(work: Work) -> Rates:
    """The published cost, spread evenly over a run's results (one video in one dimension).

    For the suite that the paper names its total is met exactly; for others the figure of the full suite counts, and the
    two figures are the range.

    Raises:
        UserError: nothing is published for this profile.
    """
    if work.profile != "official":
        raise UserError(
            f"Nothing is published on how long the {work.profile} profile takes.",
            "Score a few videos with `m4v-eval vbench --profile lite --out RUN`, and give that run with --from RUN.",
        )
    full, custom = PAPER_FULL.per_result(), PAPER_CUSTOM.per_result()
    by_suite = {PAPER_FULL.suite: Rate.exactly(full), PAPER_CUSTOM.suite: Rate.exactly(custom)}
    rate = by_suite.get(work.suite, Rate(full, min(full, custom), max(full, custom)))
    paper = PAPER_CUSTOM if work.suite == PAPER_CUSTOM.suite else PAPER_FULL
    return Rates(
        source=f'stated, not measured: {M4V}, "{paper.quote}"',
        serial=SERIAL,
        start=Rate.exactly(WORKER_S[work.profile]),
        per_result=rate,
    )
