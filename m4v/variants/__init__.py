"""The systems: one file each, found by looking. A file offers `PRESETS: dict[str, ModelConfig]`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from m4v.variants.base import ModelConfig, Text, VelocityModel, example_inputs

__all__ = ["ModelConfig", "Text", "VelocityModel", "example_inputs", "presets"]


@cache
def presets() -> dict[str, ModelConfig]:
    """All named configurations, by name.

    Raises:
        ValueError: two files offer the same name.
    """
    found: dict[str, ModelConfig] = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        offered = getattr(importlib.import_module(f"{__name__}.{info.name}"), "PRESETS", {})
        if twice := found.keys() & offered.keys():
            raise ValueError(f"two files of m4v/variants offer {', '.join(sorted(twice))}")
        found |= offered
    return found
