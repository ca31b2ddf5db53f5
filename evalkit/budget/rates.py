"""How long things take: seconds a frame and network, with the range over the commands they were measured in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from evalkit.budget.work import Work

Level = Literal["low", "mean", "high"]
LEVELS: tuple[Level, ...] = ("low", "mean", "high")

STATIC = "static_filter"
PER_VIDEO = frozenset({"viclip", "umt", "grit_objects", "grit_captions", "tag2text"})
"""Networks that look at a fixed number of frames of a video, however long it is."""
PER_PIXEL = frozenset({"amt", "raft_moving", "raft_static", "flicker"})
"""What works on frames of their own size; the other networks scale them to theirs first."""
SAMPLED = frozenset({"raft_moving"})
"""What looks at eight frames a second."""
SAMPLED_FPS = 8


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds, or another quantity: the mean over all commands, the least and the greatest of one."""

    mean: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Rate:
        return cls(value, value, value)

    def at(self, level: Level) -> float:
        return {"low": self.low, "mean": self.mean, "high": self.high}[level]

    def __mul__(self, times: float) -> Rate:
        return Rate(self.mean * times, self.low * times, self.high * times)


NOTHING = Rate(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Clip:
    """Size of the videos; None where it is not known."""

    frames: float | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None

    @property
    def pixels(self) -> float | None:
        """Of a frame."""
        return None if self.width is None or self.height is None else float(self.width * self.height)


@dataclass(frozen=True, slots=True)
class Affine:
    """Seconds of a serial stage: a fixed part, and one for each video."""

    fixed: float
    per_video: float

    def __call__(self, videos: int) -> float:
        return self.fixed + self.per_video * videos


@dataclass(frozen=True)
class Rates:
    """What a plan reckons with.

    Args:
        source: where the rates come from, in words.
        device: `cpu` or `cuda`, and the hardware's name; None for stated rates.
        hardware: the name of the GPU or processor.
        features: seconds a video of `clip`, by network or statistic.
        overhead: seconds a video that are neither a network's nor spent waiting for frames.
        decode: seconds of one core to decode a video.
        decode_source: where that comes from.
        setup: seconds a worker takes to load its networks.
        start: seconds until a worker process is ready; None for as long as a command.
        serial: the stages of which there is one, whatever the number of workers.
        per_result: stated seconds of one video in one dimension, for what was not measured; None if nothing is stated.
        clip: size of the videos that the rates hold for.
        commands: how many commands they were measured in.
    """

    source: str
    serial: Mapping[str, Affine]
    device: str | None = None
    hardware: str | None = None
    features: Mapping[str, Rate] = field(default_factory=dict)
    overhead: Rate = NOTHING
    decode: Rate = NOTHING
    decode_source: str = ""
    setup: Rate = NOTHING
    start: Rate | None = None
    per_result: Rate | None = None
    clip: Clip = Clip()
    commands: int = 0

    @property
    def measured(self) -> bool:
        return self.commands > 0

    def unmeasured(self, work: Work) -> dict[str, tuple[str, ...]]:
        """By dimension, the networks that were not measured."""
        lacking = {d: tuple(f for f in names if f not in self.features) for d, names in work.features.items()}
        return {dimension: names for dimension, names in lacking.items() if names}

    def networks(self, dimensions: Iterable[str], work: Work, level: Level) -> float:
        """Seconds of the networks for one video; a dimension with neither a measured nor a stated rate adds nothing.

        A network that several dimensions read runs once; where one was not measured, each dimension that reads it
        counts at the stated rate.
        """
        stated = 0.0
        known: set[str] = set()
        for dimension in dimensions:
            names = work.features[dimension]
            if all(name in self.features for name in names):
                known.update(names)
            elif self.per_result is not None and dimension != STATIC:  # stated figures are of scores
                stated += self.per_result.at(level)
        return stated + sum(self.features[name].at(level) for name in known) + self.overhead.at(level)

    def scaled(self, clip: Clip) -> Rates:
        """The same for videos of another size, as far as it is known how networks grow with it."""
        frames = _ratio(clip.frames, self.clip.frames)
        pixels = _ratio(clip.pixels, self.clip.pixels)
        stride = _ratio(_stride(self.clip.fps), _stride(clip.fps))
        features = {name: rate * _growth(name, frames, pixels, stride) for name, rate in self.features.items()}
        moved = {"overhead": self.overhead * frames, "decode": self.decode * (frames * pixels)}
        return Rates(**(vars(self) | {"features": features, **moved}))


def _growth(name: str, frames: float, pixels: float, stride: float) -> float:
    per_pixel = name in PER_PIXEL or name.startswith(("lite/", "truth/"))
    return (
        (1.0 if name in PER_VIDEO else frames) * (pixels if per_pixel else 1.0) * (stride if name in SAMPLED else 1.0)
    )


def _ratio(wanted: float | None, known: float | None) -> float:
    return wanted / known if wanted and known else 1.0


def _stride(fps: float | None) -> float | None:
    return None if not fps else max(1, round(fps / SAMPLED_FPS))
