"""Which model at which clip size is counted or timed: named systems, their variants, a user's own network."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from m4v.layout import Evaluation
    from m4v.variants import ModelConfig


SSMS = ("mamba1", "mamba2")


def resolve(name: str) -> ModelConfig:
    """The named configuration.

    Raises:
        UserError: no such model; near names are suggested.
    """
    from m4v.variants import presets

    if name not in presets():
        raise unknown("model", name, presets())
    return presets()[name]


def family(name: str, *, dual_blocks: int | None = None, ssm: str | None = None) -> dict[str, ModelConfig]:
    """The variants that a table compares, by name: for M4V its mixers, for other systems the system itself.

    Raises:
        UserError: no such model, or an option that it does not have.
    """
    from m4v.backbone import BackboneConfig

    config = resolve(name)
    if not isinstance(config, BackboneConfig) or config.mixer == "attention":
        for option, value in (("--dual-blocks", dual_blocks), ("--ssm", ssm)):
            if value is not None:
                raise UserError(
                    f"{option} says how Mamba blocks are built; {name} has none.", "Leave it out, or use --model m4v."
                )
        return {name: config}
    if ssm is not None:
        if ssm not in SSMS:
            raise unknown("--ssm", ssm, SSMS)
        config = config.but(mamba=config.mamba.model_dump() | {"ssm": ssm})
    if dual_blocks is not None:
        config = with_dual_blocks(config, dual_blocks)
    return {
        "attention": config.but(mixer="attention", temporal_branch=False),
        "mamba": config.but(temporal_branch=False),
        "mamba+temporal": config,
    }


def with_dual_blocks(config: ModelConfig, dual_blocks: int) -> ModelConfig:
    """The configuration with another number of dual-stream attention blocks, L of M4V's Table 6.

    Raises:
        UserError: L is negative or more than the model's layers.
    """
    layers: int = config.model_dump()["layers"]
    if not 0 <= dual_blocks <= layers:
        raise UserError(
            f"{dual_blocks} dual-stream attention blocks: the model has {layers} layers.", f"Give 0 to {layers}."
        )
    return config.but(dual_blocks=dual_blocks)


def plan(config: ModelConfig, frames: int, height: int, width: int) -> tuple[Evaluation, ...]:
    """The forward passes of a clip.

    Raises:
        UserError: the model cannot make a clip of this size.
    """
    try:
        evaluations = config.evaluations(frames, height, width)
        for evaluation in evaluations:
            config.tokens(evaluation)
    except ValueError as e:
        f, h, w = config.clip
        raise UserError(
            f"A clip of {frames} frames at {height}x{width} does not fit the model: {e}.",
            f"The model is meant for --frames {f} --height {h} --width {w}.",
        ) from None
    return evaluations


@dataclass(frozen=True)
class UserModel:
    """A user's network: `build()` makes it and the arguments of one forward pass, on the current default device."""

    name: str
    build: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]


def load_user_model(reference: str) -> UserModel:
    """Load `FILE.py:factory`; the factory returns `(module, inputs)` for one forward pass `module(*inputs)`.

    Raises:
        UserError: no such file or function, or the file fails while it is loaded.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UserError(
            f"{file or reference} is no file.", "Give --model FILE.py:factory, with a function of no arguments."
        )
    spec = importlib.util.spec_from_file_location(f"_user_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file.", "Give --model FILE.py:factory.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as e:  # noqa: BLE001 -- the user's code may raise anything
        raise UserError(
            f"{path} fails while it is loaded: {last_line(e)}.", f"Put line {line_of(e, path)} right."
        ) from None
    factory = getattr(module, name, None)
    if not callable(factory):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown(f"function in {path}", name, functions or ["(the file defines none)"])
    return UserModel(f"{path.name}:{name}", lambda: _built(factory, path, name))


def _built(factory: Callable[[], object], path: Path, name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    import torch
    from torch import nn

    try:
        made = factory()
    except Exception as e:  # noqa: BLE001 -- the user's code may raise anything
        raise UserError(f"{name}() of {path} fails: {last_line(e)}.", f"Put line {line_of(e, path)} right.") from None
    remedy = "Return (module, inputs): an nn.Module and the tensors of one forward pass."
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], nn.Module):
        raise UserError(f"{name}() of {path} returned {type(made).__name__}.", remedy)
    module, inputs = made
    inputs = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    if not all(isinstance(x, torch.Tensor) for x in inputs):
        raise UserError(f"{name}() of {path} returned inputs that are not tensors.", remedy)
    return module, inputs


def last_line(error: BaseException) -> str:
    """One line of an exception: its type and message."""
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}: {message[0]}" if message else type(error).__name__


def line_of(error: BaseException, path: Path) -> str:
    """The deepest line of `path` in the traceback, or `?`."""
    if isinstance(error, SyntaxError) and error.lineno:
        return str(error.lineno)
    lines = [
        f.lineno
        for f in traceback.extract_tb(error.__traceback__)
        if Path(f.filename) == path.resolve() or Path(f.filename) == path
    ]
    return str(lines[-1]) if lines and lines[-1] is not None else "?"
