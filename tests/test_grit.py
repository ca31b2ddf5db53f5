"""GRiT's detector: its parts against plain written-out versions and hand-made boxes, and how frames are read.

That the whole is the official network is the matter of `test_parity_grit.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evalkit.backbones import _vitdet, grit
from evalkit.backbones._cascade import choose_level, clip, keep_best, move, pool
from evalkit.backbones._centernet import LIKELIEST, MIN_SIDE, PROPOSALS, select
from evalkit.backbones._grit_network import Detections, Grit, GritShape, standardize
from evalkit.backbones._grit_text import TextShape
from evalkit.backbones._vitdet import STRIDES, Attention, VitShape, cut_windows, join_windows, relative_positions
from evalkit.backbones.base import Runtime, SelectedFrames
from evalkit.errors import UserError
from evalkit.types import Clip, Frames, Precision, VideoInfo
from evalkit.weights import WeightStore
from tests.networks import randomize

RNG = np.random.default_rng(0)
WORDS = 130  # the vocabulary must hold BERT's special tokens
SHAPE = GritShape(
    backbone=VitShape(width=24, layers=3, heads=2, window=3, training_grid=5, pretraining_grid=4, channels=64),
    head=16,
    text=TextShape(features=64, width=24, layers=1, heads=2, hidden=32, words=WORDS),
)


class Tokenizer:
    """Words are numbers."""

    def convert_ids_to_tokens(self, tokens: Sequence[int], skip_special_tokens: bool) -> list[str]:
        return [str(token) for token in tokens if not (skip_special_tokens and token in (0, 100, 101, 102, 103))]


def shallow() -> Grit:
    """A small network that finds a handful of objects in noise."""
    torch.manual_seed(0)
    network = Grit(SHAPE)
    randomize(network, seed=4)
    head = network.proposal_generator.centernet_head
    head.agn_hm.weight.mul_(3)
    head.agn_hm.bias.fill_(-4)
    head.bbox_pred.bias.fill_(5)
    for attention in (block.attn for block in network.backbone.bottom_up.blocks):
        attention.rel_pos_h.mul_(3)
        attention.rel_pos_w.mul_(3)
    return network


def reader(precision: Precision = "fp32") -> grit.FrameReader:
    return grit.FrameReader(shallow(), Tokenizer(), Runtime(precision=precision))  # type: ignore[arg-type]


def frames(count: int, height: int = 90, width: int = 70) -> Frames:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def clip_of(frames_THWC: Frames) -> Clip:
    return Clip(VideoInfo(frames_THWC.shape[2], frames_THWC.shape[1], len(frames_THWC), 8.0, "none", "rgb24"), "")


def extract(extractor: SelectedFrames, frames_THWC: Frames, chunk: int = 3) -> np.ndarray:
    opened = extractor.open(clip_of(frames_THWC))
    for start in range(0, len(frames_THWC), chunk):
        opened.push(start, frames_THWC[start : start + chunk])
    return opened.close()


def extractors(reader: grit.FrameReader) -> tuple[SelectedFrames, SelectedFrames]:
    return (
        grit.extractor_of(reader.also("ObjectDet"), grit.read_objects),
        grit.extractor_of(reader.also("ObjectDet", "DenseCap"), grit.read_captions),
    )


# The backbone


def written_out(attention: Attention, x_HWD: Tensor) -> Tensor:
    """Attention over one map or window, query by query."""
    height, width, depth = x_HWD.shape
    q, k, v = attention.qkv(x_HWD).view(height, width, 3, attention.heads, -1).permute(2, 3, 0, 1, 4)
    rows = relative_positions(attention.rel_pos_h, height)
    columns = relative_positions(attention.rel_pos_w, width)
    out = torch.empty(attention.heads, height, width, depth // attention.heads)
    for head in range(attention.heads):
        for y in range(height):
            for x in range(width):
                query = q[head, y, x]
                logits = k[head] @ query * query.numel() ** -0.5
                logits = logits + (rows[y] @ query)[:, None] + (columns[x] @ query)[None, :]
                out[head, y, x] = (logits.flatten().softmax(0)[:, None] * v[head].flatten(0, 1)).sum(0)
    return attention.proj(out.permute(1, 2, 0, 3).flatten(2))


def attention_of(window: int | None) -> Attention:
    attention = Attention(width=12, heads=3, reach=window or 4, window=window)
    randomize(attention, seed=7)
    for table in (attention.rel_pos_h, attention.rel_pos_w):
        torch.nn.init.normal_(table, generator=torch.Generator().manual_seed(8))
    return attention


def test_global_attention_written_out() -> None:
    attention, x_HWD = attention_of(window=None), torch.randn(5, 6, 12)
    torch.testing.assert_close(attention(x_HWD[None])[0], written_out(attention, x_HWD), atol=1e-5, rtol=0)


def test_windowed_attention_written_out() -> None:
    # A map of 5 x 4 in windows of 3: the official code pads it with zeros to 6 x 6, and does not mask these.
    attention, x_HWD = attention_of(window=3), torch.randn(5, 4, 12)
    padded = torch.nn.functional.pad(x_HWD, (0, 0, 0, 2, 0, 1))
    expected = torch.cat(
        [torch.cat([written_out(attention, padded[y : y + 3, x : x + 3]) for x in (0, 3)], dim=1) for y in (0, 3)]
    )
    torch.testing.assert_close(attention(x_HWD[None])[0], expected[:5, :4], atol=1e-5, rtol=0)


def test_heads_may_be_computed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, x_BHWD = attention_of(window=None), torch.randn(2, 5, 6, 12)
    together = attention(x_BHWD)
    monkeypatch.setattr(_vitdet, "BIAS_SIZE", 1)
    torch.testing.assert_close(attention(x_BHWD), together, atol=1e-6, rtol=0)


def test_relative_positions_by_hand() -> None:
    # Offsets -2 to 2 of three cells; the query comes first.
    table = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
    assert relative_positions(table, 3)[..., 0].tolist() == [[0, -1, -2], [1, 0, -1], [2, 1, 0]]
    # Five offsets scaled to three: centres at 1/3, 2 and 3 2/3 of the table.
    assert relative_positions(table, 2)[..., 0].flatten().tolist() == pytest.approx([0, -5 / 3, 5 / 3, 0])


@given(height=st.integers(1, 9), width=st.integers(1, 9), window=st.integers(1, 5))
@settings(deadline=None)
def test_windows_are_cut_and_joined(height: int, width: int, window: int) -> None:
    x_BHWD = torch.rand(2, height, width, 3) + 1
    windows = cut_windows(x_BHWD, window, torch.zeros(3))
    assert windows.shape[1:] == (window, window, 3)
    assert (windows[..., 0] > 0).sum() == 2 * height * width
    assert torch.equal(join_windows(windows, window, x_BHWD.shape[:3]), x_BHWD)


def test_levels_of_the_pyramid() -> None:
    levels = shallow().backbone(torch.randn(2, 3, 96, 160))
    assert [tuple(level.shape) for level in levels] == [
        (2, 64, -(-96 // stride), -(-160 // stride)) for stride in STRIDES
    ]


# Proposals


def level_maps(height: int = 64, width: int = 64) -> list[tuple[Tensor, Tensor]]:
    sizes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    return [(torch.full(size, -20.0), torch.ones(4, *size)) for size in sizes]


def test_a_proposal_by_hand() -> None:
    # Level p4 (stride 16), column 2, row 1: the centre is at (40, 24); distances are in strides.
    maps = level_maps()
    maps[1][0][1, 2] = 0.0
    maps[1][1][:, 1, 2] = torch.tensor([0.5, 1.0, 1.5, 2.0])
    boxes_N4, scores_N = select(maps)
    assert boxes_N4.tolist() == [[32, 8, 64, 56]]
    assert scores_N.tolist() == pytest.approx([0.5**0.5])


def test_proposals_have_an_area_and_may_leave_the_picture() -> None:
    maps = level_maps()
    maps[0][0][0, 0] = maps[4][0][0, 0] = 3.0
    maps[0][1][:, 0, 0] = 0
    boxes_N4, _ = select(maps)
    assert [-64, -64, 192, 192] in boxes_N4.tolist()
    assert sorted((boxes_N4[:, 2] - boxes_N4[:, 0]).tolist()) == pytest.approx([MIN_SIDE, 256], abs=1e-5)


def test_equal_boxes_are_proposed_once_and_few_in_all() -> None:
    maps = level_maps(1024, 1024)
    maps[0][0][:] = torch.linspace(-3, 3, 128 * 128).view(128, 128)  # more than a level may propose
    boxes_N4, scores_N = select(maps)
    assert len(boxes_N4) == PROPOSALS
    assert scores_N.tolist() == sorted(scores_N.tolist(), reverse=True)
    assert len(boxes_N4.unique(dim=0)) == PROPOSALS
    assert scores_N.min() > maps[0][0].flatten()[-LIKELIEST].sigmoid().sqrt()
    maps[0][1][:] = 1e4  # boxes so large that they overlap
    assert len(select(maps)[0]) == 1


def test_no_proposals() -> None:
    boxes_N4, scores_N = select(level_maps())
    assert boxes_N4.shape == (0, 4)
    assert scores_N.shape == (0,)


# Boxes


def test_a_box_is_moved_by_hand() -> None:
    # Centre (15, 30), size 10 x 20: shifted by a tenth of the width and doubled in height.
    box = torch.tensor([[10.0, 20.0, 20.0, 40.0]])
    change = torch.tensor([[1.0, 0.0, 0.0, 5 * np.log(2)]])
    assert move(box, change, 10.0, 5.0)[0].tolist() == pytest.approx([11, 10, 21, 50], abs=1e-4)
    grown = move(box, torch.full((1, 4), 1e3) * torch.tensor([0, 0, 1, 1]), 10.0, 5.0)
    assert (grown[0, 2:] - grown[0, :2]).tolist() == pytest.approx([625, 1250], rel=1e-4)


def test_clip_by_hand() -> None:
    boxes = torch.tensor([[-5.0, 3.0, 70.0, 90.0], [80.0, -9.0, 90.0, -1.0]])
    assert clip(boxes, (50, 60)).tolist() == [[0, 3, 60, 50], [60, 0, 60, 0]]


@pytest.mark.parametrize(("side", "level"), [(5, 0), (223, 0), (225, 1), (447, 1), (449, 2), (2000, 2)])
def test_level_of_a_box(side: float, level: int) -> None:
    assert choose_level(torch.tensor([[3.0, 4.0, 3 + side, 4 + side]])).tolist() == [level]


def test_pooling_reads_a_slope_where_the_box_lies() -> None:
    # Maps whose cells hold the x of their centres, so that a pooled cell holds the x of its own centre.
    levels = [
        ((torch.arange(512 // stride) + 0.5) * stride).expand(1, 1, 512 // stride, -1).contiguous()
        for stride in STRIDES[:3]
    ]
    boxes = torch.tensor([[40.0, 40.0, 96.0, 96.0], [100.0, 60.0, 380.0, 340.0]])
    pooled = pool(levels, boxes, 7)
    for box, region in zip(boxes, pooled, strict=True):
        width = (box[2] - box[0]) / 7
        expected = (box[0] + width * (torch.arange(7) + 0.5)).expand(7, 7)
        torch.testing.assert_close(region[0], expected, atol=1e-3, rtol=0)


def test_which_boxes_are_kept() -> None:
    boxes = torch.tensor(
        [
            [0.0, 0.0, 10.0, 10.0],
            [0.0, 0.0, 10.0, 12.0],  # overlaps the first, and is likelier
            [50.0, 0.0, 60.0, 10.0],
            [70.0, 0.0, 80.0, 10.0],  # not likely enough
            [90.0, 5.0, 95.0, 5.0],  # without an area
            [float("nan"), 0.0, 1.0, 1.0],
        ]
    )
    kept, scores = keep_best(boxes, torch.tensor([0.7, 0.8, 0.9, 0.5, 0.95, 0.99]))
    assert kept.tolist() == boxes[[2, 1]].tolist()
    assert scores.tolist() == pytest.approx([0.9, 0.8])


# Frames


def test_frames_are_standardised_then_padded() -> None:
    x_13HW = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1).expand(1, 3, 33, 64) + 57.375
    y = standardize(x_13HW)
    assert y.shape == (1, 3, 64, 64)
    assert y[0, :, 0, 0].tolist() == pytest.approx([57.375 / 58.395, 57.375 / 57.12, 1], abs=1e-6)
    assert not y[:, :, 33:].any()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((768, 4000), (768, 4000)),
        ((769, 1000), (720, 936)),
        ((1080, 1920), (720, 1280)),
        ((1920, 1080), (1280, 720)),
        ((1142, 2000), (719, 1260)),
    ],
)
def test_large_frames_are_reduced(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert grit.reduced(*size) == expected


def test_two_ways_of_scaling() -> None:
    # A checkerboard, halved: antialiasing mixes it to grey; without, every other pixel is met between two.
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    smooth, bytewise = (scale(board, 3, 3) for scale in (grit.scale_smoothly, grit.scale_as_opencv))
    assert smooth.shape == bytewise.shape == (3, 3, 3)
    assert smooth.std() < bytewise.std()
    assert torch.equal(bytewise, bytewise.round())
    assert not torch.equal(smooth, smooth.round())


def test_large_frames_are_scaled_for_each_question_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def detect(x_B3HW: Tensor) -> list[Detections]:
        seen.append(x_B3HW)
        return [Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 196, 64)) for _ in x_B3HW]

    looking = reader()
    monkeypatch.setattr(looking.network, "detect", detect)
    clip_THWC = frames(1, 770, 800).repeat(3, axis=0)
    for extractor in extractors(looking):
        assert len(extract(extractor, clip_THWC)) == 0
    smooth, bytewise = seen
    assert smooth.shape == bytewise.shape == (1, 3, 720, 748)
    assert torch.equal(smooth[0], grit.scale_smoothly(clip_THWC[0], 720, 748))
    assert torch.equal(bytewise[0], grit.scale_as_opencv(clip_THWC[0], 720, 748))


# Detections


def test_detections_of_a_clip() -> None:
    found = extract(extractors(reader())[0], frames(20))
    assert set(found["frame"]) == set(range(grit.FRAMES))
    assert (np.diff(found["frame"]) >= 0).all()
    for frame in range(grit.FRAMES):
        scores = found["score"][found["frame"] == frame]
        assert (np.diff(scores) <= 0).all()
        assert (scores > 0.5).all()
    boxes = found["box"]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 70).all()
    assert (boxes[:, 3] <= 90).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (found["object"] == found["text"]).all()
    assert len(set(found["object"])) > 1


def test_descriptions_carry_the_name_of_the_frames_first_detection() -> None:
    clip_THWC = frames(4)
    names, captions = (extract(extractor, clip_THWC) for extractor in extractors(reader()))
    assert np.array_equal(names["box"], captions["box"])
    assert not np.array_equal(names["text"], captions["text"])
    for frame in range(grit.FRAMES):
        (first, *_), of_captions = (x["object"][x["frame"] == frame] for x in (names, captions))
        assert set(of_captions) == {first}


def counting(looking: grit.FrameReader, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that the detector sees from now on."""
    batches: list[int] = []
    detect = looking.network.detect
    monkeypatch.setattr(looking.network, "detect", lambda x: (batches.append(len(x)), detect(x))[1])
    return batches


