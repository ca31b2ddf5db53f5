"""A plan for machines: schema `m4v-eval/plan/1`. Seconds, hours and bytes; what is not known is null or listed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evalkit.budget.plan import Plan, Row
from evalkit.budget.words import notes

SCHEMA = "m4v-eval/plan/1"


def to_json(plan: Plan) -> dict[str, Any]:
    """The whole plan, its inputs and notes included."""
    order = plan.order
    return {
        "schema": SCHEMA,
        "work": _work(plan),
        "clip": asdict(order.clip),
        "rates": _rates(plan),
        "machine": asdict(order.machine),
        "price_per_gpu_hour": order.price,
        "models": [asdict(model) for model in order.models],
        "gpu": None if order.gpu is None else asdict(order.gpu),
        "one_gpu_seconds": plan.one_gpu,
        "serial_seconds": plan.serial,
        "serial_fraction": plan.serial_fraction,
        "worth_doubling_to": plan.worth_doubling_to,
        "decode_cores_per_gpu": plan.decode_cores,
        "rows": [_row(plan, row) for row in plan.rows],
        "storage": [asdict(item) for item in plan.storage],
        "lower_bound": bool(plan.unknown),
        "unknown": {name: list(networks) for name, networks in plan.unknown.items()},
        "stated": {name: list(networks) for name, networks in plan.stated.items()},
        "notes": list(notes(plan)),
    }


def _work(plan: Plan) -> dict[str, Any]:
    order, work = plan.order, plan.order.work
    return {
        "suite": work.suite,
        "profile": work.profile,
        "prompts": work.entries,
        "videos_per_prompt": work.per_prompt,
        "videos_listed": work.listed,
        "videos_scored": work.videos,
        "videos_needed": work.files,
        "static_filter_candidates": work.candidates,
        "dimensions": dict(work.results),
        "variants": order.variants,
        "seeds": order.seeds,
        "runs": order.runs,
    }


def _rates(plan: Plan) -> dict[str, Any]:
    rates = plan.order.rates
    return {
        "source": rates.source,
        "measured": rates.measured,
        "commands": rates.commands,
        "device": rates.device,
        "hardware": rates.hardware,
        "seconds_per_video": {name: asdict(rate) for name, rate in rates.features.items()},
        "overhead_seconds_per_video": asdict(rates.overhead),
        "decode_core_seconds_per_video": asdict(rates.decode) | {"source": rates.decode_source},
        "setup_seconds_per_worker": asdict(rates.setup),
        "start_seconds_per_worker": None if rates.start is None else asdict(rates.start),
        "stated_seconds_per_result": None if rates.per_result is None else asdict(rates.per_result),
    }


def _row(plan: Plan, row: Row) -> dict[str, Any]:
    price = plan.order.price
    return {
        "gpus": row.gpus,
        "gpus_used": row.used,
        "wall_seconds": asdict(row.wall),
        "gpu_hours": asdict(row.gpu_hours),
        "gpu_hours_held": asdict(row.held_hours),
        "cost": None if price is None else price * row.gpu_hours.mean,
        "cost_held": None if price is None else price * row.held_hours.mean,
        "efficiency": row.efficiency,
        "imbalance": row.imbalance,
    }
