"""What is timed: one forward pass of a named model's variant, or of a user's network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from evalkit.flops.counter import Count, count_forward, count_module
from evalkit.latency.roofline import size_of, tensors_in
from evalkit.workload import UserModel, family, plan

if TYPE_CHECKING:
    from m4v.layout import Evaluation
    from m4v.variants import ModelConfig


class Clip(NamedTuple):
    """Frames, rows and columns in pixels."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames} frames {self.height}x{self.width}"


class Network(NamedTuple):
    """A network with the arguments of one forward pass, on the device and in the dtype that are timed."""

    module: nn.Module
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def resident_bytes(self) -> int:
        """Weights, buffers and inputs."""
        own = (*self.module.parameters(), *self.module.buffers())
        return size_of(own) + size_of(tensors_in((self.arguments, self.keywords)))


class Work(NamedTuple):
    """What one pass at batch 1 is counted to do: FLOPs by module path, exclusive of children; and the weights."""

    by_module: dict[str, float]
    parameters: int

    @property
    def total(self) -> float:
        return sum(self.by_module.values())

    @classmethod
    def of(cls, count: Count) -> Work:
        return cls(dict(count.by_module), count.parameters)


@dataclass(frozen=True)
class Subject:
    """One row to be: `build(device, dtype)` makes the network, `count()` its FLOPs (None if they cannot be counted)."""

    model: str
    variant: str
    clip: Clip | None
    tokens: int | None
    config_hash: str | None
    build: Callable[[torch.device, torch.dtype], Network]
    count: Callable[[], Work | None]

    @property
    def is_users(self) -> bool:
        """Whether it comes from a user's file, which makes its own inputs."""
        return self.clip is None


def named_subjects(
    model: str, clips: list[Clip] | None, *, batch: int, seed: int, dual_blocks: int | None = None
) -> list[list[Subject]]:
    """The variants of a named model, a list for each clip (None: the model's own clip).

    The pass is the last one of sampling: last latent frame, full-resolution stage, all history in sight.

    Raises:
        UserError: no such model, or a clip that it cannot make.
    """
    configs = family(model, dual_blocks=dual_blocks)
    own = Clip(*next(iter(configs.values())).clip)
    return [
        [_named(model, variant, config, clip, batch, seed) for variant, config in configs.items()]
        for clip in clips or [own]
    ]


def _named(model: str, variant: str, config: ModelConfig, clip: Clip, batch: int, seed: int) -> Subject:
    last = plan(config, *clip)[-1]
    return Subject(
        model=model,
        variant=variant,
        clip=clip,
        tokens=config.tokens(last),
        config_hash=config.config_hash(),
        build=partial(_build_named, config, last, batch, seed),
        count=cache(lambda: Work.of(count_forward(config, last))),
    )


def _build_named(
    config: ModelConfig, evaluation: Evaluation, batch: int, seed: int, device: torch.device, dtype: torch.dtype
) -> Network:
    from m4v.variants import example_inputs

    torch.manual_seed(seed)
    with torch.device(device):
        module = config.build()
    _fill_zeros(module.to(dtype))
    generator = torch.Generator(device).manual_seed(seed)
    inputs = example_inputs(config, evaluation.units, batch=batch, device=device, dtype=dtype, generator=generator)
    return Network(_frozen(module), inputs, {"stage": evaluation.stage})


def _fill_zeros(module: nn.Module) -> None:
    """Give weights that start at zero the spread of trained ones: a GPU multiplies zeros with less power, and faster.

    Matmul speed depends on the data through the power limit (H. He, "Strangely, matrix multiplications on GPUs run
    faster when given 'predictable' data!", 2024).
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def user_subject(user: UserModel) -> Subject:
    """A user's network, with the inputs that its factory makes."""
    return Subject(
        model=user.name,
        variant=user.name,
        clip=None,
        tokens=None,
        config_hash=None,
        build=partial(_build_user, user),
        count=cache(partial(_count_user, user)),
    )


def _build_user(user: UserModel, device: torch.device, dtype: torch.dtype) -> Network:
    with torch.device(device):
        module, inputs = user.build()
    moved = tuple(x.to(device, dtype if x.is_floating_point() else None) for x in inputs)
    return Network(_frozen(module.to(device, dtype)), moved, {})


def _count_user(user: UserModel) -> Work | None:
    """FLOPs on the meta device; None where the network cannot be built or run there."""
    try:
        with torch.device("meta"):
            module, inputs = user.build()
            return Work.of(count_module(module.to("meta"), tuple(x.to("meta") for x in inputs)))
    except Exception:  # noqa: BLE001 -- the user's code may raise anything
        return None
