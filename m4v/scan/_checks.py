"""Shapes of the operators' arguments, checked before any work is done."""

from __future__ import annotations

from torch import Tensor


def check_shapes(op: str, **arguments: tuple[Tensor, str]) -> dict[str, int]:
    """Sizes of the axes that the arguments share; `x=(x, "BND")` names an argument's axes, one letter each.

    Raises:
        ValueError: a tensor is not floating-point, lacks an axis, has an empty one, or disagrees with an earlier one.
    """
    sizes: dict[str, int] = {}
    for name, (tensor, axes) in arguments.items():
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point():
            raise ValueError(f"{op}: {name} is {tensor.dtype}; a real floating-point tensor is needed")
        if len(shape) != len(axes):
            raise ValueError(f"{op}: {name} has shape {shape}; {len(axes)} axes ({axes}) are needed")
        for axis, size in zip(axes, shape, strict=True):
            if size < 1 or sizes.setdefault(axis, size) != size:
                raise ValueError(f"{op}: {name} has shape {shape}; its axes are {axes}, {_expected(axes, sizes)}")
    return sizes


def check_groups(op: str, axis: str, size: int, groups: int) -> None:
    """Channels or heads come in equal groups.

    Raises:
        ValueError: `groups` does not divide `size`.
    """
    if size % groups:
        raise ValueError(f"{op}: B and C have G = {groups} groups, which do not divide {axis} = {size} evenly")


def _expected(axes: str, sizes: dict[str, int]) -> str:
    known = ", ".join(f"{axis} = {sizes[axis]}" for axis in axes if axis in sizes)
    return f"with {known} from the arguments before it and no axis empty"
