"""How numbers and names are written on the page."""

from __future__ import annotations

from datetime import UTC, datetime
from math import floor, log10

NO_VALUE = "–"


def percent(fraction: float | None) -> str:
    """A raw fraction as papers print it: percent, two decimals, without the sign (the column names the unit)."""
    return NO_VALUE if fraction is None else points(100 * fraction)


def points(value: float | None) -> str:
    """A figure that is in percent already, with two decimals."""
    return NO_VALUE if value is None else f"{value:.2f}"


def change(fraction: float | None) -> str:
    """A difference of raw fractions in percentage points, signed."""
    return NO_VALUE if fraction is None else f"{100 * fraction:+z.2f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """Three decimals; what is smaller is called so."""
    return NO_VALUE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(n: int, noun: str, plural: str | None = None) -> str:
    """`1 video`, `2 videos`, `1,000 videos`."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def significant(value: float | None, digits: int = 4) -> str:
    """`digits` significant figures without an exponent: `0.01234`, `55.44`, `12,346`; the column names the unit."""
    if value is None:
        return NO_VALUE
    if value == 0:
        return "0"
    return f"{value:,.{max(0, digits - 1 - floor(log10(abs(float(f'{value:.{digits - 1}e}')))))}f}"


def whole(n: int | None) -> str:
    """A count with thousands separated."""
    return NO_VALUE if n is None else f"{n:,}"


def relative(fraction: float | None) -> str:
    """A relative deviation in percent, signed, one decimal; the column names the unit."""
    return NO_VALUE if fraction is None else f"{100 * fraction:+.1f}".replace("-", "−")


def parameters(n: float | None) -> str:
    """Millions of parameters; the column names the unit."""
    return NO_VALUE if n is None else significant(n / 1e6)


def gib(n_bytes: float | None) -> str:
    """Bytes in GiB (2^30); the column names the unit."""
    return NO_VALUE if n_bytes is None else significant(n_bytes / 2**30, 3)


def title(dimension: str) -> str:
    """What the page calls a dimension: `lite/subject_consistency` is `Subject consistency (lite)`."""
    kind, _, name = dimension.rpartition("/")
    return name.replace("_", " ").capitalize() + (f" ({kind})" if kind else "")


def moment(timestamp: str) -> str:
    """An ISO 8601 time to the minute, in UTC: `2026-03-01 09:41 UTC`; what is no such time as it stands."""
    try:
        return f"{datetime.fromisoformat(timestamp).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return timestamp
