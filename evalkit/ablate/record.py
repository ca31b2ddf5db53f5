"""What an experiment leaves behind: `ablation.json`, schema `m4v-eval/ablation/1`, and what the report reads of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit import provenance
from evalkit.ablate.compare import MetricComparison, compare_variants, metric_names, prompt_ids, summarise
from evalkit.ablate.experiment import Experiment, Variant, training_flops
from evalkit.ablate.setting import Setting
from evalkit.ablate.training import losses
from evalkit.ablation import Effect
from evalkit.flops import count_forward
from evalkit.records import RunRecord
from evalkit.store import content_key

ABLATION_SCHEMA = "m4v-eval/ablation/1"
TERA = 1e12
LOSS_WINDOW = 50
"""Steps that the final loss is averaged over: single steps scatter by tens of percent."""


def make_record(experiment: Experiment, setting: Setting, runs: Mapping[str, Sequence[RunRecord]]) -> dict[str, Any]:
    """The machine-readable result; scores are raw fractions."""
    compared = compare_against(experiment, runs)
    metrics, prompts = metric_names(runs), prompt_ids(runs)
    return {
        "schema": ABLATION_SCHEMA,
        "baseline": experiment.baseline.name,
        "system": experiment.baseline.recipe.system,
        "preset": experiment.base.name,
        "description": experiment.base.description,
        "subset": dict(runs[experiment.baseline.name][0].manifest["suite"]),
        "profile": setting.profile,
        "data": experiment.base.data,
        "seeds": list(setting.seeds),
        "variants": [
            _variant(variant, experiment, setting, summarise(runs[variant.name], metrics, prompts))
            for variant in experiment.variants
        ],
        "comparisons": [comparison.to_json() for comparison in compared],
        "pretraining": None
        if experiment.pretraining is None
        else {"steps": experiment.pretraining.train.steps, "recipe_hash": experiment.pretraining.config_hash()},
        "config_hash": config_hash(experiment, setting),
        "provenance": {
            "command": list(sys.argv),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "hardware": provenance.hardware(setting.device),
            "packages": provenance.packages(),
            "git": provenance.git(),
        },
    }


def config_hash(experiment: Experiment, setting: Setting) -> str:
    """Identity of all that decides the numbers."""
    recipes = {
        variant.name: [variant.recipe.config_hash(), variant.init, variant.reward] for variant in experiment.variants
    }
    pretraining = experiment.pretraining.config_hash() if experiment.pretraining else None
    return content_key(
        recipes=recipes,
        pretraining=pretraining,
        seeds=list(setting.seeds),
        subset=setting.subset,
        profile=setting.profile,
    )


def compare_against(experiment: Experiment, runs: Mapping[str, Sequence[RunRecord]]) -> list[MetricComparison]:
    """Each variant against the one it adds to: the baseline, or (cumulative) the variant before it.

    P-values are corrected over all comparisons of the experiment together.
    """
    pairs = [(v.name, v.against) for v in experiment.variants if v.against is not None and v.against in runs]
    return compare_variants(runs, pairs)


def _variant(
    variant: Variant, experiment: Experiment, setting: Setting, metrics: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    recipe = variant.recipe
    evaluation = recipe.model.evaluations(*recipe.model.clip)[-1]
    count = count_forward(recipe.model, evaluation)
    folders = [setting.out / variant.name / f"seed{seed}" for seed in setting.seeds]
    curves = [losses(folder / "train") for folder in folders]
    tails = [curve[-LOSS_WINDOW:] for curve in curves if curve]
    return {
        "name": variant.name,
        "title": variant.title,
        "against": variant.against,
        "init": variant.init,
        "reward": variant.reward,
        "parameters": count.parameters,
        "tflops": count.total / TERA,
        "training_tflops": training_flops(recipe) / TERA,
        "train": {
            "steps": recipe.train.steps,
            "final_loss": sum(sum(tail) / len(tail) for tail in tails) / len(tails) if tails else None,
            "curves": [_thinned(curve) for curve in curves],
        },
        "metrics": metrics,
        "published": [_effect(effect) for effect in variant.effects],
        "changes": _changes(variant, experiment),
        "recipe_hash": recipe.config_hash(),
        "runs": [str(Path(variant.name) / folder.name / "scores") for folder in folders],
    }


def _thinned(curve: Sequence[float], points: int = 100) -> list[list[float]]:
    """A loss curve as at most `points` pairs of step and mean loss."""
    size = max(1, -(-len(curve) // points))
    return [
        [start + (len(part) - 1) / 2, sum(part) / len(part)]
        for start in range(0, len(curve), size)
        if (part := curve[start : start + size])
    ]


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        "metric": effect.metric,
        "baseline": effect.baseline,
        "variant": effect.variant,
        "delta": effect.delta,
        "unit": effect.unit,
        "citation": effect.citation,
    }


def _changes(variant: Variant, experiment: Experiment) -> dict[str, Any]:
    """Fields in which a variant differs from what it is compared with: `{path: [there, here]}`."""
    other = next((v for v in experiment.variants if v.name == variant.against), variant)
    different = {path: list(values) for path, values in other.recipe.different(variant.recipe).items()}
    phases: dict[str, list[Any]] = {"init": [other.init, variant.init], "reward": [other.reward, variant.reward]}
    return different | {name: values for name, values in phases.items() if values[0] != values[1]}
