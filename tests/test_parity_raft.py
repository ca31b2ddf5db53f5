"""RAFT, dynamic_degree and the static filter against the official package, number by number.

`tests/parity/raft_golden.json` holds what the official network, the official dimension and the official filter gave for
the clips in `tests/parity/clips` with the recipe's weights (`python -m tests.parity.raft_official` makes it again).
RAFT has no blocks to leave out: quick tests run the published network on few pairs, `slow` ones on all.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evalkit.backbones._raft import View
from evalkit.backbones.base import FeatureSpec, Runtime
from evalkit.backbones.features import MOVING, STATIC
from evalkit.backbones.flow_rules import MovingRule, StaticRule
from evalkit.backbones.raft import CHECKPOINT, FlowMagnitudes, magnitude
from evalkit.metrics import dynamic_degree
from evalkit.metrics.base import MetricSpec
from evalkit.static_filter import STATIC_FILTER
from evalkit.types import Array, Clip, Frames, VideoInfo
from evalkit.video import probe
from evalkit.video import read as decode
from evalkit.weights import WeightStore
from tests.parity import native, raft_official, recipe
from tests.parity.raft_official import FILE, OFFSET, STEP, crop, rule_cases

CLIPS = raft_official.GOLDEN.with_name("clips")
GOLDEN: dict[str, Any] = json.loads(raft_official.GOLDEN.read_text(encoding="utf-8"))
FILES = sorted(GOLDEN["clips"])
SMALL = ["square.mp4", "tall.mp4", "wide.mp4"]

PIXELS = 1e-4
"""Largest difference of a flow, and of a pair's magnitude, in pixels; flows are some 5 pixels long."""

pytestmark = pytest.mark.xdist_group("parity")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WeightStore:
    """The recipe's weights in the official layout."""
    root = tmp_path_factory.mktemp("raft")
    assert CHECKPOINT.file == FILE
    assert raft_official.write_checkpoint(root, raft_official.recorded_shapes()) == GOLDEN["fingerprint"]
    return WeightStore(root)


def load(store: WeightStore, feature: FeatureSpec) -> FlowMagnitudes:
    extractor = feature.load(store, Runtime())
    assert isinstance(extractor, FlowMagnitudes)
    return extractor


@cache
def frames(file: str) -> Frames:
    return np.concatenate([chunk.colours("opencv") for chunk in decode(CLIPS / file, probe(CLIPS / file))])


def read(store: WeightStore, feature: FeatureSpec, file: str) -> Array:
    reader = load(store, feature).open(Clip(probe(CLIPS / file), ""))
    reader.push(0, frames(file))
    return reader.close()


@pytest.mark.parametrize("file", FILES)
def test_flow_fields_are_those_of_the_official_network(file: str, store: WeightStore) -> None:
    raft = load(store, MOVING).raft
    first, second = (View(raft, crop(frame_HWC, 0)) for frame_HWC in frames(file)[:2])
    points_2HW = raft.flow(first, second)[:, OFFSET::STEP, OFFSET::STEP]
    official = GOLDEN["flows"][file]
    torch.testing.assert_close(points_2HW, torch.tensor(official["points_2HW"]), rtol=0, atol=PIXELS)


def test_the_rules_are_the_official_ones() -> None:
    """On made-up scores around the thresholds, complete ones; readers that leave some out have tests of their own."""
    found: dict[str, str] = {"dynamic_degree": "", "static_filter": ""}
    for n_frames, side, scores in rule_cases(GOLDEN["seed"]):
        info = VideoInfo(side, side + 1, n_frames, 8.0, "h264", "yuv420p")
        found["dynamic_degree"] += str(int(MovingRule.of(info).verdict(np.array(scores[: n_frames - 1])) is True))
        found["static_filter"] += str(int(StaticRule.of(info).verdict(np.array(scores)) is True))
    assert found == GOLDEN["rules"]
    assert all(20 < verdicts.count("1") < 380 for verdicts in found.values())


@pytest.mark.parametrize(
    ("metric", "file"),
    [(m, f) for m in (dynamic_degree.METRIC, STATIC_FILTER) for f in SMALL]
    + [pytest.param(STATIC_FILTER, "large.mp4", marks=pytest.mark.slow)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_verdicts_and_the_pairs_behind_them_are_the_official_ones(
    metric: MetricSpec, file: str, store: WeightStore
) -> None:
    official = GOLDEN[metric.name]
    (feature,) = metric.features
    magnitudes_P = read(store, feature, file)
    known_P = np.isfinite(magnitudes_P)
    pairs_P = np.array(official["pairs"][file])
    assert 0 < known_P.sum() < len(pairs_P), "no clip needs all of its pairs, or none"
    np.testing.assert_allclose(magnitudes_P[known_P], pairs_P[known_P], rtol=0, atol=PIXELS)
    score = metric.score(Clip(probe(CLIPS / file), ""), {feature.name: magnitudes_P})
    assert score.value == float(official["videos"][file])


def test_both_verdicts_occur() -> None:
    """Parity proves something only if clips differ, and no pair is so near a threshold that rounding decides."""
    for name, rule in (("dynamic_degree", MovingRule), ("static_filter", StaticRule)):
        official = GOLDEN[name]
        assert set(official["videos"].values()) == {True, False}
        for file, scores in official["pairs"].items():
            gaps = np.abs(np.array(scores) - rule.of(probe(CLIPS / file)).threshold)
            assert gaps.min() > 50 * PIXELS
    scores, threshold = (
        GOLDEN["dynamic_degree"]["pairs"]["wide.mp4"],
        MovingRule.of(probe(CLIPS / "wide.mp4")).threshold,
    )
    assert min(scores) < threshold < max(scores), "one clip has pairs on both sides"


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_every_pair_is_the_official_one(file: str, store: WeightStore) -> None:
    """Those that the readers leave out too, in both rules' measure."""
    raft = load(store, STATIC).raft
    views = [View(raft, frame_HWC) for frame_HWC in frames(file)]
    pairs = [*pairwise(views), (views[0], views[-1]), (views[-1], views[0])]
    flows = [raft.flow(first, second) for first, second in pairs]
    static_filter, moving = GOLDEN["static_filter"]["pairs"][file], GOLDEN["dynamic_degree"]["pairs"][file]
    assert [magnitude(flow, 0.02) for flow in flows] == pytest.approx(static_filter, rel=0, abs=PIXELS)
    assert [magnitude(flow, 0.05) for flow in flows[:-2]] == pytest.approx(moving, rel=0, abs=PIXELS)


@pytest.mark.slow
def test_the_dimension_is_the_official_one(store: WeightStore, tmp_path: Path) -> None:
    """All clips through the front door."""
    (found,) = native.score(CLIPS, store.root, tmp_path / "work", ["dynamic_degree"]).values()
    assert found["videos"] == {file: float(moves) for file, moves in GOLDEN["dynamic_degree"]["videos"].items()}
    assert found["score"] == GOLDEN["dynamic_degree"]["score"]
    assert GOLDEN["seed"] == recipe.SEED
