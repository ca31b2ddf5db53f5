"""STIV's training budgets (Tables 14 and 15): sums of stages checked, and stages recomputed from the model.

A training step costs three forward passes (one forward, two backward). Batch sizes and steps are the paper's defaults
(Section 3): 400k steps, 4,096 images or 1,024 videos of 20 frames. Appendix J counts the spatial and temporal
computation: cross-attention to text is left out here. It also says that masking was taken into account, but not in
which stages; a stage is therefore counted both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from evalkit.flops.counter import Count, ForwardCounter
from evalkit.flops.rows import part_of
from evalkit.reference import find_table, number

STEPS, IMAGES, VIDEOS, FORWARDS = 400_000, 4096, 1024, 3
UNIT = 1e21
STAGES = ("stage1", "stage2", "stage3", "stage4")
CLIPS = {"T2I-256": (1, 256), "T2V-256": (20, 256)}
"""Frames and side of the two stages whose number of steps is the default one."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A row of Table 14 or 15, in 1e21 FLOPs; `misprint` is (stage, printed, what the printed total needs)."""

    table: str
    name: str
    stages: tuple[float, ...]
    total: float
    misprint: tuple[str, float, float] | None

    @property
    def sum(self) -> float:
        return sum(self.stages)


def budgets() -> Iterator[Budget]:
    """All rows, with the stage that must be misprinted where stages and total disagree.

    A stage counts as misprinted when dividing it by ten makes the sum agree with the printed total to its rounding.
    """
    for row in find_table("stiv_flops").rows():
        cells = {stage: number(row[stage]) for stage in STAGES}
        stages = {stage: value for stage, value in cells.items() if value is not None}
        total = number(row["total"]) or 0.0
        rounding = 0.005 * (len(stages) + 1)
        misprint = None
        if abs(sum(stages.values()) - total) > rounding:
            for stage, value in stages.items():
                if abs(sum(stages.values()) - 0.9 * value - total) <= rounding:
                    misprint = (stage, value, value / 10)
        yield Budget(row["table"], f"{row['init_method']}: {row['models']}", tuple(stages.values()), total, misprint)


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A default stage in 1e21 FLOPs: printed, counted in full, and counted with half of the spatial tokens masked."""

    stage: str
    printed: float
    unmasked: float
    masked: float


def recompute() -> Iterator[Recomputed]:
    """STIV-XL's stages of default length from the counted model."""
    from m4v.variants import presets

    video = presets()["stiv-xl"]
    image = video.but(patch=video.model_dump()["patch"] | {"temporal": 1}, temporal_attention=False)
    for stage, (frames, side) in CLIPS.items():
        config, batch = (image, IMAGES) if frames == 1 else (video, VIDEOS)
        counter = ForwardCounter(config, every_block=True)
        evaluation = config.evaluations(frames, side, side)[-1]
        unmasked, masked = (
            FORWARDS * STEPS * batch / UNIT * without_text(counter(evaluation, mask_ratio=ratio))
            for ratio in (0.0, 0.5)
        )
        yield Recomputed(stage, printed(stage), unmasked, masked)


def without_text(count: Count) -> float:
    """FLOPs without cross-attention to text."""
    return sum(flops for path, flops in count.by_module.items() if part_of(path) != "cross")


def printed(stage: str) -> float:
    """What Table 14 prints for a stage in the first row that names it, in 1e21 FLOPs."""
    for row in find_table("stiv_flops").rows():
        for column, name in zip(STAGES, row["models"].split(", "), strict=False):
            value = number(row[column])
            if name == stage and value is not None:
                return value
    raise ValueError(f"STIV's tables have no stage {stage}")
