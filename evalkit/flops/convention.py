"""What is counted as a FLOP of what: each choice is a flag, printed with every table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from evalkit.errors import UserError, unknown

TOPICS = frozenset({"pyramid", "scan", "mixers"})
"""What a model may have that a convention has a word on."""

CHOICES = {
    "mask": ("none", "causal"),
    "scope": ("last-frame", "clip"),
    "scan_cost": ("chunked", "recurrent"),
    "output_projection": ("attention", "all", "none"),
}


@dataclass(frozen=True, slots=True)
class Convention:
    """How a table counts. The defaults are those under which the published M4V rows are reproduced.

    Args:
        flops_per_mac: 2 counts a multiply-add as two operations, 1 as one.
        mask: `none` counts attention in full, as dense kernels run it; `causal` only the pairs that a blockwise causal
        mask leaves. guidance: forward passes for each solver step: 2 with classifier-free guidance. None is 1 for a
        single pass
            and 2 for a whole clip.
        stage: pyramid level of the single pass.
        scope: `last-frame` is one pass while the last latent frame is made; `clip` is the sum over all frames, stages
        and solver steps. scan_cost: `chunked` counts the matrix products of the SSD kernel; `recurrent` the recurrence
        itself. dual_mamba_cost: how many times a dual-stream Mamba block's mixer is counted. M4V's Table 6 is
        reproduced with 2. output_projection: which mixers are charged with the projection after them. The published
        rows charge
            attention only; in M4V's single-stream blocks that projection is shared with the MLP.
        text_tokens: prompt length; None is the model's own.
    """

    flops_per_mac: int = 2
    mask: str = "none"
    guidance: int | None = None
    stage: str = "full"
    scope: str = "last-frame"
    scan_cost: str = "chunked"
    dual_mamba_cost: float = 1.0
    output_projection: str = "attention"
    text_tokens: int | None = None

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            if (value := getattr(self, field)) not in choices:
                raise unknown(f"--{field.replace('_', '-')}", value, choices)
        if self.flops_per_mac not in (1, 2):
            raise UserError(
                f"--flops-per-mac {self.flops_per_mac}: a multiply-add is 1 or 2 operations.", "Give 1 or 2."
            )
        if not 0 < self.dual_mamba_cost < float("inf"):
            raise UserError(
                f"--dual-mamba-cost {self.dual_mamba_cost:g} is not positive.", "Give 1, or 2 as Table 6 needs."
            )

    def passes(self, scope: str) -> int:
        """Forward passes for each solver step."""
        return self.guidance if self.guidance is not None else {"last-frame": 1, "clip": 2}[scope]

    def sentences(self, about: frozenset[str] = TOPICS) -> list[str]:
        """The convention in words, one sentence a choice; `about` names the topics that a model has choices in."""
        said = {
            "all": [self._arithmetic(), self._attention(), self._scope("pyramid" in about)],
            "scan": [self._scan()],
            "mixers": [self._dual_mamba(), self._output_projection()],
        }
        return [sentence for topic, lines in said.items() if topic == "all" or topic in about for sentence in lines]

    def _arithmetic(self) -> str:
        one = "1 FLOP" if self.flops_per_mac == 1 else "2 FLOPs"
        return f"A multiply-add counts as {one}; element-wise work, norms and softmax do not count."

    def _attention(self) -> str:
        if self.mask == "causal":
            return "Attention counts the pairs that the blockwise causal mask leaves."
        return "Attention counts in full (no mask)."

    def _scope(self, pyramid: bool) -> str:
        if self.scope == "clip":
            return f"The whole clip: all frames, stages and steps, each step of {self._times(self.passes('clip'))}."
        where = f"the last latent frame, {self.stage} stage" if pyramid else "all frames at once"
        return f"One solver step ({self._times(self.passes('last-frame'))}) of {where}."

    def _scan(self) -> str:
        if self.scan_cost == "recurrent":
            return "State-space scans count the recurrence: 4 d_s + 2 per token and channel."
        return "State-space scans count the matrix products of the chunked (SSD) kernel."

    def _dual_mamba(self) -> str:
        if self.dual_mamba_cost == 1:
            return "The mixer of a dual-stream Mamba block counts once, as it runs here."
        return (
            f"The mixer of a dual-stream Mamba block counts {self.dual_mamba_cost:g} times: an assumption, "
            "which M4V's Table 6 needs at 2."
        )

    def _output_projection(self) -> str:
        return {
            "attention": "Mixers: attention with its output projection; "
            "Mamba without, since its block shares that with the MLP.",
            "all": "Mixers: attention and Mamba, both with the output projection.",
            "none": "Mixers: attention and Mamba, both without the output projection.",
        }[self.output_projection]

    def _times(self, passes: int) -> str:
        return "one forward pass" if passes == 1 else f"{passes} forward passes (guidance)"

    def to_json(self, about: frozenset[str]) -> dict[str, Any]:
        return asdict(self) | {"notes": self.sentences(about)}
