"""Who judges what: the promises of `study.planning.assignment`, counted from outside; checks among the votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations, pairwise, product
from math import comb

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit.study.planning.assignment import Assignment, Item, Showing, assign, most_screens
from evalkit.study.planning.balance import balance
from evalkit.study.planning.designs import balanced_blocks, features, spread_out, williams
from evalkit.study.planning.planted import SPOILED_PER_MODEL, Planter, usable_checks
from evalkit.study.types import AXES, Protocol

often = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def labels(n: int) -> list[str]:
    return [f"model {n:02d}" for n in range(n)]


def prompts(n: int) -> list[Item]:
    return [(f"p{n:02d}", 0) for n in range(n)]


def spread(counted: Iterable[Hashable], keys: Iterable[Hashable]) -> int:
    """Largest minus smallest count over all keys, absent ones included."""
    counts = Counter(counted)
    found = [counts[key] for key in keys]
    return max(found) - min(found)


def places(screens: Iterable[Showing]) -> Iterable[tuple[str, int]]:
    return ((model, place) for screen in screens for place, model in enumerate(screen.models))


def pairs(screens: Iterable[Showing]) -> Iterable[frozenset[str]]:
    return (frozenset(pair) for screen in screens for pair in combinations(screen.models, 2))


def all_pairs(models: Sequence[str]) -> list[frozenset[str]]:
    return [frozenset(pair) for pair in combinations(models, 2)]


def prefixes(assignment: Assignment) -> Iterable[list[Showing]]:
    """The screens of the first 1, 2, ... raters."""
    screens: list[Showing] = []
    for own in assignment.raters:
        screens = [*screens, *own]
        yield screens


def holds_for_all(
    assignment: Assignment, items: Sequence[tuple[str, int | None]], models: Sequence[str], size: int
) -> None:
    """What is promised of every assignment."""
    for own in assignment.raters:
        met = [(screen.item, pair) for screen in own for pair in pairs([screen])]
        assert len(met) == len(set(met)), "a rater meets an item and pair twice"
        if len(own) <= len(items):
            assert len({screen.item for screen in own}) == len(own)
        for screen in own:
            assert len(set(screen.models)) == size
            assert set(screen.models) <= set(models)
    for screens in prefixes(assignment):
        assert spread((screen.item for screen in screens), items) <= 1


# ---- squares and blocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(2, 13))
def test_williams_squares_are_latin_and_balanced_for_neighbours(size: int) -> None:
    squares = williams(size)
    assert len(squares) == (1 if size % 2 == 0 else 2)
    numbers = list(range(size))
    for square in squares:
        assert all(sorted(row) == numbers for row in square)
        assert all(sorted(column) == numbers for column in zip(*square, strict=True))
    neighbours = Counter(pair for square in squares for row in square for pair in pairwise(row))
    assert {neighbours[a, b] for a, b in product(numbers, numbers) if a != b} == {len(squares)}


@pytest.mark.parametrize(("n_models", "size"), [(m, k) for m in range(3, 11) for k in range(2, m)])
def test_every_pair_meets_equally_often_in_a_design(n_models: int, size: int) -> None:
    design = balanced_blocks(n_models, size)
    assert design is not None
    met = Counter(pair for block in design.blocks for pair in combinations(sorted(block), 2))
    assert set(met.values()) == {design.per_pair}
    assert len(met) == comb(n_models, 2)
    shown = Counter(model for block in design.blocks for model in block)
    assert len(set(shown.values())) == 1
    assert all(len(set(block)) == size for block in design.blocks)


@pytest.mark.parametrize(
    ("n_models", "size", "n_blocks"),
    [(7, 3, 7), (9, 3, 12), (13, 4, 13), (13, 3, 26), (6, 3, 10), (8, 4, 14), (11, 5, 11), (16, 4, 20), (5, 2, 10)],
)
def test_known_designs_are_found(n_models: int, size: int, n_blocks: int) -> None:
    """Sizes of the smallest designs in Fisher and Yates' tables, where they can be developed cyclically."""
    design = balanced_blocks(n_models, size)
    assert design is not None
    assert len(design.blocks) == n_blocks


def test_there_is_not_always_a_design_of_reasonable_size() -> None:
    assert balanced_blocks(14, 3) is None  # the smallest one has 182 blocks
    assert balanced_blocks(20, 10) is None


