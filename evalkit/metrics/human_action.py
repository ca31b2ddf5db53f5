"""Does the clip show the action that the prompt names?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import expit

from evalkit.backbones.actions import ACTIONS
from evalkit.backbones.features import UMT
from evalkit.metrics.base import Example, MetricSpec
from evalkit.types import Clip, Features, Score

BEST = 5
CERTAIN = 0.85
BEFORE_ACTION = "person is "
INDEX = {action.lower(): index for index, action in enumerate(ACTIONS)}


def score(clip: Clip, features: Features) -> Score:
    """1 if the action is among the five likeliest, and its sigmoid, rounded to four digits, at least 0.85; else 0."""
    action = clip.auxiliary["human_action"]["action"].strip().lower()
    logits_K = np.asarray(features[UMT.name], np.float64)
    if action not in INDEX:
        return Score.missing(f"{action!r} is none of the {len(ACTIONS)} actions of Kinetics-400 that UMT knows")
    if not np.isfinite(logits_K).all():
        return Score.missing("UMT's logits are not finite")
    logit = logits_K[INDEX[action]]
    among_best = np.count_nonzero(logits_K > logit) < BEST
    certain = round(float(expit(logit)), 4) >= CERTAIN
    return Score(float(among_best and certain))


def read_text(text: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The action is what follows "person is " in the sentence, up to a hyphen or underscore, in lower case."""
    sentence = text.lower().split("-")[0]
    if "action" in entry or BEFORE_ACTION not in sentence:
        return entry
    return {**entry, "action": sentence.split(BEFORE_ACTION)[-1].split("_")[0].strip()}


def _example(value: float, **logits: float) -> Example:
    """Logits of single actions, the others far below; the prompt asks for "riding a bike"."""
    logits_K = np.full(len(ACTIONS), -9.0)
    for action, logit in logits.items():
        logits_K[INDEX[action.replace("_", " ")]] = logit
    return Example({UMT.name: logits_K}, value, auxiliary={"human_action": {"action": "riding a bike"}})


METRIC = MetricSpec(
    name="human_action",
    version=1,
    title="Human action",
    summary="Share of clips in which UMT ViT-L/16 finds the prompt's action among its five likeliest, and is certain.",
    features=(UMT,),
    score=score,
    source="VBench (arXiv:2311.17982), section 3.2 and vbench/human_action.py; UMT, ICCV 2023 (arXiv:2303.16058)",
    reads_prompt=True,
    auxiliary=("action",),
    read_text=read_text,
    degrades={"wrong_prompt": -1},
    quirks=(
        "The network was trained with a softmax over the actions; its logits are read through a sigmoid all the same:"
        " several actions can be certain at once.",
        "Only the 400 actions of Kinetics-400 can be recognised. The official package scores any other action 0; here"
        " it is unscored. All 100 official prompts name one of the 400.",
        "The official package takes the action from the video's file name, in which the prompt stands; here it comes"
        " from the prompt: as given, or else by the same rule, what follows 'person is ' up to a hyphen or underscore.",
        "Of a clip, 16 frames are seen, one from the middle of each sixteenth, and of these the central square; a clip"
        " of fewer frames repeats its last one.",
    ),
    examples=(
        # sigmoid(2) = 0.8808, sigmoid(1.7) = 0.8455; 1.7343 rounds up to 0.8500.
        _example(1.0, riding_a_bike=2.0, marching=3.0),
        _example(0.0, riding_a_bike=1.7),
        _example(1.0, riding_a_bike=1.7343),
        _example(0.0, riding_a_bike=2.0, marching=3.0, dodgeball=3.1, yoga=3.2, zumba=3.3, welding=3.4),
    ),
)
