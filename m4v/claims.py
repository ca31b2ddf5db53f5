"""What a checkpoint from somebody else claims, checked before anything is allocated for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m4v.recipe import Recipe
from m4v.text import make_text

MOST_STEPS = 10_000
"""Of the sampler."""
MOST_PIXELS = 2**31
"""Of a clip, all frames together."""
MOST_TOKENS = 100_000
"""Of a caption."""


def check_tables(path: Path, *tables: object) -> None:
    """Make sure that these are tensors by name.

    Raises:
        ValueError: they are something else.
    """
    for table in tables:
        if not (isinstance(table, dict) and all(isinstance(name, str) for name in table)):
            raise ValueError(f"{path}: not a whole checkpoint of m4v: weights without names")
        if not all(isinstance(tensor, Tensor) for tensor in table.values()):
            raise ValueError(f"{path}: not a whole checkpoint of m4v: a weight is no tensor")


def check_claims(path: Path, recipe: Recipe, weights: Mapping[str, Tensor]) -> None:
    """Refuse a recipe that describes another network than the weights beside it: it could be one of any size.

    Raises:
        ValueError: more or larger layers than there are weights for, or a clip or sampler beyond all measure.
    """
    numbers = list(_numbers(recipe.model_dump(include={"model", "text", "sampler"})))
    depth = max(value for name, value in numbers if name.endswith(("layers", "blocks", "slots", "stages")))
    steps = max(value for name, value in numbers if name.endswith("steps"))
    if depth > len(weights) or steps > MOST_STEPS or recipe.text.tokens > MOST_TOKENS:
        raise ValueError(f"{path}: its recipe claims {depth} layers and {steps} steps for {len(weights)} weights")
    if math.prod(recipe.model.clip) > MOST_PIXELS:
        raise ValueError(f"{path}: its recipe claims clips of {recipe.model.clip}")
    try:
        with torch.device("meta"):
            parts: dict[str, nn.Module] = {"velocity": recipe.model.build()}
            if recipe.text.kind == "tokens":
                parts["text"] = make_text(recipe.text)
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its recipe cannot be built: {str(error).splitlines()[0]:.100}") from error
    for part, module in parts.items():
        for name, parameter in module.named_parameters(part):
            if name not in weights or weights[name].shape != parameter.shape:
                raise ValueError(f"{path}: its weights belong to another model: {name} does not fit")


def _numbers(fields: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int):
            yield name, value
