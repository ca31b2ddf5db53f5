"""Are both objects that the prompt asks for in the picture together?"""

from __future__ import annotations

from evalkit.backbones.detections import FRAMES, detections
from evalkit.backbones.features import GRIT_OBJECTS
from evalkit.metrics._detections import frame_mean, names_by_frame
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Clip, Features, Score

BETWEEN = " and "


def score(clip: Clip, features: Features) -> Score:
    asked = clip.auxiliary["multiple_objects"]["object"]
    if BETWEEN not in asked:
        return Score.missing(f"{asked!r} names no two objects: they are written as 'bird and cat'")
    wanted = {name.strip() for name in asked.split(BETWEEN)}
    return frame_mean(wanted <= names for names in names_by_frame(features[GRIT_OBJECTS.name]))


BOX = (10.0, 10.0, 50.0, 40.0)
# Birds in eight frames, cats in four, both in the two frames 6 and 7.
SEEN = detections(
    [(frame, BOX, 0.9, "bird", "bird") for frame in range(8)]
    + [(frame, BOX, 0.8, "cat", "cat") for frame in range(6, 10)]
)

METRIC = MetricSpec(
    name="multiple_objects",
    version=1,
    title="Multiple objects",
    summary=f"Share of {FRAMES} frames in which GRiT finds both objects that the prompt asks for.",
    features=(GRIT_OBJECTS,),
    score=score,
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/multiple_objects.py",
    pooling="frames",
    reads_prompt=True,
    auxiliary=("object",),
    quirks=(
        "Both must be in one frame: a clip that shows one object after the other scores 0.",
        "Names must be equal letter by letter, as in object_class.",
        "The official package stops at prompts of three or more objects; here all of them must be found.",
    ),
    examples=(
        Example({GRIT_OBJECTS.name: SEEN}, 0.125, auxiliary={"multiple_objects": {"object": "bird and cat"}}),
        Example({GRIT_OBJECTS.name: SEEN}, 0.0, auxiliary={"multiple_objects": {"object": "bird and dog"}}),
    ),
)
