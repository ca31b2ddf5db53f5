"""From the scores of single videos to the run record: dimensions with intervals, headline scores, what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from evalkit import provenance
from evalkit.comparability import Caveat, caveats
from evalkit.job import Benchmark, Outcome, Request, Result, Video
from evalkit.metrics.base import MetricSpec
from evalkit.protocol import Selection
from evalkit.records import RESULT_COLUMNS, VBENCH_SCHEMA, save_run
from evalkit.scoring import BOUNDS, lingen_quality6, m4v_avg4, mean7, totals
from evalkit.stats import bootstrap_mean
from evalkit.store import content_key


def write_run(request: Request, command: Sequence[str], created: datetime, outcome: Outcome) -> None:
    """Write `results.parquet`, `vbench.json` and, last, `run.json`.

    Raises:
        RunFailed: the disk is full; scored results are in the journal all the same.
    """
    table = results_table(outcome.results)
    times = {"created": _timestamp(created), "finished": _timestamp(datetime.now(UTC))}
    record = {"command": list(command), **times, **_provenance(request, outcome)}
    save_run(request.out, table, summarise(request, outcome, table, record), record)


def results_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row per video and dimension, with the columns of `records.RESULT_COLUMNS`."""
    return pd.DataFrame([_row(r) for r in results], columns=list(RESULT_COLUMNS)).astype(RESULT_COLUMNS)


def _row(result: Result) -> dict[str, Any]:
    video, score = result.video, result.score
    prompt = video.sample.prompt
    info = asdict(video.info) if isinstance(video, Video) else {}
    return {
        "file": video.sample.file,
        "prompt_id": prompt.id,
        "prompt": prompt.text,
        "seed": video.sample.seed,
        "video_sha256": video.sha256,
        **{name: info.get(name) for name in ("width", "height", "n_frames", "fps")},
        "dimension": result.metric.name,
        "version": result.metric.version,
        "value": score.value,
        "n_terms": score.n_terms,
        "unscored": score.unscored,
        "key": result.key,
    }


def summarise(request: Request, outcome: Outcome, table: pd.DataFrame, record: Mapping[str, Any]) -> dict[str, Any]:
    """The machine-readable result, schema `m4v-eval/vbench/1`; scores are raw fractions, headline scores percent."""
    dimensions = {m.name: dimension_score(m, table, request.seed) for m in outcome.metrics}
    matching, benchmark = outcome.matching, outcome.benchmark
    scores = {name: d["score"] for name, d in dimensions.items()}
    return {
        "schema": benchmark.schema if benchmark else VBENCH_SCHEMA,
        "profile": _profile(request, outcome),
        "precision": request.runtime.precision,
        "subset": record["suite"],
        "dimensions": dimensions,
        "videos": _videos(outcome.results),
        "missing_prompts": [{"id": p.id, "text": p.text} for p in matching.missing],
        "unmatched_files": [asdict(u) for u in matching.unmatched],
        "protocol": _protocol(outcome.selection),
        "comparability": [asdict(caveat) for caveat in _caveats(request, outcome)],
        "interrupted": outcome.interrupted,
        "foreign_weights": list(outcome.foreign_weights),
        "aggregate": _headlines(benchmark, scores) if benchmark else aggregate(scores, request.profile == "lite"),
        **({"unavailable": dict(benchmark.unavailable)} if benchmark else {}),
        "provenance": record,
    }


def dimension_score(metric: MetricSpec, table: pd.DataFrame, seed: int) -> dict[str, Any]:
    """A dimension's score pooled as the official package does on one GPU, and its interval over prompts."""
    rows = table[table["dimension"] == metric.name]
    scored = rows[rows["value"].notna()]
    summary: dict[str, Any] = {"score": None, "n": len(scored), "unscored": len(rows) - len(scored), "ci95": None}
    if len(scored):
        interval = bootstrap_mean(
            scored["value"].to_numpy(dtype=float),
            scored["prompt_id"].to_numpy(dtype=str),
            weights=scored["n_terms"].to_numpy(dtype=float) if metric.pooling == "frames" else None,
            seed=seed,
        )
        summary["score"] = interval.estimate
        if interval.low is not None and interval.high is not None:
            summary["ci95"] = _within(metric.range, interval.low, interval.high)
    return summary | {
        "higher_is_better": metric.higher_is_better,
        "title": metric.title,
        "summary": metric.summary,
        "version": metric.version,
        "quirks": list(metric.quirks),
    }


