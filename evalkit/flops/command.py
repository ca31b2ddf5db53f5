"""From a request to the record that `m4v-eval flops` prints and saves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from evalkit.errors import UserError
from evalkit.flops import stiv
from evalkit.flops.convention import Convention
from evalkit.flops.counter import ForwardCounter, count_module
from evalkit.flops.fvcore_check import FvcoreCount, fvcore_forward, fvcore_module
from evalkit.flops.lingen import closed_forms
from evalkit.flops.rows import TERA, part_of, pick
from evalkit.flops.sweep import Crossing, crossing_of, parse_sweep, run_sweep, to_json
from evalkit.flops.table import Clip, Row, make_row, record, token_table, topics, variants
from evalkit.workload import UserModel, last_line, load_user_model, plan, resolve

if TYPE_CHECKING:
    from evalkit.job import Progress
    from m4v.variants import ModelConfig


@dataclass(frozen=True, slots=True)
class Request:
    """What to count; None is the model's own."""

    model: str
    frames: int | None
    height: int | None
    width: int | None
    dual_blocks: int | None
    ssm: str | None
    compare: bool
    sweep: str | None
    fvcore: bool
    whole_clip: bool
    convention: Convention


def run(request: Request, progress: Progress) -> dict[str, Any]:
    """Count, and return the record of schema `m4v-eval/flops/1`.

    Raises:
        UserError: the model, the clip, the sweep or a choice of counting is wrong.
    """
    if ".py" in request.model or ":" in request.model:
        return _count_users(request, progress)
    config = resolve(request.model)
    clip = _clip(request, config)
    rows = _rows(request, clip, progress)
    return record(
        rows,
        request.convention,
        counter=COUNTER,
        about=topics(config),
        tokens=token_table(config, clip),
        sweep=_sweep(request, clip, progress),
        extra=_compared(request, config, clip) | _fvcore(request, clip),
    )


COUNTER = "torch FlopCounterMode on the meta device"


def _clip(request: Request, config: ModelConfig) -> Clip:
    frames, height, width = config.clip
    return (
        frames if request.frames is None else request.frames,
        height if request.height is None else request.height,
        width if request.width is None else request.width,
    )


def _rows(request: Request, clip: Clip, progress: Progress) -> list[Row]:
    """All rows; whole clips are counted for the variants asked for, not for the published rows beside them."""
    asked = variants(request.model, dual_blocks=request.dual_blocks, ssm=request.ssm)
    listed = variants(request.model, dual_blocks=request.dual_blocks, ssm=request.ssm, compare=request.compare)
    progress.start("counting forward passes", len(asked) * len(plan(asked[0][1], *clip)) * request.whole_clip)
    return [
        make_row(
            variant,
            request.model,
            config,
            clip,
            request.convention,
            progress.advance if request.whole_clip and (variant, config) in asked else None,
        )
        for variant, config in listed
    ]


def _sweep(request: Request, clip: Clip, progress: Progress) -> dict[str, Any] | None:
    if request.sweep is None:
        return None
    sweep = parse_sweep(request.sweep)
    convention = replace(request.convention, scope="last-frame")  # whole clips would take minutes
    progress.start(f"sweep over {sweep.parameter}", len(sweep.values))
    rows = []
    for value, of_value in run_sweep(
        sweep, request.model, clip, convention, dual_blocks=request.dual_blocks, ssm=request.ssm
    ):
        rows += [(value, row) for row in of_value]
        progress.advance()
    crossing: Crossing | None = crossing_of(request.model, clip, convention, ssm=request.ssm)
    return to_json(sweep, rows, crossing)


def _compared(request: Request, config: ModelConfig, clip: Clip) -> dict[str, Any]:
    """Published formulas and budgets of the systems that have them."""
    if not request.compare:
        return {}
    if request.model.startswith("lingen"):
        return {"closed_forms": list(_lingen(config, clip))}
    if request.model.startswith("stiv"):
        return {
            "budgets": [asdict(budget) | {"sum": budget.sum} for budget in stiv.budgets()],
            "stages": [asdict(stage) for stage in stiv.recompute()],
        }
    return {}


