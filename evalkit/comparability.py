"""What stands between a run's numbers and the leaderboard's, though every video was scored without fault.

The two commonest reasons for a total that does not match are clips of 5 s or more scored with the protocol for short
ones, and prompts that were rewritten before generation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evalkit.auxiliary import asks
from evalkit.job import Outcome, Video
from evalkit.metrics.base import MetricSpec
from evalkit.protocol import FLICKERING, SAMPLES, expected
from evalkit.types import Sample

LONG_S = 5.0
"""From this length on VBench-Long is meant."""

SAMPLING_FPS = 8
"""The rate at which dynamic degree looks at a clip."""

VBENCH_SHA256 = "289d011d6a21295b38fd8a40df946d0e33b8d2f6ce9374eff7e747ea8aa8cedc"
"""Identity of the official 946 entries."""


@dataclass(frozen=True, slots=True)
class Caveat:
    """One reason, as a keyword and as a sentence or two."""

    kind: str
    text: str


def caveats(outcome: Outcome) -> list[Caveat]:
    """All that make the run's scores incomparable with published ones; most serious first."""
    videos = list({r.video.sample.file: r.video for r in outcome.results if isinstance(r.video, Video)}.values())
    found = [*_prompts(outcome, videos), *_length(videos), *_frame_rate(videos)]
    if outcome.selection.standard:
        found += [*_samples(outcome), *_flickering(outcome)]
    return found


def _prompts(outcome: Outcome, videos: Sequence[Video]) -> Iterator[Caveat]:
    if outcome.selection.standard and outcome.suite.sha256 != VBENCH_SHA256:
        yield Caveat(
            "suite", f"The {len(outcome.suite.prompts):,} entries of {outcome.suite.name} are not the official 946."
        )
    other = [video.sample for video in videos if video.sample.generated_from is not None]
    if other:
        yield Caveat(
            "generation-prompts",
            f"{_of(len(other), len(videos))} were generated from another text than the prompt they are scored with"
            f" (such as {other[0].file}). Rewritten prompts alone move VBench's totals by points.",
        )


def _length(videos: Sequence[Video]) -> Iterator[Caveat]:
    long = [video.info.duration_s for video in videos if video.info.duration_s >= LONG_S]
    if long:
        yield Caveat(
            "long-clips",
            f"{_of(len(long), len(videos))} last {LONG_S:g} s or more (up to {max(long):.1f} s). The leaderboard scores"
            " such clips with VBench-Long (`m4v-eval vbench-long`).",
        )


def _frame_rate(videos: Sequence[Video]) -> Iterator[Caveat]:
    rates = Counter(round(video.info.fps, 2) for video in videos if video.info.fps > 0)
    slow = sum(n for rate, n in rates.items() if rate < SAMPLING_FPS)
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g} ({n})" for rate, n in sorted(rates.items())[:6])
        yield Caveat("frame-rates", f"The clips have different frame rates, in frames a second (clips): {listed}.")
    if slow:
        yield Caveat(
            "slow-clips",
            f"{_of(slow, len(videos))} have fewer than {SAMPLING_FPS} frames a second, so that dynamic degree sees"
            " longer steps than those its threshold was set for.",
        )


def _samples(outcome: Outcome) -> Iterator[Caveat]:
    have = Counter(sample.prompt.id for sample in outcome.matching.samples)
    short: dict[int, list[str]] = {}
    for prompt in {sample.prompt.id: sample.prompt for sample in outcome.matching.samples}.values():
        need = max((expected(m.dimension) for m in outcome.metrics if asks(prompt, m)), default=SAMPLES)
        if have[prompt.id] < need:
            short.setdefault(need, []).append(prompt.id)
    for need, ids in short.items():
        yield Caveat(
            "missing-samples",
            f"{len(ids):,} prompts have fewer than the {need} videos of the protocol ({', '.join(ids[:5])}"
            f"{', ...' if len(ids) > 5 else ''}).",
        )
    beyond = [s for s in outcome.matching.samples if _counts_nowhere(s, outcome.metrics, outcome)]
    if beyond:
        yield Caveat(
            "surplus-samples",
            f"{len(beyond):,} videos are beyond the protocol's number for their prompt and were not scored (such as"
            f" {beyond[0].file}).",
        )


def _counts_nowhere(sample: Sample, metrics: Sequence[MetricSpec], outcome: Outcome) -> bool:
    asked = [metric.dimension for metric in metrics if asks(sample.prompt, metric)]
    kept_by_filter = [name for name in asked if name != FLICKERING]  # what the static filter takes out is no surplus
    return bool(kept_by_filter) and not any(outcome.selection.counts(sample, name) for name in asked)


def _flickering(outcome: Outcome) -> Iterator[Caveat]:
    if any(m.name == FLICKERING for m in outcome.metrics) and outcome.selection.static_filter is None:
        yield Caveat(
            "unfiltered-flickering",
            "Temporal flickering was scored on all clips; the leaderboard counts only clips without motion"
            " (--static-filter).",
        )
    if (found := outcome.selection.static_filter) is not None and found.short_prompts:
        yield Caveat(
            "few-static-clips",
            f"{len(found.short_prompts):,} prompts have fewer than {SAMPLES} clips without motion among"
            f" {found.candidates:,} for temporal flickering; {found.kept:,} clips count.",
        )
    if found is not None and found.undecided:
        yield Caveat("undecided", f"The static filter could not judge {found.undecided:,} clips; they do not count.")


def _of(n: int, total: int) -> str:
    return f"{n:,} of {total:,} clips"
