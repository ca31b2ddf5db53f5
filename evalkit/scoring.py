"""Headline scores: from the raw dimension scores to VBench's quality, semantic and total.

Raw scores are fractions; headline scores are percent. A headline score needs every one of its dimensions: a missing
dimension makes it None, where the official script would count a 0.
Source: VBench (Huang et al., CVPR 2024), Section 3 and the leaderboard's published bounds and weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Group = Literal["quality", "semantic"]

QUALITY_WEIGHT = 4.0
SEMANTIC_WEIGHT = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How one dimension enters its group's score.

    Args:
        low: raw score that normalises to 0 (what the worst conceivable video was found to get).
        high: raw score that normalises to 1.
        group: the headline score it belongs to.
        weight: its weight within the group.
        floor: the smallest raw score there can be (-1 for a cosine that is not clipped).
    """

    low: float
    high: float
    group: Group
    weight: float = 1.0
    floor: float = 0.0


# In the order of the VBench paper.
BOUNDS: Mapping[str, Bounds] = {
    "subject_consistency": Bounds(0.1462, 1.0, "quality"),
    "background_consistency": Bounds(0.2615, 1.0, "quality"),
    "temporal_flickering": Bounds(0.6293, 1.0, "quality"),
    "motion_smoothness": Bounds(0.7060, 0.9975, "quality"),
    "dynamic_degree": Bounds(0.0, 1.0, "quality", weight=0.5),
    "aesthetic_quality": Bounds(0.0, 1.0, "quality"),
    "imaging_quality": Bounds(0.0, 1.0, "quality"),
    "object_class": Bounds(0.0, 1.0, "semantic"),
    "multiple_objects": Bounds(0.0, 1.0, "semantic"),
    "human_action": Bounds(0.0, 1.0, "semantic"),
    "color": Bounds(0.0, 1.0, "semantic"),
    "spatial_relationship": Bounds(0.0, 1.0, "semantic"),
    "scene": Bounds(0.0, 0.8222, "semantic"),
    "appearance_style": Bounds(0.0009, 0.2855, "semantic", floor=-1.0),
    "temporal_style": Bounds(0.0, 0.3640, "semantic", floor=-1.0),
    "overall_consistency": Bounds(0.0, 0.3640, "semantic", floor=-1.0),
}

QUALITY = tuple(name for name, bounds in BOUNDS.items() if bounds.group == "quality")
SEMANTIC = tuple(name for name, bounds in BOUNDS.items() if bounds.group == "semantic")
CUSTOM7 = (*(name for name in QUALITY if name != "dynamic_degree"), "overall_consistency")
"""The seven dimensions that can be scored on the customised prompts of the M4V paper."""

M4V_AVG4 = ("subject_consistency", "aesthetic_quality", "imaging_quality", "overall_consistency")
"""The four whose mean is the "Avg. Score" printed in the M4V paper (its text speaks of seven)."""

LINGEN_QUALITY6 = tuple(name for name in QUALITY if name != "temporal_flickering")
"""The six of LinGen's VBench-Custom quality: VBench's static-clip filter has no counterpart for custom prompts."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Headline scores in percent (None where a dimension is missing), and the dimensions they could draw on."""

    quality: float | None
    semantic: float | None
    total: float | None
    scored: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def coverage(self) -> dict[str, list[str]]:
        return {"scored": list(self.scored), "missing": list(self.missing)}


def normalise(dimension: str, raw: float) -> float:
    """Map a raw score to VBench's common scale, (raw - low) / (high - low), without clipping.

    Raises:
        ValueError: not one of the 16 dimensions (a stand-in such as `lite/...` has no bounds).
    """
    bounds = _bounds(dimension)
    return (raw - bounds.low) / (bounds.high - bounds.low)


def totals(scores: Mapping[str, float]) -> Totals:
    """Combine raw dimension scores into VBench's headline scores.

    Args:
        scores: raw fraction by official dimension name; a dimension that was not scored is left out.

    Raises:
        ValueError: not one of the 16 dimensions, or a score that is not a finite number.
    """
    _check(scores)
    quality, semantic = weighted_quality(scores, QUALITY), weighted_quality(scores, SEMANTIC)
    total = None if quality is None or semantic is None else total_of(quality, semantic)
    scored = tuple(name for name in BOUNDS if name in scores)
    return Totals(quality, semantic, total, scored, tuple(name for name in BOUNDS if name not in scores))


def total_of(quality: float, semantic: float) -> float:
    """VBench's total, 4 : 1."""
    return (QUALITY_WEIGHT * quality + SEMANTIC_WEIGHT * semantic) / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)


def weighted_quality(scores: Mapping[str, float], dimensions: Iterable[str]) -> float | None:
    """Weighted mean of normalised dimensions, in percent; None if one of them is missing."""
    names = tuple(dimensions)
    if any(name not in scores for name in names):
        return None
    weight = sum(BOUNDS[name].weight for name in names)
    return 100.0 * sum(BOUNDS[name].weight * normalise(name, scores[name]) for name in names) / weight


def mean7(scores: Mapping[str, float]) -> float | None:
    """Mean of the seven customised dimensions, raw, in percent; None if one is missing."""
    return _raw_mean(scores, CUSTOM7)


def m4v_avg4(scores: Mapping[str, float]) -> float | None:
    """What the M4V paper prints as "Avg. Score": the raw mean of four of the seven, in percent."""
    return _raw_mean(scores, M4V_AVG4)


def lingen_quality6(scores: Mapping[str, float]) -> float | None:
    """LinGen's VBench-Custom quality: six normalised dimensions, dynamic degree at half weight, in percent."""
    _check(scores)
    return weighted_quality(scores, LINGEN_QUALITY6)


def _raw_mean(scores: Mapping[str, float], names: tuple[str, ...]) -> float | None:
    _check(scores)
    if any(name not in scores for name in names):
        return None
    return 100.0 * math.fsum(scores[name] for name in names) / len(names)


def _check(scores: Mapping[str, float]) -> None:
    for name, raw in scores.items():
        _bounds(name)
        if not math.isfinite(raw):
            raise ValueError(f"the score of {name} is {raw}; leave out a dimension that was not scored")


def _bounds(dimension: str) -> Bounds:
    if dimension not in BOUNDS:
        raise ValueError(f"{dimension!r} is not a VBench dimension and has no bounds")
    return BOUNDS[dimension]
