"""What published tables say of customised against official prompts: order and bias, and little more.

LinGen's table of customised prompts repeats, to the printed digit, figures that VBench's leaderboard has for the
official prompts. Such a figure was not measured twice and says nothing of the prompts; it is counted and set apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.reference import TABLES, Row, half_unit, number
from evalkit.scoring import BOUNDS, LINGEN_QUALITY6, lingen_quality6
from evalkit.subset_study.ranks import pair_signs, pairs_kept, tau_b

FULL, CUSTOM = "vbench_t2v", "vbench_custom"
SAME_MODEL: Mapping[str, tuple[str, ...]] = {
    "Runway Gen-2": ("Gen-2",),
    "LaVie": ("LaVIE",),
    "ModelScope": ("ModelScope",),
    "VideoCrafter-0.9": ("VideoCrafter",),
    "CogVideo": ("CogVideo",),
    "LinGen": ("LinGen",),
}
"""Names of one model in the custom table and in the official one. "VideoCrafter" of STIV has the dimensions of
VideoCrafter-0.9 (the audit says so). LinGen's "Pika" is an older version than "Pika 1.0", and so not among them."""


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """One model's two printed figures, as fractions; `same` if rounding alone could make them differ."""

    model: str
    full: float
    subset: float
    same: bool
    full_source: str
    subset_source: str


@dataclass(frozen=True, slots=True)
class PublishedTarget:
    """One dimension; `bias` and `rmse` are of custom - full, fractions.

    Args:
        name: of the dimension, or `lingen_quality6`, recomputed from the dimensions of either table.
        scores: of the models that both tables have.
        tau: Kendall's tau-b; None with fewer than two models or all tied.
        pairs: pairs of models with an order in the full table.
        pairs_kept: how many of them the custom table orders alike.
        pairs_informative: pairs in which at least one model has figures that differ.
        pairs_informative_kept: how many of those are ordered alike.
        bias: mean over the models whose figures differ; None if there are none.
        rmse: root mean square over them.
    """

    name: str
    scores: tuple[PublishedScore, ...]
    tau: float | None
    pairs: int
    pairs_kept: float
    pairs_informative: int
    pairs_informative_kept: float
    bias: float | None
    rmse: float | None

    @property
    def n_same(self) -> int:
        return sum(score.same for score in self.scores)


@dataclass(frozen=True, slots=True)
class PublishedStudy:
    """The published tables against each other."""

    targets: tuple[PublishedTarget, ...]
    models: tuple[str, ...]
    only_custom: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Nothing that was scored is left out: what only one table has was not to be compared."""
        return True


def study_published() -> PublishedStudy:
    """Compare the two published tables over the models that both have."""
    custom, full = TABLES[CUSTOM].rows(), TABLES[FULL].rows()
    names = [name for name in BOUNDS if name in TABLES[CUSTOM].columns]
    targets = [_target(name, list(_scores(name, custom, full))) for name in names]
    targets.append(_target("lingen_quality6", list(_quality6(targets))))
    kept = tuple(target for target in targets if len(target.scores) >= 2)
    models = tuple(dict.fromkeys(score.model for target in kept for score in target.scores))
    only = tuple(dict.fromkeys(row["model"] for row in custom if row["model"] not in models))
    return PublishedStudy(kept, models, only)


def _scores(dimension: str, custom: Sequence[Row], full: Sequence[Row]) -> Iterator[PublishedScore]:
    """The first printed figure of each model in either table: the rows agree within rounding, or the audit says not."""
    for model, names in SAME_MODEL.items():
        ours = next((row for row in custom if row["model"] == model and row[dimension]), None)
        theirs = next((row for row in full if row["model"] in names and row[dimension]), None)
        if ours is not None and theirs is not None:
            x, y = number(ours[dimension]), number(theirs[dimension])
            assert x is not None
            assert y is not None
            rounding = _rounding(ours, custom, dimension) + _rounding(theirs, full, dimension)
            same = abs(x - y) <= rounding + 1e-9
            yield PublishedScore(model, y / 100, x / 100, same, theirs["source"], ours["source"])


def _rounding(row: Row, rows: Sequence[Row], dimension: str) -> float:
    return half_unit(other[dimension] for other in rows if other["source"] == row["source"])


def _quality6(targets: Sequence[PublishedTarget]) -> Iterator[PublishedScore]:
    """LinGen's quality of six dimensions, from both tables' dimensions: one of the printed ones is of seven."""
    by_name = {target.name: {score.model: score for score in target.scores} for target in targets}
    for model in SAME_MODEL:
        scores = {name: by_name[name][model] for name in LINGEN_QUALITY6 if model in by_name.get(name, {})}
        full = lingen_quality6({name: score.full for name, score in scores.items()})
        subset = lingen_quality6({name: score.subset for name, score in scores.items()})
        if full is not None and subset is not None:
            same = all(score.same for score in scores.values())
            sources = next(iter(scores.values()))
            yield PublishedScore(model, full / 100, subset / 100, same, sources.full_source, sources.subset_source)


def _target(name: str, scores: Sequence[PublishedScore]) -> PublishedTarget:
    """Figures that are the same stay in the order of the models, and are left out of bias and spread."""
    full_1L, subset_1L = (
        pair_signs(np.array([values], dtype=np.float64).reshape(1, len(scores)))
        for values in ([score.full for score in scores], [score.subset for score in scores])
    )
    first_L, second_L = np.triu_indices(len(scores), 1)
    same_M = np.array([score.same for score in scores], dtype=bool)
    informative_L = ~(same_M[first_L] & same_M[second_L]) & (full_1L[0] != 0)
    tau = float(tau_b(subset_1L, full_1L)[0])
    gaps = [score.subset - score.full for score in scores if not score.same]
    ordered = int((full_1L != 0).sum())
    return PublishedTarget(
        name,
        tuple(scores),
        tau if np.isfinite(tau) else None,
        ordered,
        float(pairs_kept(subset_1L, full_1L)[0]) * ordered if ordered else 0.0,
        int(informative_L.sum()),
        float(((subset_1L == full_1L) + 0.5 * (subset_1L == 0))[0][informative_L].sum()),
        float(np.mean(gaps)) if gaps else None,
        float(np.sqrt(np.mean(np.square(gaps)))) if gaps else None,
    )
