"""Both sides of the GRiT benchmark: the frames of one clip, looked at for each task.

    python -m benchmarks.grit_part official|native --cache DIR --frames N --out FILE

`native` writes the recipe's full-size checkpoint into the cache; `official` runs in the official environment.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CLIP = Path(__file__).parents[1] / "tests" / "parity" / "clips" / "square.mp4"
FRAMES_FILE = "frames.npy"

Texts = list[list[tuple[str, list[int]]]]
"""For each frame, text and box of every detection."""


def official(cache: Path) -> dict[str, Any]:
    """The official model, loaded once for each task as its dimensions do."""
    import torch

    package: Any = importlib.import_module("vbench.third_party.grit_model")
    os.chdir(cache)  # the official code looks for BERT's vocabulary in the working directory first
    frames_THWC = np.load(cache / FRAMES_FILE)
    found = {}
    for task, load in {"ObjectDet": "initialize_model_det", "DenseCap": "initialize_model"}.items():
        captioning = package.DenseCaptioning(torch.device("cpu"))
        getattr(captioning, load)(str(cache / "grit_model/grit_b_densecap_objectdet.pth"))

        def look(captioning: Any = captioning) -> Texts:
            with torch.no_grad():
                seen = [captioning.run_caption_tensor(frame)[0] for frame in frames_THWC]
            return [[(text, box) for text, box, _ in frame] for frame in seen]

        found[task] = _timed(look)
    return found


def native(cache: Path, n_frames: int) -> dict[str, Any]:
    """This project's model, for each task alone and for both at once."""
    import torch

    from evalkit.backbones._grit_network import Grit
    from evalkit.backbones._grit_text import Task
    from evalkit.backbones.base import Runtime
    from evalkit.backbones.bert_vocab import load_tokenizer
    from evalkit.backbones.grit import FrameReader, load_network, scale_smoothly
    from evalkit.video import probe, read_frames
    from evalkit.weights import WeightStore
    from tests.parity import grit_checkpoint

    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Grit().state_dict().items()}
    grit_checkpoint.write(cache, grit_checkpoint.published(shapes), grit_checkpoint.SIZES["full"])
    chosen = np.linspace(0, probe(CLIP).n_frames - 1, n_frames).round().astype(int).tolist()
    frames_THWC = read_frames(CLIP, chosen)
    np.save(cache / FRAMES_FILE, frames_THWC)

    store = WeightStore(cache, trust_archives=True)
    found = {}
    passes: dict[str, tuple[Task, ...]] = {
        "ObjectDet": ("ObjectDet",),
        "DenseCap": ("DenseCap",),
        "both": ("ObjectDet", "DenseCap"),
    }
    for name, tasks in passes.items():
        reader = FrameReader(load_network(store), load_tokenizer(store), Runtime()).also(*tasks)

        def look(reader: FrameReader = reader, task: Task = tasks[-1]) -> Texts:
            seen = reader.read(frames_THWC, scale_smoothly)
            return [list(zip(frame.texts[task], frame.boxes_N4.tolist(), strict=True)) for frame in seen]

        found[name] = _timed(look)
    return found


def _timed(look: Callable[[], Texts]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    texts = look()
    cost = {"wall_s": round(time.perf_counter() - wall, 3), "cpu_s": round(time.process_time() - cpu, 3)}
    return {"found": [[[text, [int(edge) for edge in box]] for text, box in frame] for frame in texts], **cost}


def main() -> None:
    parser = argparse.ArgumentParser(description="Both sides of the GRiT benchmark.")
    parser.add_argument("side", choices=("official", "native"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    cache = given.cache.resolve()
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    os.environ |= {"VBENCH_CACHE_DIR": str(cache), "MPLBACKEND": "Agg", **offline}
    found = official(cache) if given.side == "official" else native(cache, given.frames)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
