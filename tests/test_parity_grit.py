"""GRiT against the official package: from the first block to the scores of the four dimensions that read it.

`tests/parity/grit_golden.json` holds what the official package made of frames of `tests/parity/clips`, with weights
that `tests/parity/recipe.py` draws from a seed (`tests/parity/grit_official.py`). The same weights are drawn here,
saved in half precision under the official names and loaded by this project's own loader.

Quick tests use networks of three blocks and a text decoder of two; `slow` ones the published sizes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from evalkit.backbones import features, grit
from evalkit.backbones._centernet import select
from evalkit.backbones._grit_network import Grit, GritShape, standardize
from evalkit.backbones._grit_text import TextShape
from evalkit.backbones._vitdet import STRIDES, VitShape
from evalkit.backbones.base import Runtime, SelectedFrames
from evalkit.backbones.viclip import middle_frames
from evalkit.metrics import find
from evalkit.types import Array, Clip, Frames, VideoInfo
from evalkit.video import probe, read
from evalkit.weights import WeightStore
from tests.parity import grit_checkpoint
from tests.parity.grit_pictures import CLIPS, FULL_CLIPS, FULL_PICTURES, PICTURES, sample, stage

HERE = Path(__file__).parent / "parity"
GOLDEN = json.loads((HERE / "grit_golden.json").read_text(encoding="utf-8"))
DIMENSIONS = ("object_class", "multiple_objects", "spatial_relationship", "color")
SPECS = {"grit_objects": features.GRIT_OBJECTS, "grit_captions": features.GRIT_CAPTIONS}

TENSORS = 1e-4
"""Of a tensor's standard deviation: float32 in another order of summation, through up to twelve blocks."""
PIXELS = 2e-3
"""Corners of boxes, which are hundreds of pixels large."""
SCORES = 1e-5

# Three blocks and two: official classes with the others removed.
SHAPES = {"shallow": GritShape(backbone=VitShape(layers=3), text=TextShape(layers=2)), "full": GritShape()}

# One process draws the weights and runs the networks for all of them.
pytestmark = pytest.mark.xdist_group("parity")


