"""Matplotlib figures as inline SVG that takes its colours and font from the page.

Figures are drawn in place-holder colours, which become CSS values here, so one drawing serves light and dark. One unit
of a figure is one CSS pixel. Style attributes become presentation attributes: the page's policy forbids the former.
"""

from __future__ import annotations

import io
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evalkit.report.view import N_COLOURS

INK, MUTED, RULE, PAPER = "#000000", "#010101", "#020202", "#030303"
_CSS = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)", PAPER: "var(--paper)"} | {
    f"#1010{i:02x}": f"var(--series-{i})" for i in range(N_COLOURS)
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, and set in the reader's own font
    "svg.id": None,
    "text.parse_math": False,  # a `$` in a name is a dollar
    "font.size": 12,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "text.color": INK,
}


def series(place: int) -> str:
    """The place-holder of a series colour."""
    return f"#1010{place:02x}"


def axes(width: int, height: int, left: int, right: int, top: int = 4, bottom: int = 24) -> tuple[Figure, Axes]:
    """An empty figure of `width` x `height` pixels, with axes inside the given margins and only a bottom line."""
    with rc_context(_SETTINGS):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        ax = figure.add_axes(box)
        ax.spines[["left", "top", "right"]].set_visible(False)
        ax.tick_params(length=0, labelsize=12)
        ax.patch.set_visible(False)
    return figure, ax


def write_beside(ax: Axes, y: float, text: str) -> None:
    """Write a figure to the right of a row, outside of the axes."""
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    ax.annotate(text, (1, y), (8, 0), va="center", fontsize=12, annotation_clip=False, **place)


def markup(figure: Figure, label: str, css_class: str = "") -> Markup:
    """The figure as an `<svg>` element with an accessible name; the same figure gives the same text.

    `label` also keeps the ids of several figures on one page apart.
    """
    buffer = io.StringIO()
    with rc_context({**_SETTINGS, "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = ElementTree.fromstring(buffer.getvalue())
    values = [value for element in drawn.iter() for value in element.attrib.values()]
    used = {value.rpartition("#")[2].rstrip(")") for value in values if "#" in value}
    for element in drawn.iter():
        _make_inline(element, used)
    for name in ("metadata", "defs/style"):
        _remove(drawn, name)
    root = ElementTree.Element("svg", {"class": f"plot {css_class}".strip(), "viewBox": drawn.attrib["viewBox"]})
    # Matplotlib leaves out fills that are black, the default of SVG: here the default is the ink.
    root.attrib |= {
        "role": "img",
        "aria-label": label,
        "fill": "currentColor",
        "stroke-linejoin": "round",
        "width": drawn.attrib["width"],
    }
    root.extend(drawn)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _make_inline(element: ElementTree.Element, used: set[str]) -> None:
    """Drop namespaces and unused ids, and turn the style attribute into presentation attributes."""
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if element.get("id") not in used:
        element.attrib.pop("id", None)
    for declaration in filter(None, map(str.strip, element.attrib.pop("style", "").split(";"))):
        key, value = map(str.strip, declaration.split(":", 1))
        if key == "font":  # "12px 'DejaVu Sans', ...": the family is the page's
            key, value = "font-size", value.split()[0]
        element.set(key, _CSS.get(value, value))


def _remove(root: ElementTree.Element, path: str) -> None:
    parent = root.find(path.rpartition("/")[0] or ".")
    child = root.find(path)
    if parent is not None and child is not None:
        parent.remove(child)
