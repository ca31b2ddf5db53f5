"""The stages of an experiment: pre-train once, then train, generate and score every variant with every seed.

Each stage leaves its result in the run directory and is skipped or resumed when it is found there:

    RUN/<variant>/seed<k>/train/   checkpoints and losses
    RUN/<variant>/seed<k>/videos/  one clip a prompt, manifest
    RUN/<variant>/seed<k>/scores/  a scored run, as `m4v-eval vbench` leaves it
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.ablate.experiment import Experiment, Variant
from evalkit.errors import RunFailed, UserError
from evalkit.generation import Request as GenerationRequest
from evalkit.generation import generate
from evalkit.job import Progress
from evalkit.job import Request as ScoringRequest
from evalkit.prompts import load_suite
from evalkit.records import RunRecord
from evalkit.runner import score_folder
from evalkit.types import Profile

if TYPE_CHECKING:
    from torch import Tensor

    from m4v.data import Source
    from m4v.recipe import Recipe
    from m4v.reward_models import Reward
    from m4v.train import StepRecord


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


def run_all(experiment: Experiment, setting: Setting, progress: Progress) -> dict[str, list[RunRecord]]:
    """Scored runs by variant, one a seed.

    Raises:
        UserError: data, recipe or an earlier run in the directory does not fit.
        RunFailed: training failed; what is finished is kept.
    """
    attention = _pretrained(experiment.pretraining, setting, progress) if experiment.pretraining else None
    arms = [Arm(variant, seed, attention, setting) for variant in experiment.variants for seed in setting.seeds]
    # Finished ones first: one that was made otherwise is refused before the others take their time.
    found = {arm.folder: arm(progress) for arm in arms if arm.is_finished}
    waiting = [arm for arm in arms if arm.folder not in found]
    found |= zip([arm.folder for arm in waiting], _all(waiting, setting, progress), strict=True)
    return {
        variant.name: [found[arm.folder] for arm in arms if arm.variant is variant] for variant in experiment.variants
    }


def _all(arms: Sequence[Arm], setting: Setting, progress: Progress) -> list[RunRecord]:
    """The arms' runs, several at a time if the setting says so."""
    jobs = min(setting.jobs, len(arms))
    if jobs < 2:
        return [arm(progress) for arm in arms]
    import torch

    from evalkit.ablate.workers import side_by_side

    threads = max(1, torch.get_num_threads() // jobs)
    what = f"training, sampling and scoring {len(arms)} models, {jobs} at a time"
    return side_by_side(arms, jobs, threads, progress, what, sum(arm.size for arm in arms))


def _source(recipe: Recipe) -> Source:
    from m4v.data import make_source

    frames, height, width = recipe.model.clip
    try:
        return make_source(recipe.data, frames=frames, height=height, width=width)
    except ValueError as e:
        raise UserError(f"--data {recipe.data}: {e}.", "Give shapes, a folder of videos, or tar shards.") from None


def _pretrained(recipe: Recipe, setting: Setting, progress: Progress) -> tuple[Recipe, Path]:
    """The attention model, trained once for all experiments that need just this one."""
    folder = setting.cache / "pretrained" / recipe.config_hash()[:16]
    return recipe, _trained(recipe, _source(recipe), folder, None, setting, progress, "pre-training with attention")


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant with one training seed: everything from its first step to its scores."""

    variant: Variant
    seed: int
    attention: tuple[Recipe, Path] | None
    setting: Setting

    @property
    def folder(self) -> Path:
        return self.setting.out / self.variant.name / f"seed{self.seed}"

    @property
    def is_finished(self) -> bool:
        return (self.folder / "scores" / "vbench.json").exists()

    @property
    def size(self) -> int:
        """Steps of progress, about: training, and for each prompt a video made, read and decoded frame by frame."""
        recipe, prompts = self.variant.recipe, len(load_suite(self.setting.subset).prompts)
        return recipe.train.steps + prompts * (2 + recipe.model.clip[0])

    def __call__(self, progress: Progress) -> RunRecord:
        """Do what is missing.

        Raises:
            UserError, RunFailed: as `run_all`.
            KeyboardInterrupt: Ctrl-C; what is finished is kept.
        """
        variant, setting, folder = self.variant, self.setting, self.folder
        source = _source(variant.recipe)
        recipe = variant.recipe.changed({"train.seed": self.seed})
        attention = self.attention if variant.init == "transplant" else None
        init = _carried_over(recipe, attention) if attention else None
        what = f"{variant.name}, seed {self.seed}"
        checkpoint = _trained(recipe, source, folder / "train", init, setting, progress, f"training {what}")
        if variant.reward:
            checkpoint = _rewarded(checkpoint, variant, self.seed, folder / "reward", source, setting, progress)
        generate(
            GenerationRequest(checkpoint, setting.subset, folder / "videos", device=setting.device, fps=source.fps),
            progress,
        )
        scoring = ScoringRequest(
            folder / "videos", setting.subset, folder / "scores", setting.profile, weights=setting.weights
        )
        record = score_folder(scoring, progress, ["m4v-eval", "ablate", variant.name])
        if record.summary["interrupted"]:
            raise KeyboardInterrupt
        return record


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


def _carried_over(recipe: Recipe, attention: tuple[Recipe, Path]) -> dict[str, Tensor]:
    """Weights of the attention model, its mixers turned into Mamba's."""
    from m4v.checkpoint import load_checkpoint
    from m4v.transplant import carry_over

    before, path = attention
    found = load_checkpoint(path)
    try:
        return carry_over(found.model | found.ema, before, recipe)
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
    """Losses of a training run, one a step; empty if it was removed."""
    path = folder / "losses.jsonl"
    if not path.exists():
        return []
    return [float(json.loads(line)["loss"]) for line in path.read_text().splitlines() if line.endswith("}")]
