"""Plots for `--plot FILE`: one way to open, style and write a figure."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import UserError
from evalkit.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".svg", ".png", ".pdf")


def check_suffix(path: Path) -> None:
    """Refuse a file that is no picture, before anything is computed.

    Raises:
        UserError: another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"--plot {path}: no picture of this kind can be written.", f"End it in {', '.join(SUFFIXES)}.")


@contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Axes]:
    """Axes of so many inches; what is drawn on them is written when the block ends without an error."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    try:
        yield axes
        axes.grid(visible=True, which="both", alpha=0.25, linewidth=0.5)
        axes.legend(frameon=False, fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix[1:], dpi=160)
    finally:
        plt.close(figure)
    write_atomically(path, buffer.getvalue())
