"""human_action, temporal_style and appearance_style against the official VBench package, number by number.

`tests/parity/styles_actions_golden.json` holds what the official functions gave for the clips in `tests/parity/clips`
(`tests/parity/styles_actions_official.py` made it). The same seeded weights are drawn here, saved in the layout of the
published files and loaded by this project's own loaders. Quick tests use networks of two blocks per stack; `slow` ones
the published sizes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from evalkit.backbones import clip_style, umt
from evalkit.backbones._opencv import resize
from evalkit.backbones.base import Runtime
from evalkit.backbones.images import centre, scaled
from evalkit.backbones.viclip import middle_frames
from evalkit.metrics import find
from evalkit.metrics.human_action import INDEX
from evalkit.types import Clip, Features, Frames, Score
from evalkit.video import probe, read
from evalkit.weights import WeightStore
from tests.parity import checkpoints, native, recipe
from tests.parity.styles_actions_official import ACTIONS, CLIPS, SIDES, STYLES, expand, pattern, sha256, write_umt

GOLDEN = json.loads((Path(__file__).parent / "parity" / "styles_actions_golden.json").read_text(encoding="utf-8"))
PROMPTS = {r["file"]: r["prompt"] for r in map(json.loads, (CLIPS / "manifest.jsonl").read_text().splitlines())}
DIMENSIONS = ("human_action", "temporal_style", "appearance_style")
TOLERANCE = 1e-4
"""Of scores and of logits; float32 kernels of another build round differently."""

# One process draws the weights and runs the networks for all of them.
pytestmark = pytest.mark.xdist_group("parity")


def write(cache: Path, size: str) -> WeightStore:
    """Write all checkpoints of one size; they must be those the official package had."""
    depth = recipe.SHALLOW if size == "shallow" else None
    written = checkpoints.write(cache, ("clip_b32", "viclip"), depth)
    written["umt"] = write_umt(cache, recipe.weights("umt", expand(GOLDEN["umt"]["tensors"], depth)))
    assert written == GOLDEN[size]["fingerprints"]
    return WeightStore(cache, trust_archives=True)


def remove(cache: Path) -> None:
    for file in cache.rglob("*.pt*"):
        file.unlink()


@contextmanager
def shallow(depth: int) -> Iterator[None]:
    """Build networks of `depth` blocks per stack; all else, checkpoints and loaders included, stays as it is."""
    with ExitStack() as patches:
        patches.enter_context(native.shallow(depth))
        patches.enter_context(mock.patch.object(umt, "Umt", partial(umt.Umt, depth=depth)))
        tower = partial(clip_style.build_text_tower, layers=depth)
        patches.enter_context(mock.patch.object(clip_style, "build_text_tower", tower))
        yield


@pytest.fixture(scope="module")
def shallow_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeightStore]:
    cache = tmp_path_factory.mktemp("shallow")
    yield write(cache, "shallow")
    remove(cache)


@pytest.fixture
def store(shallow_weights: WeightStore) -> Iterator[WeightStore]:
    """Checkpoints of shallow networks; networks are shallow for as long as the test lasts."""
    with shallow(recipe.SHALLOW):
        yield shallow_weights


@pytest.fixture(scope="module")
def full_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeightStore]:
    """Checkpoints of the published sizes: 2.7 GB."""
    cache = tmp_path_factory.mktemp("full")
    yield write(cache, "full")
    remove(cache)


def clip_of(file: str, size: str) -> Clip:
    auxiliary = {
        "human_action": {"action": ACTIONS[size].get(file)},
        "appearance_style": {"appearance_style": STYLES[file]},
    }
    return Clip(probe(CLIPS / file), PROMPTS[file], auxiliary)


def evaluate(
    dimension: str, store: WeightStore, size: str, files: Iterable[str], batch: int = 8, chunk: int = 5
) -> tuple[dict[str, Score], dict[str, Features]]:
    """Verdict and features of every clip, decoded `chunk` frames at a time."""
    metric = find(dimension, "official")
    extractors = {feature: feature.load(store, Runtime(batch=batch)) for feature in metric.features}
    scores: dict[str, Score] = {}
    found: dict[str, Features] = {}
    for file in files:
        clip = clip_of(file, size)
        readers = {feature: extractor.open(clip) for feature, extractor in extractors.items()}
        for piece in read(CLIPS / file, clip.info, chunk):
            for feature, reader in readers.items():
                reader.push(piece.start, piece.colours(feature.pixels))
        found[file] = {feature.name: reader.close() for feature, reader in readers.items()}
        scores[file] = metric.score(clip, found[file])
    return scores, found


def pooled(dimension: str, scores: Mapping[str, Score]) -> float:
    values = [score.value for score in scores.values()]
    frames = find(dimension, "official").pooling == "frames"
    return float(np.average(np.array(values), weights=[s.n_terms if frames else 1 for s in scores.values()]))


def assert_parity(dimension: str, store: WeightStore, size: str) -> None:
    official = GOLDEN[size][dimension]
    scores, features = evaluate(dimension, store, size, official["videos"])
    values = {file: score.value for file, score in scores.items()}
    assert values == pytest.approx(official["videos"], rel=0, abs=TOLERANCE)
    assert pooled(dimension, scores) == pytest.approx(official["score"], rel=0, abs=TOLERANCE)
    if dimension == "human_action":
        for file, found in features.items():
            np.testing.assert_allclose(found["umt"][::4], official["logits"][file], rtol=0, atol=TOLERANCE)
            best = official["best"][file]
            assert np.argsort(-found["umt"])[: len(best)].tolist() == best


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_shallow_networks_score_as_the_official_package(dimension: str, store: WeightStore) -> None:
    assert_parity(dimension, store, "shallow")


@pytest.mark.slow
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_full_networks_score_as_the_official_package(dimension: str, full_store: WeightStore) -> None:
    assert_parity(dimension, full_store, "full")


@pytest.mark.parametrize(("batch", "chunk"), [(1, 2), (3, 7)])
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_batches_and_chunks_do_not_matter(dimension: str, batch: int, chunk: int, store: WeightStore) -> None:
    """float32 kernels of another batch size round differently: 1e-5, a tenth of the parity tolerance."""
    scores, _ = evaluate(dimension, store, "shallow", ["square.mp4"], batch, chunk)
    expected = GOLDEN["shallow"][dimension]["videos"]["square.mp4"]
    assert scores["square.mp4"].value == pytest.approx(expected, rel=0, abs=1e-5)


def test_official_results_tell_the_clips_apart() -> None:
    """Parity proves something only if the recipe's networks see the pictures."""
    for size in ("shallow", "full"):
        for dimension in ("temporal_style", "appearance_style"):
            assert np.ptp(list(GOLDEN[size][dimension]["videos"].values())) > 50 * TOLERANCE
        logits_VK = np.array(list(GOLDEN[size]["human_action"]["logits"].values()))
        assert logits_VK.std(axis=0).mean() > 1000 * TOLERANCE


