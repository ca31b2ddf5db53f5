"""What every system shares: the configuration's interface to counting and sampling, and the shape of its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from m4v.config import Config
from m4v.layout import Codec, Evaluation, Patch, Shape, count_tokens


class Text(NamedTuple):
    """An encoded prompt: tokens (B, L, E), mask (B, L) True at real tokens, pooled embedding (B, P)."""

    tokens_BLE: Tensor
    mask_BL: Tensor
    pooled_BP: Tensor


class Image(NamedTuple):
    """A given first frame: clean latents (B, C, 1, Y, X), and given (B,) True where a sample is shown them."""

    latents_BCTYX: Tensor
    given_B: Tensor


class ModelConfig(Config, ABC):
    """A text-to-video model: what it is built of, and how a clip is sampled from it.

    A system subclasses this in one file of `m4v/variants/`, adds its own fields, and says how it is built and sampled.
    `clip` is the size it is published for or meant for: frames, height and width in pixels.
    """

    clip: tuple[int, int, int] = (241, 768, 1280)
    codec: Codec = Codec()
    patch: Patch = Patch()
    text_tokens: int = 128
    text_width: int = 4096
    pooled_width: int = 768

    @abstractmethod
    def build(self) -> VelocityModel:
        """The network with fresh weights, on the current default device."""

    @abstractmethod
    def evaluations(self, frames: int, height: int, width: int) -> tuple[Evaluation, ...]:
        """The distinct forward passes that make a clip, in the order of sampling.

        Raises:
            ValueError: the clip does not fit the codec, the pyramid or the patch.
        """

    def tokens(self, evaluation: Evaluation) -> int:
        """Video tokens of a forward pass."""
        return count_tokens(evaluation.units, self.patch)

    @property
    def token_width(self) -> int:
        """Latent values in a token."""
        return self.codec.channels * self.patch.cells

    @property
    def attends_to_image(self) -> bool:
        """Whether the network takes a given first frame as an `Image`, besides what its units show."""
        return False


class VelocityModel(nn.Module):
    """Predicts the velocity of the last unit from all units, time and text.

    `forward(units, t_B, text, *, stage=0)`: `units` are latent blocks (B, C, T, Y, X), oldest first, the last one
    noisy; `t_B` is the time in [0, 1], 1 being data; `stage` the pyramid level of the last unit. Returns the velocity
    in its shape. Where `config.attends_to_image`, `forward` also takes `image`, an `Image` or None.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def attends_to_image(model: object) -> bool:
    """Whether a model is to be called with `image`; what has no configuration is not."""
    config = getattr(model, "config", None)
    return isinstance(config, ModelConfig) and config.attends_to_image


def example_inputs(
    config: ModelConfig,
    units: Sequence[Shape],
    *,
    batch: int = 1,
    device: torch.device | str = "meta",
    dtype: torch.dtype = torch.float32,
    text_tokens: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[list[Tensor], Tensor, Text]:
    """Arguments of a forward pass over `units`: standard normal latents and text, all text tokens real."""
    options: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
    length = config.text_tokens if text_tokens is None else text_tokens
    latents = [torch.randn(batch, config.codec.channels, *unit, **options) for unit in units]
    text = Text(
        torch.randn(batch, length, config.text_width, **options),
        torch.ones(batch, length, dtype=torch.bool, device=device),
        torch.randn(batch, config.pooled_width, **options),
    )
    return latents, torch.full((batch,), 0.5, device=device, dtype=dtype), text


def patchify(unit_BCTYX: Tensor, patch: Patch) -> Tensor:
    """Tokens (B, N, C * cells) of a unit, in order of time, row, column."""
    f, s = patch.temporal, patch.spatial
    T, Y, X = unit_BCTYX.shape[2:]
    x = unit_BCTYX.reshape(*unit_BCTYX.shape[:2], T // f, f, Y // s, s, X // s, s)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def unpatchify(tokens_BND: Tensor, grid: Shape, patch: Patch) -> Tensor:
    """Inverse of `patchify` for a unit whose token grid is `grid`."""
    f, s = patch.temporal, patch.spatial
    x = tokens_BND.reshape(len(tokens_BND), *grid, -1, f, s, s)
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6).flatten(4, 5).flatten(2, 3)
