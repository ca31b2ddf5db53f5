"""What an experiment takes in FLOPs, model by model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.ablate.experiment import Experiment, training_flops
from evalkit.flops.work import ModelWork, sampling_flops
from evalkit.job import Progress

if TYPE_CHECKING:
    from m4v.recipe import Recipe


def model_works(experiment: Experiment, progress: Progress) -> tuple[ModelWork, ...]:
    """The shared pre-training first, if there is one, then the baseline and its variants.

    A phase of reward learning is not counted: what it costs depends on the reward models.
    """
    progress.start("counting FLOPs", len(experiment.variants) + (experiment.pretraining is not None))
    works = []
    if experiment.pretraining is not None:
        works.append(_work("attention pre-training", experiment.pretraining, seeds=False))
        progress.advance()
    for variant in experiment.variants:
        works.append(_work(variant.name, variant.recipe))
        progress.advance()
    return tuple(works)


def _work(name: str, recipe: Recipe, *, seeds: bool = True) -> ModelWork:
    sampling, parameters = sampling_flops(recipe)
    train = recipe.train
    return ModelWork(
        name, training_flops(recipe), train.steps, train.batch, sampling, parameters, recipe.model.clip, seeds
    )
