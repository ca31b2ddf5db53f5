"""A sweep as a figure: cost against tokens on logarithmic axes, or against the number of attention blocks."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.figure import drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "os^Dv"


def write_plot(sweep: dict[str, Any], path: Path) -> None:
    """Draw the mixers' (solid) and the whole model's cost (faint) of each variant, and the crossing."""
    with drawn(path, 6.4, 4.2) as axes:
        if sweep["parameter"] == "frames":
            _against_tokens(axes, sweep)
        else:
            _against_blocks(axes, sweep)
        axes.set_ylabel("TFLOPs, one forward pass")


def _by_variant(sweep: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sweep["rows"]:
        rows[row["variant"]].append(row)
    return rows


def _against_tokens(axes: Axes, sweep: dict[str, Any]) -> None:
    for index, (variant, rows) in enumerate(_by_variant(sweep).items()):
        tokens = [row["tokens"] for row in rows]
        style: dict[str, Any] = {"color": f"C{index}", "marker": MARKERS[index % len(MARKERS)]}
        axes.plot(tokens, [row["total_tflops"] for row in rows], alpha=0.35, label=f"{variant}, whole model", **style)
        if all(row["mixer_tflops"] is not None for row in rows):
            axes.plot(tokens, [row["mixer_tflops"] for row in rows], label=f"{variant}, mixers", **style)
    _label_frames(axes, sweep)
    if sweep["crossing"]:
        _crossing(axes, sweep["crossing"], list(_by_variant(sweep)))
    axes.set(xscale="log", yscale="log", xlabel="video tokens in the last frame's pass")


def _label_frames(axes: Axes, sweep: dict[str, Any]) -> None:
    """Name the clip length above the dearest point of each."""
    top: dict[int, dict[str, Any]] = {}
    for row in sweep["rows"]:
        if row["value"] not in top or row["total_tflops"] > top[row["value"]]["total_tflops"]:
            top[row["value"]] = row
    for frames, row in top.items():
        axes.annotate(
            f"{frames} frames",
            (row["tokens"], row["total_tflops"]),
            textcoords="offset points",
            xytext=(-6, 2),
            ha="right",
            fontsize=7,
        )


def _crossing(axes: Axes, crossing: dict[str, Any], variants: list[str]) -> None:
    """The costs of one frame of ever fewer tokens, dashed, down to where they meet."""
    tokens = [point["tokens"] for point in crossing["curve"]]
    for variant in (crossing["a"], crossing["b"]):
        costs = [point["mixer_tflops"][variant] for point in crossing["curve"]]
        axes.plot(tokens, costs, "--", linewidth=1, color=f"C{variants.index(variant)}")
    axes.axvline(crossing["tokens"], color="0.4", linewidth=0.8, linestyle=":")
    axes.annotate(
        f"{crossing['a']} = {crossing['b']}\nat {crossing['tokens']:,.0f} tokens",
        (crossing["tokens"], 0.02),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        xytext=(5, 3),
        fontsize=7,
    )


def _against_blocks(axes: Axes, sweep: dict[str, Any]) -> None:
    for index, (variant, rows) in enumerate(_by_variant(sweep).items()):
        style: dict[str, Any] = {"color": f"C{index}", "marker": MARKERS[index % len(MARKERS)]}
        values = [row["value"] for row in rows]
        axes.plot(values, [row["total_tflops"] for row in rows], alpha=0.35, label=f"{variant}, whole model", **style)
        axes.plot(values, [row["mixer_tflops"] for row in rows], label=f"{variant}, mixers", **style)
    axes.set(xlabel="dual-stream attention blocks L", ylim=(0, None))
    axes.set_xticks(sorted({row["value"] for row in sweep["rows"]}))
