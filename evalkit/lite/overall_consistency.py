"""Stand-in for overall consistency: of what the prompt says, only what pixels can confirm.

See `_lexicon` for the words it knows. A prompt without any of them leaves the clip unscored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from evalkit.backbones.base import FeatureSpec, Reader, Runtime
from evalkit.lite._lexicon import COLOURS, MOTIONS, cues
from evalkit.lite._motion import Spectrum, shifts, spectrum
from evalkit.lite._pixels import Floats, shrink
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Array, Clip, Features, Frames, Score
from evalkit.weights import WeightStore

WIDTH, HEIGHT = 64, 48

# Hue (degrees, from - to, through 0 where from > to), least and most saturation, least and most value (both 0 to 1).
# Names overlap as they do in speech: a golden field is also yellow, a maroon coat red and brown.
_HSV = {
    "red": (345, 15, 0.40, 1.0, 0.20, 1.0),
    "orange": (12, 42, 0.50, 1.0, 0.45, 1.0),
    "golden": (25, 55, 0.35, 1.0, 0.50, 1.0),
    "yellow": (42, 70, 0.35, 1.0, 0.50, 1.0),
    "green": (70, 165, 0.18, 1.0, 0.15, 1.0),
    "cyan": (160, 200, 0.20, 1.0, 0.30, 1.0),
    "blue": (190, 255, 0.20, 1.0, 0.20, 1.0),
    "purple": (250, 310, 0.18, 1.0, 0.20, 1.0),
    "pink": (300, 15, 0.15, 0.65, 0.60, 1.0),
    "brown": (8, 45, 0.25, 1.0, 0.15, 0.65),
    "black": (0, 360, 0.0, 1.0, 0.0, 0.15),
    "white": (0, 360, 0.0, 0.15, 0.80, 1.0),
    "gray": (0, 360, 0.0, 0.15, 0.25, 0.80),
    "shade": (0, 360, 0.0, 1.0, 0.0, 0.30),
    "vivid": (0, 360, 0.45, 1.0, 0.35, 1.0),
}
# Amounts that make a cue half true.
ENOUGH_COLOUR = 0.02  # share of the picture that goes by the name
ENOUGH_VIVID = 0.15  # the same, for pictures that are called colourful
BRIGHTNESS, BRIGHTNESS_STEP = 0.40, 0.08  # mean luma between dark and light, and how fast one becomes the other
STILL, SLOW, FAST = 0.5, 4.0, 2.0  # change a second, relative to the picture's contrast
ENOUGH_TRAVEL = 0.05  # picture widths (heights) a second

USUAL_FPS = 24.0  # where the container gives none

COLUMNS = (*COLOURS, "luma", "change", "dy", "dx")


def colour_shares(hsv_HWC: Array) -> list[float]:
    """Share of pixels that go by each name of `COLOURS`; `hsv_HWC` as Pillow gives it (all channels 0 to 255)."""
    hue, saturation, value = (np.asarray(hsv_HWC[..., c] / np.float32(255), np.float32) for c in range(3))
    return [float(_goes_by(name, hue * 360, saturation, value).mean()) for name in COLOURS]


def _goes_by(name: str, hue: Floats, saturation: Floats, value: Floats) -> Array:
    start, stop, dull, rich, dim, bright = _HSV[name]
    in_hue = (hue >= start) & (hue <= stop) if start < stop else (hue >= start) | (hue <= stop)
    in_saturation = (saturation >= dull) & (saturation <= rich)
    return np.asarray(in_hue & in_saturation & (value >= dim) & (value <= bright))


class _ImpressionReader:
    """Notes a row of `COLUMNS` per frame; the motion columns tell how it differs from the frame before."""

    def __init__(self) -> None:
        self.previous: tuple[Floats, Spectrum] | None = None
        self.rows: list[list[float]] = []

    def push(self, start: int, frames_THWC: Frames) -> None:
        for frame_HWC in frames_THWC:
            small = shrink(frame_HWC, WIDTH, HEIGHT)
            luma_HW = np.asarray(small.convert("L"), dtype=np.float32)
            shares = colour_shares(np.asarray(small.convert("HSV")))
            self.rows.append([*shares, float(luma_HW.mean()) / 255, *self._motion(luma_HW)])

    def _motion(self, luma_HW: Floats) -> tuple[float, float, float]:
        # Brightness that comes and goes is no motion: frames are compared without their mean.
        centred_HW = luma_HW - luma_HW.mean()
        current = centred_HW, spectrum(luma_HW)
        before, self.previous = self.previous or current, current
        contrast = float(np.abs(centred_HW).mean() + np.abs(before[0]).mean()) / 2
        change = float(np.abs(centred_HW - before[0]).mean()) / (contrast + 1)
        ((dy, dx),) = shifts(before[1], current[1], WIDTH)
        return change, dy / HEIGHT, dx / WIDTH

    def close(self) -> Array:
        return np.array(self.rows)


class _Impression:
    def open(self, clip: Clip) -> Reader:
        return _ImpressionReader()


def _load(store: WeightStore, runtime: Runtime) -> _Impression:
    return _Impression()


FEATURE = FeatureSpec("lite/impression", version=2, load=_load)


def _saturating(amount: float, enough: float) -> float:
    return max(0.0, amount) / (max(0.0, amount) + enough)


def agreements(seen: Mapping[str, float]) -> dict[str, float]:
    """How true every cue is, 0 to 1, given the clip's mean impression (motion columns a second)."""
    lightness = 1 / (1 + math.exp((BRIGHTNESS - seen["luma"]) / BRIGHTNESS_STEP))
    vivid = _saturating(seen["vivid"], ENOUGH_VIVID)
    return {
        **{name: _saturating(seen[name], ENOUGH_COLOUR) for name in COLOURS},
        "vivid": vivid,
        "monochrome": 1 - vivid,
        "light": lightness,
        "dark": 1 - lightness,
        "still": 1 - _saturating(seen["change"], STILL),
        "slow": 1 - _saturating(seen["change"], SLOW),
        "fast": _saturating(seen["change"], FAST),
        # The picture moves against the camera.
        "pan_left": _saturating(seen["dx"], ENOUGH_TRAVEL),
        "pan_right": _saturating(-seen["dx"], ENOUGH_TRAVEL),
        "pan": _saturating(abs(seen["dx"]), ENOUGH_TRAVEL),
        "tilt_up": _saturating(seen["dy"], ENOUGH_TRAVEL),
        "tilt_down": _saturating(-seen["dy"], ENOUGH_TRAVEL),
    }


