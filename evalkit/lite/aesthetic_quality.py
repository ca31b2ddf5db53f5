"""Stand-in for aesthetic quality: clear, colourful, of full tonal range, with something to look at in a good place?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.base import Extractor, FeatureSpec, PerFrame, Runtime
from evalkit.lite._detail import FEATURE as DETAIL
from evalkit.lite._detail import clarity
from evalkit.lite._pixels import Floats, rgb_grid
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Array, Clip, Features, Frames, Score
from evalkit.weights import WeightStore

# Cells are large enough that neither noise nor blur shows in them: those are clarity's business.
WIDTH, HEIGHT = 32, 24
AVERAGE_COLOURFULNESS = 45.0  # "averagely colourful" on the scale of Hasler and Suesstrunk; gives one half
TAIL = 1.0  # percent of cells left out at either end of the tonal range
REACH = 0.15  # standard deviation, in picture widths and heights, of the pull of a good place
PLACES_xy = ((0.5, 0.5), (1 / 3, 1 / 3), (2 / 3, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 2 / 3))


def _pull() -> Floats:
    y_H1 = (np.arange(HEIGHT)[:, None] + 0.5) / HEIGHT
    x_1W = (np.arange(WIDTH)[None, :] + 0.5) / WIDTH
    pulls = [np.exp(-((x_1W - x) ** 2 + (y_H1 - y) ** 2) / (2 * REACH**2)) for x, y in PLACES_xy]
    return np.asarray(np.max(pulls, axis=0), dtype=np.float32)


_PULL_HW = _pull()


def colourfulness(rgb_HWC: Floats) -> float:
    """M3 of Hasler and Suesstrunk 2003 (0 gray, 45 average, 109 extreme), squashed to 0..1 with one half at 45."""
    red, green, blue = rgb_HWC[..., 0], rgb_HWC[..., 1], rgb_HWC[..., 2]
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    cast = np.hypot(red_green.mean(), yellow_blue.mean())
    measure = float(spread + 0.3 * cast)
    return measure / (measure + AVERAGE_COLOURFULNESS)


def tonal_range(rgb_HWC: Floats) -> float:
    """Width of the middle 98 % of the brightness histogram (Ke, Tang and Jing 2006), 0 to 1."""
    low, high = np.percentile(rgb_HWC.mean(axis=-1), [TAIL, 100 - TAIL])
    return float(high - low) / 255


def composition(rgb_HWC: Floats) -> float:
    """Share of saliency near the centre or an intersection of thirds, 0 to 1; 0 where nothing stands out.

    Saliency is the distance of a cell's colour from the mean colour (Achanta et al. 2009).
    """
    saliency_HW = np.linalg.norm(rgb_HWC - rgb_HWC.mean(axis=(0, 1)), axis=-1)
    total = float(saliency_HW.sum())
    return float((saliency_HW * _PULL_HW).sum()) / total if total > 0 else 0.0


def appeal(frames_BHWC: Frames) -> Array:
    """Colourfulness, tonal range and composition of every frame: `(B, 3)`, 0 to 1."""
    return np.array([_appeal(rgb_grid(frame_HWC, WIDTH, HEIGHT)) for frame_HWC in frames_BHWC])


def _appeal(rgb_HWC: Floats) -> tuple[float, float, float]:
    return colourfulness(rgb_HWC), tonal_range(rgb_HWC), composition(rgb_HWC)


def _load(store: WeightStore, runtime: Runtime) -> Extractor:
    return PerFrame(appeal, batch=1)


APPEAL = FeatureSpec("lite/appeal", version=1, load=_load)


def score(clip: Clip, features: Features) -> Score:
    """Mean over frames of the geometric mean of clarity and appeal: neither makes up for the lack of the other."""
    appeal_T = np.asarray(features[APPEAL.name], dtype=np.float64).mean(axis=1)
    return Score(float(np.sqrt(clarity(features) * appeal_T).mean()), n_terms=len(appeal_T))


METRIC = MetricSpec(
    name="lite/aesthetic_quality",
    version=1,
    title="Aesthetic quality (lite)",
    summary="Not VBench: geometric mean of clarity (detail relative to noise) and the mean of colourfulness, tonal"
    " range and composition (salient colours near the centre or thirds). It has no taste.",
    features=(DETAIL, APPEAL),
    score=score,
    source="Hasler and Suesstrunk 2003 (colourfulness M3); Ke, Tang and Jing 2006 (tonal range); Achanta et al. 2009"
    " (saliency); Datta et al. 2006 (rule of thirds).",
    degrades={"blur": -1, "noise": -1},
    examples=(
        # clarity 4 / (4 + 4) = 1/2, appeal (0.25 + 0.5 + 0.75) / 3 = 1/2.
        Example({DETAIL.name: np.array([[4.0, 0.0]]), APPEAL.name: np.array([[0.25, 0.5, 0.75]])}, value=0.5),
        # clarity 4 / (4 + 4 + 2 * 4) = 1/4, appeal 1: a half; the second frame is flat.
        Example(
            {
                DETAIL.name: np.array([[4.0, 4.0], [0.0, 0.0]]),
                APPEAL.name: np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
            },
            value=0.25,
        ),
    ),
)
