"""A recipe: everything that one training run depends on, as one frozen text with one hash.

Model, codec, text encoder, flow, sampler, training and data. Ablations are recipes that differ in a few dotted fields
(`recipe.changed({"model.mamba.registers": False})`); presets are in `m4v.presets`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field, SerializeAsAny, ValidationError, model_validator
from torch import Tensor, nn

from m4v.backbone import BackboneConfig
from m4v.config import Config
from m4v.flow import FlowConfig
from m4v.latents import CodecRecipe
from m4v.sample import SamplerConfig
from m4v.text import TextConfig, make_text
from m4v.variants import presets
from m4v.variants.base import ModelConfig, Text
from m4v.variants.stiv import StivConfig

LABELS = ("name", "description")
"""Fields that say what a recipe is called; they are no part of its hash."""

FREE = ("train.activation_checkpointing", "train.compile", "train.shard", "train.save_every")
"""Fields that say how a step is computed, not what: a resumed run may change them, and the sampler's."""


class TrainConfig(Config):
    """How the weights are found.

    A step sees `batch` clips in micro-batches of `micro_batch` (0: all at once); each micro-batch has data and
    randomness of its own, so that processes can share a step without changing it. `images` is the ratio of image to
    video batches (M4V trains at 1 : 8). The learning rate rises linearly over `warmup` steps, is then constant, and
    falls linearly to zero over the last share `decay` of all steps. `clip` bounds the gradient's norm (0: no bound).
    `mask_ratio` is MaskDiT's, for systems that have it. `shuffle_frames` puts the frames of every clip in random order:
    a negative control. `activation_checkpointing`, `compile` and `shard` (FSDP2 rather than data parallel) change how a
    step is computed, not what it computes.
    """

    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=16, ge=1)
    micro_batch: int = Field(default=0, ge=0)
    images: tuple[int, int] = (0, 1)
    optimizer: Literal["adamw", "adafactor", "muon"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-6, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, ge=0)
    warmup: int = Field(default=0, ge=0)
    decay: float = Field(default=0.0, ge=0, le=1)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    mask_ratio: float = Field(default=0.0, ge=0, lt=1)
    shuffle_frames: bool = False
    seed: int = Field(default=0, ge=0)
    save_every: int = Field(default=1000, ge=1)
    activation_checkpointing: bool = False
    compile: bool = False
    shard: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"a batch of {self.batch} does not divide into micro-batches of {self.micro_batch}")
        if min(self.images) < 0 or not sum(self.images):
            raise ValueError(f"images {self.images}: a ratio of image to video batches is needed, such as (1, 8)")
        if self.shard and self.optimizer != "adamw":
            raise ValueError(f"{self.optimizer} needs whole matrices: sharded training (train.shard) takes adamw")
        return self

    @property
    def micro_batches(self) -> int:
        return self.batch // self.micro_batch if self.micro_batch else 1

    def is_images(self, step: int) -> bool:
        """Whether a step is one of images; image steps are spread evenly over the run."""
        images, videos = self.images
        return (step + 1) * images // (images + videos) > step * images // (images + videos)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        falling = min(1.0, (self.steps - step) / (self.decay * self.steps)) if self.decay else 1.0
        return self.lr * min(rising, falling)


