"""Is the first object where the prompt says, relative to the second?"""

from __future__ import annotations

import numpy as np

from evalkit.metrics.base import Example, MetricSpec
from evalkit.truth._facts import Scene, centre, colours_seen, judge, of_colour, table
from evalkit.truth._objects import FEATURE
from evalkit.types import Array, Clip, Features, Score


def _verdict(objects_TKD: Array, scene: Scene) -> float:
    """1 if both are seen, and apart along the axis and in the direction asked for, else 0."""
    first, second = (thing["colour"] for thing in scene["objects"])
    if not {first, second} <= set(colours_seen(objects_TKD)):
        return 0.0
    apart_T2 = centre(objects_TKD, of_colour(objects_TKD, first)) - centre(objects_TKD, of_colour(objects_TKD, second))
    together_T = np.isfinite(apart_T2).all(axis=1)
    if not together_T.any():
        return 0.0
    across, down = apart_T2[together_T].mean(axis=0)
    axis = ("right of" if across > 0 else "left of") if abs(across) > abs(down) else ("below" if down > 0 else "above")
    return float(axis == scene["position"])


def score(clip: Clip, features: Features) -> Score:
    return judge(clip, features, "position", _verdict)


_RED, _BLUE = (0.1, 0, 0.2, 0.5, 0.01, 0.05, 0.09), (0.1, 2, 0.8, 0.6, 0.01, 0.05, 0.09)
_PAIR = [{"colour": "red", "shape": "circle"}, {"colour": "blue", "shape": "circle"}]

METRIC = MetricSpec(
    name="truth/position",
    version=1,
    title="Position (truth)",
    summary="1 if the first object that the prompt names lies on the side of the second that it says, else 0.",
    features=(FEATURE,),
    score=score,
    source="Coloured pixels before a smooth grey background, as the world of shapes has them.",
    reads_prompt=True,
    fact="position",
    examples=(
        Example(
            {FEATURE.name: table((_RED, _BLUE))}, 1.0, auxiliary={"scene": {"objects": _PAIR, "position": "left of"}}
        ),
        Example(
            {FEATURE.name: table((_RED, _BLUE))}, 0.0, auxiliary={"scene": {"objects": _PAIR, "position": "above"}}
        ),
    ),
)
