"""Clips to try the tool on: a camera moving over photographs that ship inside scikit-image.

Two of the eight are spoiled on purpose (flicker; blur and noise), so that the table has something to tell. For a human
study there are two more "models", which answer the same prompts with softer and with jerkier clips.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageFilter

from evalkit.encode import write_video
from evalkit.errors import unknown
from evalkit.files import write_atomically
from evalkit.types import Array, Frames

WIDTH, HEIGHT, N_FRAMES, FPS = 320, 240, 33, 16
SEED = 0

Spoil = Callable[[Image.Image, int, np.random.Generator], Image.Image]


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera looks: centre as a share of the photograph's width and height, width of the view likewise."""

    x: float
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One clip: a photograph of `skimage.data`, a straight camera move, and what may be wrong with the picture."""

    id: str
    prompt: str
    photograph: str
    begin: View
    end: View
    spoil: Spoil | None = None


def flicker(image: Image.Image, t: int, rng: np.random.Generator) -> Image.Image:
    """Lamps that are not synchronous with the shutter: the brightness jumps by up to a tenth."""
    gain = 1 + rng.uniform(-0.1, 0.1)
    return image.point(lambda value: min(255, round(value * gain)))


def blur_and_noise(image: Image.Image, t: int, rng: np.random.Generator) -> Image.Image:
    """A poor lens and a sensor at high gain."""
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(2.0)), np.float32)
    return Image.fromarray((pixels + rng.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8))


SCENES = (
    Scene(
        "demo-01",
        "A smiling astronaut in an orange suit, the camera slowly zooms in.",
        "astronaut",
        View(0.5, 0.42, 0.9),
        View(0.45, 0.3, 0.6),
    ),
    Scene(
        "demo-02",
        "A red cup of coffee on a wooden table, the camera slowly pans right.",
        "coffee",
        View(0.36, 0.5, 0.6),
        View(0.62, 0.5, 0.6),
    ),
    Scene(
        "demo-03",
        "Close-up of an orange cat with green eyes, the camera slowly zooms out.",
        "chelsea",
        View(0.45, 0.42, 0.5),
        View(0.5, 0.5, 0.85),
    ),
    Scene(
        "demo-04",
        "A white rocket on its launch pad under a dark blue sky, the camera tilts up fast.",
        "rocket",
        View(0.5, 0.75, 0.4),
        View(0.5, 0.25, 0.4),
    ),
    Scene(
        "demo-05",
        "Bright galaxies in a black night sky, a still shot.",
        "hubble_deep_field",
        View(0.5, 0.5, 0.6),
        View(0.5, 0.5, 0.6),
    ),
    Scene(
        "demo-06",
        "A red motorcycle in a bright workshop, the camera pans left fast.",
        "stereo_motorcycle",
        View(0.75, 0.5, 0.45),
        View(0.25, 0.5, 0.45),
    ),
    Scene(
        "demo-07",
        "A red coffee cup with a spoon in bright light, the camera zooms in.",
        "coffee",
        View(0.5, 0.5, 0.75),
        View(0.55, 0.5, 0.5),
        flicker,
    ),
    Scene(
        "demo-08",
        "A woman in an orange space suit in front of a white wall, the camera pans left.",
        "astronaut",
        View(0.6, 0.35, 0.6),
        View(0.4, 0.35, 0.6),
        blur_and_noise,
    ),
)


@dataclass(frozen=True, slots=True)
class Look:
    """How a made-up model films: how far its lens blurs, and for how many frames each picture stands."""

    blur: float = 0.0
    hold: int = 1


LOOKS: Mapping[str, Look] = {"sharp": Look(), "soft": Look(blur=1.6), "jerky": Look(hold=6)}
"""Models to compare in a study: the clips as they are, out of focus, and with every sixth picture only."""


def make_clips(folder: Path, look: str = "sharp") -> list[Path]:
    """Write the eight clips (H.264, 33 frames of 320x240), `manifest.jsonl` and `prompts.jsonl` into `folder`.

    Args:
        folder: where they go.
        look: the model that answers, one of `LOOKS`.

    Raises:
        UserError: no such look.
        RunFailed: the folder cannot be written.
    """
    if look not in LOOKS:
        raise unknown("look", look, LOOKS)
    lines = [
        {"file": f"{scene.id}.mp4", "prompt_id": scene.id, "prompt": scene.prompt, "seed": SEED} for scene in SCENES
    ]
    write_atomically(folder / "manifest.jsonl", _jsonl(lines))
    write_atomically(folder / "prompts.jsonl", _jsonl([{"id": scene.id, "text": scene.prompt} for scene in SCENES]))
    paths = [folder / f"{scene.id}.mp4" for scene in SCENES]
    for scene, path in zip(SCENES, paths, strict=True):
        write_video(path, shoot(scene, LOOKS[look]), FPS)
    return paths


def shoot(scene: Scene, look: Look = LOOKS["sharp"]) -> Iterator[Frames]:
    """Film one scene: frames `(H, W, 3)`; the same every time."""
    photograph = Image.fromarray(_photograph(scene.photograph))
    rng = np.random.default_rng(SEED)
    for t in range(N_FRAMES):
        box = _box(scene, photograph, t - t % look.hold)
        picture = photograph.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box)
        if look.blur:
            picture = picture.filter(ImageFilter.GaussianBlur(look.blur))
        yield np.asarray(scene.spoil(picture, t, rng) if scene.spoil else picture)


def _photograph(name: str) -> Frames:
    data: Array | tuple[Array, ...] = getattr(skimage.data, name)()
    return data[0] if isinstance(data, tuple) else data  # a stereo pair comes with its disparities


def _box(scene: Scene, photograph: Image.Image, t: int) -> tuple[float, float, float, float]:
    """The camera's view at frame `t` in pixels of the photograph, kept inside it."""
    share = t / (N_FRAMES - 1)
    x, y, view = (
        (1 - share) * a + share * b
        for a, b in zip(
            (scene.begin.x, scene.begin.y, scene.begin.width), (scene.end.x, scene.end.y, scene.end.width), strict=True
        )
    )
    width = min(view * photograph.width, photograph.height * WIDTH / HEIGHT)
    height = width * HEIGHT / WIDTH
    left = min(max(0.0, x * photograph.width - width / 2), photograph.width - width)
    top = min(max(0.0, y * photograph.height - height / 2), photograph.height - height)
    return left, top, left + width, top + height


def _jsonl(records: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
