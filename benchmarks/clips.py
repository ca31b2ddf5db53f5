"""Clips to measure speed on: 854x480, a camera moving over photographs that ship with scikit-image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.parity.make_clips import Shot, encode

WIDTH, HEIGHT = 854, 480
PHOTOGRAPHS = {
    "astronaut": "a smiling astronaut in an orange space suit",
    "coffee": "a cup of coffee on a wooden table",
    "chelsea": "a cat looking at the camera",
    "rocket": "a rocket launch at night",
    "hubble_deep_field": "galaxies in deep space",
    "retina": "the retina of an eye",
    "immunohistochemistry": "stained cells under a microscope",
    "colorwheel": "a wheel of colours",
}


def make(folder: Path, clips: int, frames: int) -> None:
    """Write `clips` different clips of `frames` frames, with their manifest and prompt suite."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = []
    for index in range(clips):
        photograph, seed = list(PHOTOGRAPHS)[index % len(PHOTOGRAPHS)], index // len(PHOTOGRAPHS)
        shot = _shot(photograph, seed, frames)
        encode(shot, folder / f"{shot.name}.mp4")
        manifest.append({"file": f"{shot.name}.mp4", "prompt_id": photograph, "prompt": shot.prompt, "seed": seed})
    _write_lines(folder / "manifest.jsonl", manifest)
    prompts = {record["prompt_id"]: record["prompt"] for record in manifest}
    _write_lines(folder / "suite.jsonl", [{"id": id_, "text": text} for id_, text in prompts.items()])


def _write_lines(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _shot(photograph: str, seed: int, frames: int) -> Shot:
    drift = (20 + 10 * seed) / frames
    return Shot(
        name=f"{photograph}-{seed}",
        photograph=photograph,
        prompt=PHOTOGRAPHS[photograph],
        width=WIDTH,
        height=HEIGHT,
        n_frames=frames,
        span=0.6,
        pan=(drift, drift / 2),
    )
