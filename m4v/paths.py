"""Scan orders: in which order a recurrent mixer visits the tokens of a grid.

Axes: T frames, Y rows, X columns, N tokens (N = T Y X, or the sum over frames of different grids).

An *order* is a `torch.long` tensor of shape N on the CPU that lists flat row-major indices in visiting order:
`x_BND[:, order]` is the scanned sequence, and indexing that with `inverse(order)` restores it. Orders are cached and
shared between callers: read them, never write into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

# M4V supplement A.1 (a)-(h): starts at the bottom?, starts at the right?, walks along columns before rows?
# (b) is printed "downward right, then downward"; next to its siblings it can only mean "rightward, then downward".
SPATIAL_PATHS: tuple[tuple[bool, bool, bool], ...] = (
    (False, False, True),
    (False, False, False),
    (True, False, True),
    (True, False, False),
    (True, True, True),
    (True, True, False),
    (False, True, True),
    (False, True, False),
)

# Axes of (T, Y, X), slowest first: spatial row-major, spatial column-major, temporal row-major, temporal column-major.
ROTARY_SCHEDULES: tuple[tuple[int, int, int], ...] = ((0, 1, 2), (0, 2, 1), (1, 2, 0), (2, 1, 0))


def spatial_path(index: int, rows: int, cols: int, *, serpentine: bool = True) -> Tensor:
    """One of M4V's eight spatial paths over a frame; layer i of the model uses path i (M4V supplement A.1, Fig. 6).

    The paths start at each of the four corners and walk along rows or along columns first. A serpentine path turns
    round at the end of every line (as in ZigMa, which M4V follows), so that consecutive tokens are always neighbours;
    otherwise every line is walked in the same direction. The end corners that the supplement names are those of the
    latter: a serpentine path over an even number of lines ends on the side where it began.

    Args:
        index: path, counted modulo 8 in the supplement's order (a) to (h).
        rows: rows of the frame in tokens.
        cols: columns of the frame in tokens.
        serpentine: turn round at line ends.

    Returns:
        Order of shape rows * cols.

    Raises:
        ValueError: the frame is empty.
    """
    return _spatial_path(index % len(SPATIAL_PATHS), rows, cols, serpentine)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a cached inference tensor would fail in a later backward pass
def _spatial_path(index: int, rows: int, cols: int, serpentine: bool) -> Tensor:
    from_bottom, from_right, columns_first = SPATIAL_PATHS[index]
    grid_YX = _row_major(rows, cols).flip([axis for axis, flip in enumerate((from_bottom, from_right)) if flip])
    lines = grid_YX.T if columns_first else grid_YX
    return (_fold(lines) if serpentine else lines).flatten()


def frame_paths(grids: Sequence[tuple[int, int]], index: int) -> Tensor:
    """Order over frames of different grids laid end to end: frames in time order, each along serpentine path `index`.

    This is the scan over a temporal pyramid, whose history is coarse and whose recent frames are fine.

    Args:
        grids: rows and columns of each frame, oldest first.
        index: path, as in `spatial_path`.

    Returns:
        Order over the sum of rows * cols tokens.

    Raises:
        ValueError: there is no frame, or one of them is empty.
    """
    return _frame_paths(tuple((rows, cols) for rows, cols in grids), index % len(SPATIAL_PATHS))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _frame_paths(grids: tuple[tuple[int, int], ...], index: int) -> Tensor:
    if not grids:
        raise ValueError("a scan needs at least one frame")
    orders, start = [], 0
    for rows, cols in grids:
        orders.append(spatial_path(index, rows, cols) + start)
        start += rows * cols
    return torch.cat(orders)


def inverse(order: Tensor) -> Tensor:
    """Scan position of every token: `x[order][inverse(order)] == x`.

    Args:
        order: order of shape N.

    Returns:
        Permutation of shape N.

    Raises:
        ValueError: `order` does not list 0 .. N-1, each once.
    """
    ranked, position = order.sort()
    if order.ndim != 1 or not torch.equal(ranked, torch.arange(order.numel(), device="cpu")):
        raise ValueError(f"an order lists 0 .. N-1, each once; this tensor of shape {tuple(order.shape)} does not")
    return position


def raster(frames: int, rows: int, cols: int) -> Tensor:
    """Row-major order over a video, the same in every layer: columns fastest, frames slowest.

    Raises:
        ValueError: the video is empty.
    """
    return _volume_scan((0, 1, 2), (frames, rows, cols), False)


def rotary_major_scan(layer: int, frames: int, rows: int, cols: int) -> Tensor:
    """LinGen's rotary-major scan: the major axis rotates over layers by permuting the axes of the token tensor.

    LinGen (arXiv 2412.09856, Fig. 4) alternates four schedules: spatial row-major, spatial column-major, temporal
    row-major, temporal column-major. Read here, slowest axis first, as TYX, TXY, YXT and XYT: a spatial scan finishes a
    frame before the next, a temporal one runs through time at one place before the next. Directions are never flipped:
    the Mamba block itself is bidirectional, and the figure draws one direction of each for clarity.

    Args:
        layer: layer of the model, counted modulo 4.
        frames: T.
        rows: Y.
        cols: X.

    Returns:
        Order of shape frames * rows * cols.

    Raises:
        ValueError: the video is empty.
    """
    return _volume_scan(ROTARY_SCHEDULES[layer % len(ROTARY_SCHEDULES)], (frames, rows, cols), False)


def zigzag_scan(layer: int, frames: int, rows: int, cols: int) -> Tensor:
    """The serpentine counterpart of `rotary_major_scan`: same schedules, but every line and every plane turns round.

    Consecutive tokens are always neighbours; the price is a gather where the rotary-major scan is a permute.

    Args:
        layer: layer of the model, counted modulo 4.
        frames: T.
        rows: Y.
        cols: X.

    Returns:
        Order of shape frames * rows * cols.

    Raises:
        ValueError: the video is empty.
    """
    return _volume_scan(ROTARY_SCHEDULES[layer % len(ROTARY_SCHEDULES)], (frames, rows, cols), True)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _volume_scan(axes: tuple[int, int, int], shape: tuple[int, int, int], serpentine: bool) -> Tensor:
    grid = _row_major(*shape).permute(axes)
    return (_fold(grid) if serpentine else grid).flatten()


def adjacency_distance(
    orders: Sequence[Tensor], frames: int, rows: int, cols: int, *, diagonals: bool = False
) -> float:
    """LinGen's d_k: how far apart k layers' scans leave neighbouring tokens (LinGen supplement A, Fig. 1).

    For each pair of neighbours, the distance is the smallest difference of their scan positions in any of the k orders;
    d_k is its mean, every pair counted once. LinGen's neighbours are the "adjacent tokens in a 2 x 2 x 2 cube": the
    edges of the cubes, that is pairs one step apart along one axis. Of the readings tried, this is the one under which
    the rotary-major scan reaches the zigzag's d_k, as published. `diagonals` counts every pair that shares a cube.

    Args:
        orders: k orders over the video, one a layer.
        frames: T.
        rows: Y.
        cols: X.
        diagonals: also count pairs one step apart along two or three axes.

    Returns:
        Mean distance in scan positions, at least 1.

    Raises:
        ValueError: there is no order, an order is not one over this video, or the video has a single token.
    """
    positions_KTYX = _positions(orders, (frames, rows, cols))
    gaps = [_nearest(positions_KTYX, step) for step in _steps(diagonals)]
    pairs = sum(gap.numel() for gap in gaps)
    if not pairs:
        raise ValueError("a single token has no neighbour")
    return sum(int(gap.sum()) for gap in gaps) / pairs


def _positions(orders: Sequence[Tensor], shape: tuple[int, int, int]) -> Tensor:
    tokens = _row_major(*shape).numel()
    if not orders or any(order.numel() != tokens for order in orders):
        raise ValueError(f"the adjacency distance needs one or more orders, each over {tokens} tokens")
    return torch.stack([inverse(order).view(shape) for order in orders])


def _steps(diagonals: bool) -> list[tuple[int, ...]]:
    """Half of the steps to a token's neighbours: the other half are their negatives, the same pairs again."""
    steps = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    return [step for step in steps if diagonals or sum(map(abs, step)) == 1]


def _nearest(positions_KTYX: Tensor, step: tuple[int, ...]) -> Tensor:
    """Smallest scan distance over the K orders, for every pair of tokens that are `step` apart."""
    here, there = positions_KTYX, positions_KTYX
    for axis, by in enumerate(step, start=1):
        length = max(here.shape[axis] - abs(by), 0)
        here, there = here.narrow(axis, max(-by, 0), length), there.narrow(axis, max(by, 0), length)
    return (here - there).abs().amin(0)


def _row_major(*shape: int) -> Tensor:
    if min(shape) < 1:
        raise ValueError(f"a grid of {' x '.join(map(str, shape))} tokens is empty")
    return torch.arange(torch.Size(shape).numel(), device="cpu").view(shape)


def _fold(grid: Tensor) -> Tensor:
    """Turn round at the end of every line, plane, ...: of the parts that follow each other, every other is reversed."""
    for axis in range(1, grid.ndim):
        parts = grid.flatten(0, axis - 1).clone()
        parts[1::2] = parts[1::2].flip(1)
        grid = parts.view(grid.shape)
    return grid
