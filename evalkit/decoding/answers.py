"""What the child says, checked: it is the process that hostile files are opened in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from evalkit.decoding.wire import Garbled, Message
from evalkit.types import VideoInfo
from evalkit.video import MAX_FRAMES, MAX_PIXELS

MAX_REASON, MAX_NAME = 400, 64


@dataclass(frozen=True, slots=True)
class Hello:
    """The child is up."""


@dataclass(frozen=True, slots=True)
class Begun:
    """It works on this task now."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A chunk lies in a slot."""

    slot: int
    opencv: bool
    scaled: bool


@dataclass(frozen=True, slots=True)
class Skipped:
    """A chunk that had been delivered before has been decoded again."""


@dataclass(frozen=True, slots=True)
class Probed:
    info: VideoInfo


@dataclass(frozen=True, slots=True)
class Refused:
    """The file is no video, or not a whole one."""

    reason: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Memory ran out."""


@dataclass(frozen=True, slots=True)
class Done:
    """The task has ended: all frames have been delivered, or there is nothing else to do."""


Answer = Hello | Begun | Filled | Skipped | Probed | Refused | TooLarge | Done


def parse(message: Message) -> tuple[int, Answer]:
    """The task that an answer belongs to, and the answer.

    Raises:
        Garbled: it is none.
    """
    return _integer(message.get("task"), 0, 2**53), _answer(message)


def _answer(message: Message) -> Answer:
    match message.get("says"):
        case "hello":
            return Hello()
        case "begun":
            return Begun()
        case "filled":
            slot = _integer(message.get("slot"), 0, 2**16)
            return Filled(slot, message.get("opencv") is True, message.get("scaled") is True)
        case "skipped":
            return Skipped()
        case "probed":
            return Probed(_info(message.get("info")))
        case "refused":
            return Refused(_text(message.get("reason"), MAX_REASON))
        case "too large":
            return TooLarge()
        case "done":
            return Done()
        case _:
            raise Garbled


def _info(facts: Any) -> VideoInfo:
    if not isinstance(facts, dict):
        raise Garbled
    width, height = (_integer(facts.get(name), 1, MAX_PIXELS) for name in ("width", "height"))
    rotation = _integer(facts.get("rotation"), 0, 270)
    fps = facts.get("fps")
    if width * height > MAX_PIXELS or rotation % 90 or not isinstance(fps, int | float) or not 0 <= fps < math.inf:
        raise Garbled
    return VideoInfo(
        width=width,
        height=height,
        n_frames=_integer(facts.get("n_frames"), 1, MAX_FRAMES),
        fps=float(fps),
        codec=_text(facts.get("codec"), MAX_NAME),
        pixel_format=_text(facts.get("pixel_format"), MAX_NAME),
        rotation=rotation,
    )


def _integer(value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Garbled
    return value


def _text(value: Any, limit: int) -> str:
    """Only what can be shown: a terminal obeys control characters."""
    if not isinstance(value, str):
        raise Garbled
    return "".join(c if c.isprintable() else "?" for c in value[:limit])