def test_blocks_are_spread_out() -> None:
    blocks = list(combinations(range(6), 2))
    order = spread_out(blocks, 6)
    assert sorted(order) == sorted(blocks)
    assert sorted(model for block in order[:3] for model in block) == list(range(6))  # a round of all models
    assert features(blocks, 6)[-1].tolist() == [4, 5, 6 + 14]  # two models and the last of 15 pairs


# ---- all models on a screen ------------------------------------------------------------------------------------------


SEEDS = st.integers(0, 2**40)


@often
@given(st.integers(1, 24), st.integers(2, 7), st.integers(1, 16), st.booleans(), SEEDS, st.data())
def test_full_rankings(
    n_items: int, n_models: int, n_raters: int, complete: bool, seed: int, data: st.DataObject
) -> None:
    screens = n_items if complete else data.draw(st.integers(1, n_items))
    items, models = prompts(n_items), labels(n_models)
    assignment = assign(
        items, models, protocol="rank", block_size=n_models, n_raters=n_raters, screens=screens, seed=seed
    )
    assert assignment.balanced
    holds_for_all(assignment, items, models, n_models)
    everywhere = list(product(models, range(n_models)))
    odd = n_models % 2
    for own in assignment.raters:
        assert spread(places(own), everywhere) <= (1 if complete else 2 + odd)
    for shown in prefixes(assignment):
        assert spread(places(shown), everywhere) <= (1 if complete else 1 + odd)
        for item in items:
            assert spread(places(s for s in shown if s.item == item), everywhere) <= 1


@pytest.mark.parametrize(("n_models", "n_items", "n_raters"), [(4, 8, 3), (5, 10, 2), (3, 12, 4), (6, 6, 5)])
def test_each_model_follows_each_other_equally_often(n_models: int, n_items: int, n_raters: int) -> None:
    """Where the numbers of screens are whole multiples of the squares."""
    models = labels(n_models)
    assignment = assign(
        prompts(n_items), models, protocol="rank", block_size=n_models, n_raters=n_raters, screens=n_items
    )
    for own in assignment.raters:
        neighbours = (pair for screen in own for pair in pairwise(screen.models))
        assert spread(neighbours, [(a, b) for a, b in product(models, models) if a != b]) == 0


# ---- two of the models on a screen -----------------------------------------------------------------------------------


@often
@given(
    st.integers(1, 16), st.integers(2, 7), st.integers(1, 12), SEEDS, st.sampled_from(["pairwise", "rank"]), st.data()
)
def test_pairs(n_items: int, n_models: int, n_raters: int, seed: int, protocol: Protocol, data: st.DataObject) -> None:
    screens = data.draw(st.integers(1, most_screens(n_items, n_models, protocol)))
    items, models = prompts(n_items), labels(n_models)
    assignment = assign(items, models, protocol=protocol, block_size=2, n_raters=n_raters, screens=screens, seed=seed)
    assert assignment.balanced
    holds_for_all(assignment, items, models, 2)
    everyone = all_pairs(models)
    for own in assignment.raters:
        assert spread(pairs(own), everyone) <= 1
    for shown in prefixes(assignment):
        assert spread(pairs(shown), everyone) <= 1
        for pair in everyone:
            meeting = [s for s in shown if frozenset(s.models) == pair]
            assert spread((s.item for s in meeting), items) <= 1
            assert spread((s.models for s in meeting), list(product(*[sorted(pair)] * 2))[1:3]) <= 1


def test_pairs_meet_on_as_many_prompts_as_there_are() -> None:
    """10 raters of 50 screens make 500: each of 10 pairs on each of 50 prompts, once."""
    items, models = prompts(50), labels(5)
    assignment = assign(items, models, protocol="likert5", block_size=2, n_raters=10, screens=50)
    shown = [screen for own in assignment.raters for screen in own]
    assert len({(screen.item, frozenset(screen.models)) for screen in shown}) == 500


def test_a_rater_can_judge_everything_there_is() -> None:
    assignment = assign(prompts(6), labels(4), protocol="pairwise", block_size=2, n_raters=3, screens=36)
    for own in assignment.raters:
        assert len({(screen.item, frozenset(screen.models)) for screen in own}) == 36