def _within(bounds: tuple[float | None, float | None], low: float, high: float) -> list[float]:
    """An interval cut to the scores there can be; with few prompts it would reach beyond them."""
    smallest, largest = bounds
    return [low if smallest is None else max(low, smallest), high if largest is None else min(high, largest)]


def _videos(results: Sequence[Result]) -> list[dict[str, Any]]:
    videos: dict[str, dict[str, Any]] = {}
    for result in results:
        sample = result.video.sample
        video = videos.setdefault(
            sample.file,
            {
                "file": sample.file,
                "prompt_id": sample.prompt.id,
                "prompt": sample.prompt.text,
                "seed": sample.seed,
                "sha256": result.video.sha256,
                **({"generation_prompt": sample.generated_from} if sample.generated_from is not None else {}),
                "scores": {},
                "unscored": {},
            },
        )
        if result.score.value is not None:
            video["scores"][result.metric.name] = result.score.value
        else:
            video["unscored"][result.metric.name] = result.score.unscored
    return list(videos.values())


def aggregate(scores: Mapping[str, float | None], lite: bool) -> dict[str, Any]:
    """Headline scores; stand-ins never get one of VBench's names."""
    scored = {name: score for name, score in scores.items() if score is not None}
    if lite:
        stand_ins = {
            dimension: score for name, score in scored.items() if (dimension := name.removeprefix("lite/")) in BOUNDS
        }
        missing = [name for name in scores if name not in scored]
        return {"lite/mean7": mean7(stand_ins), "coverage": {"scored": list(scored), "missing": missing}}
    headline = totals(scored)
    return {
        "quality": headline.quality,
        "semantic": headline.semantic,
        "total": headline.total,
        "mean7": mean7(scored),
        "m4v_avg4": m4v_avg4(scored),
        "lingen_quality6": lingen_quality6(scored),
        "coverage": {"scored": list(headline.scored), "missing": list(headline.missing)},
    }


def _headlines(benchmark: Benchmark, scores: Mapping[str, float | None]) -> dict[str, Any]:
    return benchmark.headlines({name: score for name, score in scores.items() if score is not None})


def _profile(request: Request, outcome: Outcome) -> str:
    return outcome.benchmark.profile if outcome.benchmark else request.profile


def _protocol(selection: Selection) -> dict[str, Any]:
    found = selection.static_filter
    return {"standard": selection.standard, "static_filter": None if found is None else asdict(found)}


def _caveats(request: Request, outcome: Outcome) -> list[Caveat]:
    """Stand-ins and other suites are comparable with no row of VBench's leaderboard."""
    return caveats(outcome) if request.profile == "official" and not outcome.benchmark else []


def _timestamp(time: datetime) -> str:
    return time.isoformat("T", "seconds")


def _provenance(request: Request, outcome: Outcome) -> dict[str, Any]:
    suite = outcome.suite
    runtime = request.runtime
    config = {
        "subset": request.subset,
        "dimensions": [m.name for m in outcome.metrics],
        "profile": _profile(request, outcome),
        "seed": request.seed,
        **asdict(runtime),
        "threads": request.threads,
        "static_filter": outcome.selection.static_filter is not None,
        **(outcome.benchmark.settings if outcome.benchmark else {}),
    }
    return {
        "videos_dir": str(request.videos.resolve()),
        "config": config,
        "config_sha256": content_key(**config),
        "suite": {"name": suite.name, "sha256": suite.sha256, "n_prompts": len(suite.prompts), "source": suite.source},
        "profile": config["profile"],
        "precision": runtime.precision,
        "weights": dict(outcome.weights),
        "seed": request.seed,
        "git": provenance.git(),
        "packages": provenance.packages(),
        "hardware": provenance.hardware(runtime.device),
        "stages": {"score": "interrupted" if outcome.interrupted else "done"},
    }
