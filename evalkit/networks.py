"""Which networks are in memory: loaded when a clip first wants them, gone when no clip to come does.

The 16 dimensions of the full suite read different videos, so that at no time all of their networks are needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import TypeVar

from evalkit.backbones.base import Extractor, FeatureSpec, Reader, ReadsPrompts, Runtime
from evalkit.memory import tensors_in_own_mappings
from evalkit.types import Array, Clip, Frames
from evalkit.weights import WeightStore

T = TypeVar("T")
log = logging.getLogger(__name__)

Wants = Mapping[str, FeatureSpec]
"""The features that a clip needs, by name."""


def in_turn(wants: Sequence[Iterable[Hashable]]) -> list[int]:
    """An order in which those with equal wants stand together, each group after the one it shares most with.

    Groups that share equally much, and the members of a group, keep their order.
    """
    groups: dict[frozenset[Hashable], list[int]] = {}
    for index, want in enumerate(wants):
        groups.setdefault(frozenset(want), []).append(index)
    order: list[int] = []
    last: frozenset[Hashable] = frozenset()
    while groups:
        last = max(groups, key=lambda group: len(group & last))  # the first of equals
        order += groups.pop(last)
    return order


class Networks:
    """The extractors that the clips still to be read need.

    Args:
        prompts: the texts of all clips that will want a feature, by its name.
        store: where networks find their checkpoints.
        runtime: device, precision and batch of the networks.
    """

    def __init__(self, prompts: Mapping[str, Sequence[str]], store: WeightStore, runtime: Runtime) -> None:
        self.prompts = prompts
        self.store = store
        self.runtime = runtime
        self._ready: dict[str, Extractor] = {}

    def missing(self, want: Wants) -> list[FeatureSpec]:
        """The features of `want` whose networks would have to be loaded."""
        return [feature for name, feature in want.items() if name not in self._ready]

    def load(self, features: Iterable[FeatureSpec], loaded: Callable[[FeatureSpec], None]) -> None:
        """Load what these features need; `loaded` is told of each.

        Raises:
            UserError: a checkpoint does not fit.
        """
        with tensors_in_own_mappings():
            for feature in features:
                extractor = feature.load(self.store, self.runtime)
                if feature.checkpoints:
                    self.store.vouch(feature.checkpoints)
                if isinstance(extractor, ReadsPrompts):
                    extractor.read_prompts(self.prompts[feature.name])
                self._ready[feature.name] = extractor
                loaded(feature)

    def __getitem__(self, name: str) -> Extractor:
        return self._ready[name]

    def keep(self, names: Collection[str]) -> None:
        """Let go of all others."""
        for name in self._ready.keys() - set(names):
            del self._ready[name]


class Guarded:
    """A reader whose failure costs its own metrics on this one video, and nothing else of a long run.

    `seconds` is what it has taken so far.
    """

    def __init__(self, extractor: Extractor, feature: FeatureSpec, clip: Clip) -> None:
        self.pixels, self.size = feature.pixels, feature.size
        self.name = feature.name
        self.seconds = 0.0
        self.failure: str | None = None
        self.reader: Reader | None = self._try(lambda: extractor.open(clip))

    def push(self, start: int, frames_THWC: Frames) -> None:
        if (reader := self.reader) and not self.failure:
            self._try(lambda: reader.push(start, frames_THWC))

    def close(self) -> Array | str:
        """The features, or why there are none."""
        features = self._try(self.reader.close) if self.reader and not self.failure else None
        return f"{self.name} failed: {self.failure}" if features is None else features

    def _try(self, act: Callable[[], T]) -> T | None:
        began = perf_counter()
        try:
            return act()
        except (RuntimeError, ValueError, ArithmeticError, IndexError) as e:  # torch: out of memory is a RuntimeError
            log.exception("%s failed", self.name)
            self.failure = (str(e).strip() or repr(e)).splitlines()[0][:200]
            return None
        finally:
            self.seconds += perf_counter() - began
