"""Which networks are in memory: loaded when a clip first wants them, gone when the last clip that does is done.

The 16 dimensions of the full suite read different videos, so that at no time all of their networks are needed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
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
        wants: what each of these clips needs.
        prompts: the text of each clip's prompt.
        store: where networks find their checkpoints.
        runtime: device, precision and batch of the networks.
    """

    def __init__(self, wants: Sequence[Wants], prompts: Sequence[str], store: WeightStore, runtime: Runtime) -> None:
        self.store = store
        self.runtime = runtime
        self._ready: dict[str, Extractor] = {}
        self._left = Counter(name for want in wants for name in want)
        self._prompts: dict[str, list[str]] = {}
        for want, prompt in zip(wants, prompts, strict=True):
            for name in want:
                self._prompts.setdefault(name, []).append(prompt)

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
                    extractor.read_prompts(self._prompts[feature.name])
                self._ready[feature.name] = extractor
                loaded(feature)

    def __getitem__(self, name: str) -> Extractor:
        return self._ready[name]

    def done(self, want: Wants) -> None:
        """A clip that wanted these has been read; what no other clip wants is let go."""
        self._left.subtract(list(want))
        for name in want:
            if self._left[name] == 0:
                self._ready.pop(name, None)


class Guarded:
    """A reader whose failure costs its own metrics on this one video, and nothing else of a long run."""

    def __init__(self, extractor: Extractor, feature: FeatureSpec, clip: Clip) -> None:
        self.pixels, self.size = feature.pixels, feature.size
        self.name = feature.name
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
        try:
            return act()
        except (RuntimeError, ValueError, ArithmeticError, IndexError) as e:  # torch: out of memory is a RuntimeError
            log.exception("%s failed", self.name)
            self.failure = (str(e).strip() or repr(e)).splitlines()[0][:200]
            return None
