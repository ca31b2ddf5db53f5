"""Scenes of the world `shapes`: the truth about a clip, its caption, and how scenes are drawn at random.

A scene is a pure function of (level, seed, index). Three levels:

- `easy`: one shape of one size on a 4-pixel grid (at 32 x 32), plain background, one phrasing: 90 combinations.
- `default`: one shape of random size at a sub-pixel position, plain or gradient background, four phrasings.
- `full`: one to three shapes, counts and relative positions, camera pans over a wavy background.

Positions are fractions of the picture's width and height, sizes fractions of its shorter side. `motion` is what is seen
in the picture: where the camera pans, a shape that "stays still" keeps its place in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

Level = Literal["easy", "default", "full"]
Colour = Literal["red", "green", "blue", "yellow", "purple"]
Form = Literal["circle", "square", "triangle"]
Motion = Literal["left", "right", "up", "down", "still", "grows"]
Relation = Literal["left of", "right of", "above", "below"]
Pan = Literal["left", "right"]

LEVELS: tuple[Level, ...] = get_args(Level)
MOTIONS: tuple[Motion, ...] = get_args(Motion)
FORMS: tuple[Form, ...] = get_args(Form)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
PALETTE: dict[Colour, tuple[int, int, int]] = {
    "red": (225, 45, 45),
    "green": (40, 180, 60),
    "blue": (60, 110, 245),
    "yellow": (240, 210, 50),
    "purple": (170, 70, 220),
}
COLOURS: tuple[Colour, ...] = tuple(PALETTE)

DIRECTION = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0), "grows": (0, 0)}
_NUMBER = {1: "one", 2: "two", 3: "three"}

# The area of a disc of radius 1, for every form: size tells nothing of the form.
SQUARE = math.sqrt(math.pi) / 2  # half the side
_TRIANGLE = math.sqrt(4 * math.pi / math.sqrt(3))  # the side of an equilateral triangle, point up
APEX, _BASE = _TRIANGLE / math.sqrt(3), _TRIANGLE / math.sqrt(12)  # from its centroid up and down
# How far a form of size 1 reaches from its centroid: left, right, up, down.
REACH = {
    "circle": (1.0, 1.0, 1.0, 1.0),
    "square": (SQUARE, SQUARE, SQUARE, SQUARE),
    "triangle": (_TRIANGLE / 2, _TRIANGLE / 2, APEX, _BASE),
}
_FARTHEST = (_TRIANGLE / 2, _TRIANGLE / 2, APEX, 1.0)


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape: `x`, `y` is its centroid in the first frame, `size` the radius of the disc of the same area."""

    colour: Colour
    shape: Form
    x: float
    y: float
    size: float


@dataclass(frozen=True, slots=True)
class Background:
    """Grey levels 0 to 255: `level` in the centre, `slope_x` and `slope_y` more at the right and lower edge.

    `wave` is the amplitude of the horizontal wave, as wide as the picture, over which a camera pans; `phase` its phase
    in turns.
    """

    level: float
    slope_x: float = 0.0
    slope_y: float = 0.0
    wave: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True, slots=True)
class Scene:
    """All there is to know of a clip but its resolution and its number of frames.

    Args:
        things: one to three shapes; several are either alike in colour and form, or a pair in a `position`.
        motion: what all of them do, as seen in the picture.
        travel: how far they move over the clip, in picture widths (heights).
        position: the first of a pair relative to the second.
        pan: where the camera turns; the background moves the other way.
        phrasing: which of the `PHRASINGS` captions the scene.
    """

    things: tuple[Thing, ...]
    motion: Motion
    travel: float
    background: Background
    position: Relation | None = None
    pan: Pan | None = None
    phrasing: int = 0

    @property
    def count(self) -> int:
        return len(self.things)

    def facts(self) -> dict[str, Any]:
        """What must be true of a clip of this caption: a prompt suite's `auxiliary: {"scene": ...}`."""
        objects = [{"colour": t.colour, "shape": t.shape} for t in self.things]
        facts: dict[str, Any] = {"objects": objects if self.position else objects[:1], "motion": self.motion}
        if self.count > 1:
            facts["count"] = self.count
        if self.position:
            facts["position"] = self.position
        return facts


