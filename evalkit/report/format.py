"""How numbers and names are written on the page."""

from __future__ import annotations

from datetime import UTC, datetime

NO_VALUE = "–"


def percent(fraction: float | None) -> str:
    """A raw fraction as papers print it: percent, two decimals, without the sign (the column names the unit)."""
    return NO_VALUE if fraction is None else points(100 * fraction)


def points(value: float | None) -> str:
    """A figure that is in percent already, with two decimals."""
    return NO_VALUE if value is None else f"{value:.2f}"


def change(fraction: float | None) -> str:
    """A difference of raw fractions in percentage points, signed."""
    return NO_VALUE if fraction is None else f"{100 * fraction:+.2f}".replace("-", "−")


def count(n: int, noun: str, plural: str | None = None) -> str:
    """`1 video`, `2 videos`, `1,000 videos`."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def title(dimension: str) -> str:
    """What the page calls a dimension: `lite/subject_consistency` is `Subject consistency (lite)`."""
    name = dimension.removeprefix("lite/").replace("_", " ").capitalize()
    return f"{name} (lite)" if dimension.startswith("lite/") else name


def moment(timestamp: str) -> str:
    """An ISO 8601 time to the minute, in UTC: `2026-03-01 09:41 UTC`."""
    return f"{datetime.fromisoformat(timestamp).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
