"""The clips on which temporal flickering counts: of every prompt the first five that show no motion.

A camera that holds still is what makes a change of brightness flickering. The official package filters with a script of
its own (`static_filter.py`), which copies the clips; here they are told apart before anything else is scored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from evalkit.auxiliary import asks
from evalkit.job import Video
from evalkit.metrics.base import MetricSpec
from evalkit.protocol import FLICKERING, Selection, StaticCount, merge
from evalkit.scoring_pass import Means, ScoringPass
from evalkit.static_filter import KEPT, STATIC_FILTER, keep
from evalkit.types import Sample


def select_static(
    means: Means, videos: Sequence[Video], flickering: MetricSpec, selection: Selection
) -> tuple[Selection, bool]:
    """Find the clips without motion; return the selection without the others, and whether Ctrl-C cut it short.

    A prompt's clips are looked at in the alphabetical order of their names, as the official script does (`-10` before
    `-2`), and no longer than until five are found.
    """
    candidates = sorted(
        (v for v in videos if asks(v.sample.prompt, flickering) and selection.counts(v.sample, FLICKERING)),
        key=lambda video: video.sample.file,
    )
    by_prompt: dict[str, list[Video]] = defaultdict(list)
    for video in candidates:
        by_prompt[video.sample.prompt.id].append(video)

    def is_static(video: Video) -> bool:
        score = scoring.score(video, STATIC_FILTER)
        return score is not None and score.value == 1.0

    def wanted(sample: Sample, metric: MetricSpec) -> bool:
        before = [video for video in by_prompt[sample.prompt.id] if video.sample.file < sample.file]
        return sum(map(is_static, before)) < KEPT

    scoring = ScoringPass(means, [STATIC_FILTER], wanted, turn=lambda video: video.sample.prompt.id)
    interrupted = scoring.run(candidates)
    verdicts = {v.sample.file: scoring.score(v, STATIC_FILTER) for v in candidates if wanted(v.sample, STATIC_FILTER)}
    still = {v.sample.file: is_static(v) for v in candidates if v.sample.file in verdicts}
    kept = keep({prompt: [v.sample.file for v in clips] for prompt, clips in by_prompt.items()}, still)
    count = StaticCount(
        candidates=len(candidates),
        looked_at=len(verdicts),
        undecided=sum(score is None or score.value is None for score in verdicts.values()),
        kept=sum(map(len, kept.values())),
        short_prompts=tuple(prompt for prompt, files in kept.items() if len(files) < KEPT),
    )
    chosen = {file for files in kept.values() for file in files}
    others = {v.sample.file: frozenset({FLICKERING}) for v in candidates if v.sample.file not in chosen}
    return replace(selection, left_out=merge(selection.left_out, others), static_filter=count), interrupted