class Recipe(Config):
    """One training run, whole.

    `system` names the preset of `m4v.variants` from which `model` derives, and with it the class of `model`; a mapping
    given for `model` is read as that class. `data` is what `m4v.data.make_source` takes.

    Raises:
        ValueError: parts that do not fit each other, naming both fields.
    """

    name: str
    description: str = ""
    system: str
    model: SerializeAsAny[ModelConfig]
    codec: CodecRecipe
    text: TextConfig
    flow: FlowConfig = FlowConfig()
    sampler: SamplerConfig = SamplerConfig()
    train: TrainConfig = TrainConfig()
    data: str = "shapes"

    @model_validator(mode="before")
    @classmethod
    def _model_of_system(cls, fields: Any) -> Any:
        """Read `model` as the class of the system's preset: the base class alone cannot be built."""
        if not isinstance(fields, Mapping) or "system" not in fields:
            return fields
        preset = presets().get(fields["system"])
        if preset is None:
            raise ValueError(f"no system {fields['system']!r}{near_names(str(fields['system']), list(presets()))}")
        model = fields.get("model", preset)
        if isinstance(model, ModelConfig):
            model = model.model_dump()
        return {**fields, "model": type(preset).model_validate(model)}

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for here, there, ours, theirs in self._shared():
            if ours != theirs:
                raise ValueError(f"{here} is {ours}, but {there} is {theirs}: the two must be alike")
        if self.train.mask_ratio and not isinstance(self.model, StivConfig):
            raise ValueError(f"train.mask_ratio is {self.train.mask_ratio}, but {self.system} has no masked training")
        return self

    def _shared(self) -> Iterator[tuple[str, str, Any, Any]]:
        """Facts that two parts of the recipe hold: their names and values."""
        yield "model.codec", "codec.shape", self.model.codec, self.codec.shape
        yield "model.text_width", "text.width", self.model.text_width, self.text.width
        yield "model.pooled_width", "text.pooled_width", self.model.pooled_width, self.text.pooled_width
        yield "model.text_tokens", "text.tokens", self.model.text_tokens, self.text.tokens
        if isinstance(self.model, BackboneConfig):
            for field in ("spatial_pyramid", "temporal_pyramid", "stages"):
                yield f"model.{field}", f"flow.{field}", getattr(self.model, field), getattr(self.flow, field)

    def config_hash(self) -> str:
        """SHA-256 of all that matters: recipes that differ in name or description only share it."""
        kept = self.model_dump(mode="json", exclude=set(LABELS))
        return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def training_hash(self) -> str:
        """SHA-256 of what decides the trained weights: recipes that differ elsewhere can share a checkpoint."""
        kept = {path: value for path, value in _leaves(self.model_dump(mode="json")).items() if decides_training(path)}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def paths(self) -> list[str]:
        """Dotted names of all fields, those inside other fields included."""
        return list(_paths(self.model_dump()))

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """This recipe with fields changed by their dotted names, all at once, validated again.

        Raises:
            ValueError: no such field (near names are given), or a value that does not fit.
        """
        fields = self.model_dump()
        for path, value in changes.items():
            if path not in self.paths():
                raise ValueError(f"no field {path!r} in a recipe of {self.system}{near_names(path, self.paths())}")
            *parents, leaf = path.split(".")
            inner = fields
            for parent in parents:
                inner = inner[parent]
            inner[leaf] = value.model_dump() if isinstance(value, Config) else value
        try:
            return type(self).model_validate(fields)
        except ValidationError as error:
            asked = ", ".join(f"{path} = {value}" for path, value in changes.items())
            raise ValueError(f"{asked}: {said(error)}") from error

    def named(self, name: str, description: str = "") -> Self:
        return self.but(name=name, description=description or self.description)

    def different(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Fields in which two recipes differ, by dotted name, without labels: `{path: (self, other)}`."""
        ours, theirs = _leaves(self.model_dump()), _leaves(other.model_dump())
        return {
            path: (ours.get(path), theirs.get(path))
            for path in sorted(ours.keys() | theirs.keys())
            if path not in LABELS and ours.get(path) != theirs.get(path)
        }


def said(error: ValidationError) -> str:
    """What a validation found, in one line."""
    found = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
    return "; ".join(f"{where}: {what}" if where else what for where, what in found)


def decides_training(path: str) -> bool:
    """Whether a field has a say in the trained weights."""
    return path not in LABELS + FREE and not path.startswith("sampler.")


def near_names(name: str, choices: Sequence[str]) -> str:
    """The end of a sentence that says what was perhaps meant: close in spelling, or of the same last part."""
    last = name.rsplit(".", 1)[-1]
    same = [choice for choice in choices if choice.rsplit(".", 1)[-1] == last]
    close = list(dict.fromkeys([*same, *difflib.get_close_matches(name, choices, n=3, cutoff=0.6)]))
    return f"; perhaps {' or '.join(close[:3])}" if close else f"; there are {', '.join(choices)}"


def _paths(fields: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        yield prefix + name
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def attention_twin(recipe: Recipe) -> Recipe:
    """The same recipe with attention in place of every mixer, for the pre-training that is carried over.

    Registers and the temporal branch belong to the Mamba mixer and go with it: variants that differ in these fields, or
    in which blocks are Mamba, have one and the same twin.

    Raises:
        ValueError: the system has no such field (only M4V and PyramidFlow have).
    """
    if not isinstance(recipe.model, BackboneConfig):
        raise ValueError(f"{recipe.system} has no mixer to replace: only backbones like M4V's have an attention twin")
    dual = max(recipe.model.dual_slots, recipe.model.dual_blocks)
    model = recipe.model.but(
        mixer="attention", mamba={}, temporal_branch=False, temporal_detail=2, dual_slots=dual, dual_blocks=dual
    )
    return recipe.but(model=model).named(f"{recipe.name}-attention")


class System(nn.Module):
    """What is trained: the velocity model and the text encoder. The codec has no gradients and stands outside.

    `forward(units, t_B, captions)` encodes the captions and predicts the velocity of the last unit.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.velocity = recipe.model.build()
        self.text = make_text(recipe.text)

    def forward(
        self, units: Sequence[Tensor], t_B: Tensor, captions: Sequence[str], *, stage: int = 0, **options: Any
    ) -> Tensor:
        text: Text = self.text(captions)
        out: Tensor = self.velocity(units, t_B, text, stage=stage, **options)
        return out


def build_system(recipe: Recipe, seed: int | None = None) -> System:
    """The system with fresh weights that depend on the recipe and the seed alone (by default the training seed's).

    What a module draws is drawn from the seed and the module's name, so that two variants start alike wherever they
    share a module. PyTorch's global generator is left as it was.
    """
    seed = recipe.train.seed if seed is None else seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "system"))
        system = System(recipe)
        for name, module in system.named_modules():
            torch.manual_seed(derived_seed(seed, name))
            _redraw(module)
    return system


def derived_seed(*parts: object) -> int:
    """A seed of 63 bits from names and numbers; different parts give independent streams."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@torch.no_grad()
def _redraw(module: nn.Module) -> None:
    """Draw a module's own parameters again, but keep zeros: layers that start at zero, or in part, stay there."""
    own = [parameter for parameter in module.parameters(recurse=False) if not parameter.is_meta]
    kept = [parameter != 0 for parameter in own]
    if hasattr(module, "reset_parameters") and any(bool(mask.any()) for mask in kept):
        module.reset_parameters()  # type: ignore[operator]
        for parameter, mask in zip(own, kept, strict=True):
            parameter.mul_(mask)
