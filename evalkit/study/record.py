"""A study's figures as JSON, schema `m4v-eval/study/1`, and back.

Figures are objects `{value, low, high}` with a 95 % interval; null is unknown. Each axis has its models by name, the
best first in `order`, with `against` every other model; `duels` has every pair once. Mean ranks are on the scale of
ranks, 1 is best; `mean_rank_as_printed` is on that of the table they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evalkit.study.statistics.duels import turned
from evalkit.study.types import AxisResult, Duel, Estimate, Fault, Screening, Standing, StudyResult

SCHEMA = "m4v-eval/study/1"
_MEASURES = ("mean_rank", "win_rate", "bradley_terry", "plackett_luce")
_SHARES = ("win", "tie", "lose", "win_rate", "level")


def to_json(result: StudyResult, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The machine-readable result.

    Args:
        result: of a study.
        provenance: what it came from.
    """
    return {
        "schema": SCHEMA,
        "source": result.source,
        "unit": result.unit,
        "unit_means": _UNITS[result.unit],
        "protocol": result.protocol,
        "direction": result.direction,
        "scale": result.scale,
        "scale_means": "rank = scale x figure of the input",
        "models": list(result.models),
        "axes": {axis.axis: _axis(axis, result) for axis in result.axes},
        "screening": None if result.screening is None else asdict(result.screening),
        "faults": [asdict(fault) for fault in result.faults],
        "caveats": list(result.caveats),
        "provenance": dict(provenance or {}),
    }


_UNITS = {
    "vote": "shares count single answers of raters",
    "prompt": "shares count prompts by their mean ranks over raters; they are not rater-level",
}


def _axis(axis: AxisResult, result: StudyResult) -> dict[str, Any]:
    against: dict[str, dict[str, Any]] = {standing.model: {} for standing in axis.standings}
    for duel in axis.duels:
        against[duel.a][duel.b] = _duel(duel)
        against[duel.b][duel.a] = _duel(turned(duel))
    return {
        "n_votes": axis.n_votes,
        "n_raters": axis.n_raters,
        "n_prompts": axis.n_prompts,
        "order": [standing.model for standing in axis.standings],
        "models": {s.model: _standing(s, result) | {"against": against[s.model]} for s in axis.standings},
        "duels": [{"a": duel.a, "b": duel.b, **_duel(duel)} for duel in axis.duels],
        "tie_log_odds": axis.tie_log_odds,
        "kendall_w": _figure(axis.kendall_w),
        "krippendorff_alpha": _figure(axis.krippendorff_alpha),
        "notes": list(axis.notes),
    }


def _standing(standing: Standing, result: StudyResult) -> dict[str, Any]:
    figures: dict[str, Any] = {"n": standing.n}
    for name in _MEASURES:
        figures[name] = _figure(getattr(standing, name))
        if name == "mean_rank" and result.unit == "prompt":
            figures["mean_rank_as_printed"] = _figure(standing.mean_rank, 1 / result.scale)
    return figures


def _duel(duel: Duel) -> dict[str, Any]:
    counts = {f"n_{name}": round(duel.n * getattr(duel, name).value) for name in ("win", "tie", "lose")}
    shares = {name: _figure(getattr(duel, name)) for name in _SHARES}
    return {"n": duel.n, **counts, **shares, "p_value": duel.p_value, "p_adjusted": duel.p_adjusted}


def _figure(estimate: Estimate | None, factor: float = 1.0) -> dict[str, float | None] | None:
    if estimate is None:
        return None
    return {name: None if x is None else factor * x for name, x in asdict(estimate).items()}


# ---- and back --------------------------------------------------------------------------------------------------------


def from_json(record: Mapping[str, Any]) -> StudyResult:
    """The result that `to_json` wrote.

    Raises:
        ValueError: another schema.
    """
    if record.get("schema") != SCHEMA:
        raise ValueError(f"schema {record.get('schema')!r} is not {SCHEMA}")
    screening = record["screening"]
    return StudyResult(
        source=record["source"],
        unit=record["unit"],
        protocol=record["protocol"],
        models=tuple(record["models"]),
        axes=tuple(_read_axis(name, axis) for name, axis in record["axes"].items()),
        screening=None if screening is None else _read_screening(screening),
        scale=record["scale"],
        direction=record["direction"],
        faults=tuple(Fault(**fault) for fault in record["faults"]),
        caveats=tuple(record["caveats"]),
    )


def _read_axis(name: str, axis: Mapping[str, Any]) -> AxisResult:
    return AxisResult(
        axis=name,
        n_votes=axis["n_votes"],
        n_raters=axis["n_raters"],
        n_prompts=axis["n_prompts"],
        standings=tuple(_read_standing(model, axis["models"][model]) for model in axis["order"]),
        duels=tuple(_read_duel(duel) for duel in axis["duels"]),
        tie_log_odds=axis["tie_log_odds"],
        kendall_w=_estimate(axis["kendall_w"]),
        krippendorff_alpha=_estimate(axis["krippendorff_alpha"]),
        notes=tuple(axis["notes"]),
    )


def _read_standing(model: str, figures: Mapping[str, Any]) -> Standing:
    return Standing(model, figures["n"], *(_estimate(figures[name]) for name in _MEASURES))


def _read_duel(duel: Mapping[str, Any]) -> Duel:
    win, tie, lose, rate = (Estimate(**duel[name]) for name in _SHARES[:4])
    level = _estimate(duel["level"])
    return Duel(duel["a"], duel["b"], duel["n"], win, tie, lose, rate, level, duel["p_value"], duel["p_adjusted"])


def _estimate(figure: Mapping[str, Any] | None) -> Estimate | None:
    return None if figure is None else Estimate(**figure)


def _read_screening(record: Mapping[str, Any]) -> Screening:
    checks = {rater: (counts[0], counts[1]) for rater, counts in record["checks"].items()}
    return Screening(**{**record, "checks": checks})
