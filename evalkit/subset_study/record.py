"""A study as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evalkit.subset_study.findings import Study
from evalkit.subset_study.published import CUSTOM, FULL, PublishedStudy
from evalkit.subset_study.words import PUBLISHED_LIMITS, limits, published_verdict, verdict

SCHEMA = "m4v-eval/subset-study/1"


def to_json(study: Study | PublishedStudy) -> dict[str, Any]:
    """The machine-readable result; all scores are fractions, what is unknown is null."""
    if isinstance(study, PublishedStudy):
        return {"schema": SCHEMA, "mode": "published", "unit": "fraction", **_published(study)}
    return {"schema": SCHEMA, "mode": "runs", "unit": "fraction", **_runs(study)}


def _runs(study: Study) -> dict[str, Any]:
    subset = None
    if study.subset is not None:
        own = None if study.other_suite is None else dict(study.other_suite)
        subset = asdict(study.subset) | {"prompts": sorted(study.subset.prompts), "own_suite": own}
    return {
        "profile": study.profile,
        "precision": study.precision,
        "suite": dict(study.suite),
        "models": [{"name": name, "path": path} for name, path in study.models.items()],
        "subset": subset,
        "settings": asdict(study.settings),
        "targets": [asdict(target) for target in study.targets],
        "not_studied": dict(study.not_studied),
        "verdict": verdict(study),
        "limits": limits(study),
    }


def _published(study: PublishedStudy) -> dict[str, Any]:
    return {
        "tables": {"full": FULL, "subset": CUSTOM},
        "models": list(study.models),
        "only_custom": list(study.only_custom),
        "targets": [asdict(target) | {"n_same": target.n_same} for target in study.targets],
        "verdict": published_verdict(study),
        "limits": list(PUBLISHED_LIMITS),
    }
