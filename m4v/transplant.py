"""Attention weights carried over into Mamba mixers (Mamba in the Llama, Wang et al., arXiv 2408.15237; M4V supplement).

Without softmax, attention is y_t = sum over s <= t of (q_t . k_s) v_s; a state-space mixer with unit steps and no decay
is y_t = sum over s <= t of (C_t . B_s) x_s. So x comes from V, B from K and C from Q, and what attention lacks starts
where it does least: the convolution as identity, its bias as attention's own. Step sizes, decay, skip and gate start
fresh, as in M4V. Rotary positions have no counterpart and are lost.

Axes: D width, K taps of the convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from m4v.backbone import BackboneConfig, make_mixer
from m4v.layers import HeadNorm, Mamba
from m4v.recipe import Recipe, derived_seed

Order = Literal["kqv", "qkv"]
"""Where B, C and x come from: `kqv` makes linear attention, `qkv` is as M4V's supplement prints it."""

Dynamics = Literal["fresh", "linear"]
"""How the state starts: as Mamba does, or with unit steps, no decay, no skip and a closed `sum` gate."""

ROWS = {"q": 0, "k": 1, "v": 2}
VANISHING = -60.0
"""Logarithm of a decay that is nothing over any sequence, and still a number in every type."""


def transplant(
    attention: Mapping[str, Tensor],
    source: BackboneConfig,
    target: BackboneConfig,
    *,
    order: Order = "kqv",
    dynamics: Dynamics = "fresh",
    seed: int = 0,
) -> dict[str, Tensor]:
    """Weights of `target` made from those of `source`, whose mixers are attention.

    Everything that both have is copied; of each mixer that becomes Mamba, the projections are carried over and the rest
    is drawn from the seed and the block's number. Registers and temporal branch are left out: they start fresh.

    Args:
        attention: the source's weights, by the names of `Backbone`.
        source: all of its blocks are attention.
        target: of the same widths, with Mamba in some blocks.
        order: where B, C and x come from.
        dynamics: `linear` is the limit in which the mixer is linear attention (with `gate` = `sum`).
        seed: of what starts fresh.

    Raises:
        ValueError: the source has other mixers, or shapes do not fit; the message names them.
    """
    check_fit(source, target)
    shapes = _shapes(target)
    kept = {name: value for name, value in attention.items() if name in shapes}
    carried = {
        f"blocks.{layer}.mixer.{name}": value
        for layer in _replaced(target)
        for name, value in _mixer(attention, target, layer, order, dynamics, seed).items()
    }
    weights = {name: value.clone() for name, value in kept.items()} | carried
    wrong = [name for name, value in weights.items() if value.shape != shapes[name]]
    if wrong:
        raise ValueError(f"weights of other shapes than the target's: {', '.join(wrong[:3])}")
    return weights


def carry_over(
    weights: Mapping[str, Tensor], source: Recipe, target: Recipe, *, order: Order = "kqv", seed: int | None = None
) -> dict[str, Tensor]:
    """`transplant` for a whole `System`: what `train(init=...)` takes; the text encoder is copied.

    Raises:
        ValueError: as `transplant`, or one of the systems has no such backbone.
    """
    if not isinstance(source.model, BackboneConfig) or not isinstance(target.model, BackboneConfig):
        raise ValueError(f"{source.system} to {target.system}: only backbones like M4V's exchange their mixers")
    inside = {name.removeprefix("velocity."): w for name, w in weights.items() if name.startswith("velocity.")}
    seed = target.train.seed if seed is None else seed
    carried = transplant(inside, source.model, target.model, order=order, seed=seed)
    others = {name: value for name, value in weights.items() if not name.startswith("velocity.")}
    return others | {f"velocity.{name}": value for name, value in carried.items()}


