"""The registry of dimensions, found by looking: one module, one `METRIC`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from evalkit.errors import unknown
from evalkit.metrics.base import MetricSpec
from evalkit.scoring import BOUNDS
from evalkit.types import Profile

DIMENSIONS = tuple(BOUNDS)
"""The order of tables and plots, that of the VBench paper; stand-ins follow their originals."""

FACTS = ("truth/colour", "truth/shape", "truth/motion", "truth/count", "truth/position", "truth/all")
"""What a prompt's scene may state; no dimensions of VBench, and part of no total."""


def _metrics_in(package: ModuleType) -> list[MetricSpec]:
    found = []
    for module in pkgutil.iter_modules(package.__path__):
        metric = getattr(importlib.import_module(f"{package.__name__}.{module.name}"), "METRIC", None)
        if isinstance(metric, MetricSpec):
            found.append(metric)
    return found


@cache
def registry(profile: Profile) -> dict[str, MetricSpec]:
    """All metrics of a profile by name, in the order of `DIMENSIONS`; facts of a scene (lite profile only) come last.

    Raises:
        RuntimeError: two modules declare the same name.
    """
    # Networks import torch; the lite profile must not pay for that.
    packages = {"official": ("evalkit.metrics",), "lite": ("evalkit.lite", "evalkit.truth")}[profile]
    found = [metric for package in packages for metric in _metrics_in(importlib.import_module(package))]
    found.sort(key=lambda metric: ((*DIMENSIONS, *FACTS).index(metric.dimension), metric.name))
    metrics = {metric.name: metric for metric in found}
    if len(metrics) < len(found):
        raise RuntimeError(f"two metrics of the {profile} profile share a name: {sorted(m.name for m in found)}")
    return metrics


def find(name: str, profile: Profile) -> MetricSpec:
    """Look a metric up by its name; `subject_consistency` finds `lite/subject_consistency` in the lite profile.

    Raises:
        UserError: no such metric; names the nearest ones.
    """
    metrics = registry(profile)
    by_dimension = {metric.dimension: metric for metric in metrics.values()}
    metric = metrics.get(name) or by_dimension.get(name)
    if metric is None:
        raise unknown(f"dimension in the {profile} profile", name, metrics)
    return metric
