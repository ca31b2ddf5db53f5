"""RAFT: the driver against torchvision's own forward pass, and readers that leave out what cannot change a verdict."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from weakref import WeakSet

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.optical_flow import RAFT, raft_large

from evalkit.backbones import _raft
from evalkit.backbones._raft import ITERATIONS, Raft, SplitGru, View, padding
from evalkit.backbones.base import Runtime
from evalkit.backbones.features import MOVING, STATIC
from evalkit.backbones.raft import (
    CHECKPOINT,
    FlowMagnitudes,
    MovingRule,
    Rule,
    StaticRule,
    magnitude,
    rename,
)
from evalkit.download import fetch
from evalkit.errors import UserError
from evalkit.types import Array, Clip, Frames, VideoInfo
from evalkit.weights import WeightStore
from tests.parity import recipe
from tests.parity.raft_official import recorded_shapes

SIDE = 128
RULES = (MovingRule, StaticRule)
every_rule = pytest.mark.parametrize("rule", RULES)


def info_of(n_frames: int, fps: float = 8.0, width: int = 256, height: int = 256) -> VideoInfo:
    return VideoInfo(width, height, n_frames, fps, "h264", "yuv420p")


def texture(count: int, height: int = SIDE, width: int = SIDE) -> Frames:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 256, (height // 8 + 1, (width + 4 * count) // 8 + 1, 3)), np.ones((8, 8, 1)))
    return np.stack([blocks[:height, 4 * t : 4 * t + width] for t in range(count)]).astype(np.uint8)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """The recipe's weights under the publisher's names."""
    return {name: torch.from_numpy(array) for name, array in recipe.weights("raft", recorded_shapes()).items()}


@pytest.fixture(scope="module")
def store(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> WeightStore:
    return save(tmp_path_factory.mktemp("weights"), tensors)


def save(folder: Path, content: object) -> WeightStore:
    path = folder / CHECKPOINT.file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return WeightStore(folder)


def load(store: WeightStore, rule: type[MovingRule | StaticRule] = MovingRule, **options: str) -> FlowMagnitudes:
    extractor = (MOVING if rule is MovingRule else STATIC).load(store, Runtime(**options))  # type: ignore[arg-type]
    assert isinstance(extractor, FlowMagnitudes)
    return extractor


# The network


@pytest.fixture(scope="module")
def reference(tensors: dict[str, Tensor]) -> RAFT:
    network = raft_large()
    network.load_state_dict(rename(tensors), strict=True)
    return network.eval().requires_grad_(False)


def test_flow_is_that_of_torchvision(reference: RAFT, store: WeightStore) -> None:
    raft = load(store).raft
    first, second = texture(2, SIDE, 136)
    images = [torch.from_numpy(f).permute(2, 0, 1)[None] / 255 * 2 - 1 for f in (first, second)]
    expected = reference(*images, num_flow_updates=ITERATIONS)[-1][0]
    found = raft.flow(View(raft, first), View(raft, second))
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_sides_are_padded_to_multiples_of_eight_by_repeating_the_border(store: WeightStore) -> None:
    raft = load(store).raft
    frames_THWC = texture(2, SIDE - 3, SIDE - 5)
    left, right, top, bottom = padding(SIDE - 3, SIDE - 5)
    assert (left, right, top, bottom) == (2, 3, 1, 2)
    padded_THWC = np.pad(frames_THWC, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="edge")
    flows = [raft.flow(View(raft, pair[0]), View(raft, pair[1])) for pair in (frames_THWC, padded_THWC)]
    assert flows[0].shape == (2, SIDE, SIDE)
    torch.testing.assert_close(*flows, rtol=0, atol=0)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_the_split_recurrence_is_the_whole_one(reference: RAFT, seed: int) -> None:
    whole = reference.update_block.recurrent_block.convgru2
    state, context, motion = torch.randn(3, 1, 128, 5, 6, generator=torch.Generator().manual_seed(seed))
    split = SplitGru(whole)
    found = split(state, motion, split.share_of(context))
    torch.testing.assert_close(found, whole(state, torch.cat((context, motion), dim=1)), rtol=0, atol=1e-5)


def test_a_frame_is_encoded_once(store: WeightStore) -> None:
    extractor = load(store)
    seen = {"feature_encoder": 0, "context_encoder": 0}

    def count(name: str) -> None:
        seen[name] += 1

    hooks = [getattr(extractor.raft, name).register_forward_hook(lambda *_, n=name: count(n)) for name in seen]
    reader = extractor.open(Clip(info_of(5, width=SIDE, height=SIDE), ""))
    reader.push(0, np.repeat(texture(1), 5, axis=0))
    known = int(np.isfinite(reader.close()).sum())
    for hook in hooks:
        hook.remove()
    assert known
    assert seen == {"feature_encoder": known + 1, "context_encoder": known}


def test_both_rules_share_one_network(store: WeightStore) -> None:
    assert load(store, MovingRule).raft is load(store, StaticRule).raft


def test_half_precision_is_near(store: WeightStore) -> None:
    first, second = texture(2)
    networks = [load(store, precision=precision).raft for precision in ("fp32", "bf16")]
    flows = [raft.flow(View(raft, first), View(raft, second)) for raft in networks]
    assert flows[1].dtype == torch.float32
    assert 0 < (flows[0] - flows[1]).abs().mean() < 0.1 * flows[0].abs().mean()


# One number a pair


@given(seed=st.integers(0, 2**32 - 1), top=st.sampled_from([0.02, 0.05]))
@settings(max_examples=30, deadline=None)
def test_a_pair_is_summed_up_by_its_longest_displacements(seed: int, top: float) -> None:
    flow_2HW = np.random.default_rng(seed).standard_normal((2, 24, 32)).astype(np.float32)
    lengths = sorted(math.hypot(x, y) for x, y in flow_2HW.reshape(2, -1).T.tolist())
    n = math.floor(24 * 32 * top)
    assert magnitude(torch.from_numpy(flow_2HW), top) == pytest.approx(sum(lengths[-n:]) / n, rel=1e-5)


# Rules and readers, on a network that finds what the frames say


class Pretender:
    """Finds, between two frames, the flow that the later one of them names: red times 256 plus green, in 1/100 pixel.

    The first frame is told by its blue; pairs of the first and the last frame find that of blue and of the last.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[int, int]] = []
        self.views: list[int] = []

    def flow(self, first: View, second: View) -> Tensor:
        indices = [int(view.frame_HWC[0, 0, 2]) for view in (first, second)]
        self.pairs.append((indices[0], indices[1]))
        red, green, _ = (first if indices[0] > indices[1] else second).frame_HWC[0, 0].tolist()
        length = (red * 256 + green) / 100
        ends = abs(indices[1] - indices[0]) > 1
        return torch.full((2, 8, 8), (length * (4.0 if ends else 1.0)) / math.sqrt(2))


