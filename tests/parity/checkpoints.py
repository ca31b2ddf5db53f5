"""The recipe's weights as files in the official cache layout, written alike for the official package and for this one.

Formats follow the published files: CLIP as TorchScript archives with half-precision weights, AMT under `state_dict`,
ViCLIP under `model`, the others as plain state dicts.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.parity import recipe

FILES = {
    "dino": "dino_model/dino_vitbase16_pretrain.pth",
    "clip_b32": "clip_model/ViT-B-32.pt",
    "clip_l14": "clip_model/ViT-L-14.pt",
    "laion": "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
    "amt": "amt_model/amt-s.pth",
    "musiq": "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
    "viclip": "ViCLIP/ViClip-InternVid-10M-FLT.pth",
}
WRAPPER = {"amt": "state_dict", "viclip": "model"}
CLIP_INTEGERS = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}  # as in OpenAI's archives


def write(cache: Path, networks: Iterable[str], depth: int | None) -> dict[str, str]:
    """Write the checkpoints of `networks` below `cache`; return the fingerprint of each network's weights."""
    return {network: _write_one(cache / FILES[network], network, depth) for network in networks}


def _write_one(path: Path, network: str, depth: int | None) -> str:
    tensors = recipe.weights(network, recipe.shapes(network, depth))
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if network.startswith("clip"):
        _save_archive(path, state)
    else:
        torch.save({WRAPPER[network]: state} if network in WRAPPER else state, path)
    return recipe.fingerprint(tensors)


def _save_archive(path: Path, state: dict[str, Tensor]) -> None:
    """Save a TorchScript module tree whose only content is named tensors."""
    root = nn.Module()
    for name, tensor in state.items():
        _hang(root, name, tensor.half())
    for name, value in CLIP_INTEGERS.items():
        _hang(root, name, torch.tensor(value))
    with warnings.catch_warnings():
        # Deprecated in general, but OpenAI's files are what they are.
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(root).save(str(path))  # type: ignore[no-untyped-call]


def _hang(root: nn.Module, name: str, tensor: Tensor) -> None:
    *branches, leaf = name.split(".")
    for branch in branches:
        if branch not in dict(root.named_children()):
            root.add_module(branch, nn.Module())
        root = root.get_submodule(branch)
    root.register_buffer(leaf, tensor)
