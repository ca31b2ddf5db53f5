"""The dimensions whose parity is proven, the networks each reads, and how close the scores must be."""

from __future__ import annotations

NETWORKS: dict[str, tuple[str, ...]] = {
    "subject_consistency": ("dino",),
    "background_consistency": ("clip_b32",),
    "temporal_flickering": (),
    "motion_smoothness": ("amt",),
    "aesthetic_quality": ("clip_l14", "laion"),
    "imaging_quality": ("musiq",),
    "overall_consistency": ("viclip",),
}

# float32 networks on another build of the same kernels agree to about 1e-6; pixels alone agree to rounding.
TOLERANCE = dict.fromkeys(NETWORKS, 1e-4) | {"temporal_flickering": 1e-9}

# The official package gives a video's imaging quality on MUSIQ's scale of 0 to 100, the dimension's as a fraction.
VIDEO_SCALE = dict.fromkeys(NETWORKS, 1.0) | {"imaging_quality": 0.01}
