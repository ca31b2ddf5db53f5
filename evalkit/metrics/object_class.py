"""Is the object that the prompt asks for in the picture?"""

from __future__ import annotations

from evalkit.backbones.detections import FRAMES, detections
from evalkit.backbones.features import GRIT_OBJECTS
from evalkit.metrics._detections import frame_mean, names_by_frame
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Clip, Features, Score


def score(clip: Clip, features: Features) -> Score:
    wanted = clip.auxiliary["object_class"]["object"]
    return frame_mean(wanted in names for names in names_by_frame(features[GRIT_OBJECTS.name]))


BOX = (10.0, 10.0, 50.0, 40.0)
# In the first four frames a dog, in two of them a person too: 2/16 and 4/16.
SEEN = detections(
    [(frame, BOX, 0.9, "dog", "dog") for frame in range(4)]
    + [(frame, BOX, 0.8, "person", "person") for frame in (1, 2)]
)

METRIC = MetricSpec(
    name="object_class",
    version=1,
    title="Object class",
    summary=f"Share of {FRAMES} frames in which GRiT finds an object of the name that the prompt asks for.",
    features=(GRIT_OBJECTS,),
    score=score,
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/object_class.py",
    pooling="frames",
    reads_prompt=True,
    auxiliary=("object",),
    quirks=(
        "Names must be equal letter by letter; GRiT writes them freely, so `tv` and `television` are two objects.",
        "A frame that the official detector fails on counts, officially, as one without objects; here the clip is"
        " unscored, with the failure.",
    ),
    examples=(
        Example({GRIT_OBJECTS.name: SEEN}, 0.125, auxiliary={"object_class": {"object": "person"}}),
        Example({GRIT_OBJECTS.name: SEEN}, 0.25, auxiliary={"object_class": {"object": "dog"}}),
        Example({GRIT_OBJECTS.name: detections([])}, 0.0, auxiliary={"object_class": {"object": "dog"}}),
    ),
)
