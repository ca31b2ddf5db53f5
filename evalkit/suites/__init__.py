"""VBench's sister suites, behind the same interface: VBench-Long and VBench-I2V. Neither gives a VBench score."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalkit.backbones.base import FeatureSpec


def own_features() -> dict[FeatureSpec, tuple[str, ...]]:
    """The networks that VBench itself does not read, and the suites that do."""
    from evalkit.backbones.parts import FIRST_DINOV2
    from evalkit.backbones.reference import I2V_DREAMSIM

    return {FIRST_DINOV2: ("vbench-long",), I2V_DREAMSIM: ("vbench-long", "vbench-i2v")}
