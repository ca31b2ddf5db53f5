"""MM-Token Re-Composition: text and video as one sequence that a recurrent mixer can read from left to right.

    [padding, text | register 1, frame 1 | ... | register T, frame T | text, padding]

The prefix copy lets every video token see the text; its padding moves to the left and is zero, so that the state of a
scan is still exactly zero when the text arrives. The suffix copy sees the video; its padding comes after everything.
One register separates each frame from what came before. (M4V, architecture figure and slides.)

Axes: B batch, L text tokens, N tokens of the video (or of the whole sequence, where said), T frames, D width, M tokens
of the sequence where both lengths meet, S source tokens that a sequence is drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from m4v.paths import SPATIAL_PATHS, frame_paths, inverse

TextCopies = Literal["prefix", "both"]


@dataclass(frozen=True)
class Plan:
    """How to undo a re-composition.

    `copies` holds, for each copy of the text, where it starts in the sequence and the order BL of its tokens; `video_N`
    where each row-major video token went.
    """

    tokens: int
    text_mask_BL: Tensor
    copies: tuple[tuple[int, Tensor], ...]
    video_N: Tensor


@dataclass(frozen=True)
class Recomposition:
    """A re-composed sequence of N tokens. `valid_BN` is False at the padding of the text, True everywhere else.

    A mixer with a bias or a convolution zeroes its scan input where `valid_BN` is False, so that padding stays silent.
    """

    tokens_BND: Tensor
    valid_BN: Tensor
    plan: Plan


def recompose(
    text_BLD: Tensor,
    text_mask_BL: Tensor,
    video_BND: Tensor,
    grids: Sequence[tuple[int, int]],
    *,
    path: int,
    registers_TD: Tensor | None,
    text: TextCopies,
) -> Recomposition:
    """Weave text, registers and scanned frames into one sequence of M = N + 2 L + T tokens.

    Nothing depends on the values of a tensor, so it runs on the meta device.

    Args:
        text_BLD: text embeddings; what stands at padding is ignored, whatever it is.
        text_mask_BL: bool, True at real tokens, in any pattern; they keep their order.
        video_BND: the frames' tokens end to end, oldest frame first, each frame row-major.
        grids: rows and columns of each frame.
        path: spatial path of this layer, see `m4v.paths.spatial_path`.
        registers_TD: the register that precedes each frame (cast to the video's type), or None for no registers.
        text: "both" copies as above, or the "prefix" alone, with its padding left where it is (M = N + L + T).

    Returns:
        The sequence, where it is valid, and the plan that `restore` takes.

    Raises:
        ValueError: shapes do not agree, the mask is not bool, or `text` is neither "prefix" nor "both".
    """
    _check(text_BLD, text_mask_BL, video_BND, grids, registers_TD, text)
    orders = _text_orders(text_mask_BL, text)
    frames = tuple((rows, cols) for rows, cols in grids)
    layout = (len(orders), text_BLD.shape[1], registers_TD is not None)
    sequence_M, video_N = _indices(frames, path % len(SPATIAL_PATHS), *layout, video_BND.device)

    clean_BLD = text_BLD.masked_fill(~text_mask_BL.unsqueeze(-1), 0)
    copies_BLD = [_take(clean_BLD, order_BL) for order_BL in orders]
    parts_BSD = [*copies_BLD, video_BND, *_batched(registers_TD, video_BND)]
    tokens_BMD = torch.cat(parts_BSD, dim=1).index_select(1, sequence_M)

    starts = (0, tokens_BMD.shape[1] - text_BLD.shape[1])
    copies = tuple(zip(starts, orders, strict=False))
    plan = Plan(tokens_BMD.shape[1], text_mask_BL, copies, video_N)
    return Recomposition(tokens_BMD, _valid(plan), plan)


def restore(y_BMD: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Take a mixed sequence apart: drop the registers, put every token back, add the copies of the text.

    Args:
        y_BMD: the mixer's output, of any width D.
        plan: `Recomposition.plan` of its input.

    Returns:
        text_BLD, the sum of the copies with zeros at padding, and video_BND, frames row-major.

    Raises:
        ValueError: `y_BMD` is not as long as the re-composed sequence.
    """
    if y_BMD.ndim != 3 or y_BMD.shape[1] != plan.tokens:
        raise ValueError(f"a sequence of shape {tuple(y_BMD.shape)} does not fit a plan for {plan.tokens} tokens")
    length = plan.text_mask_BL.shape[1]
    copies_BLD = [
        _take(y_BMD.narrow(1, start, length), order_BL.argsort(dim=1))  # of a permutation, argsort is the inverse
        for start, order_BL in plan.copies
    ]
    text_BLD = torch.stack(copies_BLD).sum(0).masked_fill(~plan.text_mask_BL.unsqueeze(-1), 0)
    return text_BLD, y_BMD.index_select(1, plan.video_N)


def _text_orders(text_mask_BL: Tensor, text: TextCopies) -> list[Tensor]:
    """For each copy, which text token stands where. A stable sort by "is real" keeps the real tokens' order."""
    real_BL = text_mask_BL.to(torch.int8)  # bool has no order on every device
    if text == "both":
        return [real_BL.argsort(dim=1, stable=True), (1 - real_BL).argsort(dim=1, stable=True)]
    in_place_L = torch.arange(text_mask_BL.shape[1], device=text_mask_BL.device)
    return [in_place_L.expand(text_mask_BL.shape)]


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a cached inference tensor would fail in a later backward pass
def _indices(
    grids: tuple[tuple[int, int], ...], path: int, copies: int, length: int, registers: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where the sequence comes from in [text copies | video | registers], and where the video went in the sequence."""
    body = frame_paths(grids, path)
    start = copies * length
    if registers:
        frames = torch.split(body, [rows * cols for rows, cols in grids])
        first = torch.arange(body.numel(), body.numel() + len(grids), device="cpu").view(-1, 1)
        body = torch.cat([part for pair in zip(first, frames, strict=True) for part in pair])
    prefix, *suffix = torch.arange(start, device="cpu").view(copies, length)
    sequence_M = torch.cat([prefix, body + start, *suffix])
    tokens = sum(rows * cols for rows, cols in grids)
    return sequence_M.to(device), inverse(sequence_M)[start : start + tokens].to(device)


def _take(x_BLD: Tensor, order_BL: Tensor) -> Tensor:
    return torch.take_along_dim(x_BLD, order_BL.unsqueeze(-1), dim=1)


def _batched(registers_TD: Tensor | None, video_BND: Tensor) -> list[Tensor]:
    if registers_TD is None:
        return []
    return [registers_TD.to(video_BND).expand(video_BND.shape[0], -1, -1)]


def _valid(plan: Plan) -> Tensor:
    masks_BL = [plan.text_mask_BL.gather(1, order_BL) for _, order_BL in plan.copies]
    batch, length = plan.text_mask_BL.shape
    body = plan.tokens - len(masks_BL) * length
    prefix, *suffix = masks_BL
    return torch.cat([prefix, prefix.new_ones(batch, body), *suffix], dim=1)


def _check(
    text_BLD: Tensor,
    text_mask_BL: Tensor,
    video_BND: Tensor,
    grids: Sequence[tuple[int, int]],
    registers_TD: Tensor | None,
    text: str,
) -> None:
    if text not in ("prefix", "both"):
        raise ValueError(f"text copies are 'prefix' or 'both', not {text!r}")
    if text_BLD.ndim != 3 or video_BND.ndim != 3 or text_BLD.shape[::2] != video_BND.shape[::2]:
        raise ValueError(f"text {tuple(text_BLD.shape)} and video {tuple(video_BND.shape)} differ in batch or width")
    if text_mask_BL.shape != text_BLD.shape[:2] or text_mask_BL.dtype != torch.bool:
        raise ValueError(f"the text mask must be bool of shape {tuple(text_BLD.shape[:2])}")
    tokens = sum(rows * cols for rows, cols in grids)
    if tokens != video_BND.shape[1]:
        raise ValueError(f"frames of {list(grids)} have {tokens} tokens, the video has {video_BND.shape[1]}")
    if registers_TD is not None and registers_TD.shape != (len(grids), video_BND.shape[2]):
        raise ValueError(f"{len(grids)} frames need registers of shape {(len(grids), video_BND.shape[2])}")
