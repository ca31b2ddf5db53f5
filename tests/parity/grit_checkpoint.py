"""GRiT's weights by the recipe, in a file like the published one, and the made-up vocabulary beside it.

Written alike for the official package and for this one. The published file is in half precision, under `model`, and
holds the word embedding under two names that share their storage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.parity import recipe
from tests.parity.grit_words import BIAS, EMBEDDING, FIRST_WORD, PREFIX, shape_words, vocabulary

FILE = "grit_model/grit_b_densecap_objectdet.pth"
VOCABULARY = "bert-base-uncased/vocab.txt"


@dataclass(frozen=True, slots=True)
class Size:
    """How deep a network is, and what makes its texts differ from box to box.

    Args:
        layers: blocks of the backbone; None for all.
        text_layers: blocks of the text decoder; None for all.
        end_bias: of the token that ends a text.
        offsets: what is added to the biases of the colours and objects. They make all of them about equally likely in
            the pictures of these tests; without, nearly everything would be called blue. Found by trying.
    """

    layers: int | None
    text_layers: int | None
    end_bias: float
    offsets: tuple[float, ...]


SIZES = {
    # Two blocks that attend within windows, and one that attends globally.
    "shallow": Size(
        3, 2, 6.5, (0.6, -0.6, -1.4, 0.1, -0.3, -0.7, -0.8, -0.1, 1.4, 0.8, 1.0, 0.6, -0.1, -0.2, -0.3, 0.1)
    ),
    "full": Size(
        None, None, 7.5, (0.2, -0.8, -1.1, 0.4, -0.6, -0.6, -0.6, -0.3, 0.6, -0.3, 1.6, -0.2, 0.9, 0.2, 0.0, 0.5)
    ),
}

Shape = tuple[int, ...]

COPY = f"{PREFIX}output.weight"
"""The name under which the checkpoint holds the word embedding once more."""

TOKENIZER = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}


def published(own: Mapping[str, Shape]) -> dict[str, Shape]:
    """The tensors of the published file, given those of this project's network; the mask head is not read."""
    return {_published_name(name): shape for name, shape in own.items()} | _mask_head()


def _published_name(name: str) -> str:
    """The checkpoint's name of a parameter."""
    name = re.sub(r"^backbone\.levels\.(\d+)\.(conv|norm)", r"backbone.fpn_stride\1_\2", name)
    return re.sub(r"^text_decoder\.", "roi_heads.text_decoder.textual.", name)


def _mask_head() -> dict[str, Shape]:
    """The tensors of the checkpoint that are not read."""
    weights = {f"mask_fcn{i}": (256, 256, 3, 3) for i in range(1, 5)}
    weights |= {"deconv": (256, 256, 2, 2), "predictor": (1, 256, 1, 1)}
    biases = {f"{name}.bias": (shape[0],) for name, shape in weights.items()}
    named = {f"{name}.weight": shape for name, shape in weights.items()} | biases
    return {f"roi_heads.mask_head.{name}": shape for name, shape in named.items()}


def write(cache: Path, shapes: Mapping[str, Shape], size: Size) -> str:
    """Write checkpoint and vocabulary in the official layout; return the fingerprint of the weights.

    Args:
        cache: folder to write below.
        shapes: of all tensors by their names in the checkpoint, without `COPY`.
        size: of the network that has these.
    """
    tensors = recipe.weights("grit", shapes)
    shape_words(tensors, size.end_bias)
    words = slice(FIRST_WORD, FIRST_WORD + len(size.offsets))
    tensors[BIAS][words] = np.add(tensors[BIAS][words], np.float32(size.offsets))
    state = {name: torch.from_numpy(tensor).half() for name, tensor in tensors.items()}
    state[COPY] = state[EMBEDDING]
    path = cache / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state}, path)
    write_vocabulary(cache)
    return recipe.fingerprint(tensors)


def write_vocabulary(cache: Path) -> None:
    """Write BERT's vocabulary, and what transformers wants beside it, where both packages look for it."""
    folder = (cache / VOCABULARY).parent
    folder.mkdir(parents=True, exist_ok=True)
    (cache / VOCABULARY).write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
