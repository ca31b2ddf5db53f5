"""The seven customised dimensions against the official VBench package, number by number.

`tests/parity/golden.json` holds what the official package gave for the clips in `tests/parity/clips`, with weights that
`tests/parity/recipe.py` draws from a seed; `make parity` makes it again and compares live. The same weights are drawn
here, saved in the official layout, loaded by this project's own loaders and run through its front door.

Quick tests use official networks of two blocks per stack (AMT-S, which has none, at full size); `slow` ones the
published sizes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.backbones.base import Runtime
from evalkit.metrics import find
from evalkit.metrics.base import MetricSpec
from evalkit.types import Clip
from evalkit.video import probe, read
from evalkit.weights import WeightStore
from tests.parity import checkpoints, native, recipe
from tests.parity.dimensions import NETWORKS, TOLERANCE, VIDEO_SCALE

HERE = Path(__file__).parent / "parity"
CLIPS = HERE / "clips"
GOLDEN = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))
PROMPTS = {r["file"]: r["prompt"] for r in map(json.loads, (CLIPS / "manifest.jsonl").read_text().splitlines())}

# One process draws the weights and runs the networks for all of them.
pytestmark = pytest.mark.xdist_group("parity")


@pytest.fixture(scope="module")
def shallow_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Checkpoints of shallow networks, in the official layout."""
    cache = tmp_path_factory.mktemp("shallow")
    assert checkpoints.write(cache, checkpoints.FILES, recipe.SHALLOW) == GOLDEN["shallow"]["fingerprints"]
    with native.shallow(recipe.SHALLOW):
        yield cache
    remove_checkpoints(cache)


@pytest.fixture(scope="module")
def shallow_scores(shallow_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> native.Scores:
    return native.score(CLIPS, shallow_cache, tmp_path_factory.mktemp("run"), NETWORKS)


def remove_checkpoints(cache: Path) -> None:
    for file in checkpoints.FILES.values():
        (cache / file).unlink(missing_ok=True)


def assert_equal(dimension: str, official: dict[str, Any], scores: native.Scores) -> None:
    """Every video's score and the dimension's, within the tolerance."""
    ours, tolerance = scores[dimension], TOLERANCE[dimension]
    expected = {file: value * VIDEO_SCALE[dimension] for file, value in official["videos"].items()}
    assert ours["videos"] == pytest.approx(expected, rel=0, abs=tolerance)
    assert ours["score"] == pytest.approx(official["score"], rel=0, abs=tolerance)


@pytest.mark.parametrize("file", sorted(GOLDEN["clips"]))
def test_frames_are_those_of_decord_and_opencv(file: str) -> None:
    official, info = GOLDEN["clips"][file], probe(CLIPS / file)
    assert hashlib.sha256((CLIPS / file).read_bytes()).hexdigest() == official["sha256"]
    chunks = list(read(CLIPS / file, info, chunk=3))
    for reader in ("decord", "opencv"):
        frames_THWC = np.concatenate([chunk.colours(reader) for chunk in chunks])
        assert list(frames_THWC.shape) == official["shape_THWC"]
        assert hashlib.sha256(frames_THWC.tobytes()).hexdigest() == official[f"{reader}_sha256"]


@pytest.mark.parametrize("dimension", NETWORKS)
def test_shallow_networks_score_as_the_official_package(dimension: str, shallow_scores: native.Scores) -> None:
    assert_equal(dimension, GOLDEN["shallow"]["scores"][dimension], shallow_scores)


def test_official_scores_tell_the_clips_apart() -> None:
    """Parity proves something only if the recipe's networks see the pictures."""
    for size in ("shallow", "full"):
        for dimension, official in GOLDEN[size]["scores"].items():
            values = [value * VIDEO_SCALE[dimension] for value in official["videos"].values()]
            assert np.ptp(values) > 50 * TOLERANCE[dimension], f"{size} {dimension}: {values}"


def extract(metric: MetricSpec, file: str, store: WeightStore, batch: int, chunk: int) -> float | None:
    """Score one clip with frames decoded `chunk` at a time and networks that see `batch` of them at once."""
    info = probe(CLIPS / file)
    clip = Clip(info, PROMPTS[file])
    readers = {f: f.load(store, Runtime(batch=batch)).open(clip) for f in metric.features}
    for piece in read(CLIPS / file, info, chunk):
        for feature, reader in readers.items():
            reader.push(piece.start, piece.colours(feature.pixels))
    return metric.score(clip, {feature.name: reader.close() for feature, reader in readers.items()}).value


@pytest.mark.parametrize(("batch", "chunk"), [(1, 5), (3, 2)])
@pytest.mark.parametrize("dimension", NETWORKS)
def test_batches_and_chunks_do_not_matter(
    dimension: str, batch: int, chunk: int, shallow_cache: Path, shallow_scores: native.Scores
) -> None:
    """float32 kernels of another batch size round differently: 1e-5, a tenth of the parity tolerance."""
    store = WeightStore(shallow_cache, trust_archives=True)
    value = extract(find(dimension, "official"), "square.mp4", store, batch, chunk)
    assert value == pytest.approx(shallow_scores[dimension]["videos"]["square.mp4"], rel=0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dimension", NETWORKS)
def test_full_networks_score_as_the_official_package(dimension: str, tmp_path: Path) -> None:
    written = checkpoints.write(tmp_path, NETWORKS[dimension], depth=None)
    assert written == {network: GOLDEN["full"]["fingerprints"][network] for network in NETWORKS[dimension]}
    scores = native.score(CLIPS, tmp_path, tmp_path / "work", [dimension])
    remove_checkpoints(tmp_path)
    assert_equal(dimension, GOLDEN["full"]["scores"][dimension], scores)
