"""Made-up detections of made-up clips: what the four dimensions that read GRiT are compared on, without a network.

Standard library only: imported in the official environment and in this project's.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from typing import Any

FRAMES = 16
CLIPS = 24
OBJECTS = ("cat", "dog", "person", "cup", "sports ball", "ball")
COLOURS = ("red", "blue", "green", "gray", "grey", "black")
RELATIONS = ("on the left of", "on the right of", "on the top of", "on the bottom of")
PHRASES = (
    "a {colour} {object}",
    "{object} is {colour}",
    "tired {object}",
    "{object}",
    "bored {object} in a {colour} hat",
)
DIMENSIONS = ("object_class", "multiple_objects", "color", "spatial_relationship")

Detection = tuple[str, tuple[float, float, float, float], str]
"""A description (for names: the name), a box x0 y0 x1 y1, and the name."""


@dataclass(frozen=True)
class Scene:
    """A clip's prompt, its auxiliary entry as the official list has it, and what was found in each frame."""

    prompt: str
    auxiliary: dict[str, Any]
    frames: list[list[Detection]]


def scenes(dimension: str) -> list[Scene]:
    """Clips for one dimension, always the same: from empty ones to crowded ones."""
    return [_scene(dimension, random.Random(f"{dimension} {i}"), i) for i in range(CLIPS)]


def identity(dimension: str) -> str:
    """sha256 of the dimension's scenes: equal where both sides saw the same."""
    return hashlib.sha256(json.dumps([asdict(scene) for scene in scenes(dimension)]).encode()).hexdigest()


def _scene(dimension: str, rng: random.Random, i: int) -> Scene:
    wanted, other = rng.sample(OBJECTS, 2)
    colour = rng.choice([c for c in COLOURS if c != "grey"])
    auxiliary: dict[str, Any] = {
        "object_class": {"object": wanted},
        "multiple_objects": {"object": f"{wanted} and {other}"},
        "color": {"color": colour},
        "spatial_relationship": {
            "spatial_relationship": {"object_a": wanted, "object_b": other, "relationship": rng.choice(RELATIONS)}
        },
    }[dimension]
    # Half of the detections are of what is asked for, or chance would hardly ever find it.
    pool = (wanted, other, rng.choice((wanted, other)), *rng.sample(OBJECTS, 3))
    crowd = i % 6  # 0: a clip in which nothing is found
    frames = [[_detection(dimension, rng, pool) for _ in range(rng.randint(0, crowd))] for _ in range(FRAMES)]
    return Scene(f"a {colour} {wanted}", auxiliary, frames)


def _detection(dimension: str, rng: random.Random, pool: tuple[str, ...]) -> Detection:
    name = rng.choice(pool)
    left, top = rng.uniform(0, 60), rng.uniform(0, 60)
    box = (left, top, left + rng.uniform(2, 60), top + rng.uniform(2, 60))
    phrase = rng.choice(PHRASES) if dimension == "color" else "{object}"
    return phrase.format(colour=rng.choice(COLOURS), object=name), box, name
