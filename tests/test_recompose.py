"""Token re-composition against lists that are put together token by token, and properties of the round trip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m4v.paths import spatial_path
from m4v.recompose import Recomposition, TextCopies, recompose, restore

PYRAMID = ((12, 20), (12, 20), (24, 40), (48, 80))


@dataclass(frozen=True)
class Case:
    """Inputs of one re-composition."""

    text_BLD: Tensor
    mask_BL: Tensor
    video_BND: Tensor
    grids: tuple[tuple[int, int], ...]
    path: int
    registers_TD: Tensor | None
    copies: TextCopies

    def run(self, **changes: Any) -> Recomposition:
        given = {"text_BLD": self.text_BLD, "text_mask_BL": self.mask_BL, "video_BND": self.video_BND}
        how = {"grids": self.grids, "path": self.path, "registers_TD": self.registers_TD, "text": self.copies}
        return recompose(**(given | how | changes))  # type: ignore[arg-type]


def make(
    mask: list[list[bool]],
    grids: tuple[tuple[int, int], ...],
    path: int = 0,
    registers: bool = True,
    copies: TextCopies = "both",
    width: int = 3,
) -> Case:
    generator = torch.Generator().manual_seed(7)
    batch, length, tokens = len(mask), len(mask[0]), sum(rows * cols for rows, cols in grids)
    text, video, register = (
        torch.randn(*shape, width, generator=generator) for shape in ((batch, length), (batch, tokens), (len(grids),))
    )
    mask_BL = torch.tensor(mask, dtype=torch.bool).view(batch, length)
    return Case(text, mask_BL, video, grids, path, register if registers else None, copies)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    mask = draw(st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=batch, max_size=batch))
    grids = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4))
    copies = draw(st.sampled_from(get_args(TextCopies)))
    return make(mask, tuple(grids), draw(st.integers(0, 9)), draw(st.booleans()), copies)


def by_hand(case: Case, sample: int) -> tuple[list[Tensor], list[bool]]:
    """One sample's sequence, appended token by token."""
    zero = torch.zeros_like(case.text_BLD[0, 0])
    pairs = list(zip(case.text_BLD[sample], case.mask_BL[sample].tolist(), strict=True))
    real = [token for token, is_real in pairs if is_real]
    padding = [zero] * (len(pairs) - len(real))
    left = padding + real, [False] * len(padding) + [True] * len(real)
    right = real + padding, [True] * len(real) + [False] * len(padding)
    plain = [token if is_real else zero for token, is_real in pairs], [is_real for _, is_real in pairs]

    body, start = [], 0
    for frame, (rows, cols) in enumerate(case.grids):
        if case.registers_TD is not None:
            body.append(case.registers_TD[frame])
        body += [case.video_BND[sample, start + int(at)] for at in spatial_path(case.path, rows, cols)]
        start += rows * cols
    head, tail = (left, right) if case.copies == "both" else (plain, ([], []))
    return head[0] + body + tail[0], head[1] + [True] * len(body) + tail[1]


@given(cases())
def test_the_sequence_is_the_one_put_together_by_hand(case: Case) -> None:
    out = case.run()
    for sample in range(len(case.mask_BL)):
        tokens, valid = by_hand(case, sample)
        assert torch.equal(out.tokens_BND[sample], torch.stack(tokens))
        assert out.valid_BN[sample].tolist() == valid


@given(cases())
def test_restoring_gives_the_video_back_and_adds_the_copies_of_the_text(case: Case) -> None:
    out = case.run()
    text_BLD, video_BND = restore(out.tokens_BND, out.plan)
    times = 2 if case.copies == "both" else 1
    assert torch.equal(video_BND, case.video_BND)
    assert torch.equal(text_BLD, times * case.text_BLD * case.mask_BL.unsqueeze(-1))


