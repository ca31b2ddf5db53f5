"""Look at frames and score clips with the official GRiT and the recipe's weights. Runs in the official environment.

    python -m tests.parity.grit_official --cache DIR --out tests/parity/grit_golden.json [--full]

Needs detectron2, which is not on PyPI: `pip install --no-build-isolation DIR` in a checkout of its public repository.
The official loader reads the checkpoint; for shallow networks it says which blocks are missing, and these are then
removed. Nothing of the network or of the scoring is patched: forward hooks record what passes by, and the detector's
answer for a frame that it has seen is remembered instead of computed anew.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from tests.parity import grit_checkpoint, recipe
from tests.parity.grit_checkpoint import SIZES, Size
from tests.parity.grit_pictures import (
    CLIPS,
    FULL_CLIPS,
    FULL_PICTURES,
    PICTURES,
    sample,
    shorten,
    stage,
)
from tests.parity.grit_words import COLOURS

PACKAGES = ("vbench", "detectron2", "torch", "torchvision", "transformers", "numpy", "timm", "decord", "opencv-python")
VIDEOS = Path(__file__).with_name("clips")
TASKS = {"ObjectDet": "initialize_model_det", "DenseCap": "initialize_model"}
LEVELS = ("p3", "p4", "p5", "p6", "p7")
OBJECT_DIMENSIONS = ("object_class", "multiple_objects", "spatial_relationship")

Image = npt.NDArray[Any]
Texts = list[list[tuple[str, list[int], list[str]]]]
"""What the official package finds in each frame: text, box in whole pixels, and the names of all detections."""


class Detector:
    """The official model for one task; remembers frames."""

    def __init__(self, task: str, checkpoint: Path, size: Size) -> None:
        import torch
        from vbench.third_party.grit_model import DenseCaptioning

        self.captioning = DenseCaptioning(torch.device("cpu"))
        getattr(self.captioning, TASKS[task])(str(checkpoint))
        self.model = self.captioning.demo.predictor.model
        truncate(self.model, size)
        self.known: dict[bytes, Any] = {}

    def run_caption_tensor(self, image: Image) -> Any:
        key = f"{image.shape} {image.dtype}".encode() + image.tobytes()
        if key not in self.known:
            self.known[key] = self.captioning.run_caption_tensor(image)[0]
        return self.known[key], None

    def texts(self, images: Image) -> Texts:
        import torch

        with torch.no_grad():
            return [self.run_caption_tensor(image)[0] for image in images]


def truncate(model: Any, size: Size) -> None:
    """Remove blocks from both stacks."""
    model.backbone.bottom_up.blocks = model.backbone.bottom_up.blocks[: size.layers]
    encoder = model.roi_heads.text_decoder.textual.transformer.encoder
    encoder.layer = encoder.layer[: size.text_layers]


def shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """The tensors of the official network, without those that share another's storage."""
    import torch
    from detectron2.modeling import build_model
    from vbench.third_party.grit_src.image_dense_captions import get_parser, setup_cfg

    model = build_model(setup_cfg(get_parser(torch.device("cpu"), "")))
    truncate(model, size)
    return {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not name.startswith("roi_heads.text_decoder_det.") and name != grit_checkpoint.COPY
    }


