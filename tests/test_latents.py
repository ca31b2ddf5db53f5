"""Codecs: the block transform against scipy and by its properties; diffusers' families with small random networks.

Axes: B clips, T frames, H height, W width, C colours or latent channels, Y rows, X columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn
from torch import Tensor

from m4v.data.shapes import ShapesWorld
from m4v.latents import (
    BlockTransform,
    CodecRecipe,
    DiffusersVAE,
    LatentCodec,
    by_energy,
    expected_energy,
    half_whitening,
    make_codec,
)
from m4v.layout import Codec

WHOLE = BlockTransform(Codec(channels=1536))


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noisy_clips(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def shapes(seed: int, size: int = 16) -> Tensor:
    return ShapesWorld(frames=17, height=32, width=32).batch(0, size, seed=seed).video_BTHWC


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(255**2 / float((a.float() - b.float()).square().mean()))


@st.composite
def codecs(draw: st.DrawFn) -> Codec:
    temporal, spatial = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([1, 2, 4, 8]))
    channels = draw(st.integers(1, temporal * spatial**2 * 3))
    return Codec(temporal=temporal, spatial=spatial, channels=channels, causal=draw(st.booleans()))


def clip_for(codec: Codec, seed: int, *, latent_frames: int = 3) -> Tensor:
    """Noise in [-1, 1] and beyond of two clips that fit the codec."""
    frames = latent_frames * codec.temporal - (codec.temporal - 1) * int(codec.causal)
    return noise(seed, 2, frames, 2 * codec.spatial, 3 * codec.spatial, 3)


def test_a_block_is_scipys_dct() -> None:
    """All coefficients of a block of 8 x 8 x 8 pixels, with a DCT over the colours, within 1e-5."""
    x = noise(0, 1, 9, 8, 8, 3)
    latents_C = WHOLE.analyse(x)[0, :, 1, 0, 0]
    ours = np.array([float(latents_C[i]) for i in range(1536)])
    expected = dctn(x[0, 1:].double().numpy(), norm="ortho")
    np.testing.assert_allclose(ours, [expected[f] for f in by_energy(8, 8)], atol=1e-5)


def test_the_first_frame_is_scipys_dct_of_the_image() -> None:
    """A block of 1 x 8 x 8 pixels has 192 coefficients; they sit where later frames have the same spatial frequency."""
    x = noise(1, 1, 1, 8, 8, 3)
    latents_C = WHOLE.analyse(x)[0, :, 0, 0, 0]
    expected = dctn(x[0].double().numpy(), norm="ortho")
    theirs = [expected[f] if f.time == 0 else 0.0 for f in by_energy(8, 8)]
    np.testing.assert_allclose(latents_C, theirs, atol=1e-5)


def test_bytes_survive_when_all_coefficients_are_kept() -> None:
    video = noisy_clips(0, 2, 17, 16, 24, 3)
    codec = BlockTransform(Codec(channels=1536))
    codec.fit([noisy_clips(1, 2, 9, 16, 16, 3)])
    assert torch.equal(codec.decode(codec.encode(video)), video)


@given(codec=codecs(), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_round_trip_and_parseval(codec: Codec, seed: int) -> None:
    """With every coefficient: pixels back within 1e-5 and the sum of squares within 1e-5 of the pixels'."""
    whole = BlockTransform(codec.but(channels=codec.temporal * codec.spatial**2 * 3))
    x = clip_for(codec, seed)
    latents = whole.analyse(x)
    torch.testing.assert_close(whole.synthesise(latents), x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(latents.square().sum(), x.square().sum(), rtol=1e-5, atol=1e-5)


@given(codec=codecs(), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_shape_projection_and_linearity(codec: Codec, seed: int) -> None:
    """Latents have the codec's shape; what survives once survives again; sums go to sums (1e-4 of values about 1)."""
    transform, x, y = BlockTransform(codec), clip_for(codec, seed), clip_for(codec, seed + 1)
    latents = transform.analyse(x)
    assert latents.shape == (2, codec.channels, *codec.latent_shape(*x.shape[1:4]))
    torch.testing.assert_close(transform.analyse(transform.synthesise(latents)), latents, rtol=0, atol=1e-4)
    both = transform.analyse(2 * x - 3 * y)
    torch.testing.assert_close(both, 2 * latents - 3 * transform.analyse(y), rtol=0, atol=1e-4)
    assert float(latents.square().sum()) <= float(x.square().sum()) * (1 + 1e-5)


@given(codec=codecs(), seed=st.integers(0, 999), latent_frame=st.integers(1, 2))
@settings(max_examples=30, deadline=None)
def test_later_frames_do_not_change_earlier_latents(codec: Codec, seed: int, latent_frame: int) -> None:
    transform, x = BlockTransform(codec), clip_for(codec, seed)
    start = latent_frame * codec.temporal - (codec.temporal - 1) * int(codec.causal)
    other = torch.cat([x[:, :start], clip_for(codec, seed + 1)[:, start:]], dim=1)
    before, after = transform.analyse(x), transform.analyse(other)
    assert torch.equal(before[:, :, :latent_frame], after[:, :, :latent_frame])
    assert not torch.equal(before[:, :, latent_frame:], after[:, :, latent_frame:])


def test_an_image_is_the_first_frame_of_a_clip() -> None:
    codec, video = BlockTransform(Codec(channels=64)), shapes(0, 2)
    codec.fit([video])
    image = codec.encode(video[:, :1])
    assert image.shape == (2, 64, 1, 4, 4)
    torch.testing.assert_close(image, codec.encode(video)[:, :, :1], rtol=0, atol=1e-5)
    assert codec.decode(image).shape == (2, 1, 32, 32, 3)


def test_the_order_falls_in_expected_energy_and_shares_channels_between_first_and_later_frames() -> None:
    order = by_energy(8, 8)
    energies = [expected_energy(frequency) for frequency in order]
    assert energies == sorted(energies, reverse=True)
    assert len(set(order)) == 1536
    # Grey, then the lowest spatial frequencies of grey, before any colour difference or motion of higher order.
    assert order[:3] == [(0, 0, 0, 0), (0, 0, 1, 0), (0, 1, 0, 0)]
    assert {frequency.colour for frequency in order[:16]} == {0, 1, 2}


@pytest.mark.parametrize(("channels", "least"), [(16, 23.0), (32, 25.0), (64, 27.5), (128, 29.5)])
def test_moving_shapes_survive_in_few_channels(channels: int, least: float) -> None:
    """PSNR of clips; the default's 64 channels measured 28.4 dB on frames after the first (16: 24.4, 128: 30.5)."""
    codec = BlockTransform(Codec(channels=channels))
    codec.fit([shapes(1)])
    video = shapes(2)
    assert psnr(codec.decode(codec.encode(video)), video) > least


def test_the_order_is_near_the_best_for_moving_shapes() -> None:
    """64 channels hold an energy within 1 dB (in error) of the 64 coefficients that hold most in these very clips."""
    x = shapes(3, 32).float() / 127.5 - 1
    energy_C = WHOLE.analyse(x)[:, :, 1:].square().mean((0, 2, 3, 4))
    best, ours = energy_C.sort(descending=True).values[64:].sum(), energy_C[64:].sum()
    assert 1 <= float(ours / best) < 10**0.1


def test_fit_scales_by_the_square_root_of_spread_and_common_spread() -> None:
    """Spreads of coefficients drawn with known ones: latents have std sqrt(std / rms), within 5 % of 4,000 blocks."""
    codec = BlockTransform(Codec(temporal=1, spatial=2, channels=12, causal=False))
    spread_C = torch.linspace(0.02, 0.2, 12)
    drawn = noise(0, 1, 12, 1, 64, 64) * spread_C[:, None, None, None]
    video = codec.decode(drawn)
    codec.fit([video])
    expected_C = (spread_C / spread_C.square().mean().sqrt()).sqrt()
    torch.testing.assert_close(codec.encode(video).std((0, 2, 3, 4)), expected_C, rtol=0.05, atol=0)


def test_the_mean_colour_becomes_zero() -> None:
    codec, video = BlockTransform(Codec(channels=32)), shapes(4)
    codec.fit([video])
    mean = video.float().mean((0, 1, 2, 3)).round().to(torch.uint8)
    flat = mean.expand(1, 9, 8, 8, 3)
    # Rounding the colour to bytes is worth 0.5 / 127.5 * sqrt(8 * 8 * 8 * 3) / scale < 0.1.
    assert float(codec.encode(flat).abs().max()) < 0.1


def test_fitting_in_pieces_is_fitting_at_once_and_is_kept_in_the_state() -> None:
    at_once, in_pieces, loaded = (BlockTransform(Codec(channels=64)) for _ in range(3))
    video = shapes(5, 8)
    at_once.fit([video])
    in_pieces.fit(iter([video[:3], video[3:]]))
    loaded.load_state_dict(at_once.state_dict())
    torch.testing.assert_close(at_once.encode(video), in_pieces.encode(video), rtol=1e-5, atol=1e-5)
    assert torch.equal(at_once.encode(video), loaded.encode(video))
    assert set(at_once.state_dict()) == {"colour_3", "first_scale_C", "later_scale_C"}


def test_channels_that_hold_nothing_keep_their_scale() -> None:
    scale = half_whitening(torch.tensor([2.0, 0.0, 1e-9]))
    rms = math.sqrt(4 / 2)
    torch.testing.assert_close(scale, torch.tensor([math.sqrt(2 * rms), 1.0, 0.1 * rms]), rtol=1e-6, atol=0)


def test_pixels_can_be_differentiated() -> None:
    codec = BlockTransform(Codec(channels=64))
    latents = torch.zeros(1, 64, 2, 1, 1, requires_grad=True)
    codec.synthesise(latents).square().sum().backward()
    codec.synthesise(latents)[0, 0, 0, 0, 0].backward()
    assert latents.grad is not None
    assert bool(latents.grad[:, :, 0].any())
    assert not bool(latents.grad[:, :, 1].any())


def test_decode_clamps() -> None:
    codec = BlockTransform(Codec(channels=8))
    bright = torch.zeros(1, 8, 2, 1, 1)
    bright[:, 0] = 1e4
    assert bool((codec.decode(bright) == 255).all())
    assert bool((codec.decode(-bright) == 0).all())


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: BlockTransform(Codec(channels=1537)), "1 to 1536 coefficients"),
        (lambda: WHOLE.encode(torch.zeros(1, 9, 8, 8, 3)), "takes uint8"),
        (lambda: WHOLE.encode(torch.zeros(1, 10, 8, 8, 3, dtype=torch.uint8)), "say 9 or 17"),
        (lambda: WHOLE.encode(torch.zeros(1, 9, 12, 8, 3, dtype=torch.uint8)), "height 12"),
        (lambda: WHOLE.decode(torch.zeros(1, 64, 2, 1, 1)), "takes \\(clips, 1536"),
        (lambda: BlockTransform(Codec()).fit([]), "no clip"),
        (lambda: BlockTransform(Codec()).fit([torch.full((1, 9, 8, 8, 3), 7, dtype=torch.uint8)]), "alike"),
    ],
)
def test_refusals(act: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()


# --- diffusers --------------------------------------------------------------------------------------------------------

EIGHTS = (8, 8, 8, 8)


def cogvideox() -> Any:
    return diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=EIGHTS,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
    )


