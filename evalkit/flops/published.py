"""What the papers print, beside what is counted: M4V's efficiency rows, LinGen's formulas, STIV's training budgets."""

from __future__ import annotations

from dataclasses import dataclass

from evalkit.reference import find_table, number

M4V_CLIP = (241, 768, 1280)
TOLERANCE = {"m4v_efficiency": 0.01, "m4v_table6": 0.025}
"""Relative deviation up to which a printed figure counts as reproduced."""


@dataclass(frozen=True, slots=True)
class PublishedCost:
    """A printed figure: TFLOPs of the mixers in one forward pass."""

    variant: str
    dual_blocks: int
    tflops: float
    source: str
    tolerance: float


def m4v_rows() -> tuple[PublishedCost, ...]:
    """The three mixers with L = 8, then Table 6 by L (its row L = 8 repeats the third)."""
    rows = [
        PublishedCost(row["variant"], 8, _tflops(row["tflops_241_frames"]), row["source"], TOLERANCE["m4v_efficiency"])
        for row in find_table("m4v_efficiency").rows()
    ]
    rows += [
        PublishedCost(
            "mamba+temporal", int(row["l"]), _tflops(row["tflops_241_frames"]), row["source"], TOLERANCE["m4v_table6"]
        )
        for row in find_table("m4v_table6").rows()
        if int(row["l"]) != 8
    ]
    return tuple(rows)


def find_m4v(variant: str, dual_blocks: int) -> PublishedCost | None:
    """The printed figure of a variant with L = `dual_blocks`; attention is the same model for any L."""
    for row in m4v_rows():
        if row.variant == variant and (row.dual_blocks == dual_blocks or variant == "attention"):
            return row
    return None


def _tflops(cell: str) -> float:
    value = number(cell)
    if value is None:
        raise ValueError("a published cost is missing from the reference table")
    return value
