"""Are there as many objects as the prompt says?"""

from __future__ import annotations

from evalkit.metrics.base import Example, MetricSpec
from evalkit.truth._facts import Scene, count_of, judge, table
from evalkit.truth._objects import FEATURE
from evalkit.types import Array, Clip, Features, Score


def _verdict(objects_TKD: Array, scene: Scene) -> float:
    """1 if the number of objects, in the median frame, is the one asked for, else 0."""
    return float(count_of(objects_TKD) == scene["count"])


def score(clip: Clip, features: Features) -> Score:
    return judge(clip, features, "count", _verdict)


_LEFT, _RIGHT = (0.1, 0, 0.2, 0.5, 0.01, 0.05, 0.09), (0.1, 0, 0.8, 0.5, 0.01, 0.05, 0.09)
_TWO = table((_LEFT, _RIGHT), (_LEFT, _RIGHT), (_LEFT,))

METRIC = MetricSpec(
    name="truth/count",
    version=1,
    title="Count (truth)",
    summary="1 if the median frame holds as many coloured objects as the prompt says, else 0.",
    features=(FEATURE,),
    score=score,
    source="Coloured pixels before a smooth grey background, as the world of shapes has them.",
    reads_prompt=True,
    fact="count",
    examples=(
        Example({FEATURE.name: _TWO}, 1.0, auxiliary={"scene": {"count": 2}}),
        Example({FEATURE.name: _TWO}, 0.0, auxiliary={"scene": {"count": 3}}),
    ),
)
