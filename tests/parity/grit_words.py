"""What GRiT's text decoder needs besides the recipe's weights to write texts that can be judged: a vocabulary, and
weights that prefer a few of its words and come to an end.

Plain numpy and no other imports of this project than the recipe: both environments make the same bits.
"""

from __future__ import annotations

import numpy as np

from tests.parity import recipe

PREFIX = "roi_heads.text_decoder.textual."
EMBEDDING = PREFIX + "embedding.words.weight"
BIAS = PREFIX + "output.bias"

SIZE = 30_522
BEGINNINGS, END = (101, 104), 102
SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
COLOURS = ("red", "green", "blue", "yellow", "white", "black")
OBJECTS = ("person", "bird", "cat", "dog", "bicycle", "car", "clock", "bench", "cup", "vase")
PIECES = (".", "?", "!", ",", "'", "n't", "'m", "'s", "'ve", "'re", "s", "t", "re", "##s", "##ing", "##", "##'", "-")
FIRST_WORD = 1000  # as in BERT's own vocabulary, what stands before is no text

DIRECTION = 103  # the row of the embedding that words and the end share; no text holds this token


def vocabulary() -> list[str]:
    """A made-up vocabulary of BERT's size: colours, objects, punctuation, beginnings and endings of words."""
    told = {i: f"[unused{i}]" for i in range(FIRST_WORD)} | SPECIAL
    told |= enumerate((*COLOURS, *OBJECTS, *PIECES), start=FIRST_WORD)
    return [told.get(i) or (f"##end{i}" if i % 5 == 0 else f"word{i}") for i in range(SIZE)]


def shape_words(weights: recipe.Weights, end_bias: float = 7.5) -> None:
    """Make texts of a few colours and objects likely; changes `weights` (full official names) in place.

    Words lean towards a direction, the two beginnings away from it, and the end more strongly towards it: after a
    beginning a word is likely, after a word the end. Of beginnings nothing is written: with tied weights, a token is
    most alike itself.
    """
    rows, bias = weights[EMBEDDING], weights[BIAS]
    words = np.arange(FIRST_WORD, FIRST_WORD + len(COLOURS) + len(OBJECTS))
    direction = rows[DIRECTION].copy()
    for tokens, share in ((words, 0.35), (np.array(BEGINNINGS), -0.35), (np.array([END]), 1.0)):
        rows[tokens] = np.add(rows[tokens], np.multiply(direction, np.float32(share)))
    bias[words] = np.add(bias[words], np.float32(8.0))
    bias[END] = np.add(bias[END], np.float32(end_bias))
    bias[list(BEGINNINGS)] = np.float32(-30.0)
