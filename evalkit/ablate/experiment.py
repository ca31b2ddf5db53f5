"""From ablations to recipes: which runs an experiment consists of, and what each starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.ablation import PHASES, Effect, Plan
from evalkit.errors import UserError

if TYPE_CHECKING:
    from m4v.recipe import Recipe

BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class Variant:
    """One trained model of an experiment.

    Args:
        name: `baseline`, or the arm's name.
        title: what it is called in tables.
        recipe: all that it is trained by, without the seed.
        init: `transplant` carries the attention pre-training over, `fresh` starts from nothing.
        reward: weight of a reward-learning phase after training; 0 for none.
        against: the variant that it is compared with; None for the baseline.
        effects: what is published of it.
    """

    name: str
    title: str
    recipe: Recipe
    init: str
    reward: float
    against: str | None
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Experiment:
    """The preset's recipe, baseline and variants, and the attention pre-training (None if all start fresh)."""

    base: Recipe
    variants: tuple[Variant, ...]
    pretraining: Recipe | None

    @property
    def baseline(self) -> Variant:
        return self.variants[0]


def design(plan: Plan, base: Recipe, pretraining_steps: int) -> Experiment:
    """Lay a plan's changes over a recipe.

    Raises:
        UserError: a change does not fit the recipe; the field is named.
    """
    variants = [_variant(BASELINE, "Baseline", plan.baseline, base, None, ())]
    for arm in plan.arms:
        variants.append(_variant(arm.name, arm.title, arm.changes, base, arm.against or BASELINE, arm.effects))
    needed = any(variant.init == "transplant" for variant in variants)
    return Experiment(base, tuple(variants), _pretraining(base, pretraining_steps) if needed else None)


def _variant(
    name: str, title: str, changes: Mapping[str, Any], base: Recipe, against: str | None, effects: tuple[Effect, ...]
) -> Variant:
    phases = {path: value for path, value in changes.items() if path in PHASES}
    fields = {path: value for path, value in changes.items() if path not in PHASES}
    try:
        recipe = base.changed(fields).named(name)
    except ValueError as e:
        raise UserError(f"{name} does not fit the {base.name} recipe: {e}.", "Choose another --preset.") from None
    init = str(phases.get("init", "transplant" if _has_mamba(recipe) else "fresh"))
    if init == "transplant" and not _has_mamba(recipe):
        raise UserError(f"{name}: only Mamba mixers can start from attention weights.", "Take init: fresh.")
    return Variant(name, title, recipe, init, float(phases.get("reward", 0.0)), against, effects)


def _has_mamba(recipe: Recipe) -> bool:
    from m4v.backbone import BackboneConfig

    return isinstance(recipe.model, BackboneConfig) and recipe.model.mixer == "mamba"


def _pretraining(base: Recipe, steps: int) -> Recipe:
    """The attention model whose weights are carried over; the same for all variants, so that it is trained once."""
    from m4v.recipe import attention_twin

    return attention_twin(base).changed({"train.steps": steps, "train.save_every": min(steps, 500)})


def training_flops(recipe: Recipe) -> float:
    """FLOPs of a training run: three forward passes (one forward, two backward) for each clip of each step.

    The pass is the last one of sampling; with pyramids most training passes are smaller, so this is an upper bound.
    """
    from evalkit.flops import count_forward

    evaluation = recipe.model.evaluations(*recipe.model.clip)[-1]
    return 3.0 * count_forward(recipe.model, evaluation).total * recipe.train.batch * recipe.train.steps
