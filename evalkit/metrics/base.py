"""What a metric is: a declaration and a pure function from a clip's features to a value.

A metric never decodes, never loads weights and never sees a path. One file holds one metric in a constant `METRIC`;
the registry finds it there, and the conformance tests pick it up from the registry. How dimensions add up to headline
scores (bounds, weights, groups) is `evalkit.scoring`'s business: a total needs all 16, implemented here or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evalkit.backbones.base import FeatureSpec
from evalkit.types import Array, Clip, Features, Score

Pooling = Literal["videos", "frames"]
Degradation = Literal["blur", "noise", "flicker", "shuffle", "swap", "wrong_prompt"]


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example: features small enough to score by hand, and the value they must give."""

    features: dict[str, Array]
    value: float
    prompt: str = ""
    auxiliary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """The declaration of one dimension.

    Args:
        name: the dimension's official name; stand-ins are called `lite/<dimension>`, facts of a scene `truth/<fact>`.
        version: raise it whenever the numbers change; it is part of every cache key.
        title: what a table or plot calls it.
        summary: one sentence on what is measured and how, shown on the report page.
        features: the extractors it reads; a network named by several metrics runs once.
        score: the function itself.
        source: paper and equation, or the official file the algorithm follows.
        pooling: how the official package averages clips into the dimension's score on one GPU: every video alike, or
            every term (frame pair) alike.
        reads_prompt: whether the value depends on the prompt (then its text and facts are part of the cache key).
        auxiliary: the fields of a prompt's `auxiliary[dimension]` that the value needs, such as `object`; the runner
            sees to it that they are there (`evalkit.auxiliary`).
        read_text: completes these fields from the prompt's sentence where the official package does so.
        range: the smallest and the largest score there can be; None where the network has no bound. A dimension's
            interval does not leave it.
        fact: the entry of the prompt's scene (`auxiliary: {"scene": {...}}`) that a `truth/` metric compares with.
        min_frames: shorter clips are unscored, with the reason.
        degrades: for each planted degradation, the sign of the change it must cause (-1: the score falls).
        quirks: behaviour of the official code that is matched although it surprises.
        examples: worked examples, checked by the conformance tests.
    """

    name: str
    version: int
    title: str
    summary: str
    features: tuple[FeatureSpec, ...]
    score: Callable[[Clip, Features], Score]
    source: str
    higher_is_better: bool = True
    pooling: Pooling = "videos"
    reads_prompt: bool = False
    auxiliary: tuple[str, ...] = ()
    read_text: Callable[[str, Mapping[str, Any]], Mapping[str, Any]] | None = None
    range: tuple[float | None, float | None] = (0.0, 1.0)
    fact: str | None = None
    min_frames: int = 1
    degrades: dict[Degradation, int] = field(default_factory=dict)
    quirks: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def dimension(self) -> str:
        """The official dimension's name, without the `lite/` of a stand-in or the `long/` of VBench-Long."""
        return self.name.removeprefix("lite/").removeprefix("long/")

    @property
    def reads_scene(self) -> bool:
        """Whether it compares with the scene in a prompt's `auxiliary`; then it is no dimension of VBench."""
        return self.fact is not None

    @property
    def auxiliary_key(self) -> str:
        """The entry of a prompt's `auxiliary` that the value may depend on."""
        return "scene" if self.reads_scene else self.dimension
