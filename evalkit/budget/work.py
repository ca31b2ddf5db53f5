"""What is to be scored: every prompt of a suite, its videos, and the dimensions they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from evalkit.auxiliary import asks, equip
from evalkit.errors import UserError
from evalkit.metrics.base import MetricSpec
from evalkit.prompts import by_text, load_suite
from evalkit.protocol import FLICKERING, FLICKERING_SAMPLES, SAMPLES, expected
from evalkit.runner import choose_metrics
from evalkit.static_filter import KEPT, STATIC_FILTER
from evalkit.types import Profile, Prompt, PromptSuite

_OVERALL = ("overall_consistency", "aesthetic_quality", "imaging_quality")
FULL = (
    (("temporal_flickering",), 75),
    (("multiple_objects",), 82),
    (("human_action",), 100),
    (("subject_consistency", "dynamic_degree", "motion_smoothness"), 72),
    (("object_class",), 79),
    (("color",), 85),
    (("appearance_style",), 90),
    (("temporal_style",), 100),
    (_OVERALL, 93),
    (("scene", "background_consistency"), 86),
    (("spatial_relationship",), 84),
)
"""VBench's own list, in its order: the dimensions of a prompt, and how many prompts have just these. A plan needs no
texts, and so no download."""
TWICE = 2
"""Texts of appearance_style that stand in the list once more, for overall consistency."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt.

    Args:
        videos: for each video that is scored, its dimensions.
        candidates: videos that the static filter may look at first; 0 where there is no filter.
    """

    videos: tuple[tuple[str, ...], ...]
    candidates: int = 0

    @property
    def files(self) -> int:
        """Videos that must be there."""
        return max(len(self.videos), self.candidates)


@dataclass(frozen=True)
class Work:
    """One run of a suite.

    Args:
        suite: its name.
        entries: prompts as listed.
        per_prompt: videos of a prompt.
        asked: the prompts, those with the same text taken together.
        features: by dimension, the networks and statistics it reads.
        profile: official or lite.
        static_filter: whether temporal flickering is filtered first.
    """

    suite: str
    entries: int
    per_prompt: int
    asked: tuple[Asked, ...]
    features: Mapping[str, tuple[str, ...]]
    profile: Profile
    static_filter: bool

    @property
    def listed(self) -> int:
        """Videos by the protocol's count, which takes a text that stands twice for two prompts."""
        return self.entries * self.per_prompt

    @cached_property
    def videos(self) -> int:
        """Videos that are scored."""
        return sum(len(prompt.videos) for prompt in self.asked)

    @cached_property
    def files(self) -> int:
        """Videos that must be generated."""
        return sum(prompt.files for prompt in self.asked)

    @cached_property
    def candidates(self) -> int:
        """Videos that the static filter looks at, at most."""
        return sum(prompt.candidates for prompt in self.asked)

    @cached_property
    def results(self) -> Mapping[str, int]:
        """By dimension, how many videos are scored in it."""
        return Counter(name for prompt in self.asked for video in prompt.videos for name in video)


def work_of(subset: str, profile: Profile, dimensions: Sequence[str] = (), per_prompt: int | None = None) -> Work:
    """The work of a command `m4v-eval vbench --subset SUBSET`.

    Args:
        subset: name or path of the suite; `full` is known without the file.
        profile: official or lite.
        dimensions: names; empty as in the command itself.
        per_prompt: videos of a prompt; None is five for VBench's own list, and one elsewhere.

    Raises:
        UserError: no such suite or dimension, or a prompt that lacks what a dimension looks for.
    """
    suite = full_suite() if subset == "full" else load_suite(subset)
    metrics = choose_metrics(dimensions, suite, profile)
    if subset != "full":
        suite = equip(suite, metrics)
    count = per_prompt or (SAMPLES if suite.standard else 1)
    names = {metric.name for metric in metrics}
    filtered = suite.standard and profile == "official" and FLICKERING in names
    asked = tuple(
        _asked(prompt, metrics, count, suite.standard, filtered) for prompt in by_text(suite.prompts).values()
    )
    asked = tuple(prompt for prompt in asked if prompt.files)
    if not asked:
        raise UserError(f"No prompt of {suite.name} is for these dimensions.", "Choose others with --dimensions.")
    features = {metric.name: tuple(feature.name for feature in metric.features) for metric in metrics}
    if filtered:
        features[STATIC_FILTER.name] = tuple(feature.name for feature in STATIC_FILTER.features)
    entries = sum(any(asks(prompt, metric) for metric in metrics) for prompt in suite.prompts)
    return Work(suite.name, entries, count, asked, features, profile, filtered)


def _asked(prompt: Prompt, metrics: Sequence[MetricSpec], count: int, standard: bool, filtered: bool) -> Asked:
    wanted = [metric for metric in metrics if asks(prompt, metric)]
    filters = filtered and any(metric.name == FLICKERING for metric in wanted)
    videos = []
    for rank in range(count):
        names = (metric.name for metric in wanted if rank < _most(metric, standard, filters))
        if dimensions := tuple(names):
            videos.append(dimensions)
    return Asked(tuple(videos), max(count, FLICKERING_SAMPLES) if filters else 0)


def _most(metric: MetricSpec, standard: bool, filters: bool) -> float:
    """How many videos of a prompt are scored in a dimension at most."""
    if filters and metric.name == FLICKERING:
        return KEPT
    return expected(metric.dimension) if standard else float("inf")


def full_suite() -> PromptSuite:
    """A stand-in for VBench's own list: its prompts' dimensions, without their texts."""
    prompts: list[Prompt] = []
    for dimensions, count in FULL:
        for n in range(count):
            again = dimensions == _OVERALL and n < TWICE
            text = f"appearance_style {n}" if again else f"{dimensions[0]} {n}"
            prompts.append(Prompt(f"{len(prompts):04d}", text, dimensions))
    return PromptSuite("full", tuple(prompts), "VBench's own list, counted", standard=True)