def frames_of(lengths: list[float]) -> Frames:
    """Frames of one pixel, one more than lengths; each names the flow from its predecessor and its own index."""
    coded = [0, *(round(length * 100) for length in lengths)]
    return np.array([[[[c // 256, c % 256, t]]] for t, c in enumerate(coded)], np.uint8)


def read(raft: Pretender, rule: type[MovingRule | StaticRule], frames: Frames, cuts: list[int], fps: float) -> Array:
    extractor = FlowMagnitudes(raft, rule.of)  # type: ignore[arg-type]
    reader = extractor.open(Clip(info_of(len(frames), fps), ""))
    for start, end in pairwise([0, *sorted(cuts), len(frames)]):
        reader.push(start, frames[start:end])
    return reader.close()


def all_pairs(rule: Rule, frames: Frames) -> Array:
    """Every pair of the rule, none left out."""
    taken = frames[:: rule.stride]
    pairs = list(pairwise(range(len(taken))))
    if rule.loops:
        pairs += [(0, len(taken) - 1), (len(taken) - 1, 0)]
    raft = Pretender()
    views = [View(raft, frame) for frame in taken]  # type: ignore[arg-type]
    return np.array([magnitude(raft.flow(views[a], views[b]), 1.0) for a, b in pairs], np.float32)


clips = st.lists(st.sampled_from([0.0, 2.5, 3.5, 5.5, 6.5, 20.0]), min_size=1, max_size=40)


@every_rule
@settings(max_examples=150, deadline=None)
@given(lengths=clips, fps=st.sampled_from([8.0, 12.0, 16.0, 24.0]), data=st.data())
def test_what_is_left_out_never_changes_the_verdict(
    rule: type[MovingRule | StaticRule], lengths: list[float], fps: float, data: st.DataObject
) -> None:
    frames = frames_of(lengths)
    cuts = data.draw(st.lists(st.integers(1, len(lengths)), max_size=3, unique=True))
    judge = rule.of(info_of(len(frames), fps))
    raft = Pretender()
    found, complete = read(raft, rule, frames, cuts, fps), all_pairs(judge, frames)
    known = np.isfinite(found)
    assert found.shape == complete.shape == (judge.n_pairs,)
    np.testing.assert_allclose(found[known], complete[known], rtol=1e-6)
    assert judge.verdict(found) is not None
    assert judge.verdict(found) == judge.verdict(complete)
    assert len(raft.pairs) == known.sum()
    assert read(Pretender(), rule, frames, [], fps).tobytes() == found.tobytes()


@settings(max_examples=100, deadline=None)
@given(lengths=clips)
def test_reading_stops_with_the_pair_that_settles_the_verdict(lengths: list[float]) -> None:
    frames = frames_of(lengths)
    judge = MovingRule.of(info_of(len(frames)))
    found = read(Pretender(), MovingRule, frames, [], 8.0)
    known = int(np.isfinite(found).sum())
    before = found.copy()
    before[max(0, known - 1) :] = np.nan
    assert known == 0 or judge.verdict(before) is None


def test_pairs_that_cannot_matter_are_left_out() -> None:
    raft = Pretender()
    read(raft, StaticRule, frames_of([0.0] * 31), [], 8.0)
    assert raft.pairs == [*pairwise(range(28)), (0, 31), (31, 0)], "four of 31 pairs may move: the last four are vain"


@every_rule
def test_few_frames_are_held(rule: type[MovingRule | StaticRule], monkeypatch: pytest.MonkeyPatch) -> None:
    alive: WeakSet[View] = WeakSet()

    class Watched(View):
        def __init__(self, raft: Raft, frame_HWC: Frames) -> None:
            super().__init__(raft, frame_HWC)
            alive.add(self)

    monkeypatch.setattr(_raft, "View", Watched)
    frames = frames_of([0.0, 20.0, 0.0] * 5)
    reader = FlowMagnitudes(Pretender(), rule.of).open(Clip(info_of(len(frames)), ""))  # type: ignore[arg-type]
    held = []
    for index in range(len(frames)):
        reader.push(index, frames[index : index + 1])
        held.append(len(alive))
    assert max(held) == (2 if rule is StaticRule else 1), "between two frames: the last, and the first to come back to"
    assert held[-1] == 0, "the verdict is settled"


@pytest.mark.parametrize(
    ("fps", "stride"),
    [
        (0.0, 1),
        (4.0, 1),
        (8.0, 1),
        (11.99, 1),
        (12.0, 2),
        (20.0, 2),
        (20.1, 3),
        (24000 / 1001, 3),
        (28.0, 4),
        (60.0, 8),
    ],
)
def test_about_eight_frames_a_second_are_looked_at(fps: float, stride: int) -> None:
    assert MovingRule.of(info_of(100, fps)).stride == stride


@pytest.mark.parametrize(("n_frames", "needed"), [(1, 1), (2, 0), (3, 1), (6, 2), (10, 2), (14, 4), (16, 4), (33, 8)])
def test_a_quarter_of_the_frames_must_move(n_frames: int, needed: int) -> None:
    assert MovingRule.of(info_of(n_frames)).needed == needed


@pytest.mark.parametrize(("n_frames", "tolerated"), [(1, 0), (4, 0), (5, 1), (12, 2), (16, 2), (20, 2), (49, 6)])
def test_an_eighth_of_the_frames_may_move_in_a_static_clip(n_frames: int, tolerated: int) -> None:
    assert StaticRule.of(info_of(n_frames)).tolerated == tolerated


@every_rule
@pytest.mark.parametrize(("height", "width"), [(1, 1), (120, 640), (640, 120)])
def test_small_frames_have_no_flow(rule: type[MovingRule | StaticRule], height: int, width: int) -> None:
    info = info_of(9, width=width, height=height)
    reader = FlowMagnitudes(Pretender(), rule.of).open(Clip(info, ""))  # type: ignore[arg-type]
    reader.push(0, np.zeros((9, height, width, 3), np.uint8))
    magnitudes = reader.close()
    assert np.isnan(magnitudes).all()
    assert rule.of(info).verdict(magnitudes) is None


def test_the_smallest_frames_have_flow(store: WeightStore) -> None:
    for rule, n_pairs in ((MovingRule, 2), (StaticRule, 4)):
        reader = load(store, rule).open(Clip(info_of(3, width=121, height=121), ""))
        reader.push(0, texture(3, 121, 121))
        magnitudes = reader.close()
        assert magnitudes.shape == (n_pairs,)
        assert rule.of(info_of(3, width=121, height=121)).verdict(magnitudes) is not None


# The checkpoint


def bad_contents(tensors: dict[str, Tensor]) -> Iterator[tuple[object, str]]:
    bias = "module.update_block.flow_head.conv2.bias"
    yield {k: v for k, v in tensors.items() if k != bias}, "is missing"
    yield tensors | {"module.extra": torch.zeros(1)}, "does not belong"
    yield tensors | {bias: torch.zeros(3)}, r"is \(3,\), not \(2,\)"
    yield {"epoch": 3}, "no table of tensors"
    yield [1, 2], "no table of tensors"


def test_bad_checkpoints_are_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    for index, (content, fault) in enumerate(bad_contents(tensors)):
        with pytest.raises(UserError, match=fault):
            load(save(tmp_path / str(index), content))
    broken = save(tmp_path / "broken", tensors)
    (tmp_path / "broken" / CHECKPOINT.file).write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="is not the raft checkpoint"):
        load(broken)
    with pytest.raises(UserError, match="weights pull raft"):
        load(WeightStore(tmp_path / "empty"))


def zipped(member: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models/raft-other.pth", b"another")
        archive.writestr(member, content)
    return buffer.getvalue()


def pull(root: Path, sent: bytes) -> Path:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=sent))
    return fetch(replace(CHECKPOINT, sha256=None), root, lambda have, total: None, httpx.Client(transport=transport))


def test_the_checkpoint_is_taken_out_of_the_published_zip(tmp_path: Path) -> None:
    assert CHECKPOINT.member is not None
    path = pull(tmp_path, zipped(CHECKPOINT.member, b"weights" * 1000))
    assert path.read_bytes() == b"weights" * 1000
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("sent", [b"<html>moved</html>", zipped("models/raft-small.pth", b"x")])
def test_a_zip_that_is_none_or_lacks_the_file_leaves_nothing(tmp_path: Path, sent: bytes) -> None:
    with pytest.raises(UserError, match="is not a whole zip archive that holds models/raft-things"):
        pull(tmp_path, sent)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