def test_frames_are_looked_at_once_for_both_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, clip_THWC = reader(), frames(4)
    both = extractors(looking)
    batches = counting(looking, monkeypatch)
    found = [extract(extractor, clip_THWC) for extractor in both]
    assert sum(batches) == len(looking.remembered) == 4
    for extractor, expected in zip(extractors(reader()), found, strict=True):
        assert np.array_equal(extract(extractor, clip_THWC), expected)


def test_a_question_that_comes_late_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, clip_THWC = reader(), frames(4)
    objects = grit.extractor_of(looking.also("ObjectDet"), grit.read_objects)
    extract(objects, clip_THWC)
    captions = grit.extractor_of(looking.also("ObjectDet", "DenseCap"), grit.read_captions)
    assert np.array_equal(extract(captions, clip_THWC), extract(extractors(reader())[1], clip_THWC))


def test_equal_frames_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looking = reader()
    batches = counting(looking, monkeypatch)
    found = extract(extractors(looking)[0], frames(3))
    assert sum(batches) == 3
    last = [found[found["frame"] == frame] for frame in (2, 15)]
    assert np.array_equal(*(x[["score", "object"]] for x in last))


def test_old_frames_are_forgotten() -> None:
    looking = reader()
    objects = extractors(looking)[0]
    first, second = frames(4), frames(16)
    expected = extract(objects, first)
    known = set(looking.remembered)
    extract(objects, second)
    assert len(looking.remembered) == grit.FRAMES
    assert known.isdisjoint(looking.remembered)
    assert np.array_equal(extract(objects, first), expected)


