"""Are the colours there that the prompt names?"""

from __future__ import annotations

from evalkit.metrics.base import Example, MetricSpec
from evalkit.truth._facts import Scene, colours_seen, fraction, judge, table
from evalkit.truth._objects import FEATURE
from evalkit.types import Array, Clip, Features, Score


def _verdict(objects_TKD: Array, scene: Scene) -> float:
    """Share of the colours asked for among as many of the largest ones seen."""
    wanted = [thing["colour"] for thing in scene["objects"]]
    seen = colours_seen(objects_TKD)[: len(wanted)]
    return fraction(*(colour in seen for colour in wanted))


def score(clip: Clip, features: Features) -> Score:
    return judge(clip, features, "objects", _verdict)


_BLUE_DISC = (0.1, 2, 0.5, 0.5, 0.01, 0.05, 0.09)
_RED_DISC = (0.1, 0, 0.2, 0.5, 0.01, 0.05, 0.09)
_RED = {"objects": [{"colour": "red", "shape": "circle"}]}
_RED_AND_GREEN = {"objects": [*_RED["objects"], {"colour": "green", "shape": "circle"}]}

METRIC = MetricSpec(
    name="truth/colour",
    version=1,
    title="Colour (truth)",
    summary="Share of the prompt's colours that the clip's largest coloured objects have, told from their pixels.",
    features=(FEATURE,),
    score=score,
    source="Coloured pixels before a smooth grey background, as the world of shapes has them.",
    reads_prompt=True,
    fact="objects",
    examples=(
        Example({FEATURE.name: table((_RED_DISC,))}, 1.0, auxiliary={"scene": _RED}),
        Example({FEATURE.name: table((_BLUE_DISC,))}, 0.0, auxiliary={"scene": _RED}),
        Example({FEATURE.name: table((_RED_DISC, _BLUE_DISC))}, 0.5, auxiliary={"scene": _RED_AND_GREEN}),
    ),
)
