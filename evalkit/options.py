"""What a user types, turned into what the code works with."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast, get_args

from evalkit.errors import UserError, unknown
from evalkit.prompts import load_suite
from evalkit.runner import checkpoints_of, choose_metrics
from evalkit.types import Precision, Profile
from evalkit.weights import WeightStore

LITE_NEEDS_NONE = "; or use `--profile lite`, which needs no weights"


def parse_precision(name: str) -> Precision:
    """Raises UserError unless `name` is a precision."""
    return cast(Precision, _one_of("precision", name, get_args(Precision)))


def parse_profile(name: str | None, weights: Path, dimensions: Iterable[str], subset: str) -> Profile:
    """The profile called `name`; without a name `official`, if all of its weights are there.

    Raises:
        UserError: unknown name.
        MissingWeights: no name was given, and checkpoints are missing.
    """
    if name is not None:
        return cast(Profile, _one_of("profile", name, get_args(Profile)))
    metrics = choose_metrics(dimensions, load_suite(subset), "official")
    WeightStore(weights).require(checkpoints_of(metrics).values(), LITE_NEEDS_NONE)
    return "official"


def resolve_device(name: str) -> str:
    """Turn `auto` into the best device there is, and check any other.

    Raises:
        UserError: no such device on this machine.
    """
    if name == "cpu" or (name == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        why = str(e).strip().splitlines()[0]
        remedy = "Use --device cpu, or run `m4v-eval doctor`."
        raise UserError(f"The device {name!r} cannot be used: {why}.", remedy) from None
    return name


def _may_have_gpu() -> bool:
    """Whether there is anything to ask torch about, which takes seconds and half a gigabyte to import."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    return sys.platform != "linux" or any(Path(driver).exists() for driver in drivers)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `0,1,2`.

    Raises:
        UserError: not whole numbers from 0, or one of them twice.
    """
    try:
        seeds = tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise UserError(f"--seeds {text!r}: these are not whole numbers.", "Write them as 0,1,2.") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text!r}: seeds are different numbers from 0.", "Write them as 0,1,2.")
    return seeds


def _one_of(kind: str, name: str, choices: Sequence[str]) -> str:
    if name not in choices:
        raise unknown(kind, name, choices)
    return name
