"""Does the object have the colour that the prompt asks for?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evalkit.backbones.detections import FRAMES, detections
from evalkit.backbones.features import GRIT_CAPTIONS
from evalkit.metrics._detections import by_frame
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Clip, Features, Score

COLOURS = ("white", "red", "pink", "blue", "silver", "purple", "orange", "green", "gray", "grey", "yellow", "black")
"""What counts as a colour in a description."""


def score(clip: Clip, features: Features) -> Score:
    asked = clip.auxiliary["color"]
    wanted, colour = asked["object"], asked["color"]
    coloured = right = 0
    for rows in by_frame(features[GRIT_CAPTIONS.name]):
        texts = rows["text"][rows["object"] == wanted].tolist()
        coloured += _any_in((*COLOURS, colour), texts)
        right += _any_in((colour,), texts)
    if not coloured:
        return Score.missing(
            f"no frame whose first detection is {wanted!r} has a description that names a colour; officially such a"
            " clip does not count either"
        )
    return Score(right / coloured, n_terms=coloured)


def _any_in(colours: Iterable[str], texts: Iterable[str]) -> bool:
    return any(colour in text for text in texts for colour in colours)


def read_text(text: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object is what is left of the prompt's sentence without articles and colour; the official list lacks it."""
    if "object" in entry or not isinstance(entry.get("color"), str):
        return entry
    return {**entry, "object": text.replace("a ", "").replace("an ", "").replace(entry["color"], "").strip()}


BOX = (10.0, 10.0, 50.0, 40.0)
# Frame 0: right. Frame 1: another colour. Frame 2: no colour. Frame 3: "red" is in "tired". Frame 4: another object
# comes first. Two of the three frames that count are red.
SEEN = detections(
    [
        (0, BOX, 0.9, "car", "a red car"),
        (0, BOX, 0.8, "car", "green grass"),
        (1, BOX, 0.9, "car", "a blue car"),
        (2, BOX, 0.9, "car", "a car"),
        (3, BOX, 0.9, "car", "a tired driver"),
        (4, BOX, 0.9, "person", "a person in a red car"),
    ]
)

METRIC = MetricSpec(
    name="color",
    version=1,
    title="Color",
    summary=f"Share of the right colour among those of {FRAMES} frames in which GRiT finds the object and any colour.",
    features=(GRIT_CAPTIONS,),
    score=score,
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/color.py",
    reads_prompt=True,
    auxiliary=("color", "object"),
    read_text=read_text,
    quirks=(
        "The object must be the frame's first detection, the most certain one: of every detection the official code"
        " reads the first one's name. The colour may then stand in the description of any other.",
        "A colour is found inside other words: `red` in `tired` and `covered`.",
        "Clips without a frame that has the object and a colour are left out of the mean, officially too: a model that"
        " draws few objects of clear colours is judged by those.",
        "`gray` and `grey` are both colours, but a prompt's `gray` is not found in `grey`.",
        "A prompt may ask for a colour that the official list lacks: it then counts as one. Officially such a clip can"
        " score above 1.",
        "Descriptions of larger frames are made of pixels scaled without antialiasing, names in the other three"
        " dimensions with it.",
    ),
    examples=(
        Example({GRIT_CAPTIONS.name: SEEN}, 2 / 3, auxiliary={"color": {"color": "red", "object": "car"}}),
        Example({GRIT_CAPTIONS.name: SEEN}, 1.0, auxiliary={"color": {"color": "red", "object": "person"}}),
        Example({GRIT_CAPTIONS.name: SEEN}, 1 / 3, auxiliary={"color": {"color": "green", "object": "car"}}),
    ),
)
