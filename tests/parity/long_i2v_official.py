"""Golden results of VBench-Long and VBench-I2V. Runs in the official environment.

    python -m tests.parity.long_i2v_official --source DIR --dino DIR --dinov2 DIR --work DIR [--full]

`--source` is a checkout of the official repository; `dreamsim`, `peft`, `scenedetect`, `moviepy` and `av` are installed
beside it. What the official code fetches from the internet comes from these folders and from the recipe's weights, and
its networks may be shallow: official classes with fewer blocks. `torchvision.io.write_video`, which current versions
lack, is put back: once lossless, so that nothing but the arithmetic is compared, and once as it was, to see what the
encoding of every part changes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tests.parity import long_i2v, recipe

PACKAGES = ("torch", "torchvision", "numpy", "decord", "opencv-python", "scenedetect", "dreamsim", "peft")
DIMENSIONS = ("subject_consistency", "background_consistency", "temporal_flickering")


def record_shapes(dino: Path, dinov2: Path) -> dict[str, Any]:
    """Tensor shapes of the networks as the official classes have them."""
    import torch
    from dreamsim.feature_extraction.vision_transformer import vit_base

    v2 = torch.hub.load(str(dinov2), "dinov2_vitb14", source="local", pretrained=False)
    clip = vit_base(patch_size=16)
    clip.pos_drop = torch.nn.LayerNorm(clip.embed_dim)
    tower = {name: tuple(tensor.shape) for name, tensor in clip.state_dict().items()} | {"proj": (768, 512)}
    name = "base_model.model.extractor_list.{}.model.blocks.{}.attn.qkv.lora_{}.weight"
    adapter = {
        name.format(t, b, side): shape for t in range(3) for b in range(12) for side, shape in _factors(16).items()
    }
    return {
        "dinov2": recipe.collapse({name: tuple(tensor.shape) for name, tensor in v2.state_dict().items()}),
        "dreamsim_clip": recipe.collapse(tower),
        "dreamsim_open_clip": recipe.collapse(tower),
        "dreamsim_adapter": recipe.collapse(adapter),
    }


def _factors(rank: int) -> dict[str, tuple[int, int]]:
    return {"A": (rank, 768), "B": (2304, rank)}


@contextlib.contextmanager
def offline(cache: Path, dino: Path, dinov2: Path, depth: int | None) -> Iterator[None]:
    """Networks from the cache instead of the internet, of `depth` blocks."""
    import torch
    from dreamsim.feature_extraction import extractor, load_clip_as_dino, load_open_clip_as_dino
    from dreamsim.feature_extraction.vision_transformer import VisionTransformer, vit_base

    real_hub, real_descriptors = torch.hub.load, extractor.ViTExtractor.extract_descriptors

    def hub(repo_or_dir: str, model: str, **kwargs: Any) -> Any:
        folder, file = (dinov2, "dinov2") if "dinov2" in model else (dino, "dino")
        network = real_hub(str(folder), model, source="local", pretrained=False)
        network.blocks = network.blocks[:depth]
        network.load_state_dict(torch.load(cache / long_i2v.FILES[file]))
        return network.eval()

    def base(patch_size: int) -> Any:
        if depth is None:
            return vit_base(patch_size=patch_size)
        norm = partial(torch.nn.LayerNorm, eps=1e-6)
        return VisionTransformer(patch_size=patch_size, depth=depth, num_heads=12, qkv_bias=True, norm_layer=norm)

    def last_block(self: Any, batch: Any, layer: int = 11, drop_rate: int = 0) -> Any:
        return real_descriptors(self, batch, (depth or 12) - 1, drop_rate)

    head = {f"module.head.mlp.{i}.{kind}": torch.zeros(1) for i in (0, 2, 4) for kind in ("weight", "bias")}
    torch.save({"student": head | {"module.head.last_layer.weight": torch.zeros(1)}}, cache / HEAD)  # read, never used
    with (
        mock.patch.object(torch.hub, "load", hub),
        mock.patch.object(load_clip_as_dino, "vit_base", base),
        mock.patch.object(load_open_clip_as_dino, "vit_base", base),
        mock.patch.object(extractor.ViTExtractor, "extract_descriptors", last_block),
    ):
        yield


HEAD = "dreamsim/dino_vitb16_pretrain.pth"


def load_dreamsim(cache: Path) -> Any:
    from dreamsim import dreamsim

    return dreamsim(pretrained=True, device="cpu", cache_dir=str(cache / "dreamsim"))


Writer = Callable[[Path, Any, Fraction], None]


def score_long(cache: Path, work: Path, writer: Writer, split_scenes: bool) -> dict[str, Any]:
    """The official pipeline on the long clips: split, score, fuse."""
    import torch

    def write_video(path: str, frames: Any, fps: int) -> None:
        writer(Path(path), torch.as_tensor(frames, dtype=torch.uint8).numpy(), Fraction(fps))

    videos = work / "videos"
    shutil.rmtree(work, ignore_errors=True)
    long_i2v.write_long_clips(videos)
    import vbench2_beta_long.background_consistency as background
    import vbench2_beta_long.subject_consistency as subject
    import vbench2_beta_long.utils as utils
    from vbench2_beta_long import VBenchLong
    from vbench2_beta_long.temporal_flickering import compute_long_temporal_flickering

    configs = Path(utils.__file__).with_name("configs")
    options = {
        "bg_clip2clip_feat_extractor": "dreamsim",
        "sb_clip2clip_feat_extractor": "dinov2",
        "dev_flag": True,
        "slow_fast_eval_config": str(configs / "slow_fast_params.yaml"),
        "sb_mapping_file_path": str(configs / "subject_mapping_table.yaml"),
        "bg_mapping_file_path": str(configs / "background_mapping_table.yaml"),
        "use_semantic_splitting": split_scenes,
        "clip_length_config": "clip_length_mix.yaml",
        "static_filter_flag": False,
    }
    info = str(Path(utils.__file__).parent.parent / "vbench/VBench_full_info.json")
    bench = VBenchLong(torch.device("cpu"), info, str(work))
    with (
        mock.patch.object(utils, "write_video", write_video),
        mock.patch.object(background, "dreamsim", return_value=load_dreamsim(cache)),
    ):
        bench.preprocess(str(videos), "long_custom_input", **options)
        listing = bench.build_full_info_json(str(videos), "all", list(DIMENSIONS), mode="long_custom_input", **options)
        device = torch.device("cpu")
        dino = {"repo_or_dir": "dino", "model": "dino_vitb16", "read_frame": False}
        clip = [str(cache / "clip_model/ViT-B-32.pt"), False]
        found = {
            "subject_consistency": subject.compute_long_subject_consistency(listing, device, dino, **options),
            "background_consistency": background.compute_long_background_consistency(listing, device, clip, **options),
            "temporal_flickering": compute_long_temporal_flickering(listing, device, [], **options),
        }
    return {name: _by_video(*result) for name, result in found.items()}


def _by_video(score: float, *records: Any) -> dict[str, Any]:
    """The dimension's score and that of every part, by video (by scene); the last list has those of the parts."""
    keep = ("inclip_score", "clip2clip_score", "video_results")
    videos: dict[str, list[dict[str, float]]] = {}
    for record in records[-1]:
        part = {key: float(record[key]) for key in keep if key in record}
        videos.setdefault(Path(record["video_path"]).stem, []).append(part)
    return {"score": float(score), "videos": dict(sorted(videos.items()))}


