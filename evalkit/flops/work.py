"""The arithmetic of making a model and its videos, for those who plan it without building either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalkit.flops.convention import Convention
from evalkit.flops.rows import CostModel

if TYPE_CHECKING:
    from m4v.recipe import Recipe


@dataclass(frozen=True, slots=True)
class ModelWork:
    """One model.

    Args:
        name: of the variant.
        training: FLOPs of its training.
        steps: of the training.
        batch: clips of a step, the most GPUs that can share it.
        sampling: FLOPs of one video; the codec is not counted.
        parameters: of the velocity model.
        clip: frames, height and width of its videos.
        seeds: whether it is trained once for each seed; a shared pre-training is not.
    """

    name: str
    training: float
    steps: int
    batch: int
    sampling: float
    parameters: int
    clip: tuple[int, int, int]
    seeds: bool = True


def sampling_flops(recipe: Recipe) -> tuple[float, int]:
    """FLOPs of one video, guidance included, and the model's parameters."""
    convention = Convention(scope="clip", guidance=1 if recipe.sampler.guidance == 1 else 2)
    cost = CostModel(recipe.model, convention)
    return cost.clip(recipe.model.evaluations(*recipe.model.clip), lambda: None).total, cost.parameters
