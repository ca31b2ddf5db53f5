"""FID, KID, FVD and the Inception Score of sets of videos, and of the same sets without a group of their videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from evalkit.distribution.frechet import Gaussian, frechet_distance
from evalkit.distribution.inception_score import inception_score, split_frames
from evalkit.distribution.jackknife import Estimate, Grouped, deal, jackknife
from evalkit.distribution.kernel import KernelSums
from evalkit.distribution.networks import POOLED
from evalkit.types import Array

REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Sampled:
    """The features of a set: an array `(n, D)` a video, and the group in which each video is left out."""

    files: tuple[str, ...]
    videos: tuple[Array, ...]
    groups_V: Array

    @classmethod
    def of(cls, found: Mapping[str, Array], seed: int) -> Sampled:
        return cls(tuple(found), tuple(found.values()), deal(len(found), seed))

    @property
    def n_groups(self) -> int:
        return int(self.groups_V.max(initial=-1)) + 1

    @property
    def n_samples(self) -> int:
        return sum(map(len, self.videos))

    def keep_V(self, without: int | None) -> Array:
        return np.ones(len(self.videos), bool) if without is None else self.groups_V != without

    def stacked(self, without: int | None, columns: slice) -> Array:
        keep_V = self.keep_V(without)
        return np.concatenate([v[:, columns] for v, kept in zip(self.videos, keep_V, strict=True) if kept])


Set = Sampled | Gaussian
"""A set of videos, or what a file of statistics says of one."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Sets made ready for one measure: `value(name, summaries)` is that of the set called `name`."""

    sets: Mapping[str, Grouped[Any]]
    value: Callable[[str, Mapping[str, Any]], float]

    def estimate(self, name: str, advance: Callable[[], None]) -> Estimate:
        names = [n for n in (name, REFERENCE) if n in self.sets]
        return jackknife({n: self.sets[n] for n in names}, lambda s: self.value(name, s), advance=advance)

    def difference(self, name: str, baseline: str, paired: bool, advance: Callable[[], None]) -> Estimate:
        """`name` minus `baseline`, measured against the same reference; pairs of videos are left out together."""
        together = [[name, baseline]] if paired else [[name], [baseline]]
        if REFERENCE in self.sets:
            together.append([REFERENCE])
        return jackknife(self.sets, lambda s: self.value(name, s) - self.value(baseline, s), together, advance=advance)


Prepare = Callable[[Mapping[str, Set], int, int], Prepared]
"""Makes sets ready, given the seed and the number of splits."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure under its protocol's name.

    Args:
        name: what the command line calls it.
        protocol: what its numbers are called.
        network: whose features it reads.
        better: whether lower or higher values are better.
        width: of the features; below this many samples a covariance is singular and the distance mostly bias. 0: no
            covariance is taken.
        needs: what it compares with: nothing, the reference's videos, or at least its statistics.
        least: no value is below it, so no interval goes there; None for an estimate without bias, which may.
        prepare: makes sets ready.
        caveats: what always has to be said with its number.
    """

    name: str
    protocol: str
    network: Literal["inception", "i3d"]
    better: Literal["lower", "higher"]
    width: int
    needs: Literal["nothing", "videos", "statistics"]
    least: float | None
    prepare: Prepare = field(repr=False)
    caveats: tuple[str, ...] = ()


def _frechet(columns: slice) -> Prepare:
    def prepare(sets: Mapping[str, Set], seed: int, splits: int) -> Prepared:
        def grouped(a_set: Set) -> Grouped[Gaussian]:
            if isinstance(a_set, Gaussian):
                return Grouped(0, lambda _: a_set)
            return Grouped(a_set.n_groups, lambda group: Gaussian.fit(a_set.stacked(group, columns)))

        return Prepared(
            {name: grouped(a_set) for name, a_set in sets.items()},
            lambda name, s: frechet_distance(s[name], s[REFERENCE]),
        )

    return prepare


def _kernel(sets: Mapping[str, Set], seed: int, splits: int) -> Prepared:
    sampled = {name: a_set for name, a_set in sets.items() if isinstance(a_set, Sampled)}
    pooled = {name: [video[:, :POOLED] for video in s.videos] for name, s in sampled.items()}
    sums = {name: KernelSums.of(videos, pooled[REFERENCE]) for name, videos in pooled.items() if name != REFERENCE}
    return Prepared(
        {name: Grouped(s.n_groups, s.keep_V) for name, s in sampled.items()},
        lambda name, s: sums[name].distance(s[name], s[REFERENCE]),
    )


def _score(sets: Mapping[str, Set], seed: int, splits: int) -> Prepared:
    """Each set's frames are dealt into splits once; leaving videos out leaves the others where they are."""

    def grouped(sampled: Sampled) -> Grouped[float]:
        logits_NC = sampled.stacked(None, slice(POOLED, None))
        split_N = split_frames(len(logits_NC), splits, seed)
        video_N = np.repeat(np.arange(len(sampled.videos)), [len(video) for video in sampled.videos])

        def score(without: int | None) -> float:
            keep_N = sampled.keep_V(without)[video_N]
            return inception_score(logits_NC[keep_N], split_N[keep_N])

        return Grouped(sampled.n_groups, score)

    usable = {name: s for name, s in sets.items() if isinstance(s, Sampled) and name != REFERENCE}
    return Prepared({name: grouped(s) for name, s in usable.items()}, lambda name, s: float(s[name]))


_FRAMES_ONLY = ("It compares frames and is blind to motion.",)
_NO_REFERENCE = ("It grows with the number of frames, and knows no reference.",)
_CONTENT = ("It weighs single frames more than motion (Ge et al. 2024).",)

_FID, _FVD = _frechet(slice(0, POOLED)), _frechet(slice(None))
_ALL = (
    Measure("fid", "fid/inception-2015", "inception", "lower", POOLED, "statistics", 0.0, _FID, _FRAMES_ONLY),
    Measure("kid", "kid/inception-2015", "inception", "lower", 0, "videos", None, _kernel, _FRAMES_ONLY),
    Measure("is", "is/inception-2015", "inception", "higher", 0, "nothing", 1.0, _score, _NO_REFERENCE),
    Measure("fvd", "fvd/i3d-400", "i3d", "lower", 400, "statistics", 0.0, _FVD, _CONTENT),
)
MEASURES = {measure.name: measure for measure in _ALL}
"""By name, in the order of tables."""