@contextmanager
def record(model: Any) -> Iterator[dict[str, list[Image]]]:
    """Every tensor of interest that passes by, by name; one of every time it does."""
    seen: dict[str, list[Image]] = {}

    def note(name: str, tensor: Any) -> None:
        seen.setdefault(name, []).append(tensor.detach().numpy().copy())

    def on_head(_module: Any, _inputs: Any, output: Any) -> None:
        _, distances, heatmaps = output
        for level, distance, heatmap in zip(LEVELS, distances, heatmaps, strict=True):
            note(f"heatmap {level}", heatmap)
            note(f"distances {level}", distance)

    def on_proposals(_module: Any, _inputs: Any, output: Any) -> None:
        (proposals,), _ = output
        note("proposals", proposals.proposal_boxes.tensor)
        note("proposed", proposals.objectness_logits)

    def on_levels(_module: Any, _inputs: Any, output: Any) -> None:
        for level, tensor in output.items():
            note(level, tensor)

    def on_block(i: int) -> Callable[[Any, Any, Any], None]:
        return lambda _module, _inputs, output: note(f"block {i}", output)

    choose = model.roi_heads.fast_rcnn_inference_GRiT

    def chosen(boxes: Any, scores: Any, *rest: Any) -> Any:
        result = choose(boxes, scores, *rest)
        note("refined", boxes[0])
        note("refined scores", scores[0][:, 0])
        note("boxes", result[0][0].pred_boxes.tensor)
        note("scores", result[0][0].scores)
        return result

    def on_text(_module: Any, inputs: Any) -> None:
        note("features", inputs[0]["object_features"])

    handles = [block.register_forward_hook(on_block(i)) for i, block in enumerate(model.backbone.bottom_up.blocks)]
    handles += [
        model.backbone.register_forward_hook(on_levels),
        model.proposal_generator.centernet_head.register_forward_hook(on_head),
        model.proposal_generator.register_forward_hook(on_proposals),
        model.roi_heads.text_decoder.register_forward_pre_hook(on_text),
        model.roi_heads.text_decoder_det.register_forward_pre_hook(on_text),
    ]
    with mock.patch.object(model.roi_heads, "fast_rcnn_inference_GRiT", chosen):
        yield seen
    for handle in handles:
        handle.remove()


def look(detectors: dict[str, Detector], image: Image) -> dict[str, Any]:
    """What the official network makes of one picture, from the first block to the texts."""
    with record(detectors["ObjectDet"].model) as seen:
        (names,) = detectors["ObjectDet"].texts(image[None])
    (captions,) = detectors["DenseCap"].texts(image[None])
    for name in ("refined", "refined scores", "boxes", "scores", "features"):
        once, again = seen[name]
        np.testing.assert_array_equal(once, again, err_msg="the second pass finds something else")
    objects = names[0][2]
    assert [text for text, _, _ in names] == objects
    assert [box for _, box, _ in captions] == [box for _, box, _ in names]
    assert captions[0][2] == objects
    boxes, scores = seen.pop("boxes")[0], seen.pop("scores")[0]
    return {
        "tensors": {name: sample(values[0]) for name, values in seen.items()},
        "boxes": [[shorten(edge) for edge in box] for box in boxes],
        "scores": [shorten(score) for score in scores],
        "pixels": [box for _, box, _ in names],
        "objects": objects,
        "captions": [text for text, _, _ in captions],
    }


def decode(clip: str) -> Image:
    """The 16 frames `(T, H, W, 3)` that the official package reads of a clip, uint8."""
    from vbench.utils import load_video

    return stage(clip, lambda file: np.asarray(load_video(str(VIDEOS / file), num_frames=16, return_tensor=False)))


def load_video(path: str, num_frames: int, return_tensor: bool = True) -> Any:
    """Stands in for the official function, which reads files only, and does with the frames what that does."""
    import torch

    frames = decode(Path(path).name)
    return torch.Tensor(frames).permute(0, 3, 1, 2) if return_tensor else frames


def facts(objects: Texts, captions: Texts) -> dict[str, dict[str, str]]:
    """Ask each dimension for something that the official network sees in about half of a clip's frames."""
    sets = [sorted({name for _, _, names in frame for name in names}) for frame in objects]
    (one,) = _commonest(((name,) for frame in sets for name in frame), len(sets) / 2)
    pair = _commonest(((a, b) for frame in sets for a in frame for b in frame if a < b), len(sets) / 2)
    coloured = (
        (colour, frame[0][2][0])
        for frame in captions
        for colour in COLOURS
        if frame and colour not in frame[0][2][0] and any(colour in text for text, _, _ in frame)
    )
    colour, thing = _commonest(coloured, len(sets) / 4)
    side = "on the left of" if len(one) % 2 else "on the top of"
    return {
        "object_class": {"object": one},
        "multiple_objects": {"object": " and ".join(pair)},
        "spatial_relationship": {"object_a": pair[0], "object_b": pair[1], "relationship": side},
        "color": {"color": colour, "object": thing},
    }


def _commonest(candidates: Iterator[tuple[str, ...]], count: float) -> tuple[str, ...]:
    """The candidate that occurs most nearly so often."""
    return min(sorted(Counter(candidates).items()), key=lambda item: abs(item[1] - count))[0]