def test_no_model_is_always_left_for_a_rater() -> None:
    """Evened out greedily: with 40 screens of 5 models each stands 16 times, and 6 to 10 times on each side."""
    assignment = assign(prompts(50), labels(5), protocol="pairwise", block_size=2, n_raters=20, screens=40)
    for own in assignment.raters:
        left = Counter(screen.models[0] for screen in own)
        assert all(6 <= left[model] <= 10 for model in labels(5))


# ---- blocks of the models --------------------------------------------------------------------------------------------


@often
@given(st.integers(1, 16), st.integers(4, 8), st.integers(1, 10), SEEDS, st.data())
def test_balanced_blocks(n_items: int, n_models: int, n_raters: int, seed: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(3, n_models - 1))
    screens = data.draw(st.integers(1, n_items))
    items, models = prompts(n_items), labels(n_models)
    assignment = assign(items, models, protocol="rank", block_size=size, n_raters=n_raters, screens=screens, seed=seed)
    design = balanced_blocks(n_models, size)
    assert design is not None
    assert assignment.balanced
    holds_for_all(assignment, items, models, size)
    everyone = all_pairs(models)
    for own in assignment.raters:
        assert spread(pairs(own), everyone) <= design.per_pair
    for shown in prefixes(assignment):
        assert spread(pairs(shown), everyone) <= (design.per_pair if len(shown) % len(design.blocks) else 0)
        for block, screens_of_block in by_block(shown).items():
            rows = Counter(screen.models for screen in screens_of_block)
            n_rows = size * (1 + size % 2)
            assert max(rows.values()) - (min(rows.values()) if len(rows) == n_rows else 0) <= 1, block
    on_items = Counter((frozenset(screen.models), screen.item) for own in assignment.raters for screen in own)
    met = len({block for block, _ in on_items}) * n_items
    assert max(on_items.values()) - (min(on_items.values()) if len(on_items) == met else 0) <= 1


def by_block(screens: Iterable[Showing]) -> dict[frozenset[str], list[Showing]]:
    found: dict[frozenset[str], list[Showing]] = {}
    for screen in screens:
        found.setdefault(frozenset(screen.models), []).append(screen)
    return found


@pytest.mark.parametrize(("n_models", "size"), [(14, 3), (14, 4), (20, 10)])
def test_without_a_design_blocks_are_nearly_balanced_and_say_so(n_models: int, size: int) -> None:
    items, models = prompts(20), labels(n_models)
    assignment = assign(items, models, protocol="rank", block_size=size, n_raters=15, screens=20, seed=3)
    assert not assignment.balanced
    holds_for_all(assignment, items, models, size)
    for shown in prefixes(assignment):
        assert spread(pairs(shown), all_pairs(models)) <= (2 if size < 10 else 8)
        assert spread((model for screen in shown for model in screen.models), models) <= 2


# ---- seeds, seeds of prompts, bad numbers ----------------------------------------------------------------------------


def test_the_seed_decides() -> None:
    def deal(seed: int) -> Assignment:
        return assign(prompts(12), labels(4), protocol="rank", block_size=4, n_raters=4, screens=9, seed=seed)

    assert deal(7) == deal(7)
    assert deal(7) != deal(8)
    assert [own[0].item for own in deal(7).raters] != [own[0].item for own in deal(8).raters]


def test_raters_meet_all_prompts_before_their_second_seeds() -> None:
    items: list[Item] = [(f"p{n}", seed) for n in range(10) for seed in (0, 1)]
    assignment = assign(items, labels(3), protocol="rank", block_size=3, n_raters=8, screens=10)
    for own in assignment.raters:
        assert len({screen.item[0] for screen in own}) == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"block_size": 1},
        {"block_size": 4},
        {"protocol": "pairwise"},
        {"screens": 0},
        {"screens": 11},
        {"n_raters": 0},
    ],
)
def test_numbers_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    meant: dict[str, object] = {"protocol": "rank", "block_size": 3, "n_raters": 2, "screens": 5}
    with pytest.raises(ValueError):
        assign(prompts(10), labels(3), **meant | wrong)  # type: ignore[arg-type]


def test_balance_reports_what_is_there() -> None:
    a, b, c = labels(3)
    raters = [
        [Showing(("p1", 0), (a, b)), Showing(("p2", 0), (a, b)), Showing(("p1", 0), (c, c), "identical")],
        [Showing(("p1", 0), (b, c)), Showing(("p1", 0), (a, c), "degraded", 1)],
    ]
    found = balance(raters, [a, b, c])
    assert found.items == (1, 2)  # p2 once, p1 twice
    assert found.pairs == (0, 2)  # a-c never, a-b twice
    assert found.pair_items == (0, 2)
    assert found.places == (0, 2)  # a left twice, a never right
    assert found.orders == (0, 2)
    assert found.rater_pairs == (0, 2)
    assert found.rater_places == (0, 2)


