"""PyramidFlow: joint attention over the temporal pyramid, in its two published shapes.

`pyramidflow` is miniFLUX (public configuration: 8 dual-stream and 16 single-stream blocks, width 1920);
`pyramidflow-sd3` has the shape of SD3 Medium: 24 dual-stream blocks of width 1536, sinusoids in space and rotary
positions in time (paper, Appendix B).
"""

from __future__ import annotations

from m4v.backbone import BackboneConfig
from m4v.variants.m4v import TINY

MINI_FLUX = BackboneConfig()

PRESETS = {
    "pyramidflow": MINI_FLUX,
    "pyramidflow-sd3": MINI_FLUX.but(
        width=1536, heads=24, dual_slots=24, dual_blocks=24, positions="sinusoids", pooled_width=2048
    ),
    "pyramidflow-tiny": MINI_FLUX.but(**TINY),
}