def mean_impression(rows_TD: Array, fps: float) -> dict[str, float]:
    """Mean of every column over the clip; motion columns over the intervals between frames, and per second."""
    seen: dict[str, float] = dict(zip(COLUMNS, rows_TD.mean(axis=0).tolist(), strict=True))
    intervals = max(1, len(rows_TD) - 1)
    per_second = len(rows_TD) / intervals * (fps if fps > 0 else USUAL_FPS)
    return seen | {motion: seen[motion] * per_second for motion in ("change", "dy", "dx")}


def score(clip: Clip, features: Features) -> Score:
    """Mean agreement of the prompt's cues (of those that a single frame can confirm, if there is but one)."""
    rows_TD = np.asarray(features[FEATURE.name], dtype=np.float64)
    named = [cue for cue in cues(clip.prompt) if len(rows_TD) > 1 or cue not in MOTIONS]
    if not named:
        return Score.missing("the prompt names no colour, light or motion that the pixels of this clip could confirm")
    agreed = agreements(mean_impression(rows_TD, clip.info.fps))
    return Score(sum(agreed[cue] for cue in named) / len(named), n_terms=len(named))


def _example(prompt: str, value: float, **impression: float) -> Example:
    row = [impression.get(column, 0.0) for column in COLUMNS]
    return Example({FEATURE.name: np.array([row])}, value, prompt)


METRIC = MetricSpec(
    name="lite/overall_consistency",
    version=1,
    title="Overall consistency (lite)",
    summary="Not VBench: the share of the prompt's named colours, words for light and dark, and words for motion that"
    " the pixels confirm; unscored where the prompt has none. It knows nothing of objects and actions.",
    features=(FEATURE,),
    score=score,
    source="Colour names: the basic colour terms of Berlin and Kay 1969 (with golden and cyan) as boxes in HSV. Motion:"
    " frame differences and phase correlation (Kuglin and Hines 1975).",
    reads_prompt=True,
    degrades={"wrong_prompt": -1},
    examples=(
        # 6 % red: 0.06 / (0.06 + 0.02); no green.
        _example("a red door", 0.75, red=0.06),
        _example("a red door in a green wall", 0.375, red=0.06),
        # Mean luma at the threshold between light and dark, and half the blacks that are asked for.
        _example("black smoke at night", 0.5, black=0.02, luma=BRIGHTNESS),
    ),
)
