"""Networks come when a clip first wants them and go after the last one that does."""

from __future__ import annotations

import weakref
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from evalkit.backbones.base import Extractor, FeatureSpec, Reader, Runtime
from evalkit.networks import Networks, in_turn
from evalkit.types import Clip
from evalkit.weights import WeightStore, default_root

wants = st.lists(st.frozensets(st.sampled_from("abcde")), max_size=12)


@given(wants)
def test_everyone_has_a_turn_and_equals_stand_together_in_their_order(wanted: list[frozenset[str]]) -> None:
    order = in_turn(wanted)
    assert sorted(order) == list(range(len(wanted)))
    blocks = [wanted[i] for i in order]
    changes = sum(a != b for a, b in pairwise(blocks))
    assert changes == max(0, len(set(wanted)) - 1)
    for want in set(wanted):
        members = [i for i in order if wanted[i] == want]
        assert members == sorted(members)


def test_groups_that_share_follow_each_other() -> None:
    wanted = [{"dino"}, {"grit"}, {"dino", "amt"}, {"grit", "clip"}]
    assert in_turn(wanted) == [0, 2, 1, 3]


class Loaded:
    """Counts the extractors in memory."""

    def __init__(self) -> None:
        self.built: Counter[str] = Counter()
        self.alive: dict[str, weakref.ref[object]] = {}

    def feature(self, name: str) -> FeatureSpec:
        class Network:
            def open(self, clip: Clip) -> Reader:
                raise NotImplementedError

        def load(store: WeightStore, runtime: Runtime) -> Extractor:
            self.built[name] += 1
            network = Network()
            self.alive[name] = weakref.ref(network)
            return network

        return FeatureSpec(name, 1, load)

    def names(self) -> set[str]:
        return {name for name, network in self.alive.items() if network() is not None}


@given(wants)
def test_each_is_loaded_once_and_only_what_is_still_wanted_stays(wanted: list[frozenset[str]]) -> None:
    loaded = Loaded()
    specs = {name: loaded.feature(name) for name in "abcde"}
    plans = [{name: specs[name] for name in sorted(want)} for want in wanted]
    networks = Networks({name: ["p"] for name in specs}, WeightStore(default_root()), Runtime())
    order = in_turn(plans)
    for n, i in enumerate(order):
        networks.load(networks.missing(plans[i]), lambda feature: None)
        assert all(networks[name] is loaded.alive[name]() for name in plans[i])
        still = {name for j in order[n + 1 :] for name in plans[j]}
        networks.keep(still)
        assert loaded.names() == still & set(loaded.built)
    assert all(times == 1 for times in loaded.built.values())


def test_prompts_are_read_beforehand_by_those_who_ask() -> None:
    told = []

    class Reads:
        def open(self, clip: Clip) -> Reader:
            raise NotImplementedError

        def read_prompts(self, prompts: object) -> None:
            told.append(list(prompts))  # type: ignore[call-overload]

    words = FeatureSpec("words", 1, lambda store, runtime: Reads())
    networks = Networks({"words": ["a cat", "a fox"], "other": ["a dog"]}, WeightStore(default_root()), Runtime())
    networks.load([words], lambda feature: None)
    assert told == [["a cat", "a fox"]]