def test_official_verdicts_cover_every_case() -> None:
    """By rank, counted from 0: hits at the first and the fifth, and misses there for want of certainty and behind."""
    cases = set()
    for size in ("shallow", "full"):
        official = GOLDEN[size]["human_action"]
        for file, verdict in official["videos"].items():
            wanted = INDEX[ACTIONS[size][file]]
            cases.add((official["best"][file].index(wanted), verdict))
    assert cases == {(0, 1.0), (4, 1.0), (4, 0.0), (5, 0.0)}


# What happens before the network


@pytest.mark.parametrize("file", STYLES)
def test_clips_are_scaled_to_the_bytes_of_opencv(file: str) -> None:
    info = probe(CLIPS / file)
    frames_THWC = np.concatenate([piece.frames_THWC for piece in read(CLIPS / file, info)])
    crops = [crop(frames_THWC[index]) for index in middle_frames(info.n_frames, umt.FRAMES)]
    assert sha256(np.stack(crops)) == GOLDEN["pixels"][file]


@pytest.mark.parametrize(("height", "width"), SIDES)
def test_odd_sizes_are_scaled_to_the_bytes_of_opencv(height: int, width: int) -> None:
    assert sha256(crop(pattern(height, width))[None]) == GOLDEN["pixels"][f"{height}x{width}"]


def crop(image_HWC: Frames) -> Frames:
    height, width = scaled(image_HWC.shape[:2], umt.SHORT_SIDE)
    return resize(image_HWC, height, width, centre(height, umt.SIDE), centre(width, umt.SIDE))


def test_positions_are_the_official_ones() -> None:
    sample = umt.positions(1024)[::241, ::93]
    torch.testing.assert_close(sample, torch.tensor(GOLDEN["umt"]["positions"]), rtol=0, atol=1e-6)
