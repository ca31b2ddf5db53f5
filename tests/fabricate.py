"""Run directories made up for tests: the records of a run that never happened, with real clips and stills."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
from PIL import Image

from evalkit.records import RESULT_COLUMNS, RUN_SCHEMA, VBENCH_SCHEMA, RunRecord, load_run

SEVEN = {
    "subject_consistency": 0.955,
    "background_consistency": 0.961,
    "temporal_flickering": 0.986,
    "motion_smoothness": 0.993,
    "aesthetic_quality": 0.62,
    "imaging_quality": 0.66,
    "overall_consistency": 0.25,
}
"""The customised dimensions with plausible means."""


@dataclass(frozen=True)
class Spec:
    """What to make up. `scores` maps a dimension to the mean of its videos' scores."""

    prompts: Sequence[str]
    scores: Mapping[str, float] = field(default_factory=lambda: dict(SEVEN))
    profile: str = "official"
    precision: str = "fp32"
    videos_per_prompt: int = 1
    seed: int = 0
    suite: str = "custom50"
    spread: float = 0.02
    clip_size: tuple[int, int] | None = (96, 64)
    files: Mapping[int, str] = field(default_factory=dict)  # other names for some videos
    unscored: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    undecodable: frozenset[int] = frozenset()
    missing: Sequence[Mapping[str, str]] = ()
    unmatched: Sequence[Mapping[str, Any]] = ()
    command: Sequence[str] = ("m4v-eval", "vbench", "--subset", "custom50", "--videos", "clips of mine")


