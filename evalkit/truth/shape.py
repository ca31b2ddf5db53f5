"""Do the objects have the forms that the prompt names?"""

from __future__ import annotations

from evalkit.metrics.base import Example, MetricSpec
from evalkit.truth._facts import Scene, colours_seen, form_of, fraction, judge, of_colour, table
from evalkit.truth._objects import FEATURE
from evalkit.types import Array, Clip, Features, Score


def _verdict(objects_TKD: Array, scene: Scene) -> float:
    """Share of the things asked for whose form is right; of several, each is known by its colour."""
    seen, wanted = colours_seen(objects_TKD), scene["objects"]
    if not seen:
        return 0.0
    if len(wanted) == 1:  # whatever its colour: that is another metric's business
        return fraction(form_of(objects_TKD, of_colour(objects_TKD, seen[0])) == wanted[0]["shape"])
    named = [thing for thing in wanted if thing["colour"] in seen]
    right = [form_of(objects_TKD, of_colour(objects_TKD, thing["colour"])) == thing["shape"] for thing in named]
    return float(sum(right) / len(wanted))


def score(clip: Clip, features: Features) -> Score:
    return judge(clip, features, "objects", _verdict)


_DISC = (0.1, 0, 0.5, 0.5, 0.01, 0.05, 0.09)
_BLUE_SQUARE = (0.1, 2, 0.5, 0.5, 0.05, 0.01, 0.09)
_CIRCLE = {"colour": "red", "shape": "circle"}
_TRIANGLE = {"colour": "blue", "shape": "triangle"}

METRIC = MetricSpec(
    name="truth/shape",
    version=1,
    title="Shape (truth)",
    summary="Share of the prompt's shapes that the clip's objects have: the outlines that explain their pixels best.",
    features=(FEATURE,),
    score=score,
    source="Coloured pixels before a smooth grey background, as the world of shapes has them.",
    reads_prompt=True,
    fact="objects",
    examples=(
        Example({FEATURE.name: table((_DISC,))}, 1.0, auxiliary={"scene": {"objects": [_CIRCLE]}}),
        Example({FEATURE.name: table((_DISC,))}, 0.0, auxiliary={"scene": {"objects": [_TRIANGLE]}}),
        Example(
            {FEATURE.name: table((_DISC, _BLUE_SQUARE))}, 0.5, auxiliary={"scene": {"objects": [_CIRCLE, _TRIANGLE]}}
        ),
    ),
)
