"""VBench-Long and VBench-I2V against the official code, number by number.

`tests/parity/long_i2v_golden.json` holds what the official functions gave (`tests.parity.long_i2v_official`) with
weights that `tests/parity/recipe.py` draws from a seed: official splitting, scoring and fusion of long clips, the two
comparisons with a picture, DreamSim and DINOv2 by themselves, and PySceneDetect. The same weights are written here in
the published layout and read by this project's own loaders. Parts are written losslessly on the official side, so that
the arithmetic alone is compared; `long_encoded` is what the official encoding makes of the same clips.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from evalkit import scenes
from evalkit.backbones import dinov2, dreamsim
from evalkit.backbones.base import Runtime
from evalkit.job import Request
from evalkit.records import RunRecord
from evalkit.suites.base import Suite, score
from evalkit.suites.i2v import ImageToVideo
from evalkit.suites.long import Long
from evalkit.video import probe, read
from evalkit.weights import WeightStore
from tests.parity import checkpoints, long_i2v, native, recipe

GOLDEN = json.loads(long_i2v.GOLDEN.read_text(encoding="utf-8"))
TOLERANCE = 1e-4
LONG = ("subject_consistency", "background_consistency", "temporal_flickering")
I2V = ("i2v_subject", "i2v_background")

# One process draws the weights and runs the networks for all of them.
pytestmark = pytest.mark.xdist_group("parity")


@contextmanager
def shallow() -> Iterator[None]:
    """Networks of as many blocks as the shallow checkpoints have."""
    shape = dreamsim.Shape(depth=recipe.SHALLOW)
    with (
        native.shallow(recipe.SHALLOW),
        mock.patch.object(dinov2, "DinoV2", partial(dinov2.DinoV2, depth=recipe.SHALLOW)),
        mock.patch.object(dreamsim, "DreamSim", partial(dreamsim.DreamSim, shape)),
    ):
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Checkpoints of shallow networks, in the published layout."""
    folder = tmp_path_factory.mktemp("shallow")
    depth = recipe.SHALLOW
    assert long_i2v.write_checkpoints(folder, GOLDEN["shapes"], depth) == GOLDEN["shallow"]["fingerprints"]
    checkpoints.write(folder, ["clip_b32"], depth)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long clips")
    long_i2v.write_long_clips(folder)
    (folder / "prompts.txt").write_text("\n".join(long_i2v.LONG_CLIPS) + "\n")
    return folder


def run(suite: Suite, videos: Path, subset: str, names: tuple[str, ...], cache: Path, out: Path) -> RunRecord:
    request = Request(videos, subset, out, "official", names, cache, trust_archives=True, runtime=Runtime())
    return score(suite, request)


def run_long(cache: Path, clips: Path, out: Path, split_scenes: bool = False) -> RunRecord:
    return run(Long(split_scenes), clips, str(clips / "prompts.txt"), LONG, cache, out)


def run_i2v(cache: Path, folder: Path, clips: Iterable[str] = long_i2v.PICTURES) -> RunRecord:
    long_i2v.write_pictures(folder / "pictures")
    videos = folder / "videos"
    videos.mkdir(parents=True)
    for name in clips:  # the clips' own folder has a manifest with other prompts
        (videos / f"{name}.mp4").symlink_to(long_i2v.CLIPS / f"{name}.mp4")
    return run(ImageToVideo(folder / "pictures"), videos, "", I2V, cache, folder / "run")


