"""What a table of mean ranks says of itself: its scale, how many raters there were, and where it contradicts itself.

The ranks of M models on one prompt sum to M (M + 1) / 2, whatever the raters said, and so do their means. That gives
the scale, finds misprints, and mends those that one digit explains. Means over R raters are multiples of 1/R: the grid.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.audit import RankRow, check_ranks
from evalkit.errors import UserError
from evalkit.reference import half_unit
from evalkit.stats import FloatArray
from evalkit.study.forms.mean_ranks import MeanRanks, Question
from evalkit.study.published.rank_faults import Grid, faults, in_range, mend
from evalkit.study.types import Fault

MAX_RATERS = 500
MAX_SCALE = 1000.0
COARSEST = 0.5
"""Rounding may move a rank by this much."""
_BLURRED = 0.1
"""A grid is told only while rounding blurs less than this share of its step."""


@dataclass(frozen=True, slots=True)
class RankTable:
    """A table of mean ranks that is understood.

    Args:
        source: the file.
        models: in order of appearance.
        prompts: ids by axis.
        ranks_PM: by axis, on the scale of ranks: a row a prompt, a column a model.
        scale: factor from printed figures to ranks.
        total: what the printed figures of one prompt and axis must sum to.
        n_rows: rows (a prompt and axis each) with a figure for every model.
        n_sound: those that sum as they must, with every figure in range.
        grid: None if the figures are too coarse for one, or on none.
        n_incomplete: rows left out because a model has no figure.
        faults: what contradicts itself or was mended.
    """

    source: str
    models: tuple[str, ...]
    prompts: Mapping[str, tuple[str, ...]]
    ranks_PM: Mapping[str, FloatArray]
    scale: float
    total: float
    n_rows: int
    n_sound: int
    grid: Grid | None
    n_incomplete: int
    faults: tuple[Fault, ...]


def understand(table: MeanRanks, *, as_printed: bool = False) -> RankTable:
    """Find scale, grid and faults, and mend what one digit explains.

    Args:
        table: as read.
        as_printed: leave misprints as they are; they are named all the same.

    Raises:
        UserError: the sums fit no scale, or no prompt has a figure for every model.
    """
    complete = {question: cells for question, cells in table.cells.items() if len(cells) == len(table.models)}
    if len(table.models) < 2 or not complete:
        raise UserError(
            f"{table.source}: no prompt and axis has a mean rank for each of {len(table.models)} models.",
            "Ranks of different company do not compare: give every model a figure on every prompt.",
        )
    scale = _scale(complete, len(table.models))
    if half_unit(cell for cells in complete.values() for cell in cells.values()) * scale > COARSEST:
        raise UserError(
            f"{table.source}: these are no mean ranks of {len(table.models)} models: at the most likely scale,"
            f" {scale:g}, rounding alone moves a rank by more than one half.",
            "Give figures with more decimals.",
        )
    rows = check_ranks(table.source, _long(table, complete), scale)
    sound = [row for row in rows if not row.check.contradicts and in_range(row, scale)]
    if 2 * len(sound) <= len(rows):
        raise _no_ranks(table, rows, len(sound), scale)
    grid = _grid([cell for row in sound for cell in row.ranks.values()], scale)
    mends = {(row.prompt_id, row.axis): found for row in rows if (found := mend(row, scale, grid))}
    cells = {(row.prompt_id, row.axis): dict(row.ranks) for row in rows}
    for question, found in mends.items():
        if not as_printed:
            cells[question][found.model] = found.cell
    axes = {axis: [prompt for prompt, on in cells if on == axis] for axis in table.axes}
    return RankTable(
        source=table.source,
        models=table.models,
        prompts={axis: tuple(prompts) for axis, prompts in axes.items()},
        ranks_PM={axis: _ranks([cells[p, axis] for p in ids], table.models, scale) for axis, ids in axes.items()},
        scale=scale,
        total=rows[0].check.printed,
        n_rows=len(rows),
        n_sound=len(sound),
        grid=grid,
        n_incomplete=len(table.cells) - len(complete),
        faults=tuple(faults(table, rows, scale, grid, mends, mended=not as_printed)),
    )


def _scale(complete: Mapping[Question, Mapping[str, str]], n_models: int) -> float:
    """The whole number, or one over it, that brings most sums to M (M + 1) / 2."""
    usual = statistics.median(sum(map(float, cells.values())) for cells in complete.values())
    ratio = n_models * (n_models + 1) / 2 / max(usual, 1e-9)
    return min(float(round(ratio)), MAX_SCALE) if ratio >= 1 else 1.0 / round(1 / ratio)


def _long(table: MeanRanks, complete: Mapping[Question, Mapping[str, str]]) -> list[dict[str, str]]:
    columns = ("prompt_id", "axis", "model", "mean_rank", "source")
    return [
        dict(zip(columns, (*question, model, cells[model], table.sources[question]), strict=True))
        for question, cells in complete.items()
        for model in table.models
    ]


def _no_ranks(table: MeanRanks, rows: Sequence[RankRow], n_sound: int, scale: float) -> UserError:
    m = len(table.models)
    first = next(row for row in rows if row.check.contradicts or not in_range(row, scale))
    return UserError(
        f"{table.source}: these are no mean ranks of {m} models: at the most likely scale, {scale:g}, only {n_sound} of"
        f" {len(rows)} rows (a prompt and axis each) lie between {1 / scale:g} and {m / scale:g} and sum to"
        f" {first.check.printed:g}; {first.check.row} sums to {first.check.recomputed:g}.",
        f"Ranks count from 1, so those of {m} models sum to {m * (m + 1) // 2}, divided by a whole number at most.",
    )


def _grid(cells: Sequence[str], scale: float) -> Grid | None:
    """The fewest raters whose mean ranks can be these figures."""
    half = half_unit(cells) * scale
    ranks_N = scale * np.array(cells, dtype=np.float64)
    for raters in range(1, MAX_RATERS + 1):
        grid = Grid(raters, scale, half)
        if 2 * raters * half > _BLURRED:
            return None
        if all(map(grid.holds, ranks_N)):
            return grid
    return None


def _ranks(rows: Sequence[Mapping[str, str]], models: Sequence[str], scale: float) -> FloatArray:
    return scale * np.array([[float(row[model]) for model in models] for row in rows]).reshape(len(rows), len(models))
