"""What `m4v-eval ablate` leaves in `RUN/ablation.json`, as the report reads it. Scores are raw fractions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from evalkit.errors import UserError
from evalkit.records import read_json
from evalkit.untrusted.run_shape import Origin

FILE = "ablation.json"
ABLATION_SCHEMA = "m4v-eval/ablation/1"

Amount = Annotated[FiniteFloat, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Interval = tuple[FiniteFloat, FiniteFloat]


class _Record(BaseModel):
    """Read-only; fields that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Training(_Record):
    """How a variant was trained: `curves` holds of each seed the pairs of step and mean loss."""

    steps: Count
    final_loss: FiniteFloat | None = None
    curves: tuple[tuple[tuple[FiniteFloat, FiniteFloat], ...], ...] = ()


class MetricMean(_Record):
    """A metric over all seeds and prompts; `n` counts scored videos, `unscored` those that are left out of the mean."""

    mean: FiniteFloat | None = None
    ci95: Interval | None = None
    n: Count = 0
    unscored: Count = 0


class PublishedEffect(_Record):
    """What the paper found: one metric without and with the change, in `unit`."""

    metric: str
    baseline: FiniteFloat
    variant: FiniteFloat
    delta: FiniteFloat
    unit: str
    citation: str


class TrainedVariant(_Record):
    """One trained variant; `against` is the one it is compared with, None for the baseline.

    `changes` maps a recipe path to its values there and here. `runs` are the scored runs' directories relative to the
    ablation's, a training seed each, in the order of the record's `seeds`.
    """

    name: str
    title: str
    against: str | None = None
    init: str
    reward: FiniteFloat = 0.0
    parameters: Amount
    tflops: Amount
    training_tflops: Amount
    train: Training
    metrics: dict[str, MetricMean]
    published: tuple[PublishedEffect, ...] = ()
    changes: dict[str, tuple[Any, Any]] = {}
    runs: tuple[str, ...]


class ComparedMetric(_Record):
    """One metric of a variant minus that of the one it is compared with; `p_adjusted` is corrected over all of them."""

    variant: str
    against: str
    metric: str
    higher_is_better: bool
    delta: FiniteFloat | None = None
    ci95: Interval | None = None
    p_value: FiniteFloat | None = None
    p_adjusted: FiniteFloat | None = None
    n: Count
    unpaired: Count = 0
    n_seeds: Count
    seed_spread: Amount | None = None
    covers_training: bool
    verdict: str


class Pretraining(_Record):
    """The attention model whose weights all transplanted variants start from."""

    steps: Count
    recipe_hash: str


class AblationRecord(_Record):
    """`ablation.json`: variants (the baseline first), their comparisons, and what all of them share."""

    baseline: str
    system: str
    preset: str
    description: str = ""
    data: str | None = None
    subset: dict[str, Any]
    profile: str
    seeds: tuple[int, ...] = Field(min_length=1)
    variants: tuple[TrainedVariant, ...] = Field(min_length=1)
    comparisons: tuple[ComparedMetric, ...]
    pretraining: Pretraining | None = None
    config_hash: str
    provenance: Origin = {}

    @model_validator(mode="after")
    def _whole(self) -> AblationRecord:
        names = [variant.name for variant in self.variants]
        unknown = {name for c in self.comparisons for name in (c.variant, c.against)} - set(names)
        if unknown or len(set(names)) < len(names):
            raise ValueError(f"its variants {names} are not those that its comparisons name")
        if any(len(variant.runs) != len(self.seeds) for variant in self.variants):
            raise ValueError("a variant has not one run for each seed")
        return self


def is_ablation(path: Path) -> bool:
    """Whether a directory holds the record of an ablation."""
    return (path / FILE).exists()


def load_ablation(path: Path) -> AblationRecord:
    """Load the record of an ablation's directory.

    Raises:
        UserError: the file is not there, is not JSON, has another schema, or lacks a field.
    """
    found = read_json(path / FILE, ABLATION_SCHEMA)
    try:
        return AblationRecord.model_validate_json(json.dumps(found), strict=True)
    except ValidationError as e:
        first = e.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the record"
        raise UserError(
            f"{path / FILE} is not a whole record of an ablation: {place}: {first['msg']}.",
            "Run m4v-eval ablate with the same --out again.",
        ) from None
