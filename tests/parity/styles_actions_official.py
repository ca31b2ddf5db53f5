"""Official results for human_action, temporal_style and appearance_style. Runs in the official environment.

    python -m tests.parity.styles_actions_official --cache DIR --out tests/parity/styles_actions_golden.json [--full]

Nothing of the scoring is patched: the official per-dimension functions score the clips with official networks, shallow
ones being those with blocks removed. The one function that builds its network itself, human_action, is handed a
constructor that removes the blocks and keeps the logits. Its loader is lax, so the recipe's tensors are taken from the
network it builds, all but the positions, which the published file has no room for.

One run scores one size and adds it to the file: ViCLIP's text features outlive their network in the official package
(a default argument that is a dictionary), so a second network in one process would be given the first one's.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from tests.parity import checkpoints, recipe

CLIPS = Path(__file__).with_name("clips")
UMT_FILE = "umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth"
UMT_BLOCKS = 24
VOCABULARY = "ViCLIP/bpe_simple_vocab_16e6.txt.gz"
PACKAGES = ("vbench", "torch", "torchvision", "numpy", "timm", "decord", "opencv-python", "pillow", "openai-clip")
STYLES = {
    "square.mp4": "Van Gogh style",
    "wide.mp4": "by Hokusai, in the style of Ukiyo",
    "tall.mp4": "oil painting",
    "large.mp4": "in cyberpunk style",
}
# Chosen by the logits these networks give, so that every reason for a hit and a miss occurs.
ACTIONS: dict[str, dict[str, str]] = {
    "shallow": {
        "square.mp4": "water skiing",  # certain, but sixth: a miss
        "wide.mp4": "bouncing on trampoline",  # fifth, but not certain: a miss
        "tall.mp4": "presenting weather forecast",  # fifth and certain: a hit
        "large.mp4": "jumpstyle dancing",  # first and certain: a hit
    },
    "full": {
        "square.mp4": "sled dog racing",  # fifth, sigmoid 0.8504: a hit
        "wide.mp4": "digging",  # certain, but sixth: a miss
    },
}
SIDES = ((1, 1), (2, 3), (7, 201), (256, 300), (512, 512), (512, 1030), (361, 257), (1080, 2), (640, 362))
"""Heights and widths that try every branch of OpenCV's scaling: one pixel, unscaled, halved, enlarged, reduced."""


def write_umt(cache: Path, tensors: recipe.Weights) -> str:
    """Write UMT's checkpoint as it is published, in half precision; return the weights' fingerprint."""
    import torch

    path = cache / UMT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: torch.from_numpy(tensor).half() for name, tensor in tensors.items()}, path)
    return recipe.fingerprint(tensors)


def expand(tensors: Mapping[str, Any], depth: int | None) -> dict[str, tuple[int, ...]]:
    """Shapes by official name of UMT's tensors, from the compact form of `recipe.collapse`."""
    blocks = UMT_BLOCKS if depth is None else depth
    return {
        name.replace("#", str(block)): tuple(shape)
        for name, shape in tensors.items()
        for block in range(blocks if "#" in name else 1)
    }


