"""Training the models of an experiment: the shared attention model, and the variants with their rewards.

A model that is trained says so in `trained.json` beside its checkpoints, so that nobody has to open them to know.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.ablate.experiment import Variant
from evalkit.ablate.setting import Setting
from evalkit.errors import RunFailed, UserError
from evalkit.files import write_atomically
from evalkit.job import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from m4v.data import Source
    from m4v.recipe import Recipe
    from m4v.reward_models import Reward
    from m4v.train import StepRecord

TRAINED = "trained.json"
LAST = "last.pt"


@dataclass(frozen=True, slots=True)
class Pretraining:
    """The attention model, trained once for all experiments that need just this one."""

    recipe: Recipe
    setting: Setting

    @property
    def folder(self) -> Path:
        return self.setting.cache / "pretrained" / self.recipe.config_hash()[:16]

    @property
    def checkpoint(self) -> Path:
        return self.folder / LAST

    @property
    def is_trained(self) -> bool:
        return is_marked(self.folder, self._mark) and self.checkpoint.exists()

    @property
    def _mark(self) -> dict[str, Any]:
        return {"recipe_hash": self.recipe.config_hash()}

    def train(self, progress: Progress) -> None:
        """Train it, or go on where an earlier run stopped.

        Raises:
            UserError: data or an earlier run in the cache does not fit.
            RunFailed: training failed.
        """
        what = "pre-training with attention"
        _trained(self.recipe, source_of(self.recipe), self.folder, None, self.setting, progress, what)
        mark(self.folder, self._mark)


@dataclass(frozen=True, slots=True)
class Model:
    """One variant with one training seed.

    Args:
        folder: of the arm; checkpoints go to `train/` and, with a reward, to `reward/` in it.
        attention: what it starts from, if it is carried over.
    """

    variant: Variant
    seed: int
    attention: Pretraining | None
    setting: Setting
    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / ("reward" if self.variant.reward else "train") / LAST

    @property
    def recipe(self) -> Recipe:
        return self.variant.recipe.changed({"train.seed": self.seed})

    @property
    def is_trained(self) -> bool:
        return is_marked(self.folder, self._mark) and self.checkpoint.exists()

    @property
    def _mark(self) -> dict[str, Any]:
        before = self.attention.recipe.config_hash() if self.attention else None
        return {"recipe_hash": self.recipe.config_hash(), "attention_hash": before, "reward": self.variant.reward}

    def train(self, progress: Progress) -> None:
        """Train it, rewards included, or go on where an earlier run stopped.

        Raises:
            UserError, RunFailed: as `Pretraining.train`.
            KeyboardInterrupt: Ctrl-C; the step is finished and saved.
        """
        recipe, setting = self.recipe, self.setting
        source = source_of(recipe)
        init = _carried_over(recipe, self.attention) if self.attention else None
        what = f"training {self.variant.name}, seed {self.seed}"
        checkpoint = _trained(recipe, source, self.folder / "train", init, setting, progress, what)
        if self.variant.reward:
            _rewarded(checkpoint, self.variant, self.seed, self.folder / "reward", source, setting, progress)
        mark(self.folder, self._mark)


def is_marked(folder: Path, expected: Mapping[str, Any]) -> bool:
    try:
        return bool(json.loads((folder / TRAINED).read_text(encoding="utf-8")) == expected)
    except (OSError, ValueError):
        return False


def mark(folder: Path, content: Mapping[str, Any]) -> None:
    """Say that a model is trained; of several processes the first one does."""
    if os.environ.get("RANK", "0") == "0" and not is_marked(folder, content):
        write_atomically(folder / TRAINED, json.dumps(content, indent=1).encode())


def source_of(recipe: Recipe) -> Source:
    """Raises UserError if there is no such data."""
    from m4v.data import make_source

    frames, height, width = recipe.model.clip
    try:
        return make_source(recipe.data, frames=frames, height=height, width=width)
    except ValueError as e:
        raise UserError(f"--data {recipe.data}: {e}.", "Give shapes, a folder of videos, or tar shards.") from None


def _trained(
    recipe: Recipe,
    source: Source,
    folder: Path,
    init: Mapping[str, Tensor] | None,
    setting: Setting,
    progress: Progress,
    what: str,
) -> Path:
    from m4v.checkpoint import has_checkpoint, load_checkpoint
    from m4v.train import TrainingFailed, train

    try:
        done = load_checkpoint(folder).step if has_checkpoint(folder) else 0
        progress.start(what, recipe.train.steps - done)

        def step(record: StepRecord, steps: int) -> None:
            progress.advance()

        return train(recipe, source, folder, init=init, progress=step, device=setting.device, cache=setting.latents)
    except TrainingFailed as e:
        raise RunFailed(f"{what}: {e}.", "The last good checkpoint is kept.") from None
    except ValueError as e:
        raise UserError(f"{what}: {e}.", "Choose another --out, or remove that folder.") from None


def _carried_over(recipe: Recipe, attention: Pretraining) -> dict[str, Tensor]:
    """Weights of the attention model, its mixers turned into Mamba's."""
    from m4v.checkpoint import load_checkpoint
    from m4v.transplant import carry_over

    found = load_checkpoint(attention.checkpoint)
    try:
        return carry_over(found.model | found.ema, attention.recipe, recipe)
    except ValueError as e:
        raise UserError(f"{recipe.name}: {e}.", "Start this variant fresh (init: fresh).") from None


def _rewarded(
    checkpoint: Path, variant: Variant, seed: int, folder: Path, source: Source, setting: Setting, progress: Progress
) -> Path:
    """The reward-learning phase after training (M4V supplement D.1)."""
    from m4v.reward import PAPER_REWARD, TINY_REWARD, reward_learning

    procedural = variant.recipe.data.startswith("shapes")
    base = TINY_REWARD if procedural else PAPER_REWARD
    steps = min(base.steps, max(1, variant.recipe.train.steps // 2))
    config = base.but(weight=variant.reward, seed=seed, steps=steps)
    progress.start(f"reward learning {variant.name}, seed {seed}", steps)

    def step(record: StepRecord, total: int) -> None:
        progress.advance()

    return reward_learning(
        checkpoint,
        folder,
        source,
        _rewards(procedural),
        config,
        progress=step,
        device=setting.device,
        cache=setting.latents,
    )


def _rewards(procedural: bool) -> Mapping[str, Reward]:
    """Weight-free rewards for the procedural world, else the published ones from folders on this machine.

    Raises:
        UserError: the folders are not named.
    """
    from m4v.reward_models import clip_reward, hpsv2_reward, shapes_rewards

    if procedural:
        return shapes_rewards()
    folders = {name: os.environ.get(name) for name in ("M4V_EVAL_HPSV2", "M4V_EVAL_CLIP")}
    missing = [name for name, folder in folders.items() if not folder]
    if missing:
        raise UserError(
            "Reward learning on real videos needs two reward models.",
            f"Set {' and '.join(missing)} to folders that hold HPSv2 and CLIP.",
        )
    return {
        "aesthetic": hpsv2_reward(Path(str(folders["M4V_EVAL_HPSV2"]))),
        "text-image": clip_reward(Path(str(folders["M4V_EVAL_CLIP"]))),
    }


def losses(folder: Path) -> list[float]:
    """Losses of a training run, one a step; empty if it was removed.

    Raises:
        UserError: the log is damaged.
    """
    from m4v.train import LOG, read_log

    try:
        return [float(record["loss"]) for record in read_log(folder / LOG)]
    except ValueError as e:
        raise UserError(f"{e}.", "Remove that line, or the whole log: only the curve lacks what you remove.") from None
