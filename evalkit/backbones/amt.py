"""AMT-S: predicts the frame between two frames.

Li, Zhu, Han, Hou, Guo, Cheng: "AMT: All-Pairs Multi-Field Transforms for Efficient Frame Interpolation", CVPR 2023.
Parameter names are those of the published checkpoint.

Axes: B batch, C channels, H W image or map, T frames; flows have 4 channels: (x, y) to frame 0, then (x, y) to frame 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.backbones import published
from evalkit.backbones._correlation import CorrelationVolume
from evalkit.backbones.base import Reader, Runtime
from evalkit.backbones.features import AMT_MIN_SIDE as MIN_SIDE
from evalkit.backbones.images import DTYPES
from evalkit.types import Array, Clip, Frames
from evalkit.weights import WeightStore, load_strict

CHECKPOINT = published.AMT

WIDTHS = (20, 32, 44, 56)  # channels of the context pyramid at 1/2, 1/4, 1/8, 1/16
SIDE = 20  # channels that a residual block refines on their own
FIELDS = 3  # flow fields per direction in the last decoder
LEVELS = 4
RADIUS = 3

MULTIPLE = 16  # sides are padded to a multiple of this
VOLUME_BYTES = 2**32  # a GPU interpolates as many pairs at once as have this much correlation


def conv_prelu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.PReLU(outputs))


def resize(x_BCHW: Tensor, scale: float) -> Tensor:
    return F.interpolate(x_BCHW, scale_factor=scale, mode="bilinear", align_corners=False)


def warp(x_BCHW: Tensor, flow_B2HW: Tensor) -> Tensor:
    """Sample `x` at each pixel plus its flow (pixels), bilinearly, replicating the border."""
    height, width = flow_B2HW.shape[-2:]
    # Half precision cannot tell neighbouring pixels of a wide image apart.
    across = torch.linspace(-1, 1, width, device=x_BCHW.device)
    down = torch.linspace(-1, 1, height, device=x_BCHW.device)[:, None]
    x_BHW = flow_B2HW[:, 0].float() * (2 / (width - 1)) + across
    y_BHW = flow_B2HW[:, 1].float() * (2 / (height - 1)) + down
    grid_BHW2 = torch.stack((x_BHW, y_BHW), dim=-1)
    sampled = F.grid_sample(x_BCHW.float(), grid_BHW2, padding_mode="border", align_corners=True)
    return sampled.to(x_BCHW.dtype)


def instance_norm(x_BCHW: Tensor) -> Tensor:
    # A group per channel is the same thing, several times faster in the library. In channels-last memory its variance
    # is off in the fourth digit, so the encoder that normalises works on contiguous maps.
    return F.group_norm(x_BCHW, x_BCHW.shape[1])


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions with instance normalisation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        inner = outputs // 4
        self.conv1 = nn.Conv2d(inputs, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1)
        self.conv3 = nn.Conv2d(inner, outputs, 1)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride)) if stride > 1 else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = instance_norm(self.conv1(x_BCHW)).relu_()
        y_BCHW = instance_norm(self.conv2(y_BCHW)).relu_()
        y_BCHW = instance_norm(self.conv3(y_BCHW)).relu_()
        if self.downsample is not None:
            x_BCHW = instance_norm(self.downsample(x_BCHW))
        return y_BCHW.add_(x_BCHW).relu_()


class CorrelationEncoder(nn.Module):
    """Features at 1/8 resolution, from which correlations are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2, 3)
        self.layer1 = nn.Sequential(Bottleneck(32, 32), Bottleneck(32, 32))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, 2), Bottleneck(64, 64))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, 2), Bottleneck(96, 96))
        self.conv2 = nn.Conv2d(96, 84, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = instance_norm(self.conv1(x_BCHW.contiguous())).relu_()
        x_BCHW = self.layer3(self.layer2(self.layer1(x_BCHW)))
        out: Tensor = self.conv2(x_BCHW)
        return out


class ContextEncoder(nn.Module):
    """A pyramid of features at 1/2, 1/4, 1/8 and 1/16 resolution."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        for level, (before, width) in enumerate(zip(inputs, WIDTHS, strict=True), start=1):
            self.add_module(f"pyramid{level}", nn.Sequential(conv_prelu(before, width, 2), conv_prelu(width, width)))

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        features = []
        for stage in self.children():
            x_BCHW = stage(x_BCHW)
            features.append(x_BCHW)
        return features


class SideResidual(nn.Module):
    """Five convolutions with a skip; the second and fourth see only the last `SIDE` channels (IFRNet)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv_prelu(width, width)
        self.conv2 = conv_prelu(SIDE, SIDE)
        self.conv3 = conv_prelu(width, width)
        self.conv4 = conv_prelu(SIDE, SIDE)
        self.conv5 = nn.Conv2d(width, width, 3, 1, 1)
        self.prelu = nn.PReLU(width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.conv1(x_BCHW)
        y_BCHW[:, -SIDE:] = self.conv2(y_BCHW[:, -SIDE:])
        y_BCHW = self.conv3(y_BCHW)
        y_BCHW[:, -SIDE:] = self.conv4(y_BCHW[:, -SIDE:])
        out: Tensor = self.prelu(self.conv5(y_BCHW).add_(x_BCHW))
        return out


class Decoder(nn.Module):
    """Fuses features at one resolution and predicts at twice that resolution."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.convblock = nn.Sequential(
            conv_prelu(inputs, width), SideResidual(width), nn.ConvTranspose2d(width, outputs, 4, 2, 1)
        )

    def forward(self, *parts_BCHW: Tensor) -> Tensor:
        dtype = next(self.parameters()).dtype
        out: Tensor = self.convblock(torch.cat([part.to(dtype) for part in parts_BCHW], dim=1))
        return out


class Update(nn.Module):
    """Corrects flows and hidden features from correlations, at 1/8 resolution whatever the decoder's resolution."""

    def __init__(self, hidden: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.convc1 = nn.Conv2d(2 * LEVELS * (2 * RADIUS + 1) ** 2, 64, 1)
        self.convf1 = nn.Conv2d(4, 40, 7, 1, 3)
        self.convf2 = nn.Conv2d(40, 20, 3, 1, 1)
        self.conv = nn.Conv2d(84, 68, 3, 1, 1)
        self.gru = self._two_convs(68 + 4 + hidden, 76)
        self.feat_head = self._two_convs(76, hidden)
        self.flow_head = self._two_convs(76, 4)

    @staticmethod
    def _two_convs(inputs: int, outputs: int) -> nn.Sequential:
        first, second = nn.Conv2d(inputs, 76, 3, 1, 1), nn.Conv2d(76, outputs, 3, 1, 1)
        return nn.Sequential(first, nn.LeakyReLU(0.1, inplace=True), second)

    def forward(self, flow_B4HW: Tensor, hidden_BCHW: Tensor, volume: CorrelationVolume) -> tuple[Tensor, Tensor]:
        """Return the corrected flow (float32) and hidden features."""
        flow_low = self._down(flow_B4HW) / self.scale
        correlation = _look_up(volume, flow_low).to(hidden_BCHW.dtype)
        flow_low = flow_low.to(hidden_BCHW.dtype)
        seen = F.leaky_relu_(self.convc1(correlation), 0.1)
        moved = F.leaky_relu_(self.convf2(F.leaky_relu_(self.convf1(flow_low), 0.1)), 0.1)
        motion = F.leaky_relu_(self.conv(torch.cat((seen, moved), dim=1)), 0.1)
        state = self.gru(torch.cat((motion, flow_low, self._down(hidden_BCHW)), dim=1))
        flow_B4HW = flow_B4HW + self.scale * self._up(self.flow_head(state).float())
        return flow_B4HW, hidden_BCHW + self._up(self.feat_head(state))

    def _down(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW if self.scale == 1 else resize(x_BCHW, 1 / self.scale)

    def _up(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW if self.scale == 1 else resize(x_BCHW, self.scale)


def _look_up(volume: CorrelationVolume, flow_B4HW: Tensor) -> Tensor:
    """Correlations where the flows from the middle frame, doubled, lead from each input frame into the other."""
    height, width = flow_B4HW.shape[-2:]
    rows, columns = torch.arange(height, device=flow_B4HW.device), torch.arange(width, device=flow_B4HW.device)
    here_2HW = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    return volume.lookup(here_2HW + 2 * flow_B4HW[:, 2:], here_2HW + 2 * flow_B4HW[:, :2])


class AmtS(nn.Module):
    """AMT-S at the middle of two frames."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = WIDTHS
        self.volume = CorrelationVolume(LEVELS, RADIUS)
        self.feat_encoder = CorrelationEncoder()
        self.encoder = ContextEncoder()
        self.decoder4 = Decoder(2 * sixteenth + 1, 2 * sixteenth, eighth + 4)
        self.decoder3 = Decoder(3 * eighth + 4, 3 * eighth, quarter + 4)
        self.decoder2 = Decoder(3 * quarter + 4, 3 * quarter, half + 4)
        self.decoder1 = Decoder(3 * half + 4, 3 * half, 8 * FIELDS)
        self.update4 = Update(eighth, 1)
        self.update3 = Update(quarter, 2)
        self.update2 = Update(half, 4)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * FIELDS, 6 * FIELDS, 3, 1, 1), nn.PReLU(6 * FIELDS), nn.Conv2d(6 * FIELDS, 3, 3, 1, 1)
        )

    @torch.inference_mode()
    def forward(self, image0_B3HW: Tensor, image1_B3HW: Tensor) -> Tensor:
        """Predict the frame half-way.

        Images and flows stay in float32 whatever the precision of the weights: 8 bits of colour and fractions of a
        pixel do not survive half precision.

        Args:
            image0_B3HW: RGB in 0..1, float32; sides are multiples of 16, at least 128.
            image1_B3HW: the other frame.

        Returns:
            `(B, 3, H, W)`, RGB in 0..1, float32.
        """
        mean_B111 = torch.stack((image0_B3HW, image1_B3HW)).mean(dim=(0, 2, 3, 4))[:, None, None, None]
        x0, x1 = image0_B3HW - mean_B111, image1_B3HW - mean_B111
        both = torch.cat((x0, x1)).to(self.feat_encoder.conv1.weight.dtype)
        volume = self.volume.fill(*self.feat_encoder(both).chunk(2))
        context0, context1 = zip(*(level.chunk(2) for level in self.encoder(both)), strict=True)

        time = torch.full_like(context0[3][:, :1], 0.5)
        flow, hidden = _flow_and_hidden(self.decoder4(context0[3], context1[3], time))
        flow, hidden = self.update4(flow, hidden, volume)
        for decoder, update, level in ((self.decoder3, self.update3, 2), (self.decoder2, self.update2, 1)):
            delta, hidden = _flow_and_hidden(_decode(decoder, hidden, context0[level], context1[level], flow))
            flow, hidden = update(delta + 2 * resize(flow, 2), hidden, volume)
        fields = _decode(self.decoder1, hidden, context0[0], context1[0], flow)
        return self._blend(x0, x1, mean_B111, fields.float(), 2 * resize(flow, 2))

    def _blend(self, x0: Tensor, x1: Tensor, mean_B111: Tensor, fields_BCHW: Tensor, flow_B4HW: Tensor) -> Tensor:
        """Warp both frames along several flow fields, mix each pair by its mask, and fuse the candidates."""
        n = FIELDS
        flow0, flow1, mask, residual = fields_BCHW.tensor_split((2 * n, 4 * n, 5 * n), dim=1)
        warped0 = _warp_fields(x0, flow0, flow_B4HW[:, :2])
        warped1 = _warp_fields(x1, flow1, flow_B4HW[:, 2:])
        mixed = torch.lerp(warped1, warped0, mask.sigmoid()[:, :, None])
        candidates = mixed.add_(torch.unflatten(residual, 1, (n, 3))).add_(mean_B111[:, None])
        correction: Tensor = self.comb_block(candidates.flatten(1, 2).to(self.feat_encoder.conv1.weight.dtype))
        return (candidates.mean(1) + correction).clamp_(0, 1)


def _decode(decoder: Decoder, hidden: Tensor, context0: Tensor, context1: Tensor, flow_B4HW: Tensor) -> Tensor:
    out: Tensor = decoder(hidden, warp(context0, flow_B4HW[:, :2]), warp(context1, flow_B4HW[:, 2:]), flow_B4HW)
    return out


def _flow_and_hidden(decoded_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    return decoded_BCHW[:, :4].float(), decoded_BCHW[:, 4:]


def _warp_fields(x_B3HW: Tensor, deltas_BCHW: Tensor, flow_B2HW: Tensor) -> Tensor:
    """Warp one image along `FIELDS` flows, given as corrections to a common one: `(B, FIELDS, 3, H, W)`."""
    flows = (torch.unflatten(deltas_BCHW, 1, (FIELDS, 2)) + flow_B2HW[:, None]).flatten(0, 1)
    return torch.unflatten(warp(x_B3HW.repeat_interleave(FIELDS, 0), flows), 0, (-1, FIELDS))


def padding(height: int, width: int) -> tuple[int, int, int, int]:
    """How far to extend an image to the left, right, top and bottom; the odd pixel goes right and down."""
    x, y = -width % MULTIPLE, -height % MULTIPLE
    return x // 2, x - x // 2, y // 2, y - y // 2


class Interpolation:
    """Extractor: how far each odd frame is from the one that AMT predicts from its neighbours.

    Nothing of a frame can be shared between its two pairs: the mean of both frames is subtracted before the first
    zero-padded convolution, so even its own features depend on the partner.

    Args:
        network: predicts `(B, 3, H, W)` in 0..1 from two such batches.
        device: where the network is.
        batch: most pairs interpolated at once.
    """

    def __init__(self, network: Callable[[Tensor, Tensor], Tensor], device: str, batch: int) -> None:
        self.network = network
        self.device = device
        self.batch = batch

    def open(self, clip: Clip) -> Reader:
        width, height = clip.info.width, clip.info.height
        volume_bytes = 4 * (width * height // 64) ** 2
        batch = max(1, min(self.batch, VOLUME_BYTES // max(1, volume_bytes)))
        return _TripleReader(self, batch, min(width, height) >= MIN_SIDE)

    @torch.inference_mode()
    def errors(self, triples_BTHWC: Frames) -> Array:
        """Mean absolute error of the predicted middle frames.

        Args:
            triples_BTHWC: three consecutive frames each, `(B, 3, H, W, 3)`.

        Returns:
            `(B,)` float64, in 8-bit colour steps.
        """
        frames = torch.from_numpy(triples_BTHWC).to(self.device)
        first, middle, last = frames.permute(1, 0, 4, 2, 3)
        left, right, top, bottom = pad = padding(*first.shape[-2:])
        images = [F.pad(frame / 255, pad, mode="replicate") for frame in (first, last)]
        predicted = self.network(*images)
        height, width = predicted.shape[-2:]
        # Truncation, not rounding, to 8 bits is the official package's.
        seen = (predicted[..., top : height - bottom, left : width - right] * 255).to(torch.uint8)
        difference = (seen.int() - middle.int()).abs()
        errors_B: Array = difference.double().mean(dim=(1, 2, 3)).cpu().numpy()
        return errors_B


class _TripleReader:
    """Cuts a clip into frames 0-1-2, 2-3-4, ...; a last frame without a successor is left out."""

    def __init__(self, extractor: Interpolation, batch: int, readable: bool) -> None:
        self.extractor = extractor
        self.batch = batch
        self.readable = readable
        self.window: list[Frames] = []
        self.triples: list[Frames] = []
        self.errors: list[Array] = [np.empty(0)]

    def push(self, start: int, frames_THWC: Frames) -> None:
        for frame_HWC in frames_THWC if self.readable else ():
            self.window.append(frame_HWC.copy())
            if len(self.window) == 3:
                self.triples.append(np.stack(self.window))
                del self.window[:2]
            if len(self.triples) == self.batch:
                self._interpolate()

    def close(self) -> Array:
        if self.triples:
            self._interpolate()
        return np.concatenate(self.errors)

    def _interpolate(self) -> None:
        self.errors.append(self.extractor.errors(np.stack(self.triples)))
        self.triples.clear()


def load(store: WeightStore, runtime: Runtime) -> Interpolation:
    """Load AMT-S; a CPU gains nothing from several pairs at once and would pay for them in memory."""
    network = AmtS()
    load_strict(network, store.state_dict(CHECKPOINT), CHECKPOINT)
    network.to(runtime.device, DTYPES[runtime.precision])
    for part in set(network.children()) - {network.feat_encoder}:
        part.to(memory_format=torch.channels_last)  # convolutions a fifth faster on a CPU
    predict = torch.compile(network) if runtime.compile else network
    return Interpolation(predict, runtime.device, 1 if runtime.device == "cpu" else runtime.batch)