def hunyuan() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        block_out_channels=EIGHTS, latent_channels=4, layers_per_block=1, norm_num_groups=2, scaling_factor=0.5
    )


def ltx() -> Any:
    halved = (True, True, False, False)
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=EIGHTS,
        decoder_block_out_channels=EIGHTS,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=halved,
        decoder_spatio_temporal_scaling=halved,
        patch_size=2,
        scaling_factor=0.9,
    )
    vae.latents_mean.copy_(torch.linspace(-1, 1, 8))
    vae.latents_std.copy_(torch.linspace(0.5, 2, 8))
    return vae


def wan() -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, 0.2, -0.3, 0.4],
        latents_std=[1.0, 2.0, 3.0, 0.5],
    )


def image() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        scaling_factor=0.2,
        shift_factor=0.1,
    )


FAMILIES = {
    "cogvideox": (cogvideox, Codec(temporal=4, spatial=8, channels=4)),
    "hunyuan": (hunyuan, Codec(temporal=4, spatial=8, channels=4)),
    "ltx": (ltx, Codec(temporal=4, spatial=8, channels=8)),
    "wan": (wan, Codec(temporal=4, spatial=8, channels=4)),
    "image": (image, Codec(temporal=1, spatial=2, channels=4, causal=False)),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, Any, Codec]:
    torch.manual_seed(0)
    build, shape = FAMILIES[request.param]
    return request.param, build(), shape