def _lingen(config: ModelConfig, clip: Clip) -> Iterator[dict[str, Any]]:
    """LinGen's terms for one module beside what one module of the network is counted to cost."""
    from m4v.variants.lingen import LinGenConfig

    if not isinstance(config, LinGenConfig):
        raise TypeError(f"{type(config).__name__} is not LinGen")
    evaluation = pick(plan(config, *clip), "full")
    tokens = config.tokens(evaluation)
    terms = closed_forms(tokens, config.width, config.expand, config.state, config.head_width, config.conv)
    count = ForwardCounter(config)(evaluation)
    ssd, conv = count.of("m4v.ssd") / config.layers, count.of("m4v.causal_conv1d") / config.layers
    projections = sum(
        count.operators[path][op]
        for path in ("blocks.0.mixer.project", "blocks.0.mixer.out")
        for op in count.operators[path]
    )
    counted = {"projections": projections, "convolution": conv, "ssm": ssd}
    notes = {
        "projections": f"eq. 1 without O(Nd); the network projects {config.review_tokens} review tokens as well",
        "convolution": "eq. 2, both directions; it covers x alone, the network convolves B and C as well",
        "ssm": "eq. 3, both directions; it counts the recurrence, the network runs chunked matrix products",
    }
    for term, note in notes.items():
        yield {
            "term": term,
            "formula_tflops": getattr(terms, term) / TERA,
            "counted_tflops": counted[term] / TERA,
            "note": note,
        }


def _fvcore(request: Request, clip: Clip) -> dict[str, Any]:
    if not request.fvcore:
        return {}
    checks = {}
    for variant, config in variants(request.model, dual_blocks=request.dual_blocks, ssm=request.ssm):
        evaluation = pick(plan(config, *clip), request.convention.stage)
        count = fvcore_forward(config, evaluation, text_tokens=request.convention.text_tokens)
        ours = ForwardCounter(config)(evaluation, text_tokens=request.convention.text_tokens)
        checks[variant] = _check(count, ours.total, ours.of("aten.addmm", "aten.mm"))
    return {"fvcore": checks}


def _check(count: FvcoreCount, total: float, linear: float) -> dict[str, Any]:
    return {
        "tflops": count.total / TERA,
        "linear_tflops": count.linear / TERA,
        "ours_tflops": total / TERA,
        "ours_linear_tflops": linear / TERA,
        "missed": dict(count.missed),
    }


def _count_users(request: Request, progress: Progress) -> dict[str, Any]:
    """Count a user's own module: one forward pass, no variants, no clip.

    Raises:
        UserError: an option that only named models have, or the factory or the module fails.
    """
    for option in ("frames", "height", "width", "dual_blocks", "ssm", "sweep"):
        if getattr(request, option) is not None:
            name = option.replace("_", "-")
            raise UserError(
                f"--{name} belongs to named models; a factory makes its own inputs.", f"Leave --{name} out."
            )
    model = load_user_model(request.model)
    progress.start(f"counting {model.name}", 1)
    row = _users_row(model, request.convention)
    extra = _users_fvcore(model, row["total_tflops"]) if request.fvcore else {}
    progress.advance()
    about: frozenset[str] = frozenset()
    empty = record([], request.convention, counter=COUNTER, about=about, tokens={}, sweep=None, extra=extra)
    return empty | {"rows": [row]}


def _users_row(model: UserModel, convention: Convention) -> dict[str, Any]:
    import torch

    with torch.device("meta"):
        module, inputs = model.build()
    try:
        count = count_module(module.to("meta"), [x.to("meta") for x in inputs])
    except Exception as e:  # noqa: BLE001 -- the user's network may raise anything
        raise UserError(
            f"{model.name} does not run on the meta device: {last_line(e)}.",
            "Its forward pass must not read values (.item(), if x.sum() > 0) nor name a device.",
        ) from None
    scale = convention.flops_per_mac / 2 * convention.passes("last-frame") / TERA
    parts: dict[str, float] = {}
    for path, flops in count.by_module.items():
        parts[part_of(path)] = parts.get(part_of(path), 0.0) + flops * scale
    return {
        "variant": model.name,
        "model": model.name,
        "this_model": True,
        "dual_blocks": None,
        "single_blocks": None,
        "frames": None,
        "height": None,
        "width": None,
        "tokens": None,
        "parameters": count.parameters,
        "mixer_tflops": None,
        "total_tflops": count.total * scale,
        "clip_tflops": None,
        "published_tflops": None,
        "published_source": None,
        "relative_error": None,
        "tolerance": None,
        "reproduced": None,
        "breakdown": parts,
    }


def _users_fvcore(model: UserModel, total: float) -> dict[str, Any]:
    import torch

    with torch.device("meta"):
        module, inputs = model.build()
    count = fvcore_module(module, inputs)
    return {"fvcore": {model.name: _check(count, total * TERA, count.linear)}}
