"""RAFT, dynamic_degree and the static filter of the official package with the recipe's weights.

    python -m tests.parity.raft_official --cache DIR --out tests/parity/raft_golden.json

Runs in the official environment (`make parity` builds one) and takes some minutes on one core. RAFT has no stack of
blocks to shorten, so there is one size, the published one. Nothing of the scoring is patched; the flow magnitudes of
the pairs are noted down as the official functions return them. The official loaders are strict, so a run also proves
that the recipe's tensors are exactly those of the official network.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import recipe
from tests.parity.official import describe, quiet_stdout, read_prompts

GOLDEN = Path(__file__).with_name("raft_golden.json")
FILE = "raft_model/models/raft-things.pth"
PACKAGES = ("vbench", "torch", "torchvision", "numpy", "opencv-python")
OPTIONS = {"small": False, "mixed_precision": False, "alternate_corr": False}
CROP = (136, 128)  # height and width of the pictures whose flow is compared point by point
STEP = 8  # every so many points of that flow are kept, starting at OFFSET
OFFSET = 3

Record = dict[str, Any]


def official_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the published file, as the official class names them."""
    raft = importlib.import_module("vbench.third_party.RAFT.core.raft")
    return {f"module.{name}": tuple(t.shape) for name, t in raft.RAFT(Namespace(**OPTIONS)).state_dict().items()}


def recorded_shapes() -> dict[str, tuple[int, ...]]:
    """The same, as the golden file has them."""
    table = json.loads(GOLDEN.read_text(encoding="utf-8"))["shapes"]["tensors"]
    return {name: tuple(shape) for name, shape in table.items()}


def write_checkpoint(cache: Path, shapes: recipe.Shapes) -> str:
    """Write the recipe's weights in the official layout; return their fingerprint."""
    import torch

    tensors = recipe.weights("raft", shapes)
    path = cache / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, path)
    return recipe.fingerprint(tensors)


@contextmanager
def noted_scores(judge: type) -> Iterator[list[float]]:
    """What the official `get_score` of a class returns, call by call."""
    original, scores = judge.get_score, []  # type: ignore[attr-defined]

    def get_score(self: object, *arguments: object) -> object:
        score = original(self, *arguments)
        scores.append(float(score))
        return score

    judge.get_score = get_score  # type: ignore[attr-defined]
    try:
        yield scores
    finally:
        judge.get_score = original  # type: ignore[attr-defined]


def dynamic_degree(videos: Path, cache: Path) -> Record:
    """The dimension through its official entry point: score, verdict and pair scores by file."""
    import torch

    module: Any = importlib.import_module("vbench.dynamic_degree")
    table: Record = {"videos": {}, "pairs": {}}
    files = [str(videos / file) for file in read_prompts(videos)]
    listing = cache / "raft_dimension.json"
    entries = [{"prompt_en": file, "dimension": ["dynamic_degree"], "video_list": [file]} for file in files]
    listing.write_text(json.dumps(entries), encoding="utf-8")
    with noted_scores(module.DynamicDegree) as scores:
        score, records = module.compute_dynamic_degree(str(listing), torch.device("cpu"), {"model": str(cache / FILE)})
    table["score"] = float(score)
    for record in records:
        path = Path(record["video_path"])
        table["videos"][path.name] = bool(record["video_results"])
        n_pairs = describe(path)["shape_THWC"][0] - 1  # at 8 frames a second every frame is looked at
        table["pairs"][path.name] = scores[:n_pairs]
        del scores[:n_pairs]
    assert not scores
    return table


def static_filter(videos: Path, cache: Path) -> Record:
    """The official filter on each clip: verdict and pair scores by file."""
    module: Any = importlib.import_module("vbench.cli.static_filter")
    module.DEVICE = "cpu"
    judge = module.StaticFilter(Namespace(model=str(cache / FILE), **OPTIONS), "cpu")
    table: Record = {"videos": {}, "pairs": {}}
    for file in read_prompts(videos):
        with noted_scores(module.StaticFilter) as scores:
            table["videos"][file] = bool(judge.infer(str(videos / file)))
        table["pairs"][file] = scores
    return table


