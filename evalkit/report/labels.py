"""Where the words of a plot go: beside their points, and never on each other. All lengths are pixels."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CHARACTER, LINE = 7.4, 15.0
"""Width of a character of 12 pixel type, taken wide, and height of a line."""
RINGS = (12.0, 22.0, 34.0, 50.0, 70.0, 95.0)
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
STEP = 8.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle that something covers."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)

    def inside(self, other: Box) -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box that is nearest to another point."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


def around(x: float, y: float, radius: float) -> Box:
    """The square about a marker."""
    return Box(x - radius, y - radius, x + radius, y + radius)


def text_size(text: str) -> tuple[float, float]:
    """Width and height that a text of one or more lines takes, at most."""
    lines = text.split("\n")
    return CHARACTER * max(map(len, lines)), LINE * len(lines)


def fold(text: str, width: int) -> str:
    """Break a name into lines of at most `width` characters, after spaces, `+`, `_`, `/` and `-` where it has them."""
    lines = [""]
    for piece in re.findall(r"[^\s+_/-]*[+_/-]?\s*", text):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(part for line in lines for part in textwrap.wrap(line.strip(), width))


def place_labels(
    points: Sequence[tuple[float, float]], texts: Sequence[str], obstacles: Sequence[Box], bounds: Box
) -> list[Box]:
    """A box for the text of each point, in order: near it, inside the bounds, free of obstacles and of each other.

    Where no room is left at all, a label stays next to its point.
    """
    taken = list(obstacles)
    placed: list[Box] = []
    for point, text in zip(points, texts, strict=True):
        candidates = _candidates(point, text_size(text), bounds)
        box = next((b for b in candidates if b.inside(bounds) and not any(map(b.overlaps, taken))), None)
        placed.append(box or next(_candidates(point, text_size(text), bounds)))
        taken.append(placed[-1])
    return placed


def _candidates(point: tuple[float, float], size: tuple[float, float], bounds: Box) -> Iterator[Box]:
    """Rings of places about the point, then the whole plot from the point outwards."""
    (x, y), (width, height) = point, size
    for ring in RINGS:
        for right, down in DIRECTIONS:
            centre_x, centre_y = x + right * (ring + width / 2), y + down * (ring + height / 2)
            yield _centred(centre_x, centre_y, width, height)
    columns = range(math.ceil((bounds.right - bounds.left) / STEP))
    rows = range(math.ceil((bounds.bottom - bounds.top) / STEP))
    corners = [(bounds.left + STEP * i, bounds.top + STEP * j) for i in columns for j in rows]
    for left, top in sorted(corners, key=lambda corner: math.dist(corner, point)):
        yield Box(left, top, left + width, top + height)


def _centred(x: float, y: float, width: float, height: float) -> Box:
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places along a line apart until neighbours are `gap` away, in their order, within [low, high] if it fits."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    floor = low
    for i in order:
        moved[i] = floor = max(moved[i], floor)
        floor += gap
    ceiling = max(high, low + gap * (len(places) - 1))
    for i in reversed(order):
        moved[i] = ceiling = min(moved[i], ceiling)
        ceiling -= gap
    return moved
