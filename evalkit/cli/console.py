"""A console on which data cannot act: names and texts of other people's files move no cursor and hide nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and line feed, marks that reorder text, and halves of characters."""


class SafeConsole(Console):
    """Shows a replacement character for each character that a terminal would obey instead of showing it.

    Colours and cursor movements of our own are no text: rich keeps them apart until it writes.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control or not _ACTS.search(text) else Segment(_ACTS.sub("\ufffd", text), style)
