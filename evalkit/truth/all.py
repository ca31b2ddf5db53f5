"""Is everything right that the prompt says?"""

from __future__ import annotations

from evalkit.metrics.base import Example, MetricSpec
from evalkit.truth import colour, count, motion, position, shape
from evalkit.truth._facts import table
from evalkit.truth._objects import FEATURE
from evalkit.types import Clip, Features, Score

PARTS = (colour.METRIC, shape.METRIC, count.METRIC, position.METRIC, motion.METRIC)


def score(clip: Clip, features: Features) -> Score:
    """1 if every fact that the prompt states is seen in full, else 0; unscored if it states none."""
    found = [part.score(clip, features) for part in PARTS]
    values = [score.value for score in found if score.value is not None]
    return Score(float(all(value == 1 for value in values))) if values else found[0]


_RED_DISC = (0.1, 0, 0.5, 0.5, 0.01, 0.05, 0.09)
_STILL = table(*[(_RED_DISC,)] * 4)


def _scene(colour: str, motion: str) -> dict[str, object]:
    return {"scene": {"objects": [{"colour": colour, "shape": "circle"}], "motion": motion}}


METRIC = MetricSpec(
    name="truth/all",
    version=1,
    title="Everything right (truth)",
    summary="1 if all that the prompt says of colours, shapes, number, places and motion is seen in full, else 0.",
    features=(FEATURE,),
    score=score,
    source="Coloured pixels before a smooth grey background, as the world of shapes has them.",
    reads_prompt=True,
    fact="objects",
    examples=(
        Example({FEATURE.name: _STILL}, 1.0, auxiliary=_scene("red", "still")),
        Example({FEATURE.name: _STILL}, 0.0, auxiliary=_scene("red", "left")),
        Example({FEATURE.name: _STILL}, 0.0, auxiliary=_scene("blue", "still")),
    ),
)