def score_i2v(cache: Path, work: Path, clips: Iterable[str]) -> dict[str, Any]:
    """The two official functions on parity clips and their pictures."""
    import torch
    from vbench2_beta_i2v.i2v_background import i2v_background
    from vbench2_beta_i2v.i2v_subject import i2v_subject

    long_i2v.write_pictures(work / "pictures")
    pairs = [(str(work / "pictures" / f"{name}.png"), str(long_i2v.CLIPS / f"{name}.mp4")) for name in clips]
    dino = torch.hub.load("dino", "dino_vitb16")
    with torch.no_grad():
        found = {
            "i2v_subject": i2v_subject(dino, pairs, torch.device("cpu")),
            "i2v_background": i2v_background(load_dreamsim(cache)[0], pairs, torch.device("cpu")),
        }
    return {
        name: {
            "score": float(score),
            "videos": {Path(record["video_path"]).stem: float(record["video_results"]) for record in records},
        }
        for name, (score, records) in found.items()
    }


def embed(cache: Path) -> dict[str, list[float]]:
    """Every 97th number of the networks' vectors for a picture of waves, in [0, 1]."""
    import torch

    x_1CHW = torch.from_numpy(long_i2v.waves())
    with torch.no_grad():
        vectors = {
            "dinov2": torch.hub.load("dinov2", "dinov2_vitb14")(x_1CHW),
            "dreamsim": load_dreamsim(cache)[0].embed(x_1CHW),
        }
    return {name: vector.flatten()[:: long_i2v.SUBSAMPLE].tolist() for name, vector in vectors.items()}


