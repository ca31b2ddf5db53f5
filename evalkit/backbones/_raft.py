"""RAFT: the displacement of every pixel from one frame to another.

Teed, Deng: "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020. The parts are torchvision's; what
drives them here does each piece of work once: a frame is encoded once for all of its pairs, the context's share of the
recurrent convolutions is computed once a pair instead of in every iteration, and only the last flow is upsampled.

Axes: 1 the one pair of a batch, C channels, H W image or map (an eighth of the image), N = H * W positions of a map.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.optical_flow import RAFT

from evalkit.types import Frames

ITERATIONS = 20
MULTIPLE = 8  # sides are padded to a multiple of this
LEVELS = 4  # resolutions at which correlations are looked up


def padding(height: int, width: int) -> tuple[int, int, int, int]:
    """How far to extend an image to the left, right, top and bottom; the odd pixel goes right and down."""
    x, y = -width % MULTIPLE, -height % MULTIPLE
    return x // 2, x - x // 2, y // 2, y - y // 2


class View:
    """A frame as RAFT sees it; its maps are computed when a pair first needs them, and kept for the next pair.

    Args:
        raft: the network.
        frame_HWC: RGB, uint8; copied.
    """

    def __init__(self, raft: Raft, frame_HWC: Frames) -> None:
        self.raft = raft
        self.frame_HWC = frame_HWC.copy()

    @cached_property
    def features_1CHW(self) -> Tensor:
        """What correlations are computed from, float32."""
        features: Tensor = self.raft.feature_encoder(self._image())
        return features.float()

    @cached_property
    def state_and_context(self) -> tuple[Tensor, Tensor]:
        """The first hidden state of the recurrence, and what it sees of the frame in every iteration."""
        state_1CHW, context_1CHW = self.raft.context_encoder(self._image()).chunk(2, dim=1)
        return state_1CHW.tanh(), context_1CHW.relu()

    def _image(self) -> Tensor:
        pixels_1CHW = torch.from_numpy(self.frame_HWC).to(self.raft.device).permute(2, 0, 1)[None].float()
        pixels_1CHW = F.pad(pixels_1CHW, padding(*pixels_1CHW.shape[-2:]), mode="replicate")
        return (2 * (pixels_1CHW / 255) - 1).to(self.raft.dtype).contiguous()


class SplitGru(nn.Module):
    """One direction of the separable convolutional GRU, with the context's share of its convolutions split off.

    A convolution is linear in its input channels, and the context is the same in every iteration.

    Args:
        gru: torchvision's layer, whose input channels are hidden state, context and motion, equally many of each.
    """

    context: Tensor
    bias: Tensor
    changing: Tensor

    def __init__(self, gru: nn.Module) -> None:
        super().__init__()
        gates = [getattr(gru, name) for name in ("convz", "convr", "convq")]
        state, context, motion = torch.cat([gate.weight for gate in gates]).chunk(3, dim=1)
        self.padding = gates[0].padding
        self.width = state.shape[1]
        self.register_buffer("context", context.contiguous())
        self.register_buffer("bias", torch.cat([gate.bias for gate in gates]))
        self.register_buffer("changing", torch.cat([state, motion], dim=1))

    def share_of(self, context_1CHW: Tensor) -> Tensor:
        """What the context adds to the update gate, the reset gate and the candidate, bias included."""
        return self._convolve(context_1CHW, self.context, self.bias)

    def forward(self, state_1CHW: Tensor, motion_1CHW: Tensor, share_1CHW: Tensor) -> Tensor:
        """Return the next hidden state."""
        weight_gates, weight_candidate = self.changing.tensor_split((2 * self.width,))
        share_gates, share_candidate = share_1CHW.tensor_split((2 * self.width,), dim=1)
        gates = self._convolve(torch.cat((state_1CHW, motion_1CHW), dim=1), weight_gates)
        update_1CHW, reset_1CHW = gates.add_(share_gates).sigmoid_().chunk(2, dim=1)
        candidate = self._convolve(torch.cat((reset_1CHW * state_1CHW, motion_1CHW), dim=1), weight_candidate)
        return torch.lerp(state_1CHW, candidate.add_(share_candidate).tanh_(), update_1CHW)

    def _convolve(self, x_1CHW: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x_1CHW, weight, bias, padding=self.padding)


class Raft(nn.Module):
    """RAFT's flow between two views; takes over the weights of torchvision's `raft_large`.

    Maps are in the precision of the weights; correlations, coordinates and flows stay in float32 whatever it is.
    """

    def __init__(self, network: RAFT) -> None:
        super().__init__()
        update = network.update_block
        self.feature_encoder = network.feature_encoder
        self.context_encoder = network.context_encoder
        self.correlation = network.corr_block
        self.motion_encoder = update.motion_encoder
        self.across = SplitGru(update.recurrent_block.convgru1)
        self.down = SplitGru(update.recurrent_block.convgru2)
        self.flow_head = update.flow_head
        self.mask_predictor = network.mask_predictor

    @property
    def device(self) -> torch.device:
        return self.across.bias.device

    @property
    def dtype(self) -> torch.dtype:
        return self.across.bias.dtype

    @torch.inference_mode()
    def flow(self, first: View, second: View) -> Tensor:
        """Where each pixel of the first view is in the second.

        Returns:
            `(2, H, W)` float32: displacement (x, y) in pixels, over the padded frame.
        """
        self.correlation.corr_pyramid = correlate(first.features_1CHW, second.features_1CHW)
        state, context = first.state_and_context
        shares = self.across.share_of(context), self.down.share_of(context)
        here = grid(first.features_1CHW)
        there = here
        for _ in range(ITERATIONS):
            seen = self.correlation.index_pyramid(there).to(self.dtype)
            state, delta = self.step(state, seen, (there - here).to(self.dtype), shares)
            there = there + delta.float()
        self.correlation.corr_pyramid = []  # hundreds of megabytes
        return upsample(there - here, self.mask_predictor(state).float())[0]

    def step(
        self, state: Tensor, seen: Tensor, flow_12HW: Tensor, shares: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """One iteration: the next hidden state, and the correction of the flow that it asks for."""
        motion = self.motion_encoder(flow_12HW, seen)
        state = self.down(self.across(state, motion, shares[0]), motion, shares[1])
        return state, self.flow_head(state)


def correlate(features_1CHW: Tensor, others_1CHW: Tensor) -> list[Tensor]:
    """Similarity of every position of one map with every position of another: `(N, 1, H, W)` at each resolution."""
    channels, height, width = features_1CHW.shape[1:]
    queries_NC = (features_1CHW[0] * channels**-0.5).flatten(1).T
    pyramid = [(queries_NC @ others_1CHW[0].flatten(1)).view(-1, 1, height, width)]
    for _ in range(LEVELS - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return pyramid


def grid(map_1CHW: Tensor) -> Tensor:
    """The coordinates (x, y) of every position of a map, `(1, 2, H, W)` float32."""
    y_H, x_W = (torch.arange(side, device=map_1CHW.device, dtype=torch.float32) for side in map_1CHW.shape[-2:])
    return torch.stack(torch.meshgrid(x_W, y_H, indexing="xy"))[None]


def upsample(flow_12HW: Tensor, mask_1CHW: Tensor) -> Tensor:
    """Each pixel's flow as the mean of its cell's 3x3 neighbours, weighted by the mask (section 3.3 of the paper)."""
    height, width = flow_12HW.shape[-2:]
    weights = mask_1CHW.view(1, 9, MULTIPLE, MULTIPLE, height, width).softmax(dim=1)
    neighbours = F.unfold(MULTIPLE * flow_12HW, 3, padding=1).view(2, 9, height, width)
    fine = torch.einsum("nabhw,cnhw->chawb", weights[0], neighbours)
    return fine.reshape(1, 2, MULTIPLE * height, MULTIPLE * width)