@given(cases())
def test_restoring_keeps_positions_apart(case: Case) -> None:
    """A mixer that scales every position differently: each token returns with the sum of its places' scales."""
    out = case.run()
    scale_N = torch.arange(1.0, out.tokens_BND.shape[1] + 1)
    noisy_BND = out.tokens_BND.new_ones(out.tokens_BND.shape) * scale_N.view(1, -1, 1)  # padding is not zero here
    text_BLD, video_BND = restore(noisy_BND, out.plan)
    for sample in range(len(case.mask_BL)):
        marked = make_marked(case, sample)
        sums = torch.zeros(marked.max() + 1).index_add(0, marked, scale_N)
        length = case.mask_BL.shape[1]
        assert torch.equal(text_BLD[sample, :, 0], sums[1 : length + 1] * case.mask_BL[sample])
        assert torch.equal(video_BND[sample, :, 0], sums[length + 1 : length + 1 + case.video_BND.shape[1]])


def make_marked(case: Case, sample: int) -> Tensor:
    """The sequence put together by hand from token numbers: 0 padding, then text, video, registers."""
    length, tokens, frames = case.mask_BL.shape[1], case.video_BND.shape[1], len(case.grids)
    numbers = torch.arange(1, length + tokens + frames + 1).unsqueeze(-1)
    text, video, registers = numbers.split([length, tokens, frames])
    batch = len(case.mask_BL)
    marked = Case(
        text.expand(batch, -1, -1),
        case.mask_BL,
        video.expand(batch, -1, -1),
        case.grids,
        case.path,
        None if case.registers_TD is None else registers,
        case.copies,
    )
    return torch.stack(by_hand(marked, sample)[0]).flatten()


@given(cases(), st.randoms(use_true_random=False))
def test_samples_and_channels_do_not_mix(case: Case, random: Any) -> None:
    batch, _, width = case.text_BLD.shape
    samples, channels = (torch.tensor(random.sample(range(n), n)) for n in (batch, width))
    shuffled = case.run(
        text_BLD=case.text_BLD[samples][..., channels],
        text_mask_BL=case.mask_BL[samples],
        video_BND=case.video_BND[samples][..., channels],
        registers_TD=None if case.registers_TD is None else case.registers_TD[:, channels],
    )
    out = case.run()
    assert torch.equal(shuffled.tokens_BND, out.tokens_BND[samples][..., channels])
    assert torch.equal(shuffled.valid_BN, out.valid_BN[samples])


@given(cases(), st.sampled_from([float("nan"), float("inf"), 1e30]))
def test_what_stands_at_padding_has_no_influence(case: Case, noise: float) -> None:
    noisy_BLD = case.text_BLD.masked_fill(~case.mask_BL.unsqueeze(-1), noise)
    causal = [out.tokens_BND.cumsum(1) for out in (case.run(), case.run(text_BLD=noisy_BLD))]
    assert torch.equal(*causal)


@given(cases())
def test_a_causal_state_is_zero_until_the_text_arrives_and_text_keeps_its_order(case: Case) -> None:
    out, length = case.run(text="both"), case.mask_BL.shape[1]
    padding_B = (~case.mask_BL).sum(1)
    state_BND = out.tokens_BND.abs().cumsum(1)
    for sample, padding in enumerate(padding_B.tolist()):
        assert not state_BND[sample, :padding].any()
        assert torch.equal(out.tokens_BND[sample, padding:length], case.text_BLD[sample, case.mask_BL[sample]])


@pytest.mark.parametrize("grids", [((48, 80),), ((24, 40),), ((12, 20),), PYRAMID])
@pytest.mark.parametrize("path", range(8))
def test_real_grids_come_back(grids: tuple[tuple[int, int], ...], path: int) -> None:
    case = make([[True, False, True]], grids, path, width=1)
    out = case.run()
    assert torch.equal(restore(out.tokens_BND, out.plan)[1], case.video_BND)
    assert out.tokens_BND.shape[1] == case.video_BND.shape[1] + 2 * 3 + len(grids)


def test_gradients_reach_text_video_and_registers() -> None:
    """With the loss 1/2 sum of squares, the gradient is the token itself times how often it stands in the sequence."""
    case = make([[False, True, True], [True, False, False]], ((2, 3), (3, 2)), path=5)
    assert case.registers_TD is not None
    inputs = [x.clone().requires_grad_() for x in (case.text_BLD, case.video_BND, case.registers_TD)]
    out = case.run(text_BLD=inputs[0], video_BND=inputs[1], registers_TD=inputs[2])
    (out.tokens_BND.square().sum() / 2).backward()
    expected = (2 * case.text_BLD * case.mask_BL.unsqueeze(-1), case.video_BND, 2 * case.registers_TD)
    for tensor, gradient in zip(inputs, expected, strict=True):
        torch.testing.assert_close(tensor.grad, gradient, rtol=1e-6, atol=0)


