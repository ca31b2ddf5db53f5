"""Do the objects move as the prompt says?"""

from __future__ import annotations

from evalkit.metrics.base import Example, MetricSpec
from evalkit.truth._facts import Scene, judge, motion_of, table
from evalkit.truth._objects import FEATURE
from evalkit.types import Array, Clip, Features, Score


def _verdict(objects_TKD: Array, scene: Scene) -> float:
    """1 if the objects do together what is asked for, else 0."""
    return float(motion_of(objects_TKD) == scene["motion"])


def score(clip: Clip, features: Features) -> Score:
    return judge(clip, features, "motion", _verdict)


_RIGHT = table(*(((0.1, 0, 0.3 + 0.1 * t, 0.5, 0.01, 0.05, 0.09),) for t in range(5)))
_STAYS = table(*[((0.1, 0, 0.5, 0.5, 0.01, 0.05, 0.09),)] * 5)

METRIC = MetricSpec(
    name="truth/motion",
    version=1,
    title="Motion (truth)",
    summary="1 if the objects' common centroid and size over time do what the prompt says, else 0.",
    features=(FEATURE,),
    score=score,
    source="Least-squares lines through the centroid and the root of the area of all coloured objects.",
    reads_prompt=True,
    fact="motion",
    min_frames=3,
    examples=(
        Example({FEATURE.name: _RIGHT}, 1.0, auxiliary={"scene": {"motion": "right"}}),
        Example({FEATURE.name: _RIGHT}, 0.0, auxiliary={"scene": {"motion": "still"}}),
        Example({FEATURE.name: _STAYS}, 1.0, auxiliary={"scene": {"motion": "still"}}),
    ),
)
