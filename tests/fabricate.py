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

from evalkit.ablation_record import ABLATION_SCHEMA
from evalkit.cost_record import FLOPS_SCHEMA, LATENCY_SCHEMA, CostRecord, load_cost
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
    binary: frozenset[str] = frozenset()  # metrics whose scores are 0 or 1
    videos_dir: Path | None = None
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
    folder = spec.videos_dir or root.parent / f"{root.name}-videos"
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
        name: float(rng.random() < mean)
        if name in spec.binary
        else float(np.clip(rng.normal(mean, spec.spread * min(1, 4 * (1 - mean))), 0, 1))
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


CONVENTION = {
    "flops_per_mac": 2,
    "mask": "none",
    "guidance": None,
    "stage": "full",
    "scope": "last-frame",
    "scan_cost": "chunked",
    "dual_mamba_cost": 1.0,
    "output_projection": "attention",
    "text_tokens": 128,
    "counter": "torch FlopCounterMode on the meta device",
    "notes": ["A multiply-add counts as 2 FLOPs.", "Attention counts in full (no mask)."],
}


def cost_row(variant: str, mixers: float, **changes: Any) -> dict[str, Any]:
    """A row of flops.json in which everything but the mixers costs the same for each variant."""
    breakdown = {"mixer": mixers, "out": 4.6, "mlp": 30.25, "modulation": 0.001, "embed": 0.06, "head": 0.015}
    row = {
        "variant": variant,
        "model": "m4v",
        "this_model": False,
        "dual_blocks": 8,
        "single_blocks": 16,
        "frames": 241,
        "height": 768,
        "width": 1280,
        "tokens": 15360,
        "parameters": 1.9e9,
        "mixer_tflops": mixers,
        "total_tflops": sum(breakdown.values()),
        "clip_tflops": 200 * sum(breakdown.values()),
        "published_tflops": None,
        "published_source": None,
        "relative_error": None,
        "reproduced": None,
        "breakdown": breakdown,
    }
    return row | changes


def m4v_rows() -> list[dict[str, Any]]:
    """Three mixers of M4V: one printed figure met, one missed, one not printed."""
    source = {"published_source": "M4V, Table 6"}
    return [
        cost_row("attention", 55.2, published_tflops=55.44, relative_error=55.2 / 55.44 - 1, reproduced=True, **source),
        cost_row("mamba", 26.9),
        cost_row(
            "mamba+temporal",
            31.4,
            published_tflops=29.52,
            relative_error=31.4 / 29.52 - 1,
            reproduced=False,
            this_model=True,
            **source,
        ),
    ]


def frame_sweep() -> dict[str, Any]:
    """Attention grows with the square of the tokens, Mamba with the tokens; they meet at 2,000."""
    rows = [
        {
            "variant": variant,
            "value": frames,
            "tokens": tokens,
            "mixer_tflops": 4 * (tokens / 2000) ** power,
            "total_tflops": 4 * (tokens / 2000) ** power + tokens / 500,
        }
        for frames, tokens in ((9, 1000), (57, 9840), (121, 11760), (241, 15360))
        for variant, power in (("attention", 2), ("mamba", 1), ("mamba+temporal", 1.05))
    ]
    crossing = {"a": "attention", "b": "mamba", "tokens": 2000.0, "frames": 13.5, "tflops": 4.0}
    return {"parameter": "frames", "rows": rows, "crossing": crossing}


def block_sweep() -> dict[str, Any]:
    """Mixer cost is linear in the number of dual-stream blocks."""
    rows = [
        {
            "variant": "mamba+temporal",
            "value": n,
            "tokens": 15360,
            "mixer_tflops": 22.4 + 0.9 * n,
            "total_tflops": 50 + n,
        }
        for n in (0, 2, 4, 8)
    ]
    return {"parameter": "dual_blocks", "rows": rows, "crossing": None}


def latency_row(variant: str, median: float, **changes: Any) -> dict[str, Any]:
    """A row of latency.json."""
    row = {
        "variant": variant,
        "model": "m4v",
        "frames": 241,
        "height": 768,
        "width": 1280,
        "tokens": 15360,
        "parameters": 1_900_000_000,
        "median_s": median,
        "q1_s": 0.98 * median,
        "q3_s": 1.03 * median,
        "repeats": 20,
        "peak_memory_bytes": 12.5 * 2**30,
        "memory_method": "largest allocation of the CUDA allocator",
        "tflops": 90.0,
        "achieved_tflops_per_s": 90.0 / median,
        "peak_tflops_per_s": 312.0,
        "peak_source": "data sheet, dense bf16",
        "utilisation": 90.0 / median / 312.0,
        "ratio": None,
        "modules": [{"name": "mixer", "seconds": 0.6 * median, "share": 0.6}],
        "failed": None,
    }
    return row | changes


FAILED = dict.fromkeys(
    (
        "median_s",
        "q1_s",
        "q3_s",
        "repeats",
        "peak_memory_bytes",
        "memory_method",
        "achieved_tflops_per_s",
        "utilisation",
    )
) | {"modules": [], "failed": "out of memory after 79 GiB"}
"""What a latency row that could not be measured lacks."""


def write_flops(root: Path, rows: Sequence[Mapping[str, Any]], **changes: Any) -> CostRecord:
    """Write `root/flops.json` and load the directory's cost as the report does."""
    record = {"schema": FLOPS_SCHEMA, "convention": CONVENTION, "rows": list(rows), "sweep": None}
    return _write_cost(root, "flops.json", record | {"provenance": _cost_origin()} | changes)


