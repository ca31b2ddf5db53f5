"""How the official package writes one video's result in each dimension: unit, type, and the counts beside it.

Ours are fractions throughout; its are fractions, percent (imaging quality) or true and false (dynamic degree, human
action). Where a dimension is averaged over frames, most of its records say over how many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evalkit.metrics.base import Pooling

SLACK = 1e-6
"""What float32 cosines may be beyond their bounds, and a rate beside the counts that it is said to come from."""


@dataclass(frozen=True, slots=True)
class Form:
    """One dimension in the official files.

    Args:
        unit: of `video_results`; the dimension's own score is always a fraction.
        pooling: what the dimension's score averages on one GPU.
        low: smallest fraction there can be.
        high: largest fraction there can be.
        version: of our metric of that name, whose numbers are the official ones.
    """

    unit: Literal["fraction", "percent", "flag"] = "fraction"
    pooling: Pooling = "videos"
    low: float = 0.0
    high: float = 1.0
    version: int = 1


FORMS: Mapping[str, Form] = {
    "subject_consistency": Form(pooling="frames"),
    "background_consistency": Form(pooling="frames"),
    "temporal_flickering": Form(),
    "motion_smoothness": Form(),
    "dynamic_degree": Form("flag"),
    "aesthetic_quality": Form(low=-1.0, high=2.0),  # these two networks may leave their scale, and are not clipped
    "imaging_quality": Form("percent", low=-1.0, high=2.0),
    "object_class": Form(pooling="frames"),
    "multiple_objects": Form(pooling="frames"),
    "human_action": Form("flag"),
    "color": Form(),
    "spatial_relationship": Form(pooling="frames"),
    "scene": Form(pooling="frames"),
    "appearance_style": Form(pooling="frames", low=-1.0),
    "temporal_style": Form(low=-1.0),
    "overall_consistency": Form(low=-1.0),
}


def record(dimension: str, path: str, value: float, n_terms: int | None) -> dict[str, Any]:
    """One video's record as the package writes it.

    Lists of single frames are left out, as a run does not keep them; where the package gives only those, or nothing,
    the number of terms is added under the name it has in other dimensions, so that the score can be pooled again.

    Args:
        dimension: its official name.
        path: what to call the video.
        value: its score, a fraction.
        n_terms: frames or frame pairs averaged into it; None if unknown.
    """
    return {"video_path": path, "video_results": _in_unit(dimension, value), **_counts(dimension, value, n_terms)}


def _in_unit(dimension: str, value: float) -> float | bool:
    unit = FORMS[dimension].unit
    if unit == "flag":
        return bool(value)
    return 100.0 * value if unit == "percent" else value


def _counts(dimension: str, value: float, n_terms: int | None) -> dict[str, float]:
    if dimension == "human_action":
        return {"cor_num_per_video": int(value)}
    if dimension == "color":
        return {"cur_success_frame_rate": value}
    if n_terms is None or FORMS[dimension].pooling == "videos":
        return {}
    if dimension == "background_consistency":
        return {"video_sim": value * n_terms, "cnt_per_video": n_terms}
    if dimension == "subject_consistency":
        return {"cnt_per_video": n_terms}
    hits = {} if _counts_no_hits(dimension) else {"success_frame_count": round(value * n_terms)}
    return {**hits, "frame_count": n_terms}


def _counts_no_hits(dimension: str) -> bool:
    return dimension in ("spatial_relationship", "appearance_style")


class BadRecordError(ValueError):
    """A record that the package cannot have written; says what is wrong with it."""


def fraction(dimension: str, value: object, *, of_video: bool) -> float:
    """A score as the package writes it, as a fraction.

    Args:
        dimension: its official name.
        value: a video's `video_results`, or the dimension's score.
        of_video: which of the two; only videos have other units than fractions.

    Raises:
        BadRecordError: no number, not finite, or outside what the dimension can give.
    """
    form = FORMS[dimension]
    flag = of_video and form.unit == "flag"
    if isinstance(value, bool) and flag:
        return float(value)
    x = _number(value) / (100.0 if of_video and form.unit == "percent" else 1.0)
    if flag and x not in (0.0, 1.0):
        raise BadRecordError(f"is {value!r}, neither true nor false")
    if not form.low - SLACK <= x <= form.high + SLACK:
        scale = 100 if of_video and form.unit == "percent" else 1
        raise BadRecordError(f"is {value!r}, outside {scale * form.low:g} to {scale * form.high:g}")
    return x


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecordError(f"is {value!r}, not a number")
    try:
        x = float(value)
    except OverflowError:
        x = math.inf
    if not math.isfinite(x):
        raise BadRecordError(f"is {x}")
    return x


def terms(entry: Mapping[str, Any], value: float) -> int | None:
    """Over how many frames (or frame pairs) a record's value was averaged; None if it does not say.

    Raises:
        BadRecordError: a count that is none, or that contradicts the value.
    """
    for key in ("cnt_per_video", "frame_count"):
        if key in entry:
            n = _count(entry, key)
            if n == 0:
                raise BadRecordError(f"has {key} 0")
            if "success_frame_count" in entry and abs(_count(entry, "success_frame_count") / n - value) > SLACK:
                raise BadRecordError(f"says {entry['success_frame_count']} of {n} frames, but {value:g}")
            return n
    frames = entry.get("frame_results")
    return len(frames) if isinstance(frames, list) and frames else None


def _count(entry: Mapping[str, Any], key: str) -> int:
    n = entry[key]
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise BadRecordError(f"has {key} {n!r}")
    return n


def last_frame(entry: Mapping[str, Any]) -> float | None:
    """The score of a video's last frame, which appearance style averages on several GPUs; None if not recorded."""
    return None if "cur_sim" not in entry else fraction("appearance_style", entry["cur_sim"], of_video=True)
