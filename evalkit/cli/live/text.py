"""What a watched run is written with: durations, rates, and lines that fit."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

MINUTE, HOUR, DAY = 60, 3600, 86400
DOTS = "..."


def fitted(text: str, width: int) -> str:
    """The text in at most `width` terminal columns; what is too long loses its middle, as names differ at both ends."""
    if cell_len(text) <= width:
        return text
    if width <= len(DOTS):
        return DOTS[: max(width, 0)]
    tail = (width - len(DOTS)) // 3
    head = set_cell_size(text, width - len(DOTS) - tail).rstrip()
    return head + DOTS + _end(text, tail)


def _end(text: str, width: int) -> str:
    """The longest end of the text that fits."""
    cells = 0
    for start in range(len(text) - 1, -1, -1):
        cells += cell_len(text[start])
        if cells > width:
            return text[start + 1 :]
    return text


def duration(seconds: float | None) -> str:
    """`0:07`, `12:34`, `5:06:07` or `2d 03:04:05`; dashes where it is not known."""
    if seconds is None:
        return "-:--"
    whole = round(seconds)
    days, (hours, rest) = whole // DAY, divmod(whole % DAY, HOUR)
    minutes = f"{rest // MINUTE:02}:{rest % MINUTE:02}"
    if days:
        return f"{days}d {hours:02}:{minutes}"
    return f"{hours}:{minutes}" if hours else minutes.removeprefix("0")


def pace(per_second: float | None) -> str:
    """A rate in the unit in which it is a number to read: a second, a minute or an hour."""
    if per_second is None:
        return "-/s"
    for factor, unit in ((1, "s"), (MINUTE, "min"), (HOUR, "h")):
        if per_second * factor >= 1 or unit == "h":
            return f"{_three_digits(per_second * factor)}/{unit}"
    raise AssertionError("an hour is the last unit")


def _three_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 99.95 else f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"
