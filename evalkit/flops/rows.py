"""Rows of a cost table: a variant's forward pass and whole clip under a convention."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.errors import UserError
from evalkit.flops.convention import Convention
from evalkit.flops.counter import ATTENTION, BLOCKS, Count, ForwardCounter

if TYPE_CHECKING:
    from m4v.layout import Evaluation
    from m4v.variants import ModelConfig

TERA = 1e12
MIXERS = frozenset({"mixer", "temporal", "spatial", "tesa"})
"""Parts of a block that mix tokens of the video; cross-attention to text is listed on its own."""


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs by part of the model, and how many of them are the mixers'."""

    parts: dict[str, float]
    mixers: float

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def __mul__(self, times: float) -> Cost:
        return Cost({part: flops * times for part, flops in self.parts.items()}, self.mixers * times)

    def __add__(self, other: Cost) -> Cost:
        parts = {part: self.parts.get(part, 0) + other.parts.get(part, 0) for part in self.parts | other.parts}
        return Cost(parts, self.mixers + other.mixers)


class CostModel:
    """The cost of one configuration's forward passes under one convention."""

    def __init__(self, config: ModelConfig, convention: Convention) -> None:
        self.config, self.convention = config, convention
        self.count = ForwardCounter(config, recurrent_formulas() if convention.scan_cost == "recurrent" else None)
        self.kinds = block_kinds(config)

    @property
    def parameters(self) -> int:
        return self.count.parameters

    def forward(self, evaluation: Evaluation) -> Cost:
        """One forward pass, without guidance."""
        count = self.count(evaluation, text_tokens=self.convention.text_tokens)
        parts: dict[str, float] = defaultdict(float)
        mixers = 0.0
        for path, flops, part in self._adjusted(count, evaluation):
            parts[part] += flops
            mixers += flops * self._is_mixer(path, part)
        return Cost(dict(parts), mixers)

    def clip(self, evaluations: tuple[Evaluation, ...], tick: Callable[[], None]) -> Cost:
        """All frames, stages and solver steps, with guidance; `tick` is called after each forward pass."""
        total = Cost({}, 0.0)
        for evaluation in evaluations:
            total = total + self.forward(evaluation) * evaluation.steps
            tick()
        return total * self.convention.passes("clip")

    def _adjusted(self, count: Count, evaluation: Evaluation) -> Iterator[tuple[str, float, str]]:
        for path, flops in count.by_module.items():
            part = part_of(path)
            hidden = count.of(*ATTENTION, path=path) * (1 - self._visible(part, evaluation))
            times = self.convention.dual_mamba_cost if part in MIXERS and self._is_dual_mamba(path) else 1.0
            yield path, (flops - hidden) * times * self.convention.flops_per_mac / 2, part

    def _visible(self, part: str, evaluation: Evaluation) -> float:
        if self.convention.mask == "none" or part not in MIXERS:
            return 1.0
        return visible_pairs(attended_blocks(self.config, part, evaluation, self.convention.text_tokens))

    def _is_dual_mamba(self, path: str) -> bool:
        return self._kind(path) == (2, "mamba")

    def _kind(self, path: str) -> tuple[int, str] | None:
        head, _, rest = path.partition(".")
        index = rest.partition(".")[0]
        return self.kinds[int(index)] if self.kinds and head == BLOCKS and index.isdigit() else None

    def _is_mixer(self, path: str, part: str) -> bool:
        kind = self._kind(path)
        if part != "out" or kind is None:
            return part in MIXERS
        charged = self.convention.output_projection
        return charged == "all" or (charged == "attention" and kind[1] == "attention")


def part_of(path: str) -> str:
    """The part of the model that a module belongs to: `blocks.3.mlp_out` is `mlp`, `embed_text` is `embed`."""
    names = [name for name in path.split(".") if not name.isdigit()] or path.split(".")
    name = names[1] if names[0] == BLOCKS and len(names) > 1 else names[0]
    return name.partition("_")[0] or "model"


def block_kinds(config: ModelConfig) -> list[tuple[int, str]] | None:
    """Streams and mixer of each block where a configuration distinguishes them."""
    from m4v.backbone import BackboneConfig

    return list(config.kinds()) if isinstance(config, BackboneConfig) else None


def recurrent_formulas() -> dict[Any, Any]:
    """Count Mamba-2 as a recurrence (LinGen supplement eq. 3) instead of by its chunked products."""
    import torch

    from m4v.scan import ssd_recurrent_flops

    def ssd(x_shape: Any, dt_shape: Any, A_shape: Any, B_shape: Any, *_: Any, **__: Any) -> int:
        batch, tokens, heads, head_dim = x_shape
        return int(ssd_recurrent_flops(batch, tokens, heads, head_dim, B_shape[-1]))

    return {torch.ops.m4v.ssd: ssd}


def visible_pairs(blocks: list[int]) -> float:
    """Share of query-key pairs that blockwise causal attention keeps, for blocks of these many tokens."""
    seen = pairs = 0
    for tokens in blocks:
        seen += tokens
        pairs += tokens * seen
    return pairs / seen**2 if seen else 1.0


def attended_blocks(config: ModelConfig, part: str, evaluation: Evaluation, text_tokens: int | None) -> list[int]:
    """Tokens of each causal block: text then frames for joint attention, pieces of frames for the temporal branch.

    Raises:
        UserError: the model has no blockwise causal attention.
    """
    from m4v.backbone import BackboneConfig

    if not isinstance(config, BackboneConfig) or not config.causal:
        raise UserError("--mask causal: this model's attention has no mask.", "Leave it out.")
    frames = [config.patch.tokens(unit) for unit in evaluation.units for _ in range(unit.frames)]
    if part == "temporal":
        noisy = evaluation.units[-1].frames
        pieces = min(config.temporal_detail, 1 << (config.stages - 1 - evaluation.stage)) ** 2
        return [1] * (len(frames) - noisy) + [pieces] * noisy
    text = config.text_tokens if text_tokens is None else text_tokens
    return [text, *(grid.rows * grid.cols for grid in frames)]


def pick(evaluations: tuple[Evaluation, ...], stage: str) -> Evaluation:
    """The pass of the last latent frame at a stage given by name or level.

    Raises:
        UserError: the model has no such stage.
    """
    levels = sorted({evaluation.stage for evaluation in evaluations})
    names = {"full": 0, "coarse": levels[-1], "mid": levels[len(levels) // 2]} | {str(level): level for level in levels}
    if stage not in names or (stage == "mid" and len(levels) < 3):
        have = ", ".join(str(level) for level in levels)
        raise UserError(
            f"--stage {stage}: the model has no such pyramid stage.", f"Give full, coarse or a level of {have}."
        )
    return [evaluation for evaluation in evaluations if evaluation.stage == names[stage]][-1]