def check_fit(source: BackboneConfig, target: BackboneConfig) -> None:
    """Refuse what cannot be carried over.

    Raises:
        ValueError: saying which fields stand in the way.
    """
    if any(kind != "attention" for _, kind in source.kinds()):
        raise ValueError("the source of a transplant must be attention in all blocks (model.mixer: attention)")
    same = ("width", "heads", "layers", "mlp_ratio", "qk_norm", "token_width", "text_width", "pooled_width")
    wrong = [
        f"{f} ({getattr(source, f)}, {getattr(target, f)})" for f in same if getattr(source, f) != getattr(target, f)
    ]
    wrong += [] if _streams(source) == _streams(target) else ["the number of dual-stream blocks"]
    if wrong:
        raise ValueError(f"source and target of a transplant differ in {', '.join(wrong)}")
    head, mamba = target.width // target.heads, target.mamba
    groups = mamba.groups or target.width // mamba.state
    if _replaced(target) and (mamba.state, groups, mamba.expand) != (head, target.heads, 1):
        raise ValueError(
            f"state {mamba.state}, {groups} groups, expand {mamba.expand}: a transplant needs a state as wide as a "
            f"head ({head}), a group for each of the {target.heads} heads, and expand 1"
        )


def _streams(config: BackboneConfig) -> list[int]:
    return [streams for streams, _ in config.kinds()]


def _replaced(target: BackboneConfig) -> list[int]:
    return [layer for layer, (_, kind) in enumerate(target.kinds()) if kind == "mamba"]


def _shapes(target: BackboneConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: value.shape for name, value in target.build().state_dict().items()}


def _mixer(
    attention: Mapping[str, Tensor], target: BackboneConfig, layer: int, order: Order, dynamics: Dynamics, seed: int
) -> dict[str, Tensor]:
    """The weights of one Mamba mixer, on the device and in the type of the attention's."""
    streams = target.kinds()[layer][0]
    prefix = f"blocks.{layer}.mixer."
    old = {name.removeprefix(prefix): value for name, value in attention.items() if name.startswith(prefix)}
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(derived_seed(seed, prefix))
        mixer = make_mixer(target, layer, streams, "mamba")
    assert isinstance(mixer, Mamba)
    mixer.to(old["qkv.0.weight"])
    with torch.no_grad():
        _carry(mixer, old, order)
        if dynamics == "linear":
            _linear_limit(mixer)
    return mixer.state_dict()


def _carry(mixer: Mamba, old: Mapping[str, Tensor], order: Order) -> None:
    """Projections, biases and norms of attention in their new places.

    Convolution bias and norms serve all streams: they are those of the last stream, the video.
    """
    sources = {"x": order[2], "B": order[0], "C": order[1]}
    projections = _projections(mixer)
    video = len(projections) - 1
    for stream, project in enumerate(projections):
        weight_3 = old[f"qkv.{stream}.weight"].chunk(3)
        for part, rows in _parts(mixer).items():
            project.weight[rows] = weight_3[ROWS[sources[part]]]
    bias_3 = old[f"qkv.{video}.bias"].chunk(3)
    mixer.conv_weight_DK.zero_()[:, -1] = 1
    mixer.conv_bias_D.copy_(torch.cat([bias_3[ROWS[sources[part]]] for part in _parts(mixer)]))
    for norm, part in ((mixer.b_norm, "B"), (mixer.c_norm, "C")):
        if isinstance(norm, HeadNorm):
            norm.weight.copy_(old[f"{sources[part]}_norm.{video}.weight"])


def _projections(mixer: Mamba) -> list[nn.Linear]:
    return [project for project in mixer.project if isinstance(project, nn.Linear)]


def _parts(mixer: Mamba) -> dict[str, slice]:
    """Rows of x, B and C in the projection, in the order of the convolution's channels."""
    return dict(_slices(mixer.sizes[0], ("x", "B", "C"), mixer.sizes[1:4]))


def _slices(start: int, names: tuple[str, ...], sizes: tuple[int, ...]) -> Iterator[tuple[str, slice]]:
    for name, size in zip(names, sizes, strict=True):
        yield name, slice(start, start + size)
        start += size


def _linear_limit(mixer: Mamba) -> None:
    """Unit steps whatever the token, no decay, no skip, and nothing from the gate's path."""
    unit = torch.log(torch.expm1(torch.ones((), dtype=torch.float64))).item()  # softplus of it is 1
    for project in _projections(mixer):
        project.weight[: mixer.sizes[0]] = 0
        project.weight[-mixer.sizes[-1] :] = 0
    mixer.step_bias.fill_(unit)
    mixer.log_decay.fill_(VANISHING)
    mixer.skip.zero_()
