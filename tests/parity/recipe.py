"""Seeded weights that are the same bits everywhere: plain numpy, one generator per tensor.

The official environment and this project each draw their networks from here, so no weights need to be stored or shared:
a golden score and the recipe's seed are the whole fixture. A tensor depends only on (seed, network, name, shape); the
first blocks of a shallow network are therefore those of the full one.

The spreads keep the variance of the signal through a network (uniform, variance 1/fan_in), with a few exceptions
(`SPREADS`) that make the scores depend on the pictures and lie well inside their ranges.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SEED = 2026
SHALLOW = 2  # blocks per stack in the quick tests; an even number, so that no block's role is special

Weights = dict[str, npt.NDArray[np.float32]]
Shapes = Mapping[str, tuple[int, ...]]

SHAPES_FILE = Path(__file__).with_name("shapes.json")
BLOCK = re.compile(r"(?:^|(?<=\.))((?:res)?blocks\.|encoderblock_)\d+\.")

# (network.tensor, centre, half-width in units of 1/sqrt(fan_in)); the first match counts, the rest follow `_spread`.
# Attention sharp enough to choose between patches: averaging over all of them would hide errors in single ones.
SPREADS: tuple[tuple[str, float, float], ...] = (
    (r"clip_\w+\.visual\.conv1\.weight", 0.0, 3.0 * math.sqrt(3.0)),  # pictures must outweigh positions
    (r"viclip\.vision_encoder\.conv1\.weight", 0.0, 3.0 * math.sqrt(3.0)),
    (r"\w+\..*(qkv\.|in_proj_|query\.|key\.)weight", 0.0, 2.0 * math.sqrt(3.0)),
    (r"laion\.weight", 0.0, 40.0),
    (r"musiq\.head\.weight", 0.0, 15.0),
    (r"umt\.patch_embed\.proj\.weight", 0.0, 3.0 * math.sqrt(3.0)),
    (r"umt\.head\.weight", 0.0, 0.8 * math.sqrt(3.0)),  # of 400 sigmoids about five reach 0.85
    (r"grit\.roi_heads\.text_decoder\..*output\.dense\.weight", 0.0, 0.5 * math.sqrt(3.0)),  # words must outlive blocks
    (r"grit\..*agn_hm\.weight", 0.0, 4.0 * math.sqrt(3.0)),  # few likely places, and scores far apart
    (r"grit\..*cls_score\.weight", 0.0, 4.0 * math.sqrt(3.0)),
    (r"grit\..*bbox_pred\.2\.weight", 0.0, 3.0 * math.sqrt(3.0)),
    (r"(dinov2|dreamsim_\w+)\.patch_embed\.proj\.weight", 0.0, 3.0 * math.sqrt(3.0)),
    (r"dreamsim_adapter\..*lora_B\.weight", 0.0, 30.0 * math.sqrt(3.0)),  # products as large as what they change
    (r"raft\.module\.(fnet|cnet)\.conv2\.weight", 0.0, 4.0 * math.sqrt(3.0)),  # pictures must outweigh biases
    (r"raft\.module\.update_block\.flow_head\.conv2\.weight", 0.0, 0.0395),  # flows about as long as the threshold
)
# (network.tensor, centre, half-width)
ABSOLUTE: tuple[tuple[str, float, float], ...] = (
    (r"clip_\w+\.logit_scale", math.log(100.0), 0.0),
    (r"viclip\.temp", 0.01, 0.0),
    (r"laion\.bias", 5.0, 0.0),
    (r"musiq\.head\.bias", 50.0, 0.0),
    (r"dino\.(pos_embed|cls_token)", 0.0, 0.5),
    (r"musiq\..*(position_emb|scale_emb|cls)", 0.0, 0.5),
    (r".*temporal_positional_embedding", 0.0, 0.5),
    (r".*visual\.(class|positional)_embedding", 0.0, 0.06),
    (r".*vision_encoder\.(class|positional)_embedding", 0.0, 0.06),
    (r".*(token_embedding\.weight|positional_embedding)", 0.0, 0.03),
    (r"amt\..*\.bias", 0.0, 0.05),
    (r"umt\..*[qv]_bias", 0.0, 0.5),
    (r"tag2text\.text_decoder\..*(word_embeddings|decoder)\.weight", 0.0, 0.17),  # few likely words
    (r"tag2text\.label_embed\.weight", 0.0, 1.0),
    (r"tag2text\.fc\.W", 0.0, 0.031),
    (r"tag2text\.fc\.b", -0.55, 0.05),  # a few tags in a thousand pass the threshold
    (r"tag2text\..*relative_position_bias_table", 0.0, 0.5),
    (r"grit\..*agn_hm\.bias", -6.0, 0.0),
    (r"grit\..*centernet_head\.bbox_pred\.bias", 14.0, 0.5),  # boxes so large that few are left
    (r"grit\..*scales\.\d\.scale", 1.0, 0.2),
    (r"grit\..*pos_embed", 0.0, 0.3),
    (r"grit\..*rel_pos_[hw]", 0.0, 0.1),
    (r"dinov2\.(pos_embed|cls_token)", 0.0, 0.5),
    (r"dinov2\..*gamma", 0.8, 0.2),
    (r"dreamsim_\w+\.(pos_embed|cls_token)", 0.0, 0.06),
    (r"raft\..*running_var", 1.0, 0.2),
    (r"raft\.module\.update_block\.flow_head\.conv2\.bias", 0.0, 0.0),  # or everything drifts one way
)


def shapes(network: str, depth: int | None = None) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's tensors by official name; `depth` keeps only that many blocks of every stack."""
    table = json.loads(SHAPES_FILE.read_text(encoding="utf-8"))[network]
    expanded: dict[str, tuple[int, ...]] = {}
    for name, shape in table["tensors"].items():
        stack = name.split("#")[0] if "#" in name else None
        blocks = 1 if stack is None else min(table["stacks"][stack], depth or math.inf)
        expanded |= {name.replace("#", str(i)): tuple(shape) for i in range(int(blocks))}
    return expanded


