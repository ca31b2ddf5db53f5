"""The stages of an experiment: pre-train once, then train, generate and score every variant with every seed.

Each stage leaves its result in the run directory and is skipped or resumed when it is found there:

    RUN/<variant>/seed<k>/train/   checkpoints and losses
    RUN/<variant>/seed<k>/videos/  one clip a prompt, manifest
    RUN/<variant>/seed<k>/scores/  a scored run, as `m4v-eval vbench` leaves it
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.ablate.experiment import Experiment, Variant
from evalkit.ablate.setting import Setting
from evalkit.ablate.training import Model, Pretraining, source_of
from evalkit.backbones.base import Runtime
from evalkit.generation import Request as GenerationRequest
from evalkit.generation import generate
from evalkit.job import Progress
from evalkit.job import Request as ScoringRequest
from evalkit.prompts import load_suite
from evalkit.records import RunRecord
from evalkit.runner import score_folder


def run_all(experiment: Experiment, setting: Setting, progress: Progress) -> dict[str, list[RunRecord]]:
    """Scored runs by variant, one a seed.

    Raises:
        UserError: data, recipe or an earlier run in the directory does not fit.
        RunFailed: training failed; what is finished is kept.
    """
    attention, arms = arms_of(experiment, setting)
    if attention:
        attention.train(progress)
    # Finished ones first: one that was made otherwise is refused before the others take their time.
    found = {arm.folder: arm(progress) for arm in arms if arm.is_scored}
    waiting = [arm for arm in arms if arm.folder not in found]
    found |= zip([arm.folder for arm in waiting], _all(waiting, setting, progress), strict=True)
    return {
        variant.name: [found[arm.folder] for arm in arms if arm.variant is variant] for variant in experiment.variants
    }


def arms_of(experiment: Experiment, setting: Setting) -> tuple[Pretraining | None, list[Arm]]:
    """The shared pre-training, if there is one, and an arm for each variant and seed."""
    attention = Pretraining(experiment.pretraining, setting) if experiment.pretraining else None
    return attention, [
        Arm(variant, seed, attention, setting) for variant in experiment.variants for seed in setting.seeds
    ]


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


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant with one training seed: everything from its first step to its scores, in three stages."""

    variant: Variant
    seed: int
    attention: Pretraining | None
    setting: Setting

    @property
    def folder(self) -> Path:
        return self.setting.out / self.variant.name / f"seed{self.seed}"

    @property
    def model(self) -> Model:
        attention = self.attention if self.variant.init == "transplant" else None
        return Model(self.variant, self.seed, attention, self.setting, self.folder)

    @property
    def videos(self) -> GenerationRequest:
        """The request by which its videos are made."""
        fps = source_of(self.variant.recipe).fps
        setting = self.setting
        return GenerationRequest(
            self.model.checkpoint, setting.subset, self.folder / "videos", device=setting.device, fps=fps
        )

    @property
    def is_scored(self) -> bool:
        """Whether its scores are there, and not those of a run that was cut short."""
        try:
            summary = json.loads((self.folder / "scores" / "vbench.json").read_text(encoding="utf-8"))
            return not summary["interrupted"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @property
    def size(self) -> int:
        """Steps of progress, about: training, and for each prompt a video made, read and decoded frame by frame."""
        recipe, prompts = self.variant.recipe, len(load_suite(self.setting.subset).prompts)
        return recipe.train.steps + prompts * (2 + recipe.model.clip[0])

    def __call__(self, progress: Progress) -> RunRecord:
        """Do what is missing of all stages.

        Raises:
            UserError, RunFailed: as `run_all`.
            KeyboardInterrupt: Ctrl-C; what is finished is kept.
        """
        self.model.train(progress)
        generate(self.videos, progress)
        return self.score(progress)

    def score(self, progress: Progress) -> RunRecord:
        """Score its videos.

        Raises:
            KeyboardInterrupt: Ctrl-C; what is scored is kept.
        """
        scoring = ScoringRequest(
            self.folder / "videos",
            self.setting.subset,
            self.folder / "scores",
            self.setting.profile,
            weights=self.setting.weights,
            runtime=Runtime(self.setting.device if self.setting.profile == "official" else "cpu"),
        )
        record = score_folder(scoring, progress, ["m4v-eval", "ablate", self.variant.name])
        if record.summary["interrupted"]:
            raise KeyboardInterrupt
        return record
