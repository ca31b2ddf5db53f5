"""Checkpoints: one file that holds the recipe, weights, their moving average, the optimiser and the step.

Written whole or not at all; the one before is kept beside it. Read without running code from the file, and only if the
checksums of its parts are right (CRC-32, which `torch.save` writes and `torch.load` does not look at).
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from m4v.claims import check_claims, check_tables
from m4v.latents import LatentCodec, make_codec
from m4v.optim import State
from m4v.recipe import Recipe, System, build_system, decides_training, said

FORMAT = 1
_UNREADABLE: tuple[type[Exception], ...] = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
)
_UNREADABLE += (LookupError, TypeError, ValueError, AttributeError, struct.error, zlib.error)
LAST, PREVIOUS = "last.pt", "previous.pt"


class Checkpoint(NamedTuple):
    """A training run after `step` steps; tensors are whole and on the CPU, by the names of `System`.

    `model` lacks weights that are not trained (pretrained text encoders); `codec` holds the codec's statistics; `data`
    is what the source said of itself.
    """

    recipe: Recipe
    step: int
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: State
    codec: dict[str, Tensor]
    data: dict[str, Any]


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write `last.pt` of a folder; what was `last.pt` becomes `previous.pt`. At no moment is there neither.

    Raises:
        OSError: the disk is full or the folder cannot be written; what was there is still there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, fresh = folder / LAST, folder / f"{LAST}.part"
    recipe = checkpoint.recipe
    labels = {"recipe": recipe.canonical_json(), "hash": recipe.config_hash(), "data": json.dumps(checkpoint.data)}
    try:
        with fresh.open("wb") as file:
            torch.save({"format": FORMAT, **checkpoint._asdict(), **labels}, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch's writer says nothing of the reason
        fresh.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        raise cause if isinstance(cause, OSError) else OSError(errno.EIO, str(error).splitlines()[0]) from error
    if last.exists():
        last.replace(folder / PREVIOUS)
    return fresh.replace(last)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file, or the newest readable one of a folder.

    Raises:
        ValueError: there is none, or the file is not a checkpoint of this program.
    """
    if path.is_dir():
        return _newest(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("it unpacks to more than it has, and torch.save packs nothing")
            damaged = archive.testzip()
        found = torch.load(path, map_location="cpu", weights_only=True)
        version = found["format"]
    except _UNREADABLE as error:
        raise ValueError(f"{path}: not a readable checkpoint of m4v") from error
    if damaged:
        raise ValueError(f"{path}: damaged on disk ({damaged} does not fit its checksum)")
    if not isinstance(version, int) or version != FORMAT:
        raise ValueError(f"{path}: a checkpoint of format {version}; this program reads format {FORMAT}")
    try:
        recipe = Recipe.model_validate_json(found["recipe"])
        fields = {name: found[name] for name in Checkpoint._fields}
        checkpoint = Checkpoint(**{**fields, "recipe": recipe, "data": dict(json.loads(found["data"]))})
    except ValidationError as error:
        raise ValueError(f"{path}: its recipe does not fit this program: {said(error)}") from error
    except _UNREADABLE as error:
        raise ValueError(f"{path}: not a whole checkpoint of m4v ({type(error).__name__})") from error
    check_tables(path, checkpoint.model, checkpoint.ema, checkpoint.codec)
    return checkpoint


def _newest(folder: Path) -> Checkpoint:
    """`last.pt`, or `previous.pt` where a machine died between two renames, or `last.pt` is damaged."""
    last, previous = folder / LAST, folder / PREVIOUS
    try:
        return load_checkpoint(last)
    except ValueError:
        if not previous.exists():
            raise
        return load_checkpoint(previous)


def has_checkpoint(folder: Path) -> bool:
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def check_same_run(checkpoint: Checkpoint, recipe: Recipe, data: Mapping[str, Any], where: Path) -> None:
    """Refuse to go on with another recipe or other data than the checkpoint's.

    Raises:
        ValueError: naming the fields that differ, with both values.
    """
    differences = {p: both for p, both in checkpoint.recipe.different(recipe).items() if decides_training(p)}
    theirs, ours = checkpoint.data, json.loads(json.dumps(data))
    differences |= {
        f"data.{name}": (theirs.get(name), ours.get(name))
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    }
    if differences:
        each = "; ".join(f"{path} is {there} there and {here} here" for path, (there, here) in differences.items())
        raise ValueError(f"{where} was trained with another configuration: {each}")


def load_weights(system: System, weights: Mapping[str, Tensor]) -> None:
    """Fill the trained weights and buffers of a system.

    Raises:
        ValueError: weights are missing, left over, or of another shape.
    """
    own = system.state_dict()
    frozen = {name for name, p in system.named_parameters() if not p.requires_grad}
    wrong = sorted((own.keys() - frozen) ^ (weights.keys() - frozen))
    wrong += sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"these weights belong to another model: {', '.join(wrong[:3])}{more} do not fit")
    system.load_state_dict(weights, strict=False)


def load_system(path: Path, *, ema: bool = True) -> tuple[Recipe, System, LatentCodec]:
    """Recipe, system and codec of a checkpoint, ready to sample; with `ema` the averaged weights.

    Of a folder it is `last.pt` and no other: training may go on from `previous.pt`, but its videos are another model's.

    Raises:
        ValueError: as `load_checkpoint`.
    """
    checkpoint = load_checkpoint(path / LAST if path.is_dir() else path)
    weights = checkpoint.model | (checkpoint.ema if ema else {})
    check_claims(path, checkpoint.recipe, weights)
    system = build_system(checkpoint.recipe)
    load_weights(system, weights)
    codec = make_codec(checkpoint.recipe.codec)
    try:
        codec.load_state_dict(checkpoint.codec, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path}: its codec's statistics do not fit") from error
    return checkpoint.recipe, system.eval().requires_grad_(False), codec