def collapse(full: Shapes) -> dict[str, Any]:
    """The compact form of `shapes.json`: `#` for the index of a block, and how many blocks each stack has."""
    tensors: dict[str, list[int]] = {}
    stacks: dict[str, int] = {}
    for name, shape in full.items():
        match = BLOCK.search(name)
        if match is None:
            tensors[name] = list(shape)
            continue
        stack = name[: match.start()] + match[1]
        index = int(match[0].removeprefix(match[1]).rstrip("."))
        stacks[stack] = max(stacks.get(stack, 0), index + 1)
        tensors[f"{stack}#{name[match.end() - 1 :]}"] = list(shape)
    return {"stacks": stacks, "tensors": tensors}


def weights(network: str, shapes: Shapes, seed: int = SEED) -> Weights:
    """Draw every tensor of `shapes`, float32."""
    return {
        name: _draw(f"{seed}/{network}/{name}", *_range(network, name, shape), shape) for name, shape in shapes.items()
    }


def fingerprint(tensors: Weights) -> str:
    """sha256 over names, shapes and bytes: equal fingerprints mean bit-equal weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name], dtype="<f4").data)
    return digest.hexdigest()


def _draw(key: str, centre: float, half_width: float, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    entropy = int.from_bytes(hashlib.sha256(key.encode()).digest(), "big")
    unit = np.random.Generator(np.random.PCG64(entropy)).random(shape, dtype=np.float32)
    # Separate float32 operations: each is exactly rounded, so no platform can differ.
    symmetric = np.multiply(np.subtract(unit, np.float32(0.5)), np.float32(2.0 * half_width))
    return np.asarray(np.add(symmetric, np.float32(centre)), dtype=np.float32).reshape(shape)


def _range(network: str, name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Centre and half-width of the uniform distribution that a tensor is drawn from."""
    full_name = f"{network}.{name}"
    for pattern, centre, half_width in ABSOLUTE:
        if re.fullmatch(pattern, full_name):
            return centre, half_width
    for pattern, centre, units in SPREADS:
        if re.fullmatch(pattern, full_name):
            return centre, units / math.sqrt(_fan_in(name, shape))
    return _spread(network, name, shape)


def _spread(network: str, name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if len(shape) >= 2:
        # AMT's convolutions without normalisation explode under variance-preserving weights; torch's default does not.
        units = 1.0 if network == "amt" else math.sqrt(3.0)
        return 0.0, units / math.sqrt(_fan_in(name, shape))
    if name.endswith("weight"):
        return (0.25, 0.05) if network == "amt" else (1.0, 0.1)  # PReLU slopes; gains of norms
    return 0.0, 0.035


def _fan_in(name: str, shape: tuple[int, ...]) -> int:
    applied_from_the_right = name.endswith(("proj", "text_projection"))  # x @ W, W of shape (in, out)
    return shape[0] if applied_from_the_right else math.prod(shape[1:])