@pytest.fixture(scope="module")
def long_run(cache: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    with shallow():
        return run_long(cache, clips, tmp_path_factory.mktemp("long"))


@pytest.fixture(scope="module")
def scenes_run(cache: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    with shallow():
        return run_long(cache, clips, tmp_path_factory.mktemp("scenes"), split_scenes=True)


@pytest.fixture(scope="module")
def i2v_run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    with shallow():
        return run_i2v(cache, tmp_path_factory.mktemp("i2v"))


def by_clip(record: RunRecord, dimension: str) -> dict[str, float]:
    return {Path(v["file"]).stem: v["scores"][dimension] for v in record.summary["videos"]}


def official_by_clip(entry: dict[str, Any]) -> dict[str, float]:
    """Officially each scene is a video, and each part has a score; here a clip has the mean of its parts."""
    found: dict[str, list[float]] = {}
    for name, parts in entry["videos"].items():
        found.setdefault(name.split("-Scene-")[0], []).extend(part["video_results"] for part in parts)
    return {name: float(np.mean(values)) for name, values in found.items()}


def assert_long(record: RunRecord, official: dict[str, Any]) -> None:
    for dimension in LONG:
        name = f"long/{dimension}"
        assert by_clip(record, name) == pytest.approx(official_by_clip(official[dimension]), rel=0, abs=TOLERANCE)
        ours = record.summary["dimensions"][name]["score"]
        assert ours == pytest.approx(official[dimension]["score"], rel=0, abs=TOLERANCE), dimension


def assert_i2v(record: RunRecord, official: dict[str, Any]) -> None:
    for dimension in I2V:
        assert by_clip(record, dimension) == pytest.approx(official[dimension]["videos"], rel=0, abs=TOLERANCE)
        ours = record.summary["dimensions"][dimension]["score"]
        assert ours == pytest.approx(official[dimension]["score"], rel=0, abs=TOLERANCE)


@pytest.mark.slow
def test_long_clips_score_as_officially(long_run: RunRecord) -> None:
    assert_long(long_run, GOLDEN["shallow"]["long"])


@pytest.mark.slow
def test_scenes_score_as_officially(scenes_run: RunRecord) -> None:
    assert_long(scenes_run, GOLDEN["shallow"]["long_scenes"])
    assert GOLDEN["shallow"]["long_scenes"] != GOLDEN["shallow"]["long"]


def test_pictures_score_as_officially(i2v_run: RunRecord) -> None:
    assert_i2v(i2v_run, GOLDEN["shallow"]["i2v"])


def test_official_scores_tell_the_clips_apart() -> None:
    for dimension in I2V:
        assert np.ptp(list(GOLDEN["shallow"]["i2v"][dimension]["videos"].values())) > 50 * TOLERANCE
    for dimension in LONG:
        assert np.ptp(list(official_by_clip(GOLDEN["shallow"]["long"][dimension]).values())) > 50 * TOLERANCE


def test_what_encoding_every_part_changes() -> None:
    """The official pipeline reads parts that it has encoded; that moves its own scores by less than half a point."""
    kept, encoded = GOLDEN["shallow"]["long"], GOLDEN["shallow"]["long_encoded"]
    for dimension in LONG:
        assert TOLERANCE < abs(kept[dimension]["score"] - encoded[dimension]["score"]) < 0.005


def assert_features(cache: Path, golden: dict[str, Any]) -> None:
    store, runtime = WeightStore(cache), Runtime()
    import torch

    x_1CHW = torch.from_numpy(long_i2v.waves())
    with torch.inference_mode():
        class_1D = dinov2.load_images(store, runtime).network(x_1CHW)
        centred_1D = dreamsim.load_images(store, runtime).network(255 * x_1CHW)
    found = {"dinov2": class_1D, "dreamsim": centred_1D / centred_1D.norm()}
    for name, vector in found.items():
        ours = vector.flatten()[:: long_i2v.SUBSAMPLE].numpy()
        np.testing.assert_allclose(ours, golden["features"][name], rtol=0, atol=2e-5 * np.abs(ours).max(), err_msg=name)


def test_networks_give_the_official_vectors(cache: Path) -> None:
    with shallow():
        assert_features(cache, GOLDEN["shallow"])


# PySceneDetect


@pytest.mark.parametrize("threshold", GOLDEN["scenes"]["cuts"])
def test_cuts_are_those_of_pyscenedetect(threshold: str, clips: Path) -> None:
    finder, clip = scenes.CutFinder(float(threshold)), clips / "two cuts.mp4"
    for chunk in read(clip, probe(clip), chunk=7):
        finder.push(chunk.start, chunk.colours("opencv"))
    assert finder.cuts == GOLDEN["scenes"]["cuts"][threshold]


def test_content_is_that_of_pyscenedetect(clips: Path) -> None:
    clip = clips / "two cuts.mp4"
    frames_THWC = np.concatenate([chunk.colours("opencv") for chunk in read(clip, probe(clip))])
    hsv_THWC = [scenes.to_hsv(scenes.reduce(frame_HWC)) for frame_HWC in frames_THWC]
    changes = [0.0, *(scenes.content_change(a, b) for a, b in pairwise(hsv_THWC))]
    np.testing.assert_allclose(changes, GOLDEN["scenes"]["content"], rtol=1e-12)


@pytest.mark.parametrize(
    "case", GOLDEN["scenes"]["merged"], ids=lambda case: f"{case['length']}-{len(case['changed'])}"
)
def test_cuts_merge_as_in_pyscenedetect(case: dict[str, Any]) -> None:
    merger, changed = scenes._Merger(case["length"]), set(case["changed"])
    assert [cut for i in range(120) for cut in merger.take(i, i in changed)] == case["cuts"]


def test_pictures_are_reduced_and_converted_as_by_opencv() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (181, 333, 3), dtype=np.uint8)
    hsv = scenes.to_hsv(scenes.reduce(noise))
    golden = GOLDEN["scenes"]["picture"]
    assert hsv[::29, ::41].tolist() == golden["hsv"]
    assert hsv.sum((0, 1)).tolist() == golden["hsv_sum"]


@pytest.mark.slow
def test_full_networks_score_as_officially(tmp_path: Path) -> None:
    golden, cache = GOLDEN["full"], tmp_path / "cache"
    assert long_i2v.write_checkpoints(cache, GOLDEN["shapes"], None) == golden["fingerprints"]
    assert_features(cache, golden)
    assert_i2v(run_i2v(cache, tmp_path / "i2v", long_i2v.FULL_SIZE_CLIPS), golden["i2v"])
    shutil.rmtree(cache)
