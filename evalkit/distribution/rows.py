"""One measure's row in the record: the number, how far it may be trusted, and what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from evalkit.distribution.jackknife import Estimate
from evalkit.distribution.measures import REFERENCE, Measure, Prepared, Sampled, Set
from evalkit.job import Progress

VIDEOS, BASELINE = "videos", "baseline"
OPTIONS = {VIDEOS: "--videos", REFERENCE: "--reference", BASELINE: "--baseline"}

MIN_VIDEOS = 2
"""Fewer say nothing of a set."""

EXTRAPOLATED_FROM = 2
"""Videos in each set, in multiples of the features' width, from which simulation finds the extrapolation unbiased."""


def row(measure: Measure, sets: Mapping[str, Set], splits: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Measure the sets.

    `extrapolated` is the value less the jackknife's estimate of its bias: what infinitely many videos would give, in
    the manner of Chong and Forsyth 2020, for the Fréchet distances of sets that are large enough.
    """
    empty = {"value": None, "ci95": None, "standard_error": None, "extrapolated": None}
    result = {
        "better": measure.better,
        **empty,
        "n": {role: len(s.videos) if isinstance(s, Sampled) else None for role, s in sets.items()},
        "n_samples": {role: s.n_samples if isinstance(s, Sampled) else s.n for role, s in sets.items()},
        "baseline": None,
        "difference": None,
        "notes": list(_notes(measure, sets)),
        "unscored": next(_obstacles(measure, sets, splits), None),
    }
    if result["unscored"]:
        return result
    prepared = measure.prepare(sets, seed, splits)
    extrapolates = _extrapolates(measure, sets)
    progress.start(f"{measure.name}, intervals", _evaluations(prepared))
    result |= _as_row(prepared.estimate(VIDEOS, progress.advance), extrapolates, measure.least)
    if BASELINE in sets:
        paired = _paired(sets)
        difference = _as_row(prepared.difference(VIDEOS, BASELINE, paired, progress.advance), extrapolates)
        result["baseline"] = _as_row(prepared.estimate(BASELINE, progress.advance), extrapolates, measure.least)
        result["difference"] = {**difference, "paired": paired}
    return result


def _as_row(estimate: Estimate, extrapolates: bool, least: float | None = None) -> dict[str, Any]:
    known = extrapolates and estimate.bias is not None
    floor = -math.inf if least is None else least
    return {
        "value": estimate.value,
        "ci95": [max(floor, bound) for bound in estimate.interval] if estimate.interval else None,
        "standard_error": estimate.standard_error,
        "extrapolated": estimate.value - (estimate.bias or 0.0) if known else None,
    }


def _evaluations(prepared: Prepared) -> int:
    """How often the number is computed: for each set on its own, and for the difference."""
    groups = {role: grouped.n_groups for role, grouped in prepared.sets.items()}
    once = groups[VIDEOS] + groups.get(REFERENCE, 0)
    if BASELINE not in groups:
        return once
    return once + groups[BASELINE] + groups.get(REFERENCE, 0) + sum(groups.values())


def _paired(sets: Mapping[str, Set]) -> bool:
    """Whether both models have a video of each name: then differences between videos of one name are what varies."""
    one, other = sets[VIDEOS], sets[BASELINE]
    return isinstance(one, Sampled) and isinstance(other, Sampled) and one.files == other.files


def _obstacles(measure: Measure, sets: Mapping[str, Set], splits: int) -> Iterator[str]:
    least = 1 if measure.needs == "nothing" else MIN_VIDEOS
    for role, found in sets.items():
        if isinstance(found, Sampled) and len(found.videos) < least:
            videos = f"{least} video{'s' * (least > 1)}"
            yield f"needs {videos} in {OPTIONS[role]}, and {len(found.videos)} could be measured"
        elif isinstance(found, Sampled) and measure.needs == "nothing" and found.n_samples < splits:
            yield f"{OPTIONS[role]} has fewer frames than there are --splits"


def _extrapolates(measure: Measure, sets: Mapping[str, Set]) -> bool:
    least = EXTRAPOLATED_FROM * measure.width
    return least > 0 and all(isinstance(s, Sampled) and len(s.videos) >= least for s in sets.values())


def _notes(measure: Measure, sets: Mapping[str, Set]) -> Iterator[str]:
    yield from measure.caveats
    sizes = {role: found.n_samples if isinstance(found, Sampled) else found.n for role, found in sets.items()}
    small = [f"{n} in {OPTIONS[role]}" for role, n in sizes.items() if n is not None and n <= measure.width]
    if BASELINE in sizes and measure.least is not None and sizes[BASELINE] != sizes[VIDEOS]:
        yield "--videos and --baseline differ in number: their difference is partly that of their bias."
    if small:
        yield (
            f"There are fewer samples ({', '.join(small)}) than features ({measure.width}): the number is mostly the"
            " bias of small sets, upwards. Compare it only with numbers from as many videos and the same reference."
        )