def write_latency(
    root: Path, rows: Sequence[Mapping[str, Any]], hardware: str = "Example GPU", kind: str = "cuda", **changes: Any
) -> CostRecord:
    """Write `root/latency.json` and load the directory's cost as the report does."""
    record = {
        "schema": LATENCY_SCHEMA,
        "hardware": {"name": hardware, "kind": kind},
        "settings": {"dtype": "bf16", "compile": False, "batch": 1, "threads": 2, "warmup": 3},
        "rows": list(rows),
    }
    return _write_cost(root, "latency.json", record | {"provenance": _cost_origin()} | changes)


def _cost_origin() -> dict[str, Any]:
    git = {"commit": "89abcdef0123456789abcdef0123456789abcdef", "dirty": True}
    return {"packages": {"m4v-eval": "0.1.0", "torch": "2.15.0"}, "git": git}


def _write_cost(root: Path, name: str, record: Mapping[str, Any]) -> CostRecord:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(record))
    cost = load_cost(root)
    assert cost is not None
    return cost


TRUTH = {"truth/colour": 0.6, "truth/shape": 0.45, "truth/motion": 0.3}
EFFECT = {
    "metric": "aesthetic_quality",
    "baseline": 49.82,
    "variant": 51.25,
    "delta": 1.43,
    "unit": "percent",
    "citation": "M4V, Table 2",
}


@dataclass(frozen=True)
class AblationSpec:
    """What to make up. `scores` are the baseline's means; `gains` maps a variant to what it adds to each metric."""

    prompts: Sequence[str]
    gains: Mapping[str, float] = field(default_factory=lambda: {"temp-branch": 0.25, "text-recomposition": 0.0})
    seeds: Sequence[int] = (0,)
    scores: Mapping[str, float] = field(
        default_factory=lambda: {**TRUTH, "lite/aesthetic_quality": 0.5, "temporal_flickering": 0.9}
    )
    profile: str = "lite"
    cumulative: bool = False
    unscored: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    clip_size: tuple[int, int] | None = None
    published: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=lambda: {"temp-branch": [EFFECT]})


def write_ablation(root: Path, spec: AblationSpec) -> Path:
    """Write a directory as `m4v-eval ablate` leaves it: made-up runs, whose truth scores are 0 or 1, truly compared."""
    from evalkit.ablate.compare import compare_variants, metric_names, prompt_ids, summarise

    names = ["baseline", *spec.gains]
    against = dict(zip(spec.gains, names if spec.cumulative else ["baseline"] * len(names), strict=False))
    runs = {name: [_seed_run(root, spec, name, seed) for seed in spec.seeds] for name in names}
    metrics, prompts = metric_names(runs), prompt_ids(runs)
    record = {
        "schema": ABLATION_SCHEMA,
        "baseline": "baseline",
        "system": "m4v",
        "preset": "tiny",
        "description": "M4V as small as a processor can train; both pyramids are off.",
        "subset": runs["baseline"][0].manifest["suite"],
        "profile": spec.profile,
        "seeds": list(spec.seeds),
        "variants": [
            _trained(spec, name, against.get(name), summarise(runs[name], metrics, prompts)) for name in names
        ],
        "comparisons": [found.to_json() for found in compare_variants(runs, list(against.items()))],
        "pretraining": {"steps": 400, "recipe_hash": "ab" * 32},
        "config_hash": "cd" * 32,
        "provenance": _cost_origin() | {"command": ["m4v-eval", "ablate", *spec.gains]},
    }
    (root / "ablation.json").write_text(json.dumps(record))
    return root


def _seed_run(root: Path, spec: AblationSpec, name: str, seed: int) -> RunRecord:
    gain = spec.gains.get(name, 0.0)
    scores = {metric: min(0.98, mean + gain * (1 if metric in TRUTH else 0.1)) for metric, mean in spec.scores.items()}
    number = list(spec.gains).index(name) + 1 if name in spec.gains else 0
    made_up = Spec(
        spec.prompts,
        scores=scores,
        profile=spec.profile,
        seed=100 * seed + number,
        suite="shapes50",
        unscored=spec.unscored,
        clip_size=spec.clip_size,
        binary=frozenset(TRUTH),
        videos_dir=root / name / f"seed{seed}" / "videos",
    )
    return write_run(root / name / f"seed{seed}" / "scores", made_up)


def _trained(spec: AblationSpec, name: str, against: str | None, metrics: Mapping[str, Any]) -> dict[str, Any]:
    curves = [
        [
            [10.0 * k + 4.5, 1.2 * (1 + k) ** (-0.5 + 0.01 * seed - 0.02 * len(name)) + 0.01 * (k * 7 % 5)]
            for k in range(100)
        ]
        for seed in spec.seeds
    ]
    return {
        "name": name,
        "title": name.replace("-", " "),
        "against": against,
        "init": "transplant",
        "reward": 0.0,
        "parameters": 4.2e6,
        "tflops": 0.0123,
        "training_tflops": 295.2,
        "train": {"steps": 1000, "final_loss": 0.14, "curves": curves},
        "metrics": metrics,
        "published": [dict(effect) for effect in spec.published.get(name, ())],
        "changes": {} if against is None else {f"model.{name.replace('-', '_')}": [False, True]},
        "recipe_hash": "ef" * 32,
        "runs": [f"{name}/seed{seed}/scores" for seed in spec.seeds],
    }