# --- captions ---------------------------------------------------------------------------------------------------------

# One thing, several things; plain, and in other words.
_VERBS: dict[Motion, tuple[tuple[str, str], tuple[str, str]]] = {
    "left": (("moves left", "move left"), ("moves to the left", "move to the left")),
    "right": (("moves right", "move right"), ("moves to the right", "move to the right")),
    "up": (("moves up", "move up"), ("moves upwards", "move upwards")),
    "down": (("moves down", "move down"), ("moves downwards", "move downwards")),
    "still": (("stays still", "stay still"), ("does not move", "do not move")),
    "grows": (("grows", "grow"), ("gets bigger", "get bigger")),
}
_RELATED = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
_OPENINGS = ("", "in this video ")
PHRASINGS = 2 * len(_OPENINGS)


def caption(scene: Scene, *, still: bool = False) -> str:
    """The scene in plain English, in lower case and without a full stop.

    Args:
        scene: what to describe.
        still: of a single frame: without motion and camera.
    """
    if still:
        return _subject(scene)
    other_words, opening = scene.phrasing % 2, _OPENINGS[scene.phrasing // 2]
    verb = _VERBS[scene.motion][other_words][scene.count > 1]
    both = ", both" if scene.position else ""
    camera = f", the camera pans {scene.pan}" if scene.pan else ""
    return f"{opening}{_subject(scene)}{both} {verb}{camera}"


def _subject(scene: Scene) -> str:
    first = scene.things[0]
    if scene.position:
        second = scene.things[1]
        return f"a {first.colour} {first.shape} {_RELATED[scene.position]} a {second.colour} {second.shape}"
    if scene.count == 1:
        return f"a {first.colour} {first.shape}"
    return f"{_NUMBER[scene.count]} {first.colour} {first.shape}s"


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption of this world can hold, sorted; punctuation left out."""
    verbs = " ".join(text for pairs in _VERBS.values() for pair in pairs for text in pair)
    plain = " ".join((*COLOURS, *FORMS, *(f"{form}s" for form in FORMS), *_RELATED.values(), *_OPENINGS))
    return tuple(sorted(set(f"{verbs} {plain} a two three both the camera pans left right".split())))


# --- scenes -----------------------------------------------------------------------------------------------------------


class _Dice:
    """Uniform numbers of one clip: Philox is a counter, so that any clip is reached at once."""

    def __init__(self, seed: int, index: int, stream: int) -> None:
        mask = (1 << 64) - 1
        bits = np.random.Philox(key=(seed & mask) | ((index & mask) << 64), counter=stream << 192).random_raw(32)
        self.numbers: Iterator[float] = iter(((bits >> np.uint64(11)) * 2.0**-53).tolist())

    def within(self, low: float, high: float) -> float:
        return low + (high - low) * next(self.numbers)

    def below(self, n: int) -> int:
        return int(next(self.numbers) * n)

    def happens(self, probability: float) -> bool:
        return next(self.numbers) < probability


def scene_at(level: Level, seed: int, index: int, *, stream: int = 0) -> Scene:
    """Clip number `index` of a level's endless sequence.

    Args:
        level: one of `LEVELS`.
        seed: which sequence.
        index: which clip of it.
        stream: independent sequences under one seed.
    """
    dice = _Dice(seed, index, stream)
    if level == "easy":
        return _easy(dice)
    return _full(dice) if level == "full" else _default(dice)


def _easy(dice: _Dice) -> Scene:
    colour, form, motion = COLOURS[dice.below(5)], FORMS[dice.below(3)], MOTIONS[dice.below(6)]
    size, travel, cells = 5 / 32, 8 / 32, 8
    low_x, high_x, low_y, high_y = _room(REACH[form], size, motion, travel)
    x = math.ceil(low_x * cells) + dice.below(math.floor(high_x * cells) - math.ceil(low_x * cells) + 1)
    y = math.ceil(low_y * cells) + dice.below(math.floor(high_y * cells) - math.ceil(low_y * cells) + 1)
    return Scene(
        (Thing(colour, form, x / cells, y / cells, size),), motion, _travelled(motion, travel), Background(24.0)
    )


def _default(dice: _Dice, background: Background | None = None, pan: Pan | None = None) -> Scene:
    colour, form, motion = COLOURS[dice.below(5)], FORMS[dice.below(3)], MOTIONS[dice.below(6)]
    size = dice.within(0.19, 0.25) if motion == "grows" else dice.within(0.14, 0.22)
    travel = dice.within(0.24, 0.36)
    low_x, high_x, low_y, high_y = _room(REACH[form], size, motion, travel)
    thing = Thing(colour, form, dice.within(low_x, high_x), dice.within(low_y, high_y), size)
    ground, phrasing = background or _gradient(dice), _phrasing(dice)
    return Scene((thing,), motion, _travelled(motion, travel), ground, pan=pan, phrasing=phrasing)


def _full(dice: _Dice) -> Scene:
    pan: Pan | None = ("left", "right")[dice.below(2)] if dice.happens(0.3) else None
    level, phase, wave = dice.within(30, 50), dice.within(0, 1), dice.within(14, 24)
    background = Background(level, wave=wave, phase=phase) if pan else _gradient(dice)
    kind = dice.below(3)
    if kind == 0:
        return _default(dice, background, pan)
    return _several(dice, background, pan, pair=kind == 1)


def _several(dice: _Dice, background: Background, pan: Pan | None, *, pair: bool) -> Scene:
    """Two shapes of different colours side by side, or two or three alike in a row."""
    motion, first, form = MOTIONS[dice.below(6)], dice.below(5), FORMS[dice.below(3)]
    second, other_form = (first + 1 + dice.below(4)) % 5, FORMS[dice.below(3)]
    colours, forms, position = [COLOURS[first]] * 3, [form] * 3, None
    count = 2 + dice.below(2)
    across = dice.below(2) == 0
    if pair:
        position = RELATIONS[dice.below(4)]
        across = position in ("left of", "right of")
        count, colours[1], forms[1] = 2, COLOURS[second], other_form
    elif motion in ("left", "right", "up", "down"):
        across = motion in ("up", "down")  # a row moves broadside, or it would not fit
    size = dice.within(0.105, 0.125) if count == 2 else dice.within(0.095, 0.105)
    travel = dice.within(0.20, 0.24)
    gap = dice.within(2.75, 2.85) * size + 1.25 / 32
    x, y = _row(dice, size, motion, travel, gap * (count - 1), across)
    backwards = position in ("right of", "below")
    order = [count - 1 - k if backwards else k for k in range(count)]
    things = tuple(
        Thing(colours[k], forms[k], x + gap * place * across, y + gap * place * (not across), size)
        for k, place in enumerate(order)
    )
    return Scene(things, motion, _travelled(motion, travel), background, position, pan, _phrasing(dice))


def _row(dice: _Dice, size: float, motion: Motion, travel: float, length: float, across: bool) -> tuple[float, float]:
    """Where the first of a row starts, so that the last one fits in as well."""
    low_x, high_x, low_y, high_y = _room(_FARTHEST, size, motion, travel)
    return dice.within(low_x, high_x - length * across), dice.within(low_y, high_y - length * (not across))


def _gradient(dice: _Dice) -> Background:
    level, strength, angle = dice.within(14, 48), dice.within(6, 14), dice.within(0, 1)
    if dice.happens(0.5):
        return Background(level)
    return Background(level, strength * math.cos(math.tau * angle), strength * math.sin(math.tau * angle))


def _phrasing(dice: _Dice) -> int:
    return 0 if dice.happens(0.5) else dice.below(PHRASINGS)


def _travelled(motion: Motion, travel: float) -> float:
    return 0.0 if motion in ("still", "grows") else travel


def _room(
    reach: tuple[float, float, float, float], size: float, motion: Motion, travel: float
) -> tuple[float, float, float, float]:
    """Least and greatest x, then y, at which a shape may start so that it never leaves the picture."""
    dx, dy = (travel * d for d in DIRECTION[motion])
    left, right, up, down = (size * r for r in reach)
    return left - min(dx, 0), 1 - right - max(dx, 0), up - min(dy, 0), 1 - down - max(dy, 0)