def write(cache: Path, size: str) -> str:
    with torch.device("meta"):
        network = Grit(SHAPES[size])
    shapes = grit_checkpoint.published({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    return grit_checkpoint.write(cache, shapes, grit_checkpoint.SIZES[size])


@contextmanager
def built(shape: GritShape) -> Iterator[None]:
    """Build networks of this size; all else, checkpoint and loader included, stays as it is."""
    with mock.patch.object(grit, "Grit", partial(Grit, shape)):
        yield


@pytest.fixture(scope="module")
def shallow_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeightStore]:
    cache = tmp_path_factory.mktemp("grit")
    assert write(cache, "shallow") == GOLDEN["shallow"]["fingerprint"]
    yield WeightStore(cache, trust_archives=True)
    (cache / grit_checkpoint.FILE).unlink()


@pytest.fixture
def shallow(shallow_weights: WeightStore) -> Iterator[WeightStore]:
    """The checkpoint of a shallow network; networks are shallow for as long as the test lasts."""
    with built(SHAPES["shallow"]):
        yield shallow_weights


def decode(file: str) -> Frames:
    """All frames of a clip."""
    info = probe(HERE / "clips" / file)
    return np.concatenate([chunk.colours("decord") for chunk in read(HERE / "clips" / file, info, chunk=4)])


def decode_middle(file: str) -> Frames:
    """The 16 frames of a clip that are looked at."""
    frames_THWC = decode(file)
    return frames_THWC[middle_frames(len(frames_THWC), grit.FRAMES)]


def to_tensor(frame_HWC: Frames) -> Tensor:
    return torch.from_numpy(frame_HWC).permute(2, 0, 1)[None].float()


@torch.inference_mode()
def watch(network: Grit, x_13HW: Tensor) -> dict[str, Tensor]:
    """Every tensor of interest on the way to the boxes, by name."""
    seen: dict[str, Tensor] = {}
    handles = [
        block.register_forward_hook(lambda _module, _inputs, output, i=i: seen.update({f"block {i}": output}))
        for i, block in enumerate(network.backbone.bottom_up.blocks)
    ]
    levels = network.backbone(standardize(x_13HW))
    for handle in handles:
        handle.remove()
    maps = network.proposal_generator.centernet_head(levels)
    for i, (level, (heatmap, distances)) in enumerate(zip(levels, maps, strict=True)):
        seen |= {f"p{i + 3}": level, f"heatmap p{i + 3}": heatmap, f"distances p{i + 3}": distances}
    boxes_N4, proposed_N = select([(heatmap[0, 0], distances[0]) for heatmap, distances in maps])
    refined_N4, probability_N = network.roi_heads.refine(levels[:3], boxes_N4, x_13HW.shape[2:])
    (found,) = network.detect(x_13HW)
    return seen | {
        "proposals": boxes_N4,
        "proposed": proposed_N,
        "refined": refined_N4,
        "refined scores": (probability_N * proposed_N) ** 0.5,
        "features": found.features_NSD,
    }


def assert_tensors_equal(seen: dict[str, Tensor], official: dict[str, Any]) -> None:
    assert seen.keys() == official.keys()
    for name, expected in official.items():
        actual = sample(seen[name].numpy())
        assert actual["shape"] == expected["shape"], name
        tolerance = PIXELS if name in ("proposals", "refined") else TENSORS * expected["std"]
        for part in ("mean", "std", "elements"):
            assert actual[part] == pytest.approx(expected[part], rel=0, abs=tolerance), f"{name}: {part}"


def assert_same_picture(store: WeightStore, name: str, official: dict[str, Any]) -> None:
    """One frame: tensors on the way, boxes and their order, and texts."""
    reader = grit.shared_reader(store, Runtime()).also("ObjectDet", "DenseCap")
    file, index = PICTURES[name]
    x_13HW = to_tensor(decode(file)[index])
    assert_tensors_equal(watch(reader.network, x_13HW), official["tensors"])
    (found,) = reader.look(x_13HW)
    np.testing.assert_allclose(found.boxes_N4, official["boxes"], rtol=0, atol=PIXELS)
    np.testing.assert_allclose(found.scores_N, official["scores"], rtol=0, atol=SCORES)
    assert np.asarray(official["boxes"]).astype(int).tolist() == official["pixels"]  # as the metrics cut off fractions
    assert found.texts == {"ObjectDet": official["objects"], "DenseCap": official["captions"]}


def info_of(frames_THWC: Frames) -> VideoInfo:
    length, height, width, _ = frames_THWC.shape
    return VideoInfo(width, height, length, 8.0, "none", "rgb24")


def extract(extractor: SelectedFrames, clip: str) -> Array:
    """A clip's features; its frames are handed over as they would be by a decoder."""
    frames_THWC = stage(clip, decode_middle)
    reader = extractor.open(Clip(info_of(frames_THWC), ""))
    for start in range(0, len(frames_THWC), 5):
        reader.push(start, frames_THWC[start : start + 5])
    return reader.close()


def assert_same_scores(store: WeightStore, clips: tuple[str, ...], official: dict[str, Any]) -> None:
    """Every clip's score in the four dimensions, and each dimension's."""
    extractors = {name: spec.load(store, Runtime()) for name, spec in SPECS.items()}
    features = {clip: {name: extract(extractor, clip) for name, extractor in extractors.items()} for clip in clips}
    for dimension in DIMENSIONS:
        metric, expected = find(dimension, "official"), official["scores"][dimension]
        scores = {
            clip: metric.score(Clip(info_of(stage(clip, decode_middle)), "", official["asked"][clip]), features[clip])
            for clip in clips
        }
        scored = {clip: score for clip, score in scores.items() if score.value is not None}
        assert {clip: score.value for clip, score in scored.items()} == pytest.approx(
            expected["videos"], rel=0, abs=1e-4
        )
        weights = [score.n_terms if metric.pooling == "frames" else 1 for score in scored.values()]
        total = np.average([score.value for score in scored.values()], weights=weights)
        assert total == pytest.approx(expected["score"], rel=0, abs=1e-4)


def test_large_frames_are_scaled_as_by_torchvision_and_as_by_opencv() -> None:
    frame_HWC = stage("enlarged.mp4", decode_middle)[0]
    size = grit.reduced(*frame_HWC.shape[:2])
    smooth_HWC = grit.scale_smoothly(frame_HWC, *size).permute(1, 2, 0).numpy()
    official = GOLDEN["scaled"]["smooth"]
    assert list(smooth_HWC.shape) == official["shape"]
    assert sample(smooth_HWC)["elements"] == pytest.approx(official["elements"], rel=0, abs=1e-3)
    bytewise_HWC = grit.scale_as_opencv(frame_HWC, *size).permute(1, 2, 0).numpy().astype(np.uint8)
    assert hashlib.sha256(bytewise_HWC.tobytes()).hexdigest() == GOLDEN["scaled"]["bytewise"]


@pytest.mark.parametrize("name", PICTURES)
def test_shallow_network_sees_what_the_official_one_sees(name: str, shallow: WeightStore) -> None:
    assert_same_picture(shallow, name, GOLDEN["shallow"]["pictures"][name])


@pytest.mark.slow
def test_shallow_network_scores_as_the_official_package(shallow: WeightStore) -> None:
    assert_same_scores(shallow, CLIPS, GOLDEN["shallow"])


def test_official_results_tell_pictures_apart() -> None:
    """Parity proves something only if the recipe's networks see the pictures, and if all blocks matter."""
    for size in ("shallow", "full"):
        pictures = GOLDEN[size]["pictures"]
        assert all(2 <= len(picture["boxes"]) <= 12 for picture in pictures.values())
        assert len({tuple(picture["captions"]) for picture in pictures.values()}) == len(pictures)
        for picture in pictures.values():
            assert len(set(picture["objects"])) > 1
            assert picture["objects"] != picture["captions"]
            assert all(picture["tensors"][f"p{i + 3}"]["std"] > 0.1 for i in range(len(STRIDES)))
        values = [value for name in DIMENSIONS for value in GOLDEN[size]["scores"][name]["videos"].values()]
        assert any(0 < value < 1 for value in values)


@pytest.mark.slow
def test_full_network_is_the_official_one(tmp_path: Path) -> None:
    official = GOLDEN["full"]
    assert write(tmp_path, "full") == official["fingerprint"]
    store = WeightStore(tmp_path, trust_archives=True)
    with built(SHAPES["full"]):  # the quick tests' shallow network is still in its place
        reader = grit.shared_reader(store, Runtime())  # held, so that the network is loaded once
    for name in FULL_PICTURES:
        assert_same_picture(store, name, official["pictures"][name])
    assert_same_scores(store, FULL_CLIPS, official)
    assert reader is grit.shared_reader(store, Runtime())