def pattern(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture full of edges, from integers alone."""
    y, x, c = np.ogrid[:height, :width, :3]
    return np.asarray((x * x * 7 + y * x * 13 + y * y * 3 + x * 91 + y * 57 + c * 101) % 256, np.uint8)


def sha256(array: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def human_action(cache: Path, depth: int | None, actions: Mapping[str, str]) -> dict[str, Any]:
    """Verdicts by clip, every fourth logit and the six best actions."""
    import torch
    from vbench import human_action as official

    create = official.create_model
    logits: list[npt.NDArray[np.float32]] = []

    def build(*args: Any, **kwargs: Any) -> Any:
        model = create(*args, **kwargs)
        model.blocks = model.blocks[:depth]
        model.register_forward_hook(lambda _module, _input, output: logits.append(output[0].numpy().copy()))
        return model

    links = [_link(cache / "actions" / f"A person is {action}-0.mp4", CLIPS / f) for f, action in actions.items()]
    with mock.patch.object(official, "create_model", build):
        score, records = official.human_action(str(cache / UMT_FILE), links, torch.device("cpu"))
    return {
        "score": float(score),
        "videos": dict(zip(actions, (float(record["video_results"]) for record in records), strict=True)),
        "logits": {f: [round(float(v), 6) for v in x[::4]] for f, x in zip(actions, logits, strict=True)},
        "best": {f: np.argsort(-x)[:6].tolist() for f, x in zip(actions, logits, strict=True)},
    }


def _link(link: Path, target: Path) -> str:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())
    return str(link)


def temporal_style(cache: Path, depth: int | None) -> dict[str, Any]:
    import torch
    from vbench.temporal_style import temporal_style as official
    from vbench.third_party.ViCLIP.simple_tokenizer import SimpleTokenizer
    from vbench.third_party.ViCLIP.viclip import ViCLIP

    tokenizer = SimpleTokenizer(str(cache.parent / VOCABULARY))
    model = ViCLIP(tokenizer=tokenizer, pretrain=None)
    for encoder in (model.vision_encoder, model.text_encoder):
        encoder.transformer.resblocks = encoder.transformer.resblocks[:depth]
    model.load_state_dict(torch.load(cache / checkpoints.FILES["viclip"])["model"])
    records = [json.loads(line) for line in (CLIPS / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    prompts = [{"prompt": record["prompt"], "video_list": [str(CLIPS / record["file"])]} for record in records]
    score, results = official(model, prompts, tokenizer, torch.device("cpu"))
    return {"score": float(score), "videos": _by_file(results)}


def appearance_style(cache: Path) -> dict[str, Any]:
    import clip
    import torch
    from vbench.appearance_style import appearance_style as official

    model, _ = clip.load(str(cache / checkpoints.FILES["clip_b32"]), device="cpu")
    prompts = [
        {"auxiliary_info": {"appearance_style": style}, "video_list": [str(CLIPS / file)]}
        for file, style in STYLES.items()
    ]
    score, results = official(model, prompts, torch.device("cpu"))
    return {"score": float(score), "videos": _by_file(results)}


def _by_file(records: list[dict[str, Any]]) -> dict[str, float]:
    return {Path(record["video_path"]).name: float(record["video_results"]) for record in records}


def _lay_out(cache: Path) -> None:
    """Put into the official cache what ViCLIP wants besides its checkpoint."""
    clip_package = Path(importlib.import_module("clip").__file__ or "").parent
    (cache / VOCABULARY).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip_package / Path(VOCABULARY).name, cache / VOCABULARY)


def measure(size: str, cache: Path, umt_tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Write the checkpoints of one size and score all three dimensions."""
    depth = recipe.SHALLOW if size == "shallow" else None
    fingerprints = checkpoints.write(cache, ("clip_b32", "viclip"), depth)
    fingerprints["umt"] = write_umt(cache, recipe.weights("umt", expand(umt_tensors, depth)))
    return {
        "fingerprints": fingerprints,
        "human_action": human_action(cache, depth, ACTIONS[size]),
        "temporal_style": temporal_style(cache, depth),
        "appearance_style": appearance_style(cache),
    }


def describe_umt() -> dict[str, Any]:
    """The tensors that UMT's checkpoint holds, and a sample of the positions that it does not hold."""
    from timm.models import create_model

    importlib.import_module("vbench.human_action")  # registers UMT under the name
    model = create_model(
        "vit_large_patch16_224", num_classes=400, all_frames=16, tubelet_size=1, use_learnable_pos_emb=False
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name != "pos_embed"}
    sample = model.pos_embed[0, ::241, ::93].detach()
    return recipe.collapse(shapes) | {"positions": [[round(float(v), 7) for v in row] for row in sample]}


def describe_pixels() -> dict[str, Any]:
    """What UMT's official preprocessing makes of the clips and of patterns, before it leaves bytes for floats."""
    from vbench.third_party.umt.datasets.video_transforms import CenterCrop, Compose, Resize
    from vbench.utils import load_video

    crop = Compose([Resize(256, interpolation="bilinear"), CenterCrop(size=(224, 224))])
    clips = {f: sha256(np.stack(load_video(str(CLIPS / f), crop, num_frames=16))) for f in STYLES}
    return clips | {f"{h}x{w}": sha256(np.stack(crop(pattern(h, w)[None]))) for h, w in SIDES}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="where the results go (JSON)")
    parser.add_argument("--full", action="store_true", help="the networks at their published size")
    arguments = parser.parse_args()
    os.environ["VBENCH_CACHE_DIR"] = str(arguments.cache.resolve())  # read when the package is imported
    _lay_out(arguments.cache)

    golden = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    golden |= {"versions": {"python": platform.python_version(), **versions}, "seed": recipe.SEED}
    golden |= {"umt": describe_umt(), "pixels": describe_pixels()}
    size = "full" if arguments.full else "shallow"
    golden[size] = measure(size, arguments.cache / size, golden["umt"]["tensors"])
    lines = [f" {json.dumps(key)}: {json.dumps(entry)}" for key, entry in golden.items()]
    arguments.out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
