"""Score clips with the official VBench package and the recipe's weights. Runs in the official environment.

    python -m tests.parity.official --cache DIR --dino DIR --out FILE [--depth N] [--videos DIR] [--dimensions a b]

Nothing of the scoring is patched. At full depth everything goes through `VBench.evaluate`; shallow networks are the
official classes with blocks removed, handed to the official per-dimension functions. The official loaders are strict,
so a run also proves that the recipe's tensors are exactly those of the official networks.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.parity import checkpoints, recipe
from tests.parity.dimensions import NETWORKS

DINO_FOLDER = "dino_model/facebookresearch_dino_main"
VOCABULARY = "ViCLIP/bpe_simple_vocab_16e6.txt.gz"
PACKAGES = ("vbench", "torch", "torchvision", "numpy", "timm", "decord", "opencv-python", "pyiqa", "openai-clip")

Verdict = tuple[float, list[dict[str, Any]]]
"""What every official function returns: the dimension's score and a record per video."""


def lay_out(cache: Path, dino: Path) -> None:
    """Put into the official cache what the package wants besides checkpoints: DINO's code, ViCLIP's vocabulary."""
    _link(cache / DINO_FOLDER, dino)
    _link(cache / "hub/checkpoints/dino_vitbase16_pretrain.pth", cache / checkpoints.FILES["dino"])
    clip_package = Path(importlib.import_module("clip").__file__ or "").parent
    (cache / VOCABULARY).parent.mkdir(exist_ok=True)
    shutil.copy(clip_package / Path(VOCABULARY).name, cache / VOCABULARY)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())


def read_prompts(videos: Path) -> dict[str, str]:
    """Prompt by file name, from the folder's `manifest.jsonl`."""
    lines = (videos / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["file"]: record["prompt"] for record in map(json.loads, lines)}


def evaluate(dimension: str, videos: Path, work: Path) -> Verdict:
    """The package's own entry point, loading everything itself."""
    import torch
    import vbench

    bench = vbench.VBench(torch.device("cpu"), "", str(work))
    bench.evaluate(
        videos_path=str(videos),
        name=dimension,
        prompt_list=read_prompts(videos),
        dimension_list=[dimension],
        local=True,
        mode="custom_input",
        imaging_quality_preprocessing_mode="longer",
    )
    score, records = json.loads((work / f"{dimension}_eval_results.json").read_text(encoding="utf-8"))[dimension]
    return score, records


def shallow_subject(videos: Path, cache: Path, depth: int) -> Verdict:
    import torch
    from vbench.subject_consistency import subject_consistency

    model = torch.hub.load(str(cache / DINO_FOLDER), "dino_vitb16", source="local", pretrained=False)
    model.blocks = model.blocks[:depth]
    model.load_state_dict(torch.load(cache / checkpoints.FILES["dino"]))
    return subject_consistency(model.eval(), _paths(videos), torch.device("cpu"), False)


def shallow_imaging(videos: Path, cache: Path, depth: int) -> Verdict:
    import torch
    from pyiqa.archs.musiq_arch import MUSIQ
    from vbench.imaging_quality import technical_quality

    model = MUSIQ(pretrained_model_path=str(cache / checkpoints.FILES["musiq"]), num_layers=depth)
    model.training = False
    with torch.no_grad():
        score, records = technical_quality(model, _paths(videos), torch.device("cpu"))
    return score, records


def shallow_overall(videos: Path, cache: Path, depth: int) -> Verdict:
    import torch
    from vbench.overall_consistency import overall_consistency
    from vbench.third_party.ViCLIP.simple_tokenizer import SimpleTokenizer
    from vbench.third_party.ViCLIP.viclip import ViCLIP

    tokenizer = SimpleTokenizer(str(cache / VOCABULARY))
    model = ViCLIP(tokenizer=tokenizer, pretrain=None)
    for encoder in (model.vision_encoder, model.text_encoder):
        encoder.transformer.resblocks = encoder.transformer.resblocks[:depth]
    model.load_state_dict(torch.load(cache / checkpoints.FILES["viclip"])["model"])
    prompts = [{"prompt": prompt, "video_list": [str(videos / file)]} for file, prompt in read_prompts(videos).items()]
    return overall_consistency(model, prompts, tokenizer, torch.device("cpu"))


# The official CLIP loader takes the depth from the archive: those dimensions need no shallow variant of their own.
SHALLOW: dict[str, Callable[[Path, Path, int], Verdict]] = {
    "subject_consistency": shallow_subject,
    "imaging_quality": shallow_imaging,
    "overall_consistency": shallow_overall,
}