def score(dimension: str, detector: Detector, asked: dict[str, dict[str, dict[str, str]]]) -> dict[str, Any]:
    """One dimension over all clips by the official function; a clip that it leaves out has no entry."""
    import torch

    module = importlib.import_module(f"vbench.{dimension}")
    entries = []
    for clip, by_dimension in asked.items():
        wanted = by_dimension[dimension]
        nested = {"spatial_relationship": {"spatial_relationship": wanted}}.get(dimension, wanted)
        prompt = f"a {wanted['color']} {wanted['object']}" if dimension == "color" else ""
        entries.append({"prompt": prompt, "auxiliary_info": nested, "video_list": [str(VIDEOS / clip)]})
    with mock.patch.object(module, "load_video", load_video):
        total, records = getattr(module, dimension)(detector, entries, torch.device("cpu"))
    videos = {Path(record["video_path"]).name: float(record["video_results"]) for record in records}
    return {"score": float(total), "videos": videos}


def run(cache: Path, full: bool) -> dict[str, Any]:
    """Everything of one size: weights, pictures, texts and scores."""
    size = SIZES["full" if full else "shallow"]
    grit_checkpoint.write_vocabulary(cache)
    os.chdir(cache)  # the official code looks for BERT's vocabulary in the working directory first
    fingerprint = grit_checkpoint.write(cache, shapes(size), size)
    detectors = {task: Detector(task, cache / grit_checkpoint.FILE, size) for task in TASKS}
    pictures = {
        name: look(detectors, decode_frame(*PICTURES[name])) for name in (FULL_PICTURES if full else tuple(PICTURES))
    }
    clips = FULL_CLIPS if full else CLIPS
    asked = {}
    for clip in clips:
        frames = decode(clip)
        smooth, bytewise = resized(frames)
        asked[clip] = facts(detectors["ObjectDet"].texts(smooth), detectors["DenseCap"].texts(bytewise))
    scores = {name: score(name, detectors["ObjectDet"], asked) for name in OBJECT_DIMENSIONS}
    scores["color"] = score("color", detectors["DenseCap"], asked)
    return {"fingerprint": fingerprint, "pictures": pictures, "asked": asked, "scores": scores}


def decode_frame(clip: str, index: int) -> Image:
    """One frame of a clip as float32, as the dimensions about objects hand it over."""
    import decord

    decord.bridge.set_bridge("native")
    return decord.VideoReader(str(VIDEOS / clip), num_threads=1)[index].asnumpy().astype(np.float32)


def resized(frames_THWC: Image) -> tuple[Image, Image]:
    """Frames at the size at which they are looked at: as the dimensions about objects do it, and as colour does."""
    import cv2
    import torch
    from torchvision import transforms

    height, width = frames_THWC.shape[1:3]
    if min(height, width) <= 768:
        return frames_THWC.astype(np.float32), frames_THWC
    scale = 720.0 / min(height, width)
    size = (int(scale * height), int(scale * width))
    smooth = transforms.Resize(size=size)(torch.Tensor(frames_THWC).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    return smooth, np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR) for frame in frames_THWC])


def scalings() -> dict[str, Any]:
    """What becomes of a frame that is too large, for either kind of question."""
    smooth, bytewise = resized(decode("enlarged.mp4")[:1])
    return {"smooth": sample(smooth[0]), "bytewise": hashlib.sha256(bytewise[0].tobytes()).hexdigest()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the official GRiT with seeded weights.")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the checkpoint, in the official layout")
    parser.add_argument("--out", type=Path, required=True, help="golden file to put the results into (JSON)")
    parser.add_argument("--full", action="store_true", help="the network at its published size")
    arguments = parser.parse_args()

    cache, out = arguments.cache.resolve(), arguments.out.resolve()
    # Read by the official packages when they are imported.
    os.environ |= {
        "VBENCH_CACHE_DIR": str(cache),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "MPLBACKEND": "Agg",
    }
    with redirect_stdout(sys.stderr):
        result, scaled = run(cache, arguments.full), scalings()
    golden = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    golden |= {"versions": {"python": platform.python_version(), **versions}, "seed": recipe.SEED, "scaled": scaled}
    golden["full" if arguments.full else "shallow"] = result
    out.write_text(json.dumps(golden, separators=(",", ":")).replace('},"', '},\n"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
