"""The actions of Kinetics-400, which UMT tells apart."""

from __future__ import annotations

from importlib.resources import files

ACTIONS = tuple((files("evalkit") / "reference_data" / "kinetics_400.txt").read_text(encoding="utf-8").splitlines())
"""The actions in the order of the logits."""
