"""An ablation as an entry: its variants, and of each its seeds with their losses by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from evalkit.ablation_record import AblationRecord, ComparedMetric, TrainedVariant, load_ablation
from evalkit.errors import UserError
from evalkit.export.entry import Curve, Entry, csv_text, flat, moment, present
from evalkit.export.scored import scored_entry
from evalkit.records import load_run
from evalkit.store import content_key
from evalkit.untrusted import inside, parse_json, read_text, shown

LOSSES = "losses.jsonl"
CURVES = ("loss", "lr", "grad_norm", "seconds")
AGAIN = "Run m4v-eval ablate with the same --out again."


def ablation_entry(path: Path) -> Entry:
    """An ablation with all its parts.

    Raises:
        UserError: its record, that of one of its runs, or a loss log is damaged.
    """
    record = load_ablation(path)
    name = shown(path.resolve().name)
    identity = content_key(name=name, config=record.config_hash)
    finished = moment(record.provenance.get("finished"))
    unscored = sum(metric.unscored for variant in record.variants for metric in variant.metrics.values())
    columns = list(ComparedMetric.model_fields)
    return Entry(
        name=name,
        identity=identity,
        finished=finished,
        numbers={"missing/unscored": float(unscored)},
        settings=flat("", _settings(record)),
        origin=flat("", {key: value for key, value in record.provenance.items() if key != "command"})
        | {
            "command": " ".join(map(str, record.provenance.get("command", []))),
            "schema": "m4v-eval/ablation/1",
            "profile": record.profile,
        },
        tables={"comparisons.csv": csv_text(columns, (_compared(found) for found in record.comparisons))},
        report=path / "report.html" if (path / "report.html").is_file() else None,
        parts=tuple(_variant(path, record, variant, identity, finished) for variant in record.variants),
    )


def _settings(record: AblationRecord) -> dict[str, Any]:
    fields = {"system", "preset", "data", "subset", "profile", "seeds", "baseline", "config_hash", "pretraining"}
    return {name: value for name, value in record.model_dump(mode="json", include=fields).items() if value is not None}


def _compared(found: ComparedMetric) -> dict[str, Any]:
    low, high = found.ci95 or (None, None)
    return found.model_dump(mode="json") | {"ci95": "" if low is None else f"{low} {high}"}


def _variant(path: Path, record: AblationRecord, variant: TrainedVariant, whole: str, finished: datetime) -> Entry:
    compared = [found for found in record.comparisons if found.variant == variant.name]
    numbers, missing = present(_metrics(variant) | _differences(compared))
    changes = {name: f"{before} -> {after}" for name, (before, after) in variant.changes.items()}
    return Entry(
        name=variant.name,
        identity=content_key(of=whole, variant=variant.name),
        finished=finished,
        numbers=numbers | {"missing/values": float(len(missing))},
        missing=missing,
        settings={"title": variant.title, "init": variant.init, **flat("changes.", changes)}
        | ({"against": variant.against} if variant.against else {}),
        origin={f"verdict.{found.metric}": found.verdict for found in compared},
        parts=tuple(
            _seed(path, run, seed, curve, content_key(of=whole, variant=variant.name, seed=seed))
            for run, seed, curve in zip(variant.runs, record.seeds, _thinned(record, variant), strict=True)
        ),
    )


def _metrics(variant: TrainedVariant) -> dict[str, float | None]:
    found: dict[str, float | None] = {
        "train/final_loss": variant.train.final_loss,
        "train/steps": variant.train.steps,
        "cost/parameters": variant.parameters,
        "cost/tflops": variant.tflops,
        "cost/training_tflops": variant.training_tflops,
    }
    for name, metric in variant.metrics.items():
        low, high = metric.ci95 or (None, None)
        found |= {
            f"score/{name}": metric.mean,
            f"ci95_low/{name}": low,
            f"ci95_high/{name}": high,
            f"scored/{name}": metric.n,
            f"unscored/{name}": metric.unscored,
        }
    return found


def _differences(compared: list[ComparedMetric]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for c in compared:
        low, high = c.ci95 or (None, None)
        found |= {
            f"delta/{c.metric}": c.delta,
            f"delta_ci95_low/{c.metric}": low,
            f"delta_ci95_high/{c.metric}": high,
            f"p_value/{c.metric}": c.p_value,
            f"p_adjusted/{c.metric}": c.p_adjusted,
            f"pairs/{c.metric}": c.n,
            f"unpaired/{c.metric}": c.unpaired,
        }
    return found


def _seed(path: Path, run: str, seed: int, thinned: Curve, identity: str) -> Entry:
    place = inside(path, run)
    if place is None:
        raise UserError(f"{path} names a run outside of it: {shown(run)!r}.", AGAIN)
    curves = _losses(place.parent / "train" / LOSSES) or ({"train/loss": thinned} if thinned else {})
    entry = scored_entry(load_run(place, whole=True), f"seed{seed}", curves)
    return replace(entry, identity=identity)


def _losses(path: Path) -> dict[str, Curve]:
    """The training's log by step; empty if it was removed. What is not finite is left out."""
    if not path.is_file():
        return {}
    found: dict[str, dict[int, float]] = {}
    for n, text in enumerate(read_text(path, AGAIN).split("\n")[:-1], 1):  # a kill may have torn what follows
        where = f"{path}, line {n}"
        line = parse_json(text, where, AGAIN)
        if not isinstance(line, Mapping) or type(line.get("step")) is not int:
            raise UserError(f"{shown(where)}: this is no step of a training.", AGAIN)
        for name in CURVES:
            value = line.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(f"train/{name}", {})[line["step"]] = float(value)
    return {name: sorted(curve.items()) for name, curve in found.items()}


def _thinned(record: AblationRecord, variant: TrainedVariant) -> list[Curve]:
    """The curves that the record itself keeps, one a seed."""
    curves = list(variant.train.curves) + [()] * len(record.seeds)
    return [[(round(step), loss) for step, loss in curve] for curve in curves[: len(record.seeds)]]
