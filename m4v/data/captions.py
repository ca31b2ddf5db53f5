"""Captions as people keep them: a text file beside the video, a JSON file beside it, or one manifest for all."""

from __future__ import annotations

import json
from typing import Any

CAPTION_KEYS = ("caption", "prompt", "text")
CAPTION_SUFFIXES = (".txt", ".json")
MOST_BYTES = 1_000_000
"""Of one caption."""


def caption_in(suffix: str, data: bytes, name: str) -> str:
    """The caption in a file's bytes; empty if it holds none.

    Raises:
        ValueError: not UTF-8, or not JSON; names it.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"{name} has more than {MOST_BYTES:,} bytes: that is no caption")
    try:
        text = data.decode("utf-8-sig")
        return text.strip() if suffix == ".txt" else caption_of(record_in(text))
    except ValueError as e:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{name} cannot be read as a caption ({e})") from e


def record_in(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, nested too deeply, or with halves of characters.
    """
    try:
        record = json.loads(text)
        json.dumps(record, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return record


def caption_of(record: Any) -> str:
    """The caption in a JSON record under one of `CAPTION_KEYS`; empty if there is none."""
    if not isinstance(record, dict):
        return ""
    return next((str(record[key]).strip() for key in CAPTION_KEYS if record.get(key)), "")
