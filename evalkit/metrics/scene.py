"""Is the clip set where the prompt says?"""

from __future__ import annotations

import numpy as np

from evalkit.backbones.features import TAG2TEXT
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Clip, Features, Score


def score(clip: Clip, features: Features) -> Score:
    words = clip.auxiliary["scene"]["scene"].split(" ")
    captions = features[TAG2TEXT.name].tolist()
    named = sum(all(word in caption for word in words) for caption in captions)
    return Score(named / len(captions), n_terms=len(captions))


METRIC = MetricSpec(
    name="scene",
    version=1,
    title="Scene",
    summary="Share of the captions, written by Tag2Text about frames of the clip, that name the prompt's scene.",
    features=(TAG2TEXT,),
    score=score,
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/scene.py",
    pooling="frames",
    reads_prompt=True,
    auxiliary=("scene",),
    degrades={"wrong_prompt": -1},
    quirks=(
        "A word counts wherever its letters stand: 'bar' is found in 'barn'; order and distance do not matter.",
        "Captions are in lower case, so a scene with a capital letter is never found.",
        "Sixteen frames are taken from the middles of equal parts, but the captions counted describe the first six of"
        " them alone: five count three times, the sixth once. The official code and transformers 4.33, to which it is"
        " pinned, each repeat the features for the beams, and the surplus is cut off.",
        "A clip of fewer than sixteen frames repeats its last frame.",
        "Frames are scaled to a square without regard to their shape.",
        "The words 'a picture of' are given to the captioner and then cut off.",
    ),
    examples=(
        Example(
            {TAG2TEXT.name: np.array(["people walk in an amusement park", "a park", "amusements in parks", "a sea"])},
            0.5,
            auxiliary={"scene": {"scene": "amusement park"}},
        ),
        Example({TAG2TEXT.name: np.array(["a red barn on a hill"])}, 1.0, auxiliary={"scene": {"scene": "bar"}}),
    ),
)
