"""Score the same clips with this project, through its own front door, and set the results beside the official ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from evalkit.backbones import clip, dino, musiq, viclip
from evalkit.backbones.base import Runtime
from evalkit.job import Request
from evalkit.runner import score_folder
from tests.parity.dimensions import TOLERANCE, VIDEO_SCALE

Scores = Mapping[str, Mapping[str, Any]]
"""By dimension: `score`, and `videos` by file name."""


def score(videos: Path, cache: Path, work: Path, dimensions: Iterable[str], threads: int | None = None) -> Scores:
    """Run the seven dimensions on a folder of clips with the checkpoints below `cache`; `work` is a new run's place."""
    work.mkdir(parents=True, exist_ok=True)
    request = Request(
        videos=videos,
        subset=str(_suite(videos, work / "prompts.jsonl")),
        out=work / "run",
        profile="official",
        dimensions=tuple(dimensions),
        weights=cache,
        trust_archives=True,
        runtime=Runtime(),
        threads=threads,
    )
    summary = score_folder(request).summary
    return {
        dimension: {
            "score": entry["score"],
            "videos": {video["file"]: video["scores"][dimension] for video in summary["videos"]},
        }
        for dimension, entry in summary["dimensions"].items()
    }


def _suite(videos: Path, path: Path) -> Path:
    """The prompts of the folder's manifest as a suite of their own."""
    records = map(json.loads, (videos / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    lines = [json.dumps({"id": record["prompt_id"], "text": record["prompt"]}) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@contextmanager
def shallow(depth: int) -> Iterator[None]:
    """Build networks of `depth` blocks per stack; all else, checkpoints and loaders included, stays as it is."""
    build = clip.ImageTower.build
    towers = viclip.Shape(video_layers=depth, text_layers=depth)
    with (
        mock.patch.object(dino, "Dino", partial(dino.Dino, depth=depth)),
        mock.patch.object(clip.ImageTower, "build", lambda tower: build(replace(tower, layers=depth))),
        mock.patch.object(musiq, "Musiq", partial(musiq.Musiq, depth=depth)),
        mock.patch.object(viclip, "ViClip", partial(viclip.ViClip, towers)),
    ):
        yield


@dataclass(frozen=True, slots=True)
class Difference:
    """How far this project is from the official package in one dimension."""

    dimension: str
    official: float
    native: float
    worst_video: float

    @property
    def worst(self) -> float:
        return max(abs(self.official - self.native), self.worst_video)

    @property
    def holds(self) -> bool:
        return self.worst <= TOLERANCE[self.dimension]


def compare(official: Scores, native: Scores) -> list[Difference]:
    """Set every dimension that was scored natively beside its official result."""
    return [_difference(name, official[name], entry) for name, entry in native.items()]


def _difference(dimension: str, official: Mapping[str, Any], native: Mapping[str, Any]) -> Difference:
    scale = VIDEO_SCALE[dimension]
    assert official["videos"].keys() == native["videos"].keys()
    gaps = [abs(value * scale - native["videos"][file]) for file, value in official["videos"].items()]
    return Difference(dimension, official["score"], native["score"], max(gaps))


def table(differences: Iterable[Difference]) -> str:
    """The comparison as text, one line a dimension."""
    head = f"{'dimension':<24}{'official':>11}{'native':>11}{'|aggregate|':>13}{'|video| max':>13}{'tolerance':>11}"
    rows = [
        f"{d.dimension:<24}{d.official:>11.7f}{d.native:>11.7f}{abs(d.official - d.native):>13.1e}"
        f"{d.worst_video:>13.1e}{TOLERANCE[d.dimension]:>11.0e}  {'ok' if d.holds else 'TOO FAR'}"
        for d in differences
    ]
    return "\n".join([head, *rows])
