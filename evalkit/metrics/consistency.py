"""How much the frames of a clip stay alike: the formula that subject and background consistency share.

Huang et al., "VBench: Comprehensive Benchmark Suite for Video Generative Models" (CVPR 2024, arXiv:2311.17982).
"""

from __future__ import annotations

import numpy as np

from evalkit.types import Array, Score

EPSILON = 1e-8
"""Smallest product of norms in a cosine, as in torch."""


def cosine(a_D: Array, b_D: Array) -> Array:
    """Cosine similarity along the last axis, in float64."""
    a_D, b_D = np.asarray(a_D, np.float64), np.asarray(b_D, np.float64)
    norms = np.linalg.norm(a_D, axis=-1) * np.linalg.norm(b_D, axis=-1)
    cosines: Array = np.sum(a_D * b_D, axis=-1) / np.maximum(norms, EPSILON)
    return cosines


def frame_consistency(features_TD: Array) -> Score:
    """Average over frames i >= 1 of (max(0, cos(f_i, f_{i-1})) + max(0, cos(f_i, f_0))) / 2.

    Frame 1 is compared with frame 0 twice: as its predecessor and as the first frame. Needs two frames.
    """
    later, previous, first = features_TD[1:], features_TD[:-1], features_TD[:1]
    terms = (np.maximum(cosine(later, previous), 0) + np.maximum(cosine(later, first), 0)) / 2
    return Score(float(terms.mean()), n_terms=len(terms))
