"""The cost table of a model: its variants, what the papers print beside them, tokens, and the record on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from evalkit.flops import published
from evalkit.flops.convention import Convention
from evalkit.flops.rows import TERA, Cost, CostModel, pick
from evalkit.workload import family, plan

if TYPE_CHECKING:
    from m4v.variants import ModelConfig

FLOPS_SCHEMA = "m4v-eval/flops/1"
Clip = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One variant under one convention; TFLOPs of the convention's scope, and of the whole clip.

    `published` is printed for just this variant, clip and stage; else None. `this_model` marks the model that was asked
    for among the variants it is compared with.
    """

    variant: str
    model: str
    dual_blocks: int | None
    single_blocks: int | None
    clip: Clip
    tokens: int
    parameters: int
    cost: Cost
    clip_cost: Cost | None
    published: published.PublishedCost | None
    this_model: bool

    @property
    def relative_error(self) -> float | None:
        """(counted - printed) / printed, of the mixers."""
        return None if self.published is None else self.cost.mixers / TERA / self.published.tflops - 1

    @property
    def reproduced(self) -> bool | None:
        """Whether the printed figure is met within its tolerance."""
        error = self.relative_error
        return None if error is None or self.published is None else abs(error) <= self.published.tolerance

    def to_json(self) -> dict[str, Any]:
        frames, height, width = self.clip
        return {
            "variant": self.variant,
            "model": self.model,
            "this_model": self.this_model,
            "dual_blocks": self.dual_blocks,
            "single_blocks": self.single_blocks,
            "frames": frames,
            "height": height,
            "width": width,
            "tokens": self.tokens,
            "parameters": self.parameters,
            "mixer_tflops": self.cost.mixers / TERA,
            "total_tflops": self.cost.total / TERA,
            "clip_tflops": None if self.clip_cost is None else self.clip_cost.total / TERA,
            "published_tflops": None if self.published is None else self.published.tflops,
            "published_source": None if self.published is None else self.published.source,
            "relative_error": self.relative_error,
            "tolerance": None if self.published is None else self.published.tolerance,
            "reproduced": self.reproduced,
            "breakdown": {part: flops / TERA for part, flops in sorted(self.cost.parts.items())},
        }


def make_row(
    variant: str,
    model: str,
    config: ModelConfig,
    clip: Clip,
    convention: Convention,
    tick: Callable[[], None] | None = None,
) -> Row:
    """Count one variant, and its whole clip if `tick` is given; it is called after each forward pass of the clip.

    Raises:
        UserError: the clip or the stage does not fit the model.
    """
    evaluations = plan(config, *clip)
    evaluation = pick(evaluations, convention.stage)
    costs = CostModel(config, convention)
    clip_cost = costs.clip(evaluations, tick or ignore) if tick or convention.scope == "clip" else None
    single = costs.forward(evaluation) * convention.passes("last-frame") if convention.scope == "last-frame" else None
    kinds = costs.kinds
    dual = None if kinds is None else sum(kind == (2, "attention") for kind in kinds)
    return Row(
        variant=variant,
        model=model,
        dual_blocks=dual,
        single_blocks=None if kinds is None else sum(streams == 1 for streams, _ in kinds),
        clip=clip,
        tokens=config.tokens(evaluation),
        parameters=costs.parameters,
        cost=single or clip_cost or Cost({}, 0.0),
        clip_cost=clip_cost,
        published=_published(model, variant, dual, clip, convention),
        this_model=variant == (model if kinds is None or variant == model else "mamba+temporal"),
    )


def _published(
    model: str, variant: str, dual: int | None, clip: Clip, convention: Convention
) -> published.PublishedCost | None:
    """The printed figure, where one is printed for just this: the last frame's full stage of M4V's clip."""
    if (convention.scope, convention.stage, clip) != ("last-frame", "full", published.M4V_CLIP) or dual is None:
        return None
    if model == "pyramidflow":
        return published.find_m4v("attention", dual)
    return published.find_m4v(variant, dual) if model == "m4v" else None


def ignore() -> None:
    """Nobody watches."""


def variants(
    model: str, *, dual_blocks: int | None = None, ssm: str | None = None, compare: bool = False
) -> list[tuple[str, ModelConfig]]:
    """The rows of a named model, by variant; `compare` adds M4V's Table 6."""
    listed = list(family(model, dual_blocks=dual_blocks, ssm=ssm).items())
    if compare and model == "m4v":
        for row in published.m4v_rows():
            config = family(model, dual_blocks=row.dual_blocks, ssm=ssm)[row.variant]
            if (row.variant, config) not in listed and row.variant == "mamba+temporal":
                listed.append((row.variant, config))
    return listed


def token_table(config: ModelConfig, clip: Clip) -> Mapping[str, int]:
    """Tokens of the last latent frame at each stage, and of the full sequence at once."""
    from m4v.backbone import BackboneConfig
    from m4v.layout import count_tokens, full_sequence

    evaluations = plan(config, *clip)
    if not isinstance(config, BackboneConfig):
        return {"full sequence": config.tokens(evaluations[-1])}
    last = evaluations[-1].frame
    names = {0: "full", config.stages - 1: "coarse"} | ({1: "mid"} if config.stages == 3 else {})
    tokens = {
        f"{names.get(e.stage, f'level {e.stage}')} stage": config.tokens(e) for e in evaluations if e.frame == last
    }
    latent = config.codec.latent_shape(*clip)
    return tokens | {"full sequence": count_tokens(full_sequence(latent), config.patch)}


def topics(config: ModelConfig) -> frozenset[str]:
    """What of a convention concerns a model."""
    from m4v.backbone import BackboneConfig
    from m4v.variants.lingen import LinGenConfig

    if isinstance(config, BackboneConfig):
        return frozenset({"pyramid", "scan", "mixers"} if config.mixer == "mamba" else {"pyramid"})
    return frozenset({"scan"} if isinstance(config, LinGenConfig) else ())


def record(
    rows: list[Row],
    convention: Convention,
    *,
    counter: str,
    about: frozenset[str],
    tokens: Mapping[str, int],
    sweep: dict[str, Any] | None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The machine-readable table, schema `m4v-eval/flops/1`."""
    from evalkit import provenance

    return {
        "schema": FLOPS_SCHEMA,
        "convention": convention.to_json(about) | {"counter": counter},
        "rows": [row.to_json() for row in rows],
        "tokens": dict(tokens),
        "sweep": sweep,
        **(extra or {}),
        "provenance": {
            "command": list(sys.argv),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "packages": provenance.packages(),
            "git": provenance.git(),
        },
    }
