"""What the dimensions that read GRiT share: a clip's detections frame by frame, and shares of frames.

The official package looks at 16 frames of every clip (a short one repeats its last), so that a share of frames always
has 16 terms, and a frame in which nothing was found is one of them.

Huang et al., "VBench: Comprehensive Benchmark Suite for Video Generative Models" (CVPR 2024, arXiv:2311.17982).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from evalkit.backbones.detections import FRAMES
from evalkit.types import Array, Score


def by_frame(detections: Array) -> Iterator[Array]:
    """The rows of each frame (see `evalkit.backbones.grit.detections`), none for a frame without detections."""
    for frame in range(FRAMES):
        yield detections[detections["frame"] == frame]


def names_by_frame(detections: Array) -> Iterator[set[str]]:
    """The names of what was found in each frame."""
    for rows in by_frame(detections):
        yield set(rows["object"].tolist())


def frame_mean(terms: Iterable[float]) -> Score:
    """The mean over frames of a term that each of them has."""
    listed = list(terms)
    return Score(sum(listed) / len(listed), n_terms=len(listed))
