"""VBench's protocol for its own prompts: how many videos a prompt, and which of them count in which dimension.

Source: the official package's standard mode (`vbench/__init__.py`, `static_filter.py`): videos `<prompt>-0.mp4` to
`<prompt>-4.mp4`; for temporal flickering 25, of which the first five without motion count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evalkit.auxiliary import asks
from evalkit.metrics.base import MetricSpec
from evalkit.types import Sample

SAMPLES = 5
"""Videos of a prompt that count."""

FLICKERING = "temporal_flickering"
FLICKERING_SAMPLES = 25
"""Videos of a prompt from which the five without motion are taken."""

LeftOut = Mapping[str, frozenset[str]]
"""By file name: the dimensions in which a video does not count."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which videos count.

    Args:
        standard: whether VBench's protocol was applied (it is for VBench's own prompts).
        left_out: by file, the dimensions in which it does not count.
        static_filter: how temporal flickering was filtered; None if it was not.
    """

    standard: bool = False
    left_out: LeftOut = field(default_factory=dict)
    static_filter: StaticCount | None = None

    def counts(self, sample: Sample, dimension: str) -> bool:
        return dimension not in self.left_out.get(sample.file, ())


@dataclass(frozen=True, slots=True)
class StaticCount:
    """What the filter for clips without motion found.

    Args:
        candidates: videos of prompts for temporal flickering.
        looked_at: those that the filter saw before its prompt's five were found.
        undecided: those of them for which the network gave no answer.
        kept: clips without motion, on which temporal flickering was scored.
        short_prompts: ids of prompts with fewer than five of them.
    """

    candidates: int
    looked_at: int
    undecided: int
    kept: int
    short_prompts: tuple[str, ...]


def surplus(samples: Iterable[Sample], metrics: Sequence[MetricSpec]) -> LeftOut:
    """The videos beyond those that count; a prompt's videos are taken in the order of their numbers."""
    ranks: dict[str, int] = {}
    left_out = {}
    for sample in samples:
        rank = ranks.get(sample.prompt.id, 0)
        ranks[sample.prompt.id] = rank + 1
        beyond = {m.dimension for m in metrics if asks(sample.prompt, m) and rank >= expected(m.dimension)}
        if beyond:
            left_out[sample.file] = frozenset(beyond)
    return left_out


def expected(dimension: str) -> int:
    """How many videos of a prompt the protocol looks at."""
    return FLICKERING_SAMPLES if dimension == FLICKERING else SAMPLES


def merge(a: LeftOut, b: LeftOut) -> LeftOut:
    """Leave out what either leaves out."""
    return {file: a.get(file, frozenset()) | b.get(file, frozenset()) for file in {**a, **b}}
