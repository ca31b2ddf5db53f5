"""Cost against clip length or against the number of attention blocks, and where two variants cross."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.errors import UserError, unknown
from evalkit.flops.convention import Convention
from evalkit.flops.rows import TERA, CostModel
from evalkit.flops.table import Clip, Row, make_row
from evalkit.workload import family
from m4v.backbone import BackboneConfig
from m4v.layout import Evaluation, Shape, count_tokens, temporal_pyramid

PARAMETERS = ("frames", "dual_blocks")


@dataclass(frozen=True, slots=True)
class Sweep:
    """The values that one parameter takes."""

    parameter: str
    values: tuple[int, ...]


def parse_sweep(text: str) -> Sweep:
    """Read `frames=57,121,241` or `dual_blocks=0,2,4,8,24`.

    Raises:
        UserError: another form, an unknown parameter, or fewer than two values.
    """
    parameter, equals, listed = text.partition("=")
    if not equals:
        raise UserError(f"--sweep {text!r} is not NAME=VALUE,VALUE,...", "Write --sweep frames=57,121,241.")
    if parameter not in PARAMETERS:
        raise unknown("parameter to sweep", parameter, PARAMETERS)
    try:
        values = tuple(sorted({int(value) for value in listed.split(",")}))
    except ValueError:
        raise UserError(f"--sweep {text!r}: the values are not whole numbers.", "Write them as 57,121,241.") from None
    if len(values) < 2:
        raise UserError(f"--sweep {text!r} has one value.", "Give at least two, or leave --sweep out.")
    return Sweep(parameter, values)


def run_sweep(
    sweep: Sweep,
    model: str,
    clip: Clip,
    convention: Convention,
    *,
    dual_blocks: int | None = None,
    ssm: str | None = None,
) -> Iterator[tuple[int, list[Row]]]:
    """Each value with its rows, one a variant; whole clips are left out, they would take minutes.

    Raises:
        UserError: a value that does not fit the model.
    """
    for value in sweep.values:
        if sweep.parameter == "frames":
            variants, size = family(model, dual_blocks=dual_blocks, ssm=ssm), (value, *clip[1:])
        else:
            variants, size = family(model, dual_blocks=value, ssm=ssm), clip
        yield value, [make_row(variant, model, config, size, convention) for variant, config in variants.items()]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where two variants' mixers cost the same in one pass, in video tokens.

    `frames` is the shortest clip of the asked size with at least so many tokens in its last frame's pass, None if every
    clip of this size has more. `curve` holds (tokens, {variant: TFLOPs}) on both sides of the crossing.
    """

    a: str
    b: str
    tokens: float
    frames: int | None
    curve: tuple[tuple[int, dict[str, float]], ...]


MOST_TOKENS = 1 << 20


def crossing_of(model: str, clip: Clip, convention: Convention, *, ssm: str | None = None) -> Crossing | None:
    """The number of video tokens at which attention and Mamba mixers cost the same, by bisection.

    All tokens lie in one noisy frame at full resolution, so that nothing but their number counts. None if the model has
    one variant only, or if there is no crossing up to a million tokens.
    """
    configs = {name: config for name, config in family(model, ssm=ssm).items() if isinstance(config, BackboneConfig)}
    if not {"attention", "mamba"} <= configs.keys():
        return None
    models = {variant: CostModel(configs[variant], convention) for variant in ("attention", "mamba")}
    patch = configs["mamba"].patch.spatial

    def costs(tokens: int) -> dict[str, float]:
        frame = Evaluation(0, 0, (Shape(1, patch, patch * tokens),), 1)
        return {variant: model.forward(frame).mixers / TERA for variant, model in models.items()}

    def dearer(tokens: int) -> bool:
        at = costs(tokens)
        return at["attention"] > at["mamba"]

    low, high = 1, MOST_TOKENS
    if dearer(low) or not dearer(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if dearer(middle) else (middle, high)
    around = sorted({max(1, round(high * 2.0**k)) for k in range(-3, 5)})
    return Crossing(
        "attention", "mamba", high, frames_with(configs["mamba"], clip, high), tuple((n, costs(n)) for n in around)
    )


def frames_with(config: BackboneConfig, clip: Clip, tokens: float) -> int | None:
    """The shortest clip whose last pass has at least `tokens`; None if one frame has them already."""
    one = config.codec.latent_shape(1, *clip[1:])
    first, more = (
        count_tokens(temporal_pyramid(Shape(n, *one[1:]), n - 1, 0, config.stages), config.patch)
        for n in (config.stages + 1, config.stages + 2)
    )
    for latent in range(1, config.stages + 2):
        units = temporal_pyramid(Shape(latent, *one[1:]), latent - 1, 0, config.stages)
        if count_tokens(units, config.patch) >= tokens:
            return None if latent == 1 else 1 + config.codec.temporal * (latent - 1)
    # From here on each frame adds one more condition at the coarsest stage.
    latent = config.stages + 1 + math.ceil((tokens - first) / (more - first))
    return 1 + config.codec.temporal * (latent - 1)


def to_json(sweep: Sweep, rows: Sequence[tuple[int, Row]], crossing: Crossing | None) -> dict[str, Any]:
    return {
        "parameter": sweep.parameter,
        "rows": [{"value": value, **row.to_json()} for value, row in rows],
        "crossing": None
        if crossing is None
        else {
            "a": crossing.a,
            "b": crossing.b,
            "tokens": crossing.tokens,
            "frames": crossing.frames,
            "curve": [{"tokens": tokens, "mixer_tflops": costs} for tokens, costs in crossing.curve],
        },
    }
