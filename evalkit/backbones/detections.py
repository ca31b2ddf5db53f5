"""What a detector found in a clip, as a feature that metrics read; the network that finds it is in `grit`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from evalkit.types import Array

FRAMES = 16
"""Frames read of a clip, always: a short one repeats its last."""

Row = tuple[int, Iterable[float], float, str, str]


def detections(rows: Iterable[Row]) -> Array:
    """A clip's features: a structured array with one row a detection, ordered by frame, then by score.

    Args:
        rows: for each detection

            - frame: which of the `FRAMES` frames, from 0; a frame in which nothing was found has no row;
            - box: x0 y0 x1 y1 in pixels of the frame that the network saw;
            - score: the detector's, 0 to 1, of there being an object;
            - object: its name; in descriptions the name of the frame's first detection, as the official code has it;
            - text: what was asked for: the name again, or the description.
    """
    listed = [(frame, tuple(box), score, name, text) for frame, box, score, name, text in rows]
    name_width, text_width = (
        max([1, *map(len, column)]) for column in ([row[3] for row in listed], [row[4] for row in listed])
    )
    layout = [
        ("frame", "i4"),
        ("box", "f4", (4,)),
        ("score", "f4"),
        ("object", f"U{name_width}"),
        ("text", f"U{text_width}"),
    ]
    return np.array(listed, dtype=layout)
