"""The roofline (Williams et al. 2009): what bounds a forward pass, arithmetic or memory, and how near it is.

The bytes are a lower bound: every weight, input and output once, whatever goes through memory in between. So the
arithmetic intensity is an upper bound: "memory" is firm where the weights do not fit a cache, "compute" may turn out to
be memory after all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from evalkit.latency.peaks import Peak


@dataclass(frozen=True, slots=True)
class Position:
    """A forward pass under its roof.

    Args:
        flops: counted FLOPs of the pass.
        seconds: its median time.
        bytes_moved: weights, inputs and outputs.
        peak: of the device.
    """

    flops: float
    seconds: float
    bytes_moved: int
    peak: Peak

    @property
    def achieved(self) -> float:
        """FLOP/s."""
        return self.flops / self.seconds

    @property
    def utilisation(self) -> float:
        """Share of the peak."""
        return self.achieved / self.peak.flops

    @property
    def intensity(self) -> float:
        """FLOPs a byte, at most."""
        return self.flops / self.bytes_moved

    @property
    def ridge(self) -> float:
        """FLOPs a byte from which arithmetic is the bound."""
        return self.peak.flops / self.peak.bandwidth

    @property
    def bound(self) -> str:
        return "compute" if self.intensity >= self.ridge else "memory"

    @property
    def fastest(self) -> float:
        """Seconds below which the roof allows nothing."""
        return max(self.flops / self.peak.flops, self.bytes_moved / self.peak.bandwidth)


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the elements."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def tensors_in(value: object) -> Iterable[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
