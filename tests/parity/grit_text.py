"""What both sides of the comparison of GRiT's text decoder read: its weights, features of boxes, and where to look.

Plain numpy and the standard library: imported in the official environment and in this project's.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from tests.parity import grit_words, recipe

WRAPPER = "model"
TIED = "output.weight"  # the embedding's weight under a second name
POSITIONS, WIDTH = 196, 256
LAYER = re.compile(r"(?<=encoder\.layer\.)\d+")

TASKS = ("ObjectDet", "DenseCap")
LAYERS = {"shallow": recipe.SHALLOW, "full": 6}
BOXES = {"shallow": 6, "full": 3}
WATCHED_BOXES = 2
WATCHED_STEPS = (0, 1, 2, 3, 9, 38)
WATCHED_WORDS = tuple(range(99, 106)) + tuple(range(998, 1016)) + (2026, 30_521)

ENDLESS, EMPTY = -100.0, 100.0
END_BIAS = {"shallow": {"usual": None, "endless": ENDLESS, "empty": EMPTY}, "full": {"usual": None}}
"""The end's bias, where it is not the recipe's: texts are then cut at the greatest length, or end before a word."""


def collapse(shapes: recipe.Shapes) -> dict[str, list[int]]:
    """Shapes of the decoder's tensors, with `#` for the index of a layer."""
    return {LAYER.sub("#", name): list(shape) for name, shape in shapes.items()}


def expand(collapsed: dict[str, list[int]], layers: int) -> dict[str, tuple[int, ...]]:
    """The inverse of `collapse`, for a number of layers."""
    return {
        name.replace("#", str(i)): tuple(shape)
        for name, shape in collapsed.items()
        for i in range(layers if "#" in name else 1)
    }


def weights(collapsed: dict[str, list[int]], layers: int) -> recipe.Weights:
    """The decoder's tensors under the names of the checkpoint's table, but for the tied one.

    They are rounded to half precision, in which the published file is.
    """
    names = {name: shape for name, shape in expand(collapsed, layers).items() if name != TIED}
    drawn = recipe.weights("grit", {grit_words.PREFIX + name: shape for name, shape in names.items()})
    grit_words.shape_words(drawn)
    return {name: tensor.astype(np.float16).astype(np.float32) for name, tensor in drawn.items()}


def features(boxes: int) -> npt.NDArray[np.float32]:
    """Features as the pooler hands them over, `(boxes, 196, 256)`: half of their variance is a box's own."""
    shapes = {"box": (boxes, 1, WIDTH), "place": (boxes, POSITIONS, WIDTH)}
    drawn = recipe.weights("grit_text", shapes)
    scaled = {name: np.multiply(t, np.float32(np.sqrt(np.prod(shapes[name][1:])))) for name, t in drawn.items()}
    return np.add(scaled["box"], scaled["place"])


def token_sequences(count: int = 120) -> list[list[int]]:
    """Tokens as no caption holds them: punctuation, endings without beginnings, special tokens amid words."""
    generator = np.random.Generator(np.random.PCG64(recipe.SEED))
    odd = (0, 1000, 1016, 1016, 1016, grit_words.END + 4)
    starts, widths = np.array(odd), np.array((106, 16, 18, 18, 18, 30_000))
    kinds = generator.integers(0, len(odd), (count, 12))
    tokens = starts[kinds] + (generator.random((count, 12)) * widths[kinds]).astype(int)
    lengths = generator.integers(1, 13, count)
    return [[int(token) for token in row[:n]] for row, n in zip(tokens, lengths, strict=True)]
