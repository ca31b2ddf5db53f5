"""How far apart scans leave neighbours: LinGen's d_k for the scan schedules of the systems.

Source: LinGen supplement, section A and Fig. 1 (H = W = T = 32). `m4v.paths` holds the orders and the measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import UserError
from evalkit.figure import drawn

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "m4v-eval/adjacency/1"
SCHEDULES = {
    "raster": "row by row, frame by frame, the same in every layer",
    "zigzag": "the axes of rotary-major, every line and plane turning round",
    "rotary-major": "LinGen: the slowest axis changes from layer to layer",
    "m4v": "M4V: eight serpentine paths over the frame, frames in order",
}
"""Scan schedules by name, and what they do."""

Grid = tuple[int, int, int]
"""Frames, rows and columns in tokens."""


def measure(grid: Grid, layers: int, *, diagonals: bool = False) -> dict[str, Any]:
    """Compute d_k of every schedule for k = 1 .. layers, as a JSON-ready record.

    Args:
        grid: token grid of the video.
        layers: largest k, at least 1.
        diagonals: count pairs that share a 2 x 2 x 2 cube; otherwise pairs one step apart along one axis.

    Returns:
        `rows` with `k` and one column a schedule, in scan positions; a distance of 1 is the best there is.

    Raises:
        UserError: the grid holds fewer than two tokens, or there is no layer.
    """
    if layers < 1:
        raise UserError(f"{layers} layers: d_k starts at k = 1.", "Give at least one layer.")
    if min(grid) < 1 or max(grid) < 2:
        raise UserError(
            f"A grid of {_text(grid)} tokens has no neighbours.",
            "Give at least one token along every axis, and two along one.",
        )
    columns = {name: list(distances(name, grid, layers, diagonals=diagonals)) for name in SCHEDULES}
    return {
        "schema": SCHEMA,
        "grid": dict(zip(("frames", "rows", "cols"), grid, strict=True)),
        "neighbours": "cube" if diagonals else "edges",
        "rows": [{"k": k + 1} | {name: column[k] for name, column in columns.items()} for k in range(layers)],
    }


def distances(name: str, grid: Grid, layers: int, *, diagonals: bool = False) -> Iterator[float]:
    """d_1, d_2, ... of a schedule; they never rise, since a layer more can only bring neighbours closer.

    Orders that came before change nothing and are left out, so that many layers cost no more than one period.
    """
    from m4v.paths import adjacency_distance

    orders: list[Tensor] = []
    value = 0.0
    for layer in range(layers):
        order = schedule(name, grid)(layer)
        if not any(order.equal(other) for other in orders):
            orders.append(order)
            value = adjacency_distance(orders, *grid, diagonals=diagonals)
        yield value


def schedule(name: str, grid: Grid) -> Callable[[int], Tensor]:
    """The order in which each layer scans the grid."""
    from m4v import paths

    frames, rows, cols = grid
    schedules: Mapping[str, Callable[[int], Tensor]] = {
        "raster": lambda layer: paths.raster(*grid),
        "zigzag": lambda layer: paths.zigzag_scan(layer, *grid),
        "rotary-major": lambda layer: paths.rotary_major_scan(layer, *grid),
        "m4v": lambda layer: paths.frame_paths([(rows, cols)] * frames, layer),
    }
    return schedules[name]


def findings(record: Mapping[str, Any]) -> list[str]:
    """What the table shows, one sentence a schedule: its last d_k, and the k from which it does not improve."""
    rows = record["rows"]
    said = []
    for name, what in SCHEDULES.items():
        last = rows[-1][name]
        since = next(row["k"] for row in rows if row[name] == last)
        said.append(f"{name}: {last:,.2f} from k = {since} on ({what})")
    return said


def write_plot(record: Mapping[str, Any], path: Path) -> None:
    """Draw d_k over k on a logarithmic axis, one line a schedule."""
    from matplotlib.ticker import MaxNLocator

    ks = [row["k"] for row in record["rows"]]
    with drawn(path, 5.6, 3.8) as axes:
        # Rotary-major is dashed: it covers zigzag.
        for name, marker, line in zip(SCHEDULES, "osx^", ("-", "-", "--", "-"), strict=True):
            axes.plot(ks, [row[name] for row in record["rows"]], marker=marker, linestyle=line, label=name)
        axes.set(yscale="log", xlabel="k layers", ylabel="$d_k$, scan positions")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(f"Distance of neighbours, {_text(tuple(record['grid'].values()))} tokens", fontsize=10)


def _text(grid: tuple[int, ...]) -> str:
    return " x ".join(map(str, grid))