def write_clip(path: Path, size: tuple[int, int], hue: float, n_frames: int = 24) -> None:
    """A bright disc crosses a coloured gradient; H.264, yuv420p, 24 fps."""
    width, height = size
    y_HW, x_HW = np.mgrid[:height, :width] / [[[height]], [[width]]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, 24)
        for index in range(n_frames):
            frame = av.VideoFrame.from_ndarray(_picture(x_HW, y_HW, hue, index / n_frames), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _picture(x_HW: np.ndarray, y_HW: np.ndarray, hue: float, phase: float) -> np.ndarray:
    waves = [0.5 + 0.4 * np.sin(2 * np.pi * (hue + k / 3) + 2.5 * y_HW + x_HW) for k in range(3)]
    disc_HW = (x_HW - phase) ** 2 + (y_HW - 0.5 - 0.2 * np.sin(6 * phase + hue)) ** 2 < 0.02
    return (255 * np.clip(np.stack(waves, axis=-1) + 0.5 * disc_HW[..., None], 0, 1)).astype(np.uint8)


def write_poster(path: Path, size: tuple[int, int], hue: float) -> None:
    width, height = size
    y_HW, x_HW = np.mgrid[:height, :width] / [[[height]], [[width]]]
    path.parent.mkdir(parents=True, exist_ok=True)
    still = Image.fromarray(_picture(x_HW, y_HW, hue, 0.5))
    still.thumbnail((320, 240))
    still.save(path, "JPEG", quality=80)


def write_run(root: Path, spec: Spec) -> RunRecord:
    """Write `root` with its videos beside it, and load it back as the report does."""
    rng = np.random.default_rng(spec.seed)
    folder = root.parent / f"{root.name}-videos"
    folder.mkdir(parents=True)
    videos = [
        _video(spec, rng, folder, root, place, prompt, k)
        for place, (prompt, k) in enumerate(
            (p, k) for p in enumerate(spec.prompts) for k in range(spec.videos_per_prompt)
        )
    ]
    _write(root, spec, folder, videos)
    return load_run(root)


def _video(
    spec: Spec, rng: np.random.Generator, folder: Path, root: Path, place: int, prompt: tuple[int, str], k: int
) -> dict[str, Any]:
    number, text = prompt
    file = spec.files.get(place, f"{spec.suite}-{number + 1:02d}-{k}.mp4")
    sha256 = None if place in spec.undecodable else hashlib.sha256(f"{spec.seed} {place}".encode()).hexdigest()
    if spec.clip_size is not None and sha256 is not None:
        write_clip(folder / file, spec.clip_size, 0.37 * place + 0.1 * spec.seed)
        write_poster(root / "posters" / f"{sha256[:16]}.jpg", spec.clip_size, 0.37 * place + 0.1 * spec.seed)
    unscored = (
        dict.fromkeys(spec.scores, "the video cannot be decoded")
        if sha256 is None
        else dict(spec.unscored.get(place, {}))
    )
    scores = {
        name: float(np.clip(rng.normal(mean, spec.spread * min(1, 4 * (1 - mean))), 0, 1))
        for name, mean in spec.scores.items()
    }
    return {
        "file": file,
        "prompt_id": f"{spec.suite}-{number + 1:02d}",
        "prompt": text,
        "seed": k,
        "sha256": sha256,
        "scores": {name: value for name, value in scores.items() if name not in unscored},
        "unscored": unscored,
    }


def _dimension(videos: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    values = [video["scores"][name] for video in videos if name in video["scores"]]
    half = 1.96 * float(np.std(values)) / max(len(values), 1) ** 0.5 if values else 0.0
    mean = float(np.mean(values)) if values else None
    return {
        "score": mean,
        "n": len(values),
        "unscored": len(videos) - len(values),
        "ci95": None if mean is None or len(values) < 2 else [mean - half, mean + half],
        "higher_is_better": True,
        "title": name.replace("_", " "),
        "summary": f"Made-up {name} for tests.",
        "version": 1,
        "quirks": ["Nothing was measured."],
    }


def _aggregate(spec: Spec, dimensions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    complete = all(found["score"] is not None for found in dimensions.values()) and len(dimensions) >= 7
    mean7 = 100 * float(np.mean([found["score"] for found in dimensions.values()])) if complete else None
    coverage = {
        "scored": list(dimensions),
        "missing": [] if spec.profile == "lite" else ["dynamic_degree", "object_class", "scene"],
    }
    if spec.profile == "lite":
        return {"lite/mean7": mean7, "coverage": coverage}
    four = ("subject_consistency", "aesthetic_quality", "imaging_quality", "overall_consistency")
    avg4 = 100 * float(np.mean([dimensions[name]["score"] for name in four])) if complete else None
    empty = {"quality": None, "semantic": None, "total": None, "lingen_quality6": None}
    return {**empty, "mean7": mean7, "m4v_avg4": avg4, "coverage": coverage}


def _write(root: Path, spec: Spec, folder: Path, videos: Sequence[dict[str, Any]]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    dimensions = {name: _dimension(videos, name) for name in spec.scores}
    subset = {
        "name": spec.suite,
        "sha256": hashlib.sha256("\n".join([*spec.prompts, *(p["text"] for p in spec.missing)]).encode()).hexdigest(),
        "n_prompts": len(spec.prompts) + len(spec.missing),
        "source": "M4V supplement B.3",
    }
    manifest = {
        "schema": RUN_SCHEMA,
        "command": list(spec.command),
        "finished": "2026-03-01T09:41:17+00:00",
        "videos_dir": str(folder),
        "config": {"profile": spec.profile, "dimensions": list(spec.scores), "device": "cpu", "batch": 8},
        "config_sha256": hashlib.sha256(repr(spec.scores).encode()).hexdigest(),
        "suite": subset,
        "profile": spec.profile,
        "precision": spec.precision,
        "weights": {} if spec.profile == "lite" else {"dino-vitb16": "ab" * 32, "clip-b32": "cd" * 32},
        "seed": spec.seed,
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "packages": {"m4v-eval": "0.1.0", "numpy": "2.4.6", "python": "3.11.2", "torch": "2.15.0"},
        "hardware": {"cpu": "Example CPU @ 2.00GHz", "cores": 2, "memory_gib": 24.0, "gpu": None},
        "stages": {"scoring": "done"},
    }
    summary = {
        "schema": VBENCH_SCHEMA,
        "profile": spec.profile,
        "precision": spec.precision,
        "subset": subset,
        "dimensions": dimensions,
        "videos": list(videos),
        "missing_prompts": [dict(prompt) for prompt in spec.missing],
        "unmatched_files": [dict(file) for file in spec.unmatched],
        "aggregate": _aggregate(spec, dimensions),
        "provenance": copy.deepcopy(manifest),
    }
    (root / "run.json").write_text(json.dumps(manifest))
    (root / "vbench.json").write_text(json.dumps(summary))
    _results(spec, videos).to_parquet(root / "results.parquet")


def _results(spec: Spec, videos: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    width, height = spec.clip_size or (256, 256)
    rows = []
    for video in videos:
        opened = video["sha256"] is not None
        for name in spec.scores:
            value = video["scores"].get(name)
            rows.append(
                {
                    "file": video["file"],
                    "prompt_id": video["prompt_id"],
                    "prompt": video["prompt"],
                    "seed": video["seed"],
                    "video_sha256": video["sha256"],
                    "width": width if opened else None,
                    "height": height if opened else None,
                    "n_frames": 24 if opened else None,
                    "fps": 24.0 if opened else None,
                    "dimension": name,
                    "version": 1,
                    "value": value,
                    "n_terms": 23 if value is not None else None,
                    "unscored": video["unscored"].get(name),
                    "key": f"{video['file']}:{name}",
                }
            )
    return pd.DataFrame(rows, columns=list(RESULT_COLUMNS)).astype(RESULT_COLUMNS)
