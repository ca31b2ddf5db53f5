"""VBench-I2V: videos generated from a picture, compared with it; and VBench's quality dimensions on the same videos.

Huang et al., "VBench++" (arXiv:2411.13503), official `vbench2_beta_i2v`. Two score rules are in use: the one of the
official script, and the one that the published table was made with (see `published`). camera_motion is not available:
the checkpoint of CoTracker2 may not be used commercially (CC BY-NC 4.0), so nothing here reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.backbones.base import FeatureSpec
from evalkit.backbones.reference import I2V_DINO, I2V_DREAMSIM, ReferencedClip
from evalkit.errors import UserError, nearest, unknown
from evalkit.files import hash_file
from evalkit.job import Benchmark, Progress, Video
from evalkit.metrics import registry
from evalkit.metrics.base import Example, MetricSpec
from evalkit.metrics.consistency import cosine
from evalkit.prompts import load_suite, read_suite
from evalkit.scoring import BOUNDS, QUALITY, normalise, weighted_quality
from evalkit.store import content_key
from evalkit.suites.base import Get, Put, Read
from evalkit.types import Array, Clip, Features, Prompt, PromptSuite, Score
from evalkit.untrusted import inside, parse_json, read_text
from evalkit.video import PILLOW_SUFFIXES, read_frames

_MEND = "Give a prompt file in UTF-8, or the list of the official package."

MAX_WEIGHT, MEAN_WEIGHT, MIN_WEIGHT = 0.4, 0.3, 0.3

UNAVAILABLE = {
    "camera_motion": "it is judged with CoTracker2, whose checkpoint is for non-commercial use only (CC BY-NC 4.0)"
}


def conformity(features_ND: Array) -> Score:
    """How well frames keep to a picture and to each other.

    0.4 x the best similarity of a frame to the picture, 0.3 x the mean and 0.3 x the smallest similarity of
    neighbouring frames; cosines, negative ones as 0. The picture is row 0; needs two frames.
    """
    picture_1D, frames_TD = features_ND[:1], features_ND[1:]
    to_picture_T = np.maximum(cosine(frames_TD, picture_1D), 0)
    neighbours_T = np.maximum(cosine(frames_TD[1:], frames_TD[:-1]), 0)
    value = MAX_WEIGHT * to_picture_T.max() + MEAN_WEIGHT * neighbours_T.mean() + MIN_WEIGHT * neighbours_T.min()
    return Score(float(value), n_terms=len(neighbours_T))


def _of(name: str, title: str, network: str, feature: FeatureSpec) -> MetricSpec:
    def score(clip: Clip, features: Features) -> Score:
        return conformity(features[feature.name])

    # Frame 0 is the picture, frame 1 orthogonal to it: 0.4 x 1 + 0.3 x 0 + 0.3 x 0. Then a third frame at 60 degrees to
    # frame 1, 30 to frame 0: 0.4 x 1 + 0.3 x (0 + 1/2) / 2 + 0.3 x 0.
    picture, other, between = [1.0, 0.0], [0.0, 1.0], [0.75**0.5, 0.5]
    return MetricSpec(
        name=name,
        version=1,
        title=title,
        summary=f"Similarity of {network} features of the frames to those of the given picture, and of neighbours.",
        features=(feature,),
        score=score,
        source=f"VBench++ (arXiv:2411.13503) and vbench2_beta_i2v/{name}.py",
        min_frames=2,
        quirks=(
            "Only the frame that is most like the picture is compared with it; it may be any frame.",
            "Frames are scaled as tensors and the picture by Pillow (rounded to 8 bits). Both antialias, frames since"
            " torchvision 0.17: the official package gives other numbers with an older one.",
            "Transparency of the picture is dropped; the official package stops at pictures that are not plain RGB.",
        ),
        examples=(
            Example({feature.name: np.array([picture, picture, other])}, 0.4),
            Example({feature.name: np.array([picture, picture, other, between])}, 0.475),
        ),
    )


I2V_SUBJECT = _of("i2v_subject", "I2V subject", "DINO ViT-B/16", I2V_DINO)
I2V_BACKGROUND = _of("i2v_background", "I2V background", "DreamSim", I2V_DREAMSIM)
COMPARED = (I2V_SUBJECT, I2V_BACKGROUND)


# --- headline scores --------------------------------------------------------------------------------------------------

NAMESAKE = {"i2v_subject": "subject_consistency", "i2v_background": "background_consistency"}
"""Whose bounds a dimension is normalised with; camera motion runs from 0 to 1."""

OFFICIAL_WEIGHTS = {"camera_motion": 0.1, "i2v_subject": 1.0, "i2v_background": 1.0}
OFFICIAL_QUALITY = tuple(name for name in QUALITY if name != "temporal_flickering")


@dataclass(frozen=True, slots=True)
class Headlines:
    """Headline scores in percent; None where a dimension is missing."""

    quality: float | None
    i2v: float | None

    @property
    def total(self) -> float | None:
        return None if self.quality is None or self.i2v is None else (self.quality + self.i2v) / 2


def official(scores: Mapping[str, float]) -> Headlines:
    """The rule of the official script (scripts/cal_i2v_final_score.py): six quality dimensions, camera motion at 0.1.

    The script counts a missing dimension as 0; here the score is missing then.
    """
    quality = weighted_quality(_quality_of(scores), OFFICIAL_QUALITY)
    return Headlines(quality, _weighted_i2v(scores, OFFICIAL_WEIGHTS))


def published(scores: Mapping[str, float]) -> Headlines:
    """The rule that reproduces the published table (STIV, Table 13): seven quality dimensions, no camera motion.

    Quality, i2v and total come within 0.1 on 6 of its 11 rows (the others contradict themselves, see
    `m4v-eval reference audit`); those of `official` on none.
    """
    quality = weighted_quality(_quality_of(scores), QUALITY)
    return Headlines(quality, _weighted_i2v(scores, {"i2v_subject": 1.0, "i2v_background": 1.0}))


def _quality_of(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: score for name, score in scores.items() if name in BOUNDS}


def _weighted_i2v(scores: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
    if any(name not in scores for name in weights):
        return None
    values = {name: normalise(NAMESAKE[name], scores[name]) if name in NAMESAKE else scores[name] for name in weights}
    return 100 * sum(weights[name] * value for name, value in values.items()) / sum(weights.values())


def headlines(scores: Mapping[str, float]) -> dict[str, Any]:
    """Both rules side by side, and what they could draw on."""
    rules = {"official script": official(scores), "published table": published(scores)}
    known = (*OFFICIAL_WEIGHTS, *QUALITY)
    return {
        **{
            f"i2v/{name} ({rule})": getattr(found, name)
            for rule, found in rules.items()
            for name in ("quality", "i2v", "total")
        },
        "coverage": {
            "scored": [name for name in known if name in scores],
            "missing": [name for name in known if name not in scores],
        },
    }


# --- the suite --------------------------------------------------------------------------------------------------------


class ImageToVideo:
    """VBench-I2V.

    Args:
        images: folder of the pictures, cropped to the ratio of the videos. A prompt's picture is the one it names
            (`"auxiliary": {"image": "a.jpg"}`, `image_name` in the official list), else the one that bears its text or
            its id as its name.
    """

    def __init__(self, images: Path) -> None:
        if not images.is_dir():
            raise UserError(f"The folder of pictures {images} does not exist.", "Give it with --images.")
        self.images = images
        self.benchmark = Benchmark("vbench-i2v", "VBench-I2V", headlines, unavailable=UNAVAILABLE)
        self._sha256: dict[Path, str] = {}
        self._by_name = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in PILLOW_SUFFIXES}

    def read_prompts(self, subset: str) -> PromptSuite:
        """A prompt file, or for an empty name a prompt for every picture, worded as the picture is called."""
        if not subset:
            prompts = tuple(Prompt(f"{n:03d}", name) for n, name in enumerate(self._by_name, 1))
            if not prompts:
                raise UserError(f"The folder {self.images} holds no pictures.", "Give the folder with --images.")
            return PromptSuite(self.images.resolve().name, prompts, "the names of the pictures")
        path = Path(subset)
        if path.suffix.lower() != ".json":
            return load_suite(subset)
        suite, entries = read_suite(path), parse_json(read_text(path, _MEND), str(path), _MEND)
        named = [
            replace(prompt, auxiliary={**prompt.auxiliary, "image": entry["image_name"]})
            if isinstance(entry.get("image_name"), str)
            else prompt
            for prompt, entry in zip(suite.prompts, entries, strict=True)
        ]
        return replace(
            suite, prompts=tuple(p for p in named if set(p.dimensions) - set(UNAVAILABLE) or not p.dimensions)
        )

    def choose(self, names: Sequence[str], prompts: PromptSuite) -> tuple[MetricSpec, ...]:
        """The two dimensions of its own and those of VBench's quality."""
        quality = (metric for name, metric in registry("official").items() if name in QUALITY)
        known = {metric.name: metric for metric in (*COMPARED, *quality)}
        for name in names:
            if name in UNAVAILABLE:
                raise UserError(f"{name} is not available: {UNAVAILABLE[name]}.", f"Choose from {', '.join(known)}.")
            if name not in known:
                raise unknown("dimension in VBench-I2V", name, known)
        return tuple(metric for name, metric in known.items() if name in names or not names)

    def prepare(self, videos: Sequence[Video], read: Read, get: Get, put: Put, progress: Progress) -> None:
        """See that every video's picture is there and can be read; one that was read before is only hashed."""
        pictures = dict.fromkeys(self._picture(video.sample.prompt) for video in videos)
        progress.start("reading pictures", len(pictures))
        for path in pictures:
            self._sha256[path] = hash_file(path)
            key = f"picture:{self._sha256[path]}"
            if get(key) is None:
                read_frames(path, [0])
                put(key, {"file": path.name})
            progress.advance()

    def clip(self, video: Video) -> ReferencedClip:
        """A clip with its picture."""
        prompt = video.sample.prompt
        picture_HWC = read_frames(self._picture(prompt), [0])[0]
        return ReferencedClip(video.info, prompt.text, prompt.auxiliary, reference_HWC=picture_HWC)

    def key(self, key: str, video: Video, metric: MetricSpec) -> str:
        """What is compared with the picture depends on it; the rest are VBench's results."""
        if metric not in COMPARED:
            return key
        return content_key(result=key, picture=self._sha256.get(self._picture(video.sample.prompt)))

    def _picture(self, prompt: Prompt) -> Path:
        """Raises UserError if there is none."""
        named = prompt.auxiliary.get("image")
        path = inside(self.images, named) if isinstance(named, str) else None
        if path is None:
            path = self._by_name.get(prompt.text) or self._by_name.get(prompt.id)
        if path is None or not path.is_file():
            near = nearest(str(named or prompt.text), [p.name for p in self._by_name.values()], n=1)
            hint = f" (nearest: {near[0]!r})" if near else ""
            wanted = f" {named!r}" if named else ""
            raise UserError(
                f"{self.images} holds no picture{wanted} of the prompt {prompt.id!r} ({prompt.text[:60]!r}){hint}.",
                'Name it after the prompt, or name it in the prompt file: "auxiliary": {"image": "a.jpg"}.',
            )
        return path
