"""M4V: dual-stream attention, then single-stream Mamba with re-composition, registers and a temporal branch.

Sizes: L = 8 and N = 16 blocks from the M4V supplement (A.2); width 1920, 30 heads of 64, T5 features 4096, pooled CLIP
768 and rotary axes 16, 24, 24 are those of PyramidFlow's miniFLUX, whose shape the blocks have (inferred, not stated by
the authors).
"""

from __future__ import annotations

from m4v.backbone import BackboneConfig

M4V = BackboneConfig(mixer="mamba", temporal_branch=True)

TINY = {
    "clip": (17, 32, 32),
    "width": 128,
    "heads": 4,
    "layers": 6,
    "dual_slots": 2,
    "dual_blocks": 2,
    "stages": 2,
    "rotary_axes": (8, 12, 12),
    "mamba": {"state": 32, "chunk": 64},
    "text_tokens": 16,
    "text_width": 64,
    "pooled_width": 64,
    "codec": {"channels": 64},
    "patch": {"spatial": 1},
}
"""What a CPU trains in minutes; the codec's 64 coefficients of 8 x 8 x 8 pixels take the place of the patch."""

PRESETS = {"m4v": M4V, "m4v-tiny": M4V.but(**TINY)}
