"""What all variants of an experiment have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from evalkit.types import Profile


@dataclass(frozen=True, slots=True)
class Setting:
    """What all variants have in common.

    Args:
        out: run directory.
        subset: prompt suite to answer.
        profile: of the scores.
        weights: folder of VBench's checkpoints, for the official profile.
        seeds: training seeds.
        device: `cpu` or `cuda`.
        cache: where pre-trainings, and latents of real videos, are kept for later experiments.
        jobs: models that are worked on at the same time, each in a process of its own with its share of the threads.
    """

    out: Path
    subset: str
    profile: Profile
    weights: Path
    seeds: tuple[int, ...]
    device: str
    cache: Path
    jobs: int = 1

    @property
    def latents(self) -> Path:
        return self.cache / "latents"


def default_cache() -> Path:
    """`$M4V_EVAL_CACHE`, or `~/.cache/m4v-eval`."""
    return Path(os.environ.get("M4V_EVAL_CACHE") or Path.home() / ".cache" / "m4v-eval")