@pytest.mark.parametrize("batch", [3, 16])
def test_batches_do_not_matter(batch: int) -> None:
    clip_THWC = frames(4)
    one, many = reader(), reader()
    many.batch = batch
    expected, found = (extract(extractors(looking)[1], clip_THWC, chunk=batch) for looking in (one, many))
    for field in ("frame", "object", "text"):
        assert np.array_equal(found[field], expected[field])
    np.testing.assert_allclose(found["box"], expected["box"], atol=1e-3)
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (8, 40), (33, 31)])
def test_tiny_frames_are_read(size: tuple[int, int]) -> None:
    found = extract(extractors(reader())[1], frames(1, *size))
    assert (found["box"][:, 2] <= size[1]).all()
    assert (found["box"][:, 3] <= size[0]).all()


def test_nothing_found() -> None:
    looking = reader()
    looking.network.proposal_generator.centernet_head.agn_hm.bias.fill_(-100)
    for extractor in extractors(looking):
        assert extract(extractor, frames(2)).shape == (0,)


def test_rows_become_an_array() -> None:
    rows = [(0, (1.0, 2.0, 3.0, 4.0), 0.9, "cat", "a grey cat"), (3, (5.0, 6.0, 7.0, 8.0), 0.8, "", "")]
    found = grit.detections(rows)
    assert found["box"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert found["text"].tolist() == ["a grey cat", ""]
    assert grit.detections([]).shape == (0,)
    assert grit.detections([]).dtype.names == found.dtype.names


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_runs(precision: Precision) -> None:
    looking = reader(precision)
    found = extract(extractors(looking)[1], frames(2))
    assert len(found) > 0
    assert found["box"].dtype == np.float32


# The checkpoint


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(grit, "Grit", lambda: Grit(SHAPE))
    (tmp_path / grit.CHECKPOINT.file).parent.mkdir()
    return tmp_path


def save(cache: Path, **changes: Any) -> WeightStore:
    names = {grit.rename(name): name for name in official_names()}
    state = {names[name]: tensor.half() for name, tensor in shallow().state_dict().items()} | changes
    torch.save({"model": {k: v for k, v in state.items() if v is not None}}, cache / grit.CHECKPOINT.file)
    return WeightStore(cache, trust_archives=True)


def official_names() -> list[str]:
    own = shallow().state_dict()
    levels = [name for name in own if ".levels." in name]
    text = [name for name in own if name.startswith("text_decoder.")]
    return [
        *(name for name in own if name not in {*levels, *text}),
        *(
            name.replace(".levels.", ".fpn_stride").replace(".conv", "_conv").replace(".norm", "_norm")
            for name in levels
        ),
        *(f"roi_heads.text_decoder.textual.{name.removeprefix('text_decoder.')}" for name in text),
    ]


def test_a_checkpoint_in_half_precision_is_widened(cache: Path) -> None:
    network = grit.load_network(save(cache))
    expected = shallow().state_dict()
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name].half().float())


def test_what_is_not_read_may_be_there(cache: Path) -> None:
    grit.load_network(save(cache, **{"roi_heads.mask_head.predictor.bias": torch.zeros(1)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone.top_block.p6.bias": None},
        {"backbone.bottom_up.pos_embed": torch.zeros(1, 5, 24)},
        {"roi_heads.box_head.3.fc1.weight": torch.zeros(2, 2)},
    ],
)
def test_another_checkpoint_is_refused(cache: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="does not fit"):
        grit.load_network(save(cache, **changes))


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grit_b_densecap_objectdet\.pth"):
        grit.load_objects(WeightStore(tmp_path), Runtime())
