"""appearance_style, against torchvision's preprocessing and open_clip's towers; temporal_style, which is not new."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torchvision import transforms

from evalkit.backbones import clip_style
from evalkit.backbones.base import Runtime
from evalkit.backbones.clip import B32, MEAN, STD, ClipEmbed, ImageTower, load_images
from evalkit.backbones.clip_style import MAX_TOKENS, ClipStyle, build_text_tower, preprocess
from evalkit.backbones.features import CLIP_STYLE
from evalkit.errors import UserError
from evalkit.metrics import appearance_style, overall_consistency, temporal_style
from evalkit.types import Array, Clip, VideoInfo
from evalkit.weights import WeightStore
from tests.networks import randomize

RNG = np.random.default_rng(0)
SHALLOW = replace(B32, layers=2, checkpoint=replace(B32.checkpoint, archive=False))
SCALE = 87.5


def towers() -> tuple[Any, Any]:
    """Image and text tower with random weights."""
    return copy.deepcopy(_drawn())


@cache
def _drawn() -> tuple[Any, Any]:
    image, text = SHALLOW.build(), build_text_tower(layers=2)
    randomize(image, seed=7)
    randomize(text, seed=8)
    torch.nn.init.constant_(text.logit_scale, math.log(SCALE))
    return image, text


def extractor(runtime: Runtime | None = None) -> ClipStyle:
    image, text = towers()
    return ClipStyle(ClipEmbed(image, runtime or Runtime()), text)


def frames(count: int, height: int = 240, width: int = 320) -> np.ndarray:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def clip_of(n_frames: int, style: str = "oil painting") -> Clip:
    info = VideoInfo(320, 240, n_frames, 8.0, "h264", "yuv420p")
    return Clip(info, "a boat, " + style, {"appearance_style": {"appearance_style": style}})


def logits(reader_of: ClipStyle, video: np.ndarray, style: str = "oil painting", cut: int = 100) -> Array:
    reader = reader_of.open(clip_of(len(video), style))
    for start in range(0, len(video), cut):
        reader.push(start, video[start : start + cut])
    return reader.close()


# The network


@pytest.mark.parametrize(("height", "width"), [(240, 320), (301, 150), (224, 224), (3, 5), (1080, 33)])
def test_frames_are_scaled_as_torchvision_scales_pictures(height: int, width: int) -> None:
    reference = transforms.Compose(
        [
            transforms.Resize(224, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    video = frames(2, height, width)
    expected = torch.stack([reference(Image.fromarray(frame)) for frame in video])
    torch.testing.assert_close(preprocess(video, "cpu"), expected, rtol=0, atol=1e-6)


def test_logits_are_scaled_cosines_of_the_librarys_towers() -> None:
    image, text = towers()
    video = frames(3)
    with torch.inference_mode():
        images = F.normalize(image(preprocess(video, "cpu")), dim=1)
        texts = F.normalize(text(SimpleTokenizer(context_length=77)("oil painting")), dim=1)
    found = logits(extractor(), video)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, SCALE * (images @ texts[0]).numpy(), rtol=0, atol=1e-3)  # of 87.5
    assert np.abs(found).max() <= SCALE


def test_the_style_matters_and_is_read_once() -> None:
    network = extractor()
    video = frames(2)
    with mock.patch.object(network, "text", wraps=network.text) as text:
        first, again, other = (logits(network, video, style) for style in ("oil painting", "oil painting", "pixel art"))
    assert [call.args for call in text.call_args_list] == [("oil painting",), ("pixel art",)]
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 1e-2


@pytest.mark.parametrize(("batch", "cut"), [(1, 7), (2, 3), (3, 1), (5, 2), (9, 4)])
def test_batches_and_chunks_do_not_change_logits(batch: int, cut: int) -> None:
    video = frames(7, 60, 80)
    found = logits(extractor(Runtime(batch=batch)), video, cut=cut)
    np.testing.assert_allclose(found, logits(extractor(), video), rtol=0, atol=1e-3)  # 1e-5 of a score


def test_half_precision_keeps_the_scale() -> None:
    # ln(87.5) has no room in bfloat16: rounded there, it would scale by 84.
    exact, rounded = (logits(extractor(Runtime(precision=p)), frames(1)) for p in ("fp32", "bf16"))
    assert extractor(Runtime(precision="bf16")).scale == pytest.approx(SCALE, rel=1e-6)
    np.testing.assert_allclose(rounded, exact, atol=0.03 * SCALE)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 90), (300, 3)])
def test_one_tiny_frame_gets_a_score(height: int, width: int) -> None:
    score = appearance_style.METRIC.score(clip_of(1), {"clip_style": logits(extractor(), frames(1, height, width))})
    assert score.value is not None
    assert score.n_terms == 1


def test_a_style_longer_than_clip_reads_is_unscored() -> None:
    network, video = extractor(), frames(3)
    fits, too_long = (" ".join(["paint"] * count) for count in (MAX_TOKENS - 2, MAX_TOKENS - 1))
    assert logits(network, video, fits).shape == (3,)
    score = appearance_style.METRIC.score(clip_of(3, too_long), {"clip_style": logits(network, video, too_long, cut=2)})
    assert score.value is None
    assert "longer than the 77 tokens" in str(score.unscored)


# The checkpoint


def published() -> dict[str, torch.Tensor]:
    image, text = towers()
    tensors = {f"visual.{name}": tensor.half() for name, tensor in image.state_dict().items()}
    tensors |= {name: tensor.half() for name, tensor in text.state_dict().items()}
    return tensors | {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77)}


@contextmanager
def small_networks() -> Iterator[None]:
    build = ImageTower.build
    with (
        mock.patch.object(clip_style, "B32", SHALLOW),
        mock.patch.object(clip_style, "build_text_tower", partial(build_text_tower, layers=2)),
        mock.patch.object(ImageTower, "build", lambda tower: build(replace(tower, layers=2))),
    ):
        yield


def store_of(folder: Path, tensors: dict[str, torch.Tensor]) -> WeightStore:
    (folder / "clip_model").mkdir(exist_ok=True)
    torch.save(tensors, folder / SHALLOW.checkpoint.file)
    return WeightStore(folder, trust_archives=True)


def test_loads_both_towers_and_shares_the_image_tower(tmp_path: Path) -> None:
    store = store_of(tmp_path, published())
    with small_networks():
        style = CLIP_STYLE.load(store, Runtime())
        assert isinstance(style, ClipStyle)
        background = load_images(SHALLOW, store, Runtime())
        assert style.images is background
        assert load_images(SHALLOW, store, Runtime(batch=3)) is not background  # other settings, other network
    image, text = towers()
    expected = ClipStyle(ClipEmbed(image.half().float(), Runtime()), text.half().float())
    video = frames(2)
    np.testing.assert_allclose(logits(style, video), logits(expected, video), rtol=0, atol=1e-3)
    gone = weakref.ref(background)
    del style, background
    gc.collect()
    assert gone() is None, "a network that nobody uses any more stays in memory"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda t: t.pop("logit_scale"), "logit_scale is missing"),
        (lambda t: t.pop("visual.proj"), "proj is missing"),
        (lambda t: t.update({"text_projection": torch.zeros(3, 3)}), r"text_projection is \(3, 3\)"),
        (lambda t: t.update({"transformer.resblocks.2.ln_1.bias": torch.zeros(3)}), "does not belong"),
    ],
)
def test_refuses_a_checkpoint_that_does_not_fit(tmp_path: Path, spoil: object, complaint: str) -> None:
    tensors = published()
    spoil(tensors)  # type: ignore[operator]
    with small_networks(), pytest.raises(UserError, match=complaint):
        CLIP_STYLE.load(store_of(tmp_path, tensors), Runtime())


# The scores


def test_appearance_style_weighs_frames() -> None:
    assert appearance_style.METRIC.pooling == "frames"
    score = appearance_style.METRIC.score(clip_of(4), {"clip_style": np.array([10.0, 20.0, 30.0, -20.0])})
    assert score.value == pytest.approx(0.1)
    assert score.n_terms == 4


@given(angle=st.floats(0, math.pi))
def test_temporal_style_is_overall_consistency_under_another_name(angle: float) -> None:
    features = {"viclip": np.array([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])}
    score = temporal_style.METRIC.score(clip_of(8), features)
    assert score.value == pytest.approx(math.cos(angle), abs=1e-9)
    assert score == overall_consistency.METRIC.score(clip_of(8), features)
    assert temporal_style.METRIC.features == overall_consistency.METRIC.features  # the network runs once for both
    assert temporal_style.METRIC.name == "temporal_style"
