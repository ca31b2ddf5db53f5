"""Tag2Text's files for both environments: seeded weights under the official names, and a vocabulary to write with.

The two networks' shared tensors stand in the file under both names, here with different values, so that it shows which
name counts.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.parity import recipe

GOLDEN = Path(__file__).with_name("tag2text_golden.json")
CHECKPOINT = "caption_model/tag2text_swin_14m.pth"
VOCABULARY = "bert-base-uncased/vocab.txt"
TAGS = Path(__file__).parents[2] / "evalkit" / "reference_data" / "tag2text_tags.txt"

SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
SIZE = 30_522
END = 102
LIKELY = ("park", "beach", "street", "night", "water", "near", "with", "red", "kitchen", "s", "'", ",", "##s", "barn")
"""Words that captions are made to use often."""
SCENES = {"square.mp4": "street", "wide.mp4": "park", "tall.mp4": "beach night", "large.mp4": "bar"}
"""What each clip is asked for; words of `LIKELY`, or parts of them."""


def vocabulary() -> list[str]:
    """Characters, `LIKELY` words and two thirds of the words in the tags, so that the others are spelled out."""
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    of_tags = sorted({word for line in TAGS.read_text(encoding="utf-8").splitlines() for word in line.split(" ")})
    words = ["a", "picture", "of", *LIKELY, *(word for i, word in enumerate(of_tags) if i % 3 and word.isalpha())]
    pieces = iter(dict.fromkeys([*characters, *(f"##{c}" for c in characters), *words]))
    return [SPECIAL.get(i) or next(pieces, f"filler{i}") for i in range(SIZE)]


def write_vocabulary(cache: Path) -> str:
    """Write the vocabulary below `cache`; return its sha256."""
    path = cache / VOCABULARY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{token}\n" for token in vocabulary()), encoding="utf-8")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def collapse(full: recipe.Shapes) -> dict[str, Any]:
    """The compact form of a table of shapes; BERT's `layer.` counts as a stack of blocks."""
    return recipe.collapse({name.replace(".layer.", ".blocks."): shape for name, shape in full.items()})


def shapes(depth: int | None) -> dict[str, tuple[int, ...]]:
    """Shapes by official name, in the order of the official module; `depth` keeps that many blocks of every stack."""
    table = json.loads(GOLDEN.read_text(encoding="utf-8"))["shapes"]
    full: dict[str, tuple[int, ...]] = {}
    for name, shape in table["tensors"].items():
        stack = name.split("#")[0] if "#" in name else None
        blocks = 1 if stack is None else min(table["stacks"][stack], depth or SIZE)
        for i in range(blocks):
            own = name.replace("#", str(i))
            full[own if own.startswith("visual_encoder.") else own.replace(".blocks.", ".layer.")] = tuple(shape)
    return full


def weights(depth: int | None) -> recipe.Weights:
    """The recipe's weights, with words that captions use often and captions that end."""
    tensors = recipe.weights("tag2text", shapes(depth))
    bias_V = tensors["text_decoder.cls.predictions.decoder.bias"]
    words = vocabulary()
    for k, word in enumerate(LIKELY):
        bias_V[words.index(word)] += np.float32(7 - k / 4)
    bias_V[END] += np.float32(9)
    return tensors


def write_checkpoint(cache: Path, depth: int | None) -> str:
    """Write the checkpoint below `cache` as the authors' training code does; return the weights' fingerprint."""
    tensors = weights(depth)
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    for name in list(state):
        if name.endswith("relative_position_bias_table"):
            state[name.replace("bias_table", "index")] = torch.zeros(144, 144, dtype=torch.int64)
    for part in ("text_decoder.bert", "tag_encoder"):
        state[f"{part}.embeddings.position_ids"] = torch.arange(512)[None]
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(7)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    path = cache / CHECKPOINT
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state, "optimizer": optimizer, "config": {"vit": "swin_b"}, "epoch": 3}, path)
    return recipe.fingerprint(tensors)


def sample(values: torch.Tensor) -> list[list[float]]:
    """Some 24 values spread over what belongs to each of a few frames (the first axis)."""
    chosen = []
    for frame in (0, 2, 5) if len(values) > 5 else (0, 1, 3):
        flat = values[frame].flatten()
        chosen.append([float(f"{value:.7g}") for value in flat[:: max(1, len(flat) // 24) - 1 or 1][:24].tolist()])
    return chosen


def read_golden() -> Mapping[str, Any]:
    """The official results."""
    golden: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return golden
