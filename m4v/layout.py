"""Where the tokens are: latent grids, the spatial pyramid and the temporal pyramid of conditions.

A model sees a sequence of *units*, oldest first; each is a block of latent frames at one resolution, and the last one
is the noisy one whose velocity is predicted. Full-sequence diffusion has a single unit; autoregression over the
temporal pyramid has one frame a unit, history at decreasing resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from m4v.config import Config


class Shape(NamedTuple):
    """Frames, rows and columns of a block of latents (or, after patching, of tokens)."""

    frames: int
    rows: int
    cols: int

    @property
    def cells(self) -> int:
        return self.frames * self.rows * self.cols

    def halved(self, times: int) -> Shape:
        """The same block `times` levels down the spatial pyramid."""
        return Shape(self.frames, self.rows >> times, self.cols >> times)


def near(size: int, multiple: int, lead: int = 0) -> str:
    """The sizes `lead` + k `multiple` on either side of a size that is none of them, in words."""
    below = max((size - lead) // multiple, 0 if lead else 1) * multiple + lead
    return f"say {below} or {below + multiple}"


class Codec(Config):
    """Compression of a video autoencoder, as far as shapes are concerned.

    `causal` codecs encode the first frame alone, so that T = 1 + (frames - 1) / temporal.
    """

    temporal: int = 8
    spatial: int = 8
    channels: int = 16
    causal: bool = True

    def latent_shape(self, frames: int, height: int, width: int) -> Shape:
        """Latent frames, rows and columns of a clip in frames and pixels.

        Raises:
            ValueError: the clip does not fit the codec; the message names sizes that do.
        """
        lead = int(self.causal)
        if frames < 1 or (frames - lead) % self.temporal:
            rule = f"1 + {self.temporal}k" if self.causal and self.temporal > 1 else f"a multiple of {self.temporal}"
            raise ValueError(
                f"{frames} frames: this model's codec takes {rule} frames ({near(frames, self.temporal, lead)})"
            )
        for name, size in (("height", height), ("width", width)):
            if size < 1 or size % self.spatial:
                said = near(size, self.spatial)
                raise ValueError(f"{name} {size}: this model's codec takes multiples of {self.spatial} pixels ({said})")
        return Shape(lead + (frames - lead) // self.temporal, height // self.spatial, width // self.spatial)


class Patch(Config):
    """Latent cells that make one token."""

    temporal: int = 1
    spatial: int = 2

    @property
    def cells(self) -> int:
        return self.temporal * self.spatial**2

    def tokens(self, unit: Shape) -> Shape:
        """The token grid of a unit.

        Raises:
            ValueError: the unit is not divisible into patches.
        """
        if unit.frames % self.temporal or unit.rows % self.spatial or unit.cols % self.spatial or not unit.cells:
            raise ValueError(
                f"{unit.frames} x {unit.rows} x {unit.cols} latents do not divide into patches of "
                f"{self.temporal} x {self.spatial} x {self.spatial}"
            )
        return Shape(unit.frames // self.temporal, unit.rows // self.spatial, unit.cols // self.spatial)


@dataclass(frozen=True)
class Evaluation:
    """One distinct forward pass of the sampler.

    `frame` is the latent frame being made (-1: all at once), `stage` the pyramid level (0 is full resolution), `units`
    the latent blocks that the model sees, `steps` how many solver steps look like this.
    """

    frame: int
    stage: int
    units: tuple[Shape, ...]
    steps: int


def check_pyramid(latent: Shape, stages: int, patch: Patch) -> None:
    """Refuse a grid that cannot be halved down to the coarsest stage and patched there.

    Raises:
        ValueError: naming the size in latents and what it must be a multiple of.
    """
    multiple = patch.spatial << (stages - 1)
    for name, size in (("rows", latent.rows), ("columns", latent.cols)):
        if size % multiple:
            raise ValueError(
                f"{size} latent {name}: {stages} pyramid stages with patches of {patch.spatial} "
                f"need a multiple of {multiple} ({near(size, multiple)})"
            )


def temporal_pyramid(latent: Shape, frame: int, stage: int, stages: int) -> tuple[Shape, ...]:
    """Units seen while latent frame `frame` is made at pyramid level `stage` (0 is full resolution).

    The newest condition has the resolution of the noisy frame, each older one a level less, down to the coarsest
    (PyramidFlow eq. 17; M4V supplement eq. 7).

    Raises:
        ValueError: no such frame or stage.
    """
    if not 0 <= frame < latent.frames or not 0 <= stage < stages:
        raise ValueError(f"frame {frame} of {latent.frames}, stage {stage} of {stages}: no such forward pass")
    one = Shape(1, latent.rows, latent.cols)
    history = [one.halved(min(stage + age, stages - 1)) for age in reversed(range(frame))]
    return (*history, one.halved(stage))


def full_sequence(latent: Shape, stage: int = 0) -> tuple[Shape, ...]:
    """The single unit of full-sequence diffusion at pyramid level `stage`."""
    return (latent.halved(stage),)


def count_tokens(units: tuple[Shape, ...], patch: Patch) -> int:
    """Video tokens of a forward pass."""
    return sum(patch.tokens(unit).cells for unit in units)
