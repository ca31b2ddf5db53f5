"""Faults of a table of mean ranks: sums that are not those of ranks, figures out of range, and what its notes say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evalkit.audit import RankRow, Repair, one_digit
from evalkit.study.forms.mean_ranks import MeanRanks, Question
from evalkit.study.types import Fault

SURE = 3.0
"""Standard deviations by which one change of a digit must be more likely than any other of its row."""
LEFT_OUT = "left out"
"""What is done about a prompt on which some model has no figure."""
_SLACK = 1e-9  # floating-point rounding of decimal fractions


@dataclass(frozen=True, slots=True)
class Grid:
    """Mean ranks over `raters` raters, or a multiple of them: multiples of `1 / raters` on the scale of ranks.

    Args:
        raters: the fewest that the figures allow.
        scale: factor from printed figures to ranks.
        half_unit: how far rounding moves a rank.
    """

    raters: int
    scale: float
    half_unit: float

    def holds(self, rank: float) -> bool:
        """Whether a rank, known up to rounding, lies on the grid."""
        steps = rank * self.raters
        return bool(abs(steps - round(steps)) <= self.raters * self.half_unit + _SLACK)

    @property
    def step(self) -> str:
        """One step of the printed figures, such as 1/30."""
        return f"1/{self.raters * self.scale:g}"


@dataclass(frozen=True, slots=True)
class Mend:
    """One figure with another digit, which restores the sum of its row.

    Args:
        model: whose figure.
        printed: as printed.
        cell: with the digit changed.
        n_others: figures of the row in which one digit would restore the sum, too.
    """

    model: str
    printed: str
    cell: str
    n_others: int


def in_range(row: RankRow, scale: float) -> bool:
    """Whether every figure lies between those of the first and of the last rank."""
    slack = row.check.tolerance + _SLACK
    return all(1 / scale - slack <= float(x) <= len(row.ranks) / scale + slack for x in row.ranks.values())


def mend(row: RankRow, scale: float, grid: Grid | None) -> Mend | None:
    """The one misprint that explains a sum that contradicts itself; None if there is none, or if several do as well.

    One digit changes, the row then sums as it must, the new figure lies on the grid, and it is less unusual for its
    model than the printed one. Where that could be said of another figure of the row, too, or nearly, nobody can tell.
    """
    possible = [(repair, cell) for repair in row.repairs if (cell := _with_one_digit(repair, row, scale, grid))]
    if not possible:
        return None
    (found, cell), *others = sorted(possible, key=lambda fix: fix[0].rank[1])
    gain, least = found.rank[1], min((other.rank[1] for other, _ in others), default=math.inf)
    return Mend(found.column, found.printed, cell, len(others)) if gain < 0 and least - gain >= SURE else None


def _with_one_digit(repair: Repair, row: RankRow, scale: float, grid: Grid | None) -> str | None:
    cell = one_digit(repair.printed, repair.needed, row.check.tolerance + _SLACK)
    return cell if cell and (grid is None or grid.holds(scale * float(cell))) else None


def faults(
    table: MeanRanks,
    rows: Sequence[RankRow],
    scale: float,
    grid: Grid | None,
    mends: Mapping[Question, Mend],
    *,
    mended: bool,
) -> Iterator[Fault]:
    """Everything that is wrong with the table, or that its own notes say of it.

    Args:
        table: as read.
        rows: its complete rows, checked.
        scale: factor from printed figures to ranks.
        grid: of the figures.
        mends: by prompt and axis.
        mended: whether the mends are used.
    """
    for (prompt, axis), cells in table.cells.items():
        lacking = [model for model in table.models if model not in cells]
        if lacking:
            yield Fault(f"prompt {prompt}, {axis}", f"no figure for {', '.join(lacking)}", LEFT_OUT)
    for row in rows:
        question = (row.prompt_id, row.axis)
        notes = "".join(f" The table notes: {note}" for note in table.notes.get(question, ()))
        if row.check.contradicts:
            yield _sum_fault(row, mends.get(question), grid, notes, mended)
        elif not in_range(row, scale):
            said = f"a figure lies outside {1 / scale:g} to {len(row.ranks) / scale:g}, the range of ranks"
            yield Fault(row.check.row, said + notes)
        elif notes:
            yield Fault(row.check.row, notes.strip(), f"used as it stands in the table: {_verified(row, scale, grid)}")


def _sum_fault(row: RankRow, found: Mend | None, grid: Grid | None, notes: str, mended: bool) -> Fault:
    check = row.check
    said = f"the figures as printed sum to {check.recomputed:g}, not {check.printed:g}."
    if found is None:
        return Fault(check.row, f"{said} No single digit mends it beyond doubt; used as printed.{notes}")
    on_grid = f"lies on the grid of {grid.step} and " if grid else ""
    others = f" (a digit of {found.n_others} other figures could do it, but would make them unusual)"
    because = (
        f"one digit differs, the row then sums to {check.printed:g}, and the figure {on_grid}is less unusual for"
        f" {found.model}{others if found.n_others else ''}"
    )
    change = f"{found.model} {found.printed} -> {found.cell}"
    if mended:
        return Fault(check.row, said + notes, f"{change}: {because}")
    return Fault(check.row, f"{said} Probably {change}: {because}. Used as printed all the same.{notes}")


def _verified(row: RankRow, scale: float, grid: Grid | None) -> str:
    verified = f"it sums to {row.check.recomputed:g}"
    if grid is None:
        return verified
    off = [model for model, cell in row.ranks.items() if not grid.holds(scale * float(cell))]
    return f"{verified}, but {', '.join(off)} is not" if off else f"{verified} and lies on the grid of {grid.step}"