# ---- attention checks ------------------------------------------------------------------------------------------------


@often
@given(st.integers(1, 20), st.integers(2, 6), st.integers(1, 8), st.integers(0, 5), SEEDS, st.data())
def test_checks_are_spread_and_shared(
    n_items: int, n_models: int, n_raters: int, n_checks: int, seed: int, data: st.DataObject
) -> None:
    protocol: Protocol = data.draw(st.sampled_from(["rank", "pairwise", "likert5"]))
    size = data.draw(st.integers(2, n_models)) if protocol == "rank" else 2
    screens = data.draw(st.integers(1, n_items))
    n_checks = min(n_checks, screens)
    items, models = prompts(n_items), labels(n_models)
    assignment = assign(
        items, models, protocol=protocol, block_size=size, n_raters=n_raters, screens=screens, seed=seed
    )
    kinds = usable_checks(protocol, size, [axis.name for axis in AXES])
    planter = Planter(items, models, size, kinds, seed)
    planted = [planter.plant(votes, n_checks) for votes in assignment.raters]
    for own, votes in zip(planted, assignment.raters, strict=True):
        assert tuple(screen for screen in own if screen.kind == "vote") == votes
        at = [n for n, screen in enumerate(own) if screen.kind != "vote"]
        assert len(at) == n_checks
        assert 0 not in at
        assert all(after - before > 1 for before, after in pairwise(at))
        for n in at:
            looks_like_a_check(own[n], size)
    found = [screen for own in planted for screen in own if screen.kind != "vote"]
    assert spread((screen.kind for screen in found), kinds) <= 1
    spoiled = [(s.models[s.spoiled], s.item) for s in found if s.spoiled is not None]
    assert len(set(spoiled)) <= SPOILED_PER_MODEL * n_models
    again = Planter(items, models, size, kinds, seed)
    assert [again.plant(votes, n_checks) for votes in assignment.raters] == planted


def looks_like_a_check(screen: Showing, size: int) -> None:
    assert len(screen.models) == size
    twins = [model for model, n in Counter(screen.models).items() if n == 2]
    if screen.kind == "identical":
        assert len(twins) == 1
        assert len(set(screen.models)) == size - 1
        assert screen.spoiled is None
    else:
        assert not twins
        assert screen.spoiled in range(size)


def test_checks_come_in_every_part_of_a_session() -> None:
    votes = assign(prompts(30), labels(3), protocol="rank", block_size=3, n_raters=1, screens=30).raters[0]
    for seed in range(20):
        own = Planter(prompts(30), labels(3), 3, ("degraded", "identical"), seed).plant(votes, 3)
        after = [n - before for before, n in enumerate(n for n, screen in enumerate(own) if screen.kind != "vote")]
        assert [(n - 1) // 10 for n in after] == [0, 1, 2]


def test_checks_avoid_prompts_that_the_rater_judges() -> None:
    items, models = prompts(40), labels(4)
    assignment = assign(items, models, protocol="rank", block_size=4, n_raters=10, screens=20)
    planter = Planter(items, models, 4, ("identical",), 0)
    for votes in assignment.raters:
        met = {vote.item for vote in votes}
        assert not any(s.item in met for s in planter.plant(votes, 2) if s.kind != "vote")


def test_checks_that_nobody_can_fail_are_not_planted() -> None:
    everything = [axis.name for axis in AXES]
    assert usable_checks("rank", 3, everything) == ("degraded", "identical")
    assert usable_checks("rank", 2, everything) == ("degraded",)  # of two equal clips none stands between
    assert usable_checks("pairwise", 2, ["semantic_coherence"]) == ("identical",)  # a spoiled clip may mean the same
    assert usable_checks("rank", 2, ["semantic_coherence"]) == ()
    votes = assign(prompts(3), labels(2), protocol="rank", block_size=2, n_raters=1, screens=3).raters[0]
    with pytest.raises(ValueError, match="4 checks among 3 votes"):
        Planter(prompts(3), labels(2), 2, ("degraded",), 0).plant(votes, 4)
