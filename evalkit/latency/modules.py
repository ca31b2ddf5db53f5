"""Where the time of a forward pass goes, module by module.

Modules are timed by hooks around their `forward`, in passes of their own: marks between modules cost time, and the
figures of the table are taken without them. Blocks are taken together (`blocks.mixer` is the mixer of every block), two
names deep; what happens between the timed modules is `other`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from evalkit.latency.clock import Clock, Stopwatch

DEPTH = 2
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Share:
    """Mean seconds of a group of modules in a pass, its share of the pass, and its counted FLOPs if known."""

    name: str
    seconds: float
    share: float
    flops: float | None


def label(path: str, module: nn.Module) -> str:
    """A module's path without the numbers of its lists; the class where nothing else is left."""
    return ".".join(_names(path)) or type(module).__name__


def _names(path: str) -> list[str]:
    return [name for name in path.split(".") if name and not name.isdigit()]


def timed_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Paths and modules, none inside another: those two names deep, and leaves above that."""
    pending = [(path, child) for path, child in root.named_children()]
    while pending:
        path, module = pending.pop(0)
        children = [(f"{path}.{name}", child) for name, child in module.named_children()]
        runs = not isinstance(module, nn.ModuleList | nn.ModuleDict)
        if runs and (not children or len(_names(path)) >= DEPTH):
            yield path, module
        else:
            pending[:0] = children


def breakdown(
    module: nn.Module,
    run: Callable[[], object],
    clock: Clock,
    *,
    passes: int,
    flops: Mapping[str, float] | None = None,
) -> tuple[Share, ...]:
    """Shares of the modules of `module` in `passes` calls of `run`, longest first; they add up to 1.

    `flops` are counted FLOPs by module path, exclusive of children.
    """
    chosen = dict(timed_modules(module))
    sums: dict[str, float] = defaultdict(float)
    total = 0.0
    for _ in range(passes):
        whole, parts = _one_pass(chosen, run, clock)
        total += whole
        for name, seconds in parts:
            sums[name] += seconds
    sums[OTHER] = total - sum(sums.values())
    counted = None if flops is None else flops_by_label(flops, chosen)
    shares = [
        Share(name, seconds / passes, seconds / total, None if counted is None else counted.get(name, 0.0))
        for name, seconds in sums.items()
    ]
    return tuple(sorted(shares, key=lambda share: (share.name == OTHER, -share.seconds)))


def _one_pass(
    chosen: Mapping[str, nn.Module], run: Callable[[], object], clock: Clock
) -> tuple[float, list[tuple[str, float]]]:
    """Seconds of a pass, and of each call of a chosen module. Stopwatches are read once the device is idle."""
    watches: list[tuple[str, Stopwatch]] = []
    hooks = [hook for path, module in chosen.items() for hook in _watch(label(path, module), module, clock, watches)]
    try:
        clock.idle()
        stop = clock.start()
        run()
        whole = stop()
        clock.idle()
    finally:
        for hook in hooks:
            hook.remove()
    return whole.seconds(), [(name, watch.seconds()) for name, watch in watches]


def _watch(
    name: str, module: nn.Module, clock: Clock, watches: list[tuple[str, Stopwatch]]
) -> tuple[RemovableHandle, RemovableHandle]:
    running: list[Callable[[], Stopwatch]] = []

    def enter(*_: Any) -> None:
        running.append(clock.start())

    def leave(*_: Any) -> None:
        watches.append((name, running.pop()()))

    return module.register_forward_pre_hook(enter), module.register_forward_hook(leave)


def flops_by_label(flops: Mapping[str, float], chosen: Mapping[str, nn.Module]) -> dict[str, float]:
    """FLOPs counted by path, gathered under the timed module that a path lies in; the rest is `other`."""
    sums: dict[str, float] = defaultdict(float)
    for path, count in flops.items():
        owner = next((p for p in _ancestors(path) if p in chosen), None)
        sums[OTHER if owner is None else label(owner, chosen[owner])] += count
    return dict(sums)


def _ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]