def find_scenes(work: Path) -> dict[str, Any]:
    """PySceneDetect on a clip with cuts: content of every frame, and where it cuts at two thresholds."""
    import cv2
    import numpy as np
    from scenedetect import FrameTimecode, SceneManager, open_video
    from scenedetect.detector import FlashFilter
    from scenedetect.detectors import ContentDetector

    long_i2v.write_long_clips(work / "scenes")
    clip = work / "scenes" / "two cuts.mp4"
    cuts = {}
    for threshold in (27.0, 35.0, 60.0):
        manager = SceneManager()
        manager.add_detector(ContentDetector(threshold=threshold))
        manager.detect_scenes(open_video(str(clip)))
        cuts[str(threshold)] = [start.frame_num for start, _ in manager.get_scene_list()][1:]
    capture, detector = cv2.VideoCapture(str(clip)), ContentDetector()
    content, index = [], 0
    while (read := capture.read())[0]:
        content.append(float(detector._calculate_frame_score(FrameTimecode(index, 5.0), read[1])))
        index += 1
    generator, merged = random.Random(5), []
    for length in (2, 5, 15):
        for chance in (0.05, 0.2, 0.4):
            flags = [generator.random() < chance for _ in range(120)]
            flash = FlashFilter(FlashFilter.Mode.MERGE, length)
            found = [t.frame_num for i, f in enumerate(flags) for t in flash.filter(FrameTimecode(i, 10.0), f)]
            merged.append({"length": length, "changed": [i for i, f in enumerate(flags) if f], "cuts": found})
    noise = np.random.default_rng(3).integers(0, 256, (181, 333, 3), dtype=np.uint8)
    small = cv2.cvtColor(cv2.resize(noise, (256, 139), interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2HSV)
    picture = {"hsv_sum": [int(s) for s in small.sum((0, 1), dtype=np.int64)], "hsv": small[::29, ::41].tolist()}
    return {"cuts": cuts, "content": content, "merged": merged, "picture": picture}


def pure_functions(source: Path) -> dict[str, Any]:
    """Official fusion and headline scores for made-up inputs."""
    import vbench2_beta_long.utils as utils

    configs = Path(utils.__file__).with_name("configs")
    files = {
        "slow_fast_eval_config": str(configs / "slow_fast_params.yaml"),
        "sb_mapping_file_path": str(configs / "subject_mapping_table.yaml"),
        "bg_mapping_file_path": str(configs / "background_mapping_table.yaml"),
        "dev_flag": True,
    }
    fused = []
    for dimension in ("subject_consistency", "background_consistency"):
        for in_clip, between in ((0.9, 0.0), (0.9, 1e-4), (0.71, 0.005), (0.8, 0.5), (0.93, 0.7654321), (1, 1)):
            inside, across = ([{"video_path": "a.mp4", "video_results": x}] for x in (in_clip, between))
            score, _ = utils.fuse_inclip_clip2clip(in_clip, between, inside, across, dimension, **files)
            fused.append([dimension, in_clip, between, score])
    sys.path.insert(0, str(source / "scripts"))
    script = importlib.import_module("cal_i2v_final_score")
    generator, totals = random.Random(7), []
    for _ in range(4):
        scores = {name: round(generator.uniform(0.2, 1.0), 4) for name in script.I2VKEY}
        normal = script.get_nomalized_score({script.I2VKEY[name]: score for name, score in scores.items()})
        quality, i2v = script.get_i2v_quality_score(normal), script.get_i2v_score(normal)
        totals.append({"scores": scores, "quality": quality, "i2v": i2v, "total": script.get_final_score(quality, i2v)})
    return {"fused": fused, "i2v_totals": totals}


def measure(work: Path, arguments: argparse.Namespace, shapes: dict[str, Any], depth: int | None) -> dict[str, Any]:
    """All scores with networks of one depth."""
    from tests.parity import checkpoints

    cache = work / f"cache-{depth}"
    fingerprints = long_i2v.write_checkpoints(cache, shapes, depth)
    checkpoints.write(cache, ["clip_b32"], depth)
    with offline(cache, arguments.dino.resolve(), arguments.dinov2.resolve(), depth):
        clips = long_i2v.FULL_SIZE_CLIPS if depth is None else long_i2v.PICTURES
        found = {
            "fingerprints": fingerprints,
            "features": embed(cache),
            "i2v": score_i2v(cache, work, clips),
        }
        if depth is not None:  # the suites' own arithmetic does not depend on the size of networks
            found["long"] = score_long(cache, work / "long", long_i2v.write_lossless, False)
            found["long_scenes"] = score_long(cache, work / "long", long_i2v.write_lossless, True)
            found["long_encoded"] = score_long(cache, work / "long", long_i2v.write_as_torchvision, False)
    shutil.rmtree(cache)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Golden results of VBench-Long and VBench-I2V.")
    for name in ("source", "dino", "dinov2", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--full", action="store_true", help="add networks of the published size")
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.source.resolve()))
    import torch
    import torchvision.io

    torchvision.io.write_video = None  # imported by name; every call goes to a writer above
    torch.set_num_threads(1)
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):
        shapes = record_shapes(arguments.dino.resolve(), arguments.dinov2.resolve())
        if arguments.full:
            result = json.loads(long_i2v.GOLDEN.read_text(encoding="utf-8"))
            result["full"] = measure(work, arguments, shapes, None)
        else:
            result = {
                "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
                "seed": recipe.SEED,
                "shapes": shapes,
                "scenes": find_scenes(work),
                **pure_functions(arguments.source.resolve()),
                "shallow": measure(work, arguments, shapes, recipe.SHALLOW),
            }
    long_i2v.GOLDEN.write_text(json.dumps(result, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