def standardised(name: str, vae: Any, latents: Tensor) -> Tensor:
    """The latents as the family's pipeline in diffusers scales them, written out for each."""

    def column(values: Any) -> Tensor:
        return torch.as_tensor(values)[:, None, None, None]

    if name == "wan":
        return (latents - column(vae.config.latents_mean)) / column(vae.config.latents_std)
    if name == "ltx":
        return (latents - column(vae.latents_mean)) * vae.config.scaling_factor / column(vae.latents_std)
    if name == "image":
        return (latents - vae.config.shift_factor) * vae.config.scaling_factor
    return latents * vae.config.scaling_factor


@torch.no_grad()
def test_diffusers_shape_scale_and_way_back(family: tuple[str, Any, Codec]) -> None:
    """Against diffusers called directly; float32 in other batches, within 1e-5."""
    name, vae, shape = family
    codec: LatentCodec = DiffusersVAE(vae, chunk=2)
    assert codec.shape == shape
    video = noisy_clips(0, 2, 9, 32, 16, 3)
    latents = codec.encode(video)
    assert latents.shape == (2, shape.channels, *shape.latent_shape(9, 32, 16))
    x = (video.float() / 127.5 - 1).movedim(-1, 1)
    if name == "image":
        direct = torch.stack([vae.encode(x[:, :, t]).latent_dist.mode() for t in range(9)], 2)
        back = torch.stack([vae.decode(direct[:, :, t]).sample for t in range(9)], 2)
    else:
        direct = vae.encode(x).latent_dist.mode()
        back = vae.decode(direct).sample
    torch.testing.assert_close(latents, standardised(name, vae, direct), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(codec.synthesise(latents).movedim(-1, 1), back, rtol=1e-4, atol=1e-4)
    assert codec.decode(latents).shape == video.shape


def test_diffusers_chunks_and_folder(family: tuple[str, Any, Codec], tmp_path: Path) -> None:
    """Neither the chunk nor a way through the disk changes the latents (1e-5)."""
    _, vae, shape = family
    video = noisy_clips(1, 3, 5, 16, 16, 3)
    latents = DiffusersVAE(vae, chunk=1).encode(video)
    vae.save_pretrained(tmp_path)
    loaded = make_codec(CodecRecipe(kind="diffusers", path=str(tmp_path), shape=shape, chunk=3))
    torch.testing.assert_close(loaded.encode(video), latents, rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with pytest.raises(ValueError, match="the recipe says"):
        make_codec(CodecRecipe(kind="diffusers", path=str(tmp_path), shape=Codec(channels=99)))


@pytest.mark.parametrize("name", ["wan", "ltx"])
def test_diffusers_first_latent_depends_on_the_first_frame_only(name: str) -> None:
    """Families without norms over frames; other shapes of batch, so within 1e-5."""
    torch.manual_seed(0)
    codec, video = DiffusersVAE(FAMILIES[name][0]()), noisy_clips(2, 1, 9, 16, 16, 3)
    first = codec.encode(video)[:, :, :1]
    torch.testing.assert_close(codec.encode(video[:, :1]), first, rtol=1e-5, atol=1e-5)


def test_diffusers_tiling_is_switched_on_and_rewards_reach_the_latents() -> None:
    torch.manual_seed(0)
    codec = DiffusersVAE(wan(), tiling=True)
    assert codec.vae.use_tiling
    latents = torch.randn(1, 4, 1, 2, 2, requires_grad=True)
    codec.synthesise(latents).square().mean().backward()
    assert latents.grad is not None
    assert bool(latents.grad.any())


def test_a_folder_without_autoencoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no autoencoder saved by diffusers"):
        DiffusersVAE(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="UNet2DModel"):
        DiffusersVAE(tmp_path)
