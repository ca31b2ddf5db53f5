"""What a prompt says must be seen, and what a clip's objects say was seen.

A prompt's `auxiliary: {"scene": {...}}` holds `objects` (a list of `{"colour", "shape"}`; alike things stand once),
`motion`, `count` and `position` (of the first object relative to the second); what is left out is not scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from evalkit.truth._objects import COLOURS, COLUMNS, FEATURE, FORMS, SLOTS, Floats
from evalkit.types import Array, Clip, Features, Score

SEEN_IN = 0.5  # share of the frames in which something must be seen to be there
OF_LARGEST = 0.25  # share of the largest object's area from which another one counts
GREATEST_AREA = 0.45  # share of the frame up to which something stands before a background
UNLIKE = 0.6  # misfit of the best form, in the object's area, from which it has no form at all

MOVES = 0.10  # picture widths (heights) over the clip, from which something moves
STEADY = 0.05  # spread about the place (standard deviation) up to which something stays still
STRAIGHT = 0.6  # share of the variance that a straight line must explain for something to move
ONE_WAY = 1.5  # how much farther it must go along one axis than along the other
GROWS = 1.35  # last size by first, from which something grows
TRACKED_IN = 0.7  # share of the frames in which something must be seen for its motion to be told

_AREA, _COLOUR, _X, _Y, _FORMS = 0, 1, 2, 3, slice(4, 4 + len(FORMS))


Scene = Mapping[str, Any]


def judge(clip: Clip, features: Features, fact: str, verdict: Callable[[Array, Scene], float]) -> Score:
    """Score a clip by `verdict(objects_TKD, scene)`; unscored if the prompt states no such fact."""
    scene = clip.auxiliary.get("scene")
    if not isinstance(scene, Mapping):
        return Score.missing("the prompt comes without a scene to compare with")
    if not scene.get(fact):
        return Score.missing(f"the prompt's scene does not state {fact}")
    return Score(verdict(features[FEATURE.name], scene))


def fraction(*true: bool) -> float:
    """How many of these are true."""
    return sum(true) / len(true)


def present(objects_TKD: Array) -> Array:
    """Which slots hold an object: compact, before a background, not tiny beside the frame's largest: `(T, K)`."""
    area_TK = objects_TKD[..., _AREA]
    compact_TK = objects_TKD[..., _FORMS].min(axis=-1) < UNLIKE
    area_TK = np.where(compact_TK & (area_TK <= GREATEST_AREA), area_TK, 0)
    return np.asarray((area_TK > 0) & (area_TK >= OF_LARGEST * area_TK.max(axis=1, keepdims=True)))


def colours_seen(objects_TKD: Array) -> list[str]:
    """The colours seen in at least half of the frames, the largest first."""
    there_TK = present(objects_TKD)
    weight = {}
    for number, name in enumerate(COLOURS):
        of_TK = there_TK & (objects_TKD[..., _COLOUR] == number)
        if of_TK.any(axis=1).mean() >= SEEN_IN:
            weight[name] = float(objects_TKD[..., _AREA][of_TK].sum())
    return sorted(weight, key=lambda name: -weight[name])


def of_colour(objects_TKD: Array, colour: str) -> Array:
    """Which slots hold objects of a colour: `(T, K)`."""
    return np.asarray(present(objects_TKD) & (objects_TKD[..., _COLOUR] == list(COLOURS).index(colour)))


def form_of(objects_TKD: Array, which_TK: Array) -> str | None:
    """The form that explains these objects best over the whole clip; None if there are none."""
    rows_ND = objects_TKD[which_TK]
    if not len(rows_ND):
        return None
    return FORMS[int((rows_ND[:, _FORMS] * rows_ND[:, _AREA, None]).sum(axis=0).argmin())]


def count_of(objects_TKD: Array) -> int:
    """The number of objects in most frames (their median)."""
    return round(float(np.median(present(objects_TKD).sum(axis=1))))


def centre(objects_TKD: Array, which_TK: Array) -> Floats:
    """Mean place `(x, y)` of these objects in every frame, weighted by area: `(T, 2)`, NaN where there are none."""
    weight_TK = np.where(which_TK, objects_TKD[..., _AREA], 0)
    with np.errstate(invalid="ignore"):
        place_T2: Floats = (
            np.einsum("tk,tkc->tc", weight_TK, objects_TKD[..., [_X, _Y]]) / weight_TK.sum(axis=1)[:, None]
        )
    return place_T2


def motion_of(objects_TKD: Array) -> str | None:
    """What the objects do together: `left`, `right`, `up`, `down`, `still`, `grows`; None if it is none of these."""
    there_TK = present(objects_TKD)
    seen_T = np.asarray(there_TK.any(axis=1))
    if seen_T.mean() < TRACKED_IN or seen_T.sum() < 3:
        return None
    time_N = np.flatnonzero(seen_T) / (len(seen_T) - 1)
    place_N2 = centre(objects_TKD, there_TK)[seen_T]
    size_N = np.sqrt(np.where(there_TK, objects_TKD[..., _AREA], 0).sum(axis=1)[seen_T])
    return _moving(time_N, place_N2) or _staying(time_N, place_N2, size_N)


def _moving(time_N: Floats, place_N2: Floats) -> str | None:
    travel_2, line_N2 = _line(time_N, place_N2)
    axis = int(np.abs(travel_2).argmax())
    far, aside = float(travel_2[axis]), float(abs(travel_2[1 - axis]))
    unexplained = ((place_N2 - line_N2) ** 2).sum() / max(((place_N2 - place_N2.mean(axis=0)) ** 2).sum(), 1e-12)
    if abs(far) < MOVES or abs(far) < ONE_WAY * aside or unexplained > 1 - STRAIGHT:
        return None
    return (("left", "right"), ("up", "down"))[axis][far > 0]


def _staying(time_N: Floats, place_N2: Floats, size_N: Floats) -> str | None:
    if place_N2.std(axis=0).max() > STEADY:
        return None
    _, line_N1 = _line(time_N, size_N[:, None])
    first, last = float(line_N1[0, 0]), float(line_N1[-1, 0])
    if last > GROWS * first:
        return "grows"
    return "still" if last > first / GROWS else None


def _line(time_N: Floats, value_ND: Floats) -> tuple[Floats, Floats]:
    """Least-squares line: its rise over the whole clip, and its values."""
    centred_N = time_N - time_N.mean()
    slope_D = centred_N @ value_ND / (centred_N @ centred_N)
    return slope_D, value_ND.mean(axis=0) + centred_N[:, None] * slope_D


def table(*frames: tuple[tuple[float, ...], ...]) -> Array:
    """Objects by hand, for worked examples: frames of `(area, colour number, x, y, *misfits)`, `(T, K, D)`."""
    objects_TKD = np.zeros((len(frames), SLOTS, len(COLUMNS)))
    for frame_KD, rows in zip(objects_TKD, frames, strict=True):
        frame_KD[: len(rows)] = rows
    return objects_TKD
