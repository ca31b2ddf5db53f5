"""Does the clip show the camera movement or pace that the prompt asks for?"""

from __future__ import annotations

from dataclasses import replace

from evalkit.metrics.overall_consistency import METRIC as OVERALL_CONSISTENCY

METRIC = replace(
    OVERALL_CONSISTENCY,
    name="temporal_style",
    version=1,
    title="Temporal style",
    summary="Cosine similarity of ViCLIP's features of eight frames of the clip and of a prompt that names a style.",
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/temporal_style.py",
    quirks=(
        "The computation is that of overall consistency; only the prompts differ: they end in a movement of the"
        " camera or a pace.",
        *OVERALL_CONSISTENCY.quirks,
    ),
)