def _paths(videos: Path) -> list[str]:
    return [str(videos / file) for file in read_prompts(videos)]


def score(dimension: str, videos: Path, cache: Path, depth: int | None) -> dict[str, Any]:
    """One dimension: its score, and that of every video by file name (as the package gives it)."""
    if depth is not None and dimension in SHALLOW:
        total, records = SHALLOW[dimension](videos, cache, depth)
    else:
        total, records = evaluate(dimension, videos, cache / "results")
    by_file = {Path(record["video_path"]).name: float(record["video_results"]) for record in records}
    return {"score": float(total), "videos": dict(sorted(by_file.items()))}


def describe(path: Path) -> dict[str, Any]:
    """A clip's identity: sha256 of the file, and of its RGB frames as each of the two official decoders sees them."""
    import cv2
    import decord
    import numpy as np

    decord.bridge.set_bridge("native")
    decord_THWC = decord.VideoReader(str(path), num_threads=1)[:].asnumpy()
    capture = cv2.VideoCapture(str(path))
    opencv_THWC = np.stack([capture.read()[1][..., ::-1] for _ in decord_THWC])
    return {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "decord_sha256": hashlib.sha256(decord_THWC.tobytes()).hexdigest(),
        "opencv_sha256": hashlib.sha256(opencv_THWC.tobytes()).hexdigest(),
        "shape_THWC": list(decord_THWC.shape),
    }


def record_shapes(dino: Path) -> None:
    """Write the table of tensor shapes, as the official classes build them."""
    import clip.model
    import torch
    import vbench.third_party.amt as amt
    from omegaconf import OmegaConf
    from pyiqa.archs.musiq_arch import MUSIQ
    from vbench.third_party.amt.utils.build_utils import build_from_cfg
    from vbench.third_party.ViCLIP.viclip import ViCLIP

    amt_config = OmegaConf.load(Path(next(iter(amt.__path__))) / "cfgs/AMT-S.yaml").network
    modules: dict[str, Callable[[], Any]] = {
        "dino": lambda: torch.hub.load(str(dino), "dino_vitb16", source="local", pretrained=False),
        "clip_b32": lambda: clip.model.CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
        "clip_l14": lambda: clip.model.CLIP(768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12),
        "laion": lambda: torch.nn.Linear(768, 1),
        "amt": lambda: build_from_cfg(amt_config),
        "musiq": lambda: MUSIQ(pretrained=False),
        "viclip": lambda: ViCLIP(tokenizer=object(), pretrain=None),
    }
    table = {
        network: recipe.collapse({name: tuple(tensor.shape) for name, tensor in build().state_dict().items()})
        for network, build in modules.items()
    }
    lines = [f' "{network}": {json.dumps(entry)}' for network, entry in table.items()]
    recipe.SHAPES_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send the official package's chatter to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="Score clips with the official package and seeded weights.")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the checkpoints, in the official layout")
    parser.add_argument("--dino", type=Path, required=True, help="checkout of github.com/facebookresearch/dino")
    parser.add_argument("--out", type=Path, help="where the results go (JSON)")
    parser.add_argument("--videos", type=Path, default=Path(__file__).with_name("clips"))
    parser.add_argument("--depth", type=int, help="blocks per stack; default: all")
    parser.add_argument("--dimensions", nargs="+", default=list(NETWORKS))
    parser.add_argument("--record-shapes", action="store_true", help="write shapes.json instead of scoring")
    arguments = parser.parse_args()

    # Read by the official package when it is imported.
    cache = arguments.cache.resolve()
    os.environ |= {"VBENCH_CACHE_DIR": str(cache), "TORCH_HOME": str(cache)}
    lay_out(cache, arguments.dino)
    if arguments.record_shapes:
        record_shapes(arguments.dino.resolve())
        return

    networks = sorted({network for dimension in arguments.dimensions for network in NETWORKS[dimension]})
    with quiet_stdout():
        fingerprints = checkpoints.write(cache, networks, arguments.depth)
        scores = {
            dimension: score(dimension, arguments.videos.resolve(), cache, arguments.depth)
            for dimension in arguments.dimensions
        }
    clips = {file: describe(arguments.videos / file) for file in read_prompts(arguments.videos)}
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    result = {
        "versions": {"python": platform.python_version(), **versions},
        "seed": recipe.SEED,
        "depth": arguments.depth,
        "fingerprints": fingerprints,
        "clips": clips,
        "scores": scores,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
