"""CLIP's image towers and the LAION head, against open_clip's own forward pass on shallow random networks."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from evalkit.backbones.base import Runtime
from evalkit.backbones.clip import B32, L14, ClipEmbed, ImageTower, load_images, preprocess
from evalkit.backbones.laion import AestheticScore
from evalkit.backbones.vit import Linear, from_open_clip
from evalkit.errors import UserError
from evalkit.weights import WeightStore
from tests.networks import randomize

RNG = np.random.default_rng(0)
SHALLOW = replace(B32, width=128, layers=3, output=32)


def tower(shape: ImageTower = SHALLOW) -> VisionTransformer:
    network = shape.build()
    randomize(network, seed=2)
    return network


def frames(count: int, height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [SHALLOW, replace(L14, width=128, layers=2, output=32)], ids=["patch32", "patch14"])
def test_equals_open_clip(shape: ImageTower) -> None:
    clip = frames(2, 240, 320)
    with torch.inference_mode():
        expected = nn.functional.normalize(tower(shape)(preprocess(clip, "cpu")), dim=-1).numpy()
    np.testing.assert_allclose(ClipEmbed(tower(shape), Runtime())(clip), expected, atol=2e-6)


def test_weights_published_in_half_stay_so_with_the_same_numbers() -> None:
    network = tower().half().float()
    clip = frames(3, 240, 320)
    wide = ClipEmbed(copy.deepcopy(network), Runtime())(clip)
    narrow = ClipEmbed(network, Runtime(), published_in_half=True)
    layers = [module for module in network.modules() if isinstance(module, Linear)]
    for _ in range(2):
        np.testing.assert_allclose(narrow(clip), wide, atol=2e-6)
        assert all(layer.half_OI.dtype == torch.float16 and layer.weight_OI.numel() == 0 for layer in layers)


def test_a_batch_that_fails_leaves_half_weights_as_they_were() -> None:
    network = tower().half().float()
    embed = ClipEmbed(network, Runtime(), published_in_half=True)
    clip = frames(2, 240, 320)
    expected = embed(clip)
    layer = next(module for module in network.modules() if isinstance(module, Linear))
    with pytest.raises(RuntimeError, match="out of memory"), layer.wide():
        raise RuntimeError("out of memory")
    assert layer.weight_OI.numel() == 0
    assert not layer.packed
    np.testing.assert_array_equal(embed(clip), expected)


def test_last_block_shortcut_equals_the_full_block() -> None:
    block = tower().transformer.resblocks[-1]
    x = torch.randn(3, 50, 128)
    with torch.inference_mode():
        full, short, library = from_open_clip(block)(x), from_open_clip(block, kept=1)(x), block(x)
    torch.testing.assert_close(full, library, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(short, library[:, :1], atol=2e-5, rtol=1e-5)


def test_blocks_honour_a_causal_mask() -> None:
    block = tower().transformer.resblocks[0]
    x, mask = torch.randn(2, 9, 128), torch.full((9, 9), float("-inf")).triu_(1)
    with torch.inference_mode():
        torch.testing.assert_close(
            from_open_clip(block)(x, attn_mask=mask), block(x, attn_mask=mask), atol=2e-5, rtol=1e-5
        )


def test_many_tokens_are_the_same_in_parts() -> None:
    # More rows than the MLP takes at once.
    block = from_open_clip(tower().transformer.resblocks[0])
    x = torch.randn(30, 50, 128)
    with torch.inference_mode():
        torch.testing.assert_close(block(x), torch.cat([block(x[i : i + 1]) for i in range(30)]), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (120, 301), (301, 150)])
def test_batches_do_not_change_features(height: int, width: int) -> None:
    embed = ClipEmbed(tower(), Runtime())
    clip = frames(5, height, width)
    one_by_one = np.concatenate([embed(clip[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(embed(clip), one_by_one, atol=1e-5)
    assert one_by_one.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(one_by_one, axis=1), 1, atol=1e-6)


def test_preprocessing_keeps_the_overshoot_and_the_centre() -> None:
    # A white bar on black: bicubic interpolation overshoots, and nothing clamps it. At half size, a sample beside the
    # bar has the weight (1/2)(1/4)(-3/4) = -3/32 of white.
    clip = np.zeros((1, 448, 896, 3), dtype=np.uint8)
    clip[:, :, 448:452] = 255
    x = preprocess(clip, "cpu")
    assert x.shape == (1, 3, 224, 224)
    darkest = (-3 / 32 - 0.48145466) / 0.26862954
    assert x[0, 0].min().item() == pytest.approx(darkest, abs=1e-5)
    assert x[0, 0, 0].argmax() in (112, 113)


def test_half_precision_stays_close() -> None:
    clip = frames(2, 256, 256)
    exact, rounded = (ClipEmbed(tower(), Runtime(precision=p))(clip) for p in ("fp32", "bf16"))
    assert rounded.dtype == np.float32
    assert (exact * rounded).sum(axis=1).min() > 0.999
    assert not np.array_equal(exact, rounded)


def test_aesthetic_score_is_the_head_on_the_unit_feature() -> None:
    embed = ClipEmbed(tower(), Runtime())
    head = nn.Linear(SHALLOW.output, 1).requires_grad_(False)
    clip = frames(3, 256, 256)
    expected = embed(clip).astype(np.float64) @ head.weight.double().numpy().T + head.bias.double().numpy()
    np.testing.assert_allclose(AestheticScore(embed, head)(clip), expected, atol=1e-6)


def test_reads_only_the_image_tower_of_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = replace(SHALLOW.checkpoint, archive=False, sha256=None)
    whole = {f"visual.{key}": value.half() for key, value in tower().state_dict().items()}
    whole |= {"logit_scale": torch.ones(()), "text_projection": torch.ones(4, 4), "context_length": torch.tensor(77)}
    (tmp_path / "clip_model").mkdir()
    torch.save(whole, tmp_path / checkpoint.file)
    embed = load_images(replace(SHALLOW, checkpoint=checkpoint), WeightStore(tmp_path), Runtime())
    assert embed(frames(1, 224, 224)).shape == (1, SHALLOW.output)


def test_refuses_a_checkpoint_of_another_shape(tmp_path: Path) -> None:
    checkpoint = replace(SHALLOW.checkpoint, archive=False, sha256=None)
    (tmp_path / "clip_model").mkdir()
    torch.save({f"visual.{k}": v for k, v in tower().state_dict().items()}, tmp_path / checkpoint.file)
    with pytest.raises(UserError, match="does not fit"):
        load_images(replace(SHALLOW, checkpoint=checkpoint, width=64), WeightStore(tmp_path), Runtime())