def test_gradients_pass_through_restore_to_everything_but_registers() -> None:
    case = make([[True, False], [True, True]], ((2, 2), (1, 3)), path=3)
    out = case.run()
    y_BMD = out.tokens_BND.clone().requires_grad_()
    text_BLD, video_BND = restore(y_BMD, out.plan)
    (text_BLD.sum() + video_BND.sum()).backward()
    assert y_BMD.grad is not None
    expected_BN = out.valid_BN.clone()
    expected_BN[:, [2, 2 + 1 + 4]] = False  # the registers, which restore drops
    assert torch.equal(y_BMD.grad[..., 0], expected_BN.float())


def test_plans_made_without_gradients_serve_training() -> None:
    """Indices are cached: the first call decides what kind of tensor later calls get."""
    case = make([[True, False]], ((7, 3),), path=6)
    with torch.inference_mode():
        case.run()
    video_BND = case.video_BND.clone().requires_grad_()
    out = case.run(video_BND=video_BND)
    restore(out.tokens_BND, out.plan)[1].sum().backward()
    assert torch.equal(video_BND.grad, torch.ones_like(case.video_BND))


@pytest.mark.parametrize(("copies", "registers", "tokens"), [("both", True, 15_647), ("prefix", False, 15_488)])
def test_on_the_meta_device_at_the_size_of_241_frames(
    copies: Literal["prefix", "both"], registers: bool, tokens: int
) -> None:
    """768 x 1280, last latent frame: 28 coarse, one middle and two full frames, 15,360 tokens, with 128 text tokens."""
    grids = ((12, 20),) * 28 + ((24, 40),) + ((48, 80),) * 2
    with torch.device("meta"):
        text_BLD, mask_BL = torch.empty(2, 128, 1920), torch.empty(2, 128, dtype=torch.bool)
        video_BND, registers_TD = torch.empty(2, 15_360, 1920), torch.empty(31, 1920)
        out = recompose(
            text_BLD,
            mask_BL,
            video_BND,
            grids,
            path=1,
            registers_TD=registers_TD if registers else None,
            text=copies,
        )
        text, video = restore(out.tokens_BND, out.plan)
    assert out.tokens_BND.shape == (2, tokens, 1920)
    assert out.valid_BN.shape == (2, tokens)
    assert (text.shape, video.shape) == (text_BLD.shape, video_BND.shape)
    assert {x.device.type for x in (out.tokens_BND, out.valid_BN, text, video)} == {"meta"}


def test_half_precision_stays_half_precision_beside_full_precision_registers() -> None:
    case = make([[True, False]], ((2, 2),))
    out = case.run(text_BLD=case.text_BLD.bfloat16(), video_BND=case.video_BND.bfloat16())
    assert out.tokens_BND.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "suffix"}, "'prefix' or 'both', not 'suffix'"),
        ({"grids": ((2, 2), (1, 2))}, "have 6 tokens, the video has 7"),
        ({"grids": ()}, "have 0 tokens"),
        ({"grids": ((-2, -2), (1, 3))}, "empty"),
        ({"text_mask_BL": torch.ones(1, 2)}, "must be bool of shape \\(1, 2\\)"),
        ({"text_mask_BL": torch.ones(1, 3, dtype=torch.bool)}, "must be bool of shape \\(1, 2\\)"),
        ({"registers_TD": torch.zeros(3, 3)}, "2 frames need registers of shape \\(2, 3\\)"),
        ({"video_BND": torch.zeros(1, 7, 4)}, "differ in batch or width"),
        ({"video_BND": torch.zeros(7, 3)}, "differ in batch or width"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make([[True, False]], ((2, 2), (1, 3))).run(**changes)


def test_a_sequence_of_another_length_is_not_restored() -> None:
    out = make([[True, False]], ((2, 2),)).run()
    with pytest.raises(ValueError, match="plan for 9 tokens"):
        restore(out.tokens_BND[:, :-1], out.plan)
