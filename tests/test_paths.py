"""Scan orders against walks and averages written out by hand, token by token."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, permutations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m4v.paths import (
    adjacency_distance,
    frame_paths,
    inverse,
    raster,
    rotary_major_scan,
    spatial_path,
    zigzag_scan,
)

sizes = st.integers(1, 9)
grids = st.lists(st.tuples(sizes, sizes), min_size=1, max_size=5)

# Corner and first direction of paths (a) to (h), as the supplement words them, with (b) repaired.
WORDING = (
    ("top-left", "downward", "rightward"),
    ("top-left", "rightward", "downward"),
    ("bottom-left", "upward", "rightward"),
    ("bottom-left", "rightward", "upward"),
    ("bottom-right", "upward", "leftward"),
    ("bottom-right", "leftward", "upward"),
    ("top-right", "downward", "leftward"),
    ("top-right", "leftward", "downward"),
)
STEP = {"downward": (1, 0), "upward": (-1, 0), "rightward": (0, 1), "leftward": (0, -1)}


def walk(index: int, rows: int, cols: int, serpentine: bool) -> list[int]:
    """The path as one would walk it: step until the edge, take one step the other way, turn round (or go back)."""
    corner, inner, outer = WORDING[index]
    y, x = (rows - 1) * corner.startswith("bottom"), (cols - 1) * corner.endswith("right")
    (dy, dx), (ey, ex) = STEP[inner], STEP[outer]
    start, visited = (y, x), []
    while 0 <= y < rows and 0 <= x < cols:
        while True:
            visited.append(y * cols + x)
            if not (0 <= y + dy < rows and 0 <= x + dx < cols):
                break
            y, x = y + dy, x + dx
        if serpentine:
            dy, dx = -dy, -dx
        else:
            y, x = (start[0], x) if dy else (y, start[1])
        y, x = y + ey, x + ex
    return visited


def steps(order: Tensor, *shape: int) -> Tensor:
    """How many cells lie between consecutive tokens, counted along the axes."""
    return torch.stack(torch.unravel_index(order, shape)).diff().abs().sum(0)


@given(st.integers(0, 7), sizes, sizes, st.booleans())
def test_a_spatial_path_is_the_walk_of_the_supplement(index: int, rows: int, cols: int, serpentine: bool) -> None:
    assert spatial_path(index, rows, cols, serpentine=serpentine).tolist() == walk(index, rows, cols, serpentine)


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize(("rows", "cols"), [(48, 80), (24, 40), (12, 20), (1, 5), (5, 1), (3, 4), (1, 1)])
def test_serpentine_paths_step_to_a_neighbour_and_see_every_token(index: int, rows: int, cols: int) -> None:
    order = spatial_path(index, rows, cols)
    assert order.dtype == torch.long
    assert sorted(order.tolist()) == list(range(rows * cols))
    assert torch.equal(steps(order, rows, cols), torch.ones(rows * cols - 1, dtype=torch.long))


def test_the_eight_paths_differ_and_repeat_after_eight_layers() -> None:
    assert len({tuple(spatial_path(index, 4, 5).tolist()) for index in range(8)}) == 8
    assert torch.equal(spatial_path(11, 4, 5), spatial_path(3, 4, 5))


def test_plain_paths_end_in_the_corners_that_the_supplement_names() -> None:
    top_left, top_right, bottom_left, bottom_right = 0, 4, 15, 19
    ends = [spatial_path(index, 4, 5, serpentine=False)[[0, -1]].tolist() for index in range(8)]
    assert ends[:2] == [[top_left, bottom_right]] * 2
    assert ends[2:4] == [[bottom_left, top_right]] * 2
    assert ends[4:6] == [[bottom_right, top_left]] * 2
    assert ends[6:] == [[top_right, bottom_left]] * 2


@given(st.permutations(range(12)))
def test_the_inverse_undoes_an_order(numbers: list[int]) -> None:
    order, tokens = torch.tensor(numbers), torch.arange(100, 112)
    assert torch.equal(tokens[order][inverse(order)], tokens)
    assert torch.equal(inverse(inverse(order)), order)


@pytest.mark.parametrize("order", [[0, 0, 1], [1, 2, 3], [[0, 1], [2, 3]]])
def test_only_a_permutation_has_an_inverse(order: list[int]) -> None:
    with pytest.raises(ValueError, match="each once"):
        inverse(torch.tensor(order))


@given(grids, st.integers(0, 7))
def test_frames_follow_in_time_each_along_its_own_path(grids: list[tuple[int, int]], index: int) -> None:
    expected: list[int] = []
    for rows, cols in grids:
        start = len(expected)
        expected += [start + token for token in walk(index, rows, cols, True)]
    assert frame_paths(grids, index).tolist() == expected


def test_empty_grids_are_refused() -> None:
    for build in (
        lambda: frame_paths([], 0),
        lambda: frame_paths([(2, 2), (0, 3)], 0),
        lambda: spatial_path(0, -2, -2),
        lambda: raster(0, 2, 2),
    ):
        with pytest.raises(ValueError, match=r"empty|at least one frame"):
            build()


LOOPS: tuple[Callable[[int, int, int], list[tuple[int, int, int]]], ...] = (
    lambda T, Y, X: [(t, y, x) for t in range(T) for y in range(Y) for x in range(X)],
    lambda T, Y, X: [(t, y, x) for t in range(T) for x in range(X) for y in range(Y)],
    lambda T, Y, X: [(t, y, x) for y in range(Y) for x in range(X) for t in range(T)],
    lambda T, Y, X: [(t, y, x) for x in range(X) for y in range(Y) for t in range(T)],
)


@given(st.integers(0, 11), sizes, sizes, sizes)
def test_the_rotary_major_scan_is_a_nest_of_loops(layer: int, frames: int, rows: int, cols: int) -> None:
    visited = torch.stack(torch.unravel_index(rotary_major_scan(layer, frames, rows, cols), (frames, rows, cols)), 1)
    assert [tuple(cell) for cell in visited.tolist()] == LOOPS[layer % 4](frames, rows, cols)
    if layer % 4 == 0:
        assert torch.equal(rotary_major_scan(layer, frames, rows, cols), raster(frames, rows, cols))


@given(st.integers(0, 7), sizes, sizes, sizes)
def test_the_zigzag_scan_steps_to_a_neighbour_and_sees_every_token(layer: int, t: int, y: int, x: int) -> None:
    order = zigzag_scan(layer, t, y, x)
    assert sorted(order.tolist()) == list(range(t * y * x))
    assert torch.equal(steps(order, t, y, x), torch.ones(t * y * x - 1, dtype=torch.long))


@given(st.integers(0, 3), st.integers(2, 6), st.integers(2, 6), st.integers(2, 6))
def test_zigzag_and_rotary_scans_share_the_fastest_axis(layer: int, t: int, y: int, x: int) -> None:
    axis = (2, 1, 0, 0)[layer]
    for scan in (rotary_major_scan, zigzag_scan):
        first = torch.stack(torch.unravel_index(scan(layer, t, y, x)[:2], (t, y, x)))
        assert int(first.diff().abs()[axis]) == 1


def brute_force(orders: list[list[int]], shape: tuple[int, int, int], diagonals: bool) -> float:
    """Every two tokens of every 2 x 2 x 2 cube that fits (thinner where the video is), each pair once."""
    corners = product(*(range(max(size - 1, 1)) for size in shape))
    cubes = [
        list(product(*(range(c, min(c + 2, size)) for c, size in zip(corner, shape, strict=True))))
        for corner in corners
    ]
    pairs = {pair for cube in cubes for pair in combinations(sorted(cube), 2)}
    if not diagonals:
        pairs = {(a, b) for a, b in pairs if sum(abs(i - j) for i, j in zip(a, b, strict=True)) == 1}
    flat = {cell: index for index, cell in enumerate(product(*map(range, shape)))}
    near = [min(abs(order.index(flat[a]) - order.index(flat[b])) for order in orders) for a, b in pairs]
    return sum(near) / len(near)


@given(st.integers(1, 4), st.integers(2, 4), st.integers(1, 3), st.integers(1, 4), st.booleans(), st.booleans())
def test_the_adjacency_distance_is_the_mean_over_pairs(
    t: int, y: int, x: int, layers: int, zigzag: bool, diagonals: bool
) -> None:
    orders = [(zigzag_scan if zigzag else rotary_major_scan)(layer, t, y, x) for layer in range(layers)]
    expected = brute_force([order.tolist() for order in orders], (t, y, x), diagonals)
    # Integers summed on both sides: the only rounding is one division.
    assert adjacency_distance(orders, t, y, x, diagonals=diagonals) == pytest.approx(expected, rel=1e-12)


@given(st.integers(2, 20))
def test_raster_distance_in_closed_form(size: int) -> None:
    """Neighbours along X, Y, T are 1, size and size squared apart, and there are equally many of each."""
    expected = (1 + size + size**2) / 3
    assert adjacency_distance([raster(size, size, size)], size, size, size) == pytest.approx(expected, rel=1e-12)


def test_rotary_major_reaches_the_zigzag_at_the_published_size() -> None:
    """LinGen supplement, Fig. 1 (H = W = T = 32): equal for one layer, and both ideal once three axes were fastest."""
    rotary, zigzag, same = (
        [adjacency_distance([scan(layer) for layer in range(k)], 32, 32, 32) for k in range(1, 7)]
        for scan in (
            lambda layer: rotary_major_scan(layer, 32, 32, 32),
            lambda layer: zigzag_scan(layer, 32, 32, 32),
            lambda layer: raster(32, 32, 32),
        )
    )
    assert rotary[0] == zigzag[0] == (1 + 32 + 1024) / 3
    # Second layer TXY: X pairs stay at 1, Y pairs drop to 1, T pairs stay at 1024.
    assert rotary[1] == (1 + 1 + 1024) / 3
    assert rotary[2:] == zigzag[2:] == [1.0] * 4
    assert same == [rotary[0]] * 6


@given(st.integers(2, 4), st.integers(2, 4), st.integers(2, 4), st.sampled_from(list(permutations(range(3)))))
def test_more_layers_never_move_neighbours_apart(t: int, y: int, x: int, layers: tuple[int, ...]) -> None:
    orders = [rotary_major_scan(layer, t, y, x) for layer in layers]
    distances = [adjacency_distance(orders[:k], t, y, x, diagonals=True) for k in (1, 2, 3)]
    assert distances == sorted(distances, reverse=True)
    # A bidirectional mixer scans backwards too; that leaves every distance as it is.
    assert adjacency_distance([orders[0].flip(0)], t, y, x, diagonals=True) == distances[0]


def test_the_adjacency_distance_refuses_what_it_cannot_average() -> None:
    with pytest.raises(ValueError, match="one or more orders"):
        adjacency_distance([], 2, 2, 2)
    with pytest.raises(ValueError, match="each over 8 tokens"):
        adjacency_distance([raster(2, 2, 3)], 2, 2, 2)
    with pytest.raises(ValueError, match="no neighbour"):
        adjacency_distance([raster(1, 1, 1)], 1, 1, 1)


def test_orders_are_made_on_the_cpu_and_usable_in_training_whatever_surrounds_them() -> None:
    with torch.device("meta"), torch.inference_mode():
        orders = [spatial_path(0, 3, 17), frame_paths([(3, 17)], 1), rotary_major_scan(1, 3, 17, 2)]
    assert [order.device.type for order in orders] == ["cpu"] * 3
    assert not any(order.is_inference() for order in orders)