def flows(videos: Path, cache: Path) -> Record:
    """Every `STEP`-th point of the flow between the first two frames of each clip, cropped in the middle."""
    import torch

    module: Any = importlib.import_module("vbench.dynamic_degree")
    judge = module.DynamicDegree(Namespace(model=str(cache / FILE), **OPTIONS), torch.device("cpu"))
    found = {}
    for file in read_prompts(videos):
        first, second = (crop(frame, -2) for frame in judge.get_frames(str(videos / file))[:2])
        with torch.no_grad():
            _, flow_12HW = judge.model(first, second, iters=20, test_mode=True)
        points = flow_12HW[0, :, OFFSET::STEP, OFFSET::STEP]
        found[file] = {"longest_px": float(flow_12HW.abs().max()), "points_2HW": round_to(points.tolist(), 5)}
    return found


def rule_cases(seed: int, n_cases: int = 400) -> Iterator[tuple[int, int, list[float]]]:
    """Frames of a clip, shorter side, and made-up scores of its pairs (ends included) near a threshold."""
    rng = np.random.default_rng(seed)
    for _ in range(n_cases):
        n_frames, side = int(rng.integers(1, 40)), int(rng.integers(121, 800))
        near = rng.choice([0.0, 0.9, 1.0, 1.1, 9.0], n_frames + 1, p=rng.dirichlet([2, 2, 1, 2, 0.3]))
        yield n_frames, side, (near * (3 * side / 256) * rng.choice([1, 2])).astype(np.float32).tolist()


def rules() -> Record:
    """What the official rules say of made-up scores, as one digit a case."""
    dynamic: Any = importlib.import_module("vbench.dynamic_degree").DynamicDegree
    static: Any = importlib.import_module("vbench.cli.static_filter").StaticFilter
    moving, still = object.__new__(dynamic), object.__new__(static)
    verdicts: dict[str, list[bool]] = {"dynamic_degree": [], "static_filter": []}
    for n_frames, side, scores in rule_cases(recipe.SEED):
        for judge in (moving, still):
            judge.set_params(np.empty((side + 1, side)), n_frames)
        verdicts["dynamic_degree"].append(moving.check_move(scores[: n_frames - 1]))
        verdicts["static_filter"].append(still.check_static(scores))
    return {name: "".join(str(int(verdict)) for verdict in found) for name, found in verdicts.items()}


def crop(frame: Any, axis: int) -> Any:
    """The middle of a picture; `axis` is that of its height, the width's comes next."""
    for side, wanted in zip((axis, axis + 1), CROP, strict=True):
        start = (frame.shape[side] - wanted) // 2
        index = [slice(None)] * frame.ndim
        index[side] = slice(start, start + wanted)
        frame = frame[tuple(index)]
    return frame


def round_to(values: Any, digits: int) -> Any:
    return [round_to(v, digits) for v in values] if isinstance(values, list) else round(values, digits)


def main() -> None:
    parser = argparse.ArgumentParser(description="RAFT's part of the parity check, official side.")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the checkpoint, in the official layout")
    parser.add_argument("--out", type=Path, required=True, help="where the results go (JSON)")
    parser.add_argument("--videos", type=Path, default=Path(__file__).with_name("clips"))
    given = parser.parse_args()

    cache, videos = given.cache.resolve(), given.videos.resolve()
    os.environ["VBENCH_CACHE_DIR"] = str(cache)  # read by the official package when it is imported
    with quiet_stdout():
        shapes = official_shapes()
        result: Record = {
            "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in PACKAGES}},
            "seed": recipe.SEED,
            "fingerprint": write_checkpoint(cache, shapes),
            "clips": {file: describe(videos / file) for file in read_prompts(videos)},
            "rules": rules(),
            "flows": flows(videos, cache),
            "dynamic_degree": dynamic_degree(videos, cache),
            "static_filter": static_filter(videos, cache),
            "shapes": recipe.collapse(shapes),
        }
    body = ",\n".join(f' "{key}": {json.dumps(value)}' for key, value in result.items())
    given.out.write_text(f"{{\n{body}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
