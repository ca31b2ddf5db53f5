"""Mixers against loops over tokens in float64, and properties of padding, time and resolution.

Axes: B batch, L text tokens, N video tokens, D width, H heads, K head dimension, F frames, S tokens of a folded frame.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from m4v.layers import (
    Attention,
    Context,
    Mamba,
    MambaConfig,
    Modulation,
    TemporalBranch,
    TimeAndText,
    join_pieces,
    pool,
    split_pieces,
    stateless_norm,
    token_positions,
    unpool,
)
from m4v.layout import Shape, temporal_pyramid
from m4v.ops import rotary_angles
from m4v.paths import spatial_path

WIDTH, HEADS = 16, 2
LENGTHS = (3, 5)
CLOSE: dict[str, float] = {"rtol": 1e-9, "atol": 1e-9}  # float64, another order of summation


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(module: Any, seed: int = 1) -> Any:
    """In float64, with every parameter moved away from where it starts."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def frames_at(frame: int, stage: int, stages: int = 3, rows: int = 4, cols: int = 8) -> tuple[tuple[int, int], ...]:
    return tuple((u.rows, u.cols) for u in temporal_pyramid(Shape(frame + 1, rows, cols), frame, stage, stages))


def make_context(
    frames: tuple[tuple[int, int], ...],
    *,
    lengths: tuple[int, ...] = LENGTHS,
    longest: int | None = None,
    stage: int = 0,
    stages: int = 3,
    noisy: int = 1,
    causal: bool = True,
) -> Context:
    """What the backbone would say of these frames, written out by hand."""
    text = longest or max(lengths)
    mask_BL = torch.tensor([[token < length for token in range(text)] for length in lengths])
    frame_N = [0] * text + [1 + f for f, (rows, cols) in enumerate(frames) for _ in range(rows * cols)]
    visible = [
        [
            [(m >= text or m < length) and (not causal or seen <= own) for m, seen in enumerate(frame_N)]
            for own in frame_N
        ]
        for length in lengths
    ]
    positions = torch.tensor(frame_N, dtype=torch.float32)[:, None].expand(-1, 3) * torch.tensor([1.0, 0.7, 0.3])
    return Context(
        text_mask_BL=mask_BL,
        angles_NR=rotary_angles(positions, (2, 2, 2)),
        mask=torch.tensor(visible)[:, None],
        frames=frames,
        noisy=noisy,
        levels=tuple(stage + int(math.log2(frames[-1][0] / rows)) for rows, _ in frames),
        stages=stages,
        registers_FD=drawn(len(frames), WIDTH, seed=9),
    )


def make_inputs(context: Context, seed: int = 3) -> tuple[Tensor, Tensor]:
    batch, text = context.text_mask_BL.shape
    tokens = sum(rows * cols for rows, cols in context.frames)
    return drawn(batch, text, WIDTH, seed=seed), drawn(batch, tokens, WIDTH, seed=seed + 1)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean() + 1e-6) * weight


def turned(x_K: Tensor, angles_R: Tensor) -> Tensor:
    """Consecutive pairs as complex numbers, turned."""
    n = 2 * len(angles_R)
    pairs = torch.view_as_complex(x_K[:n].reshape(-1, 2).contiguous()) * torch.exp(1j * angles_R.double())
    return torch.cat([torch.view_as_real(pairs).flatten(), x_K[n:]])


# --- attention ---


def attention_by_loops(mixer: Attention, text_BLD: Tensor, video_BND: Tensor, context: Context) -> Tensor:
    """One query of one head at a time."""
    joint_BND, text = torch.cat([text_BLD, video_BND], dim=1), text_BLD.shape[1]
    out = torch.zeros_like(joint_BND)
    assert context.angles_NR is not None
    assert context.mask is not None
    wide = WIDTH // HEADS
    for b, h in itertools.product(range(len(joint_BND)), range(HEADS)):
        q, k, v = [], [], []
        for n, x_D in enumerate(joint_BND[b]):
            stream: Any = 0 if n < text or len(mixer.qkv) == 1 else 1
            linear: Any = mixer.qkv[stream]
            q_norm, k_norm = (norm[stream].weight for norm in (mixer.q_norm, mixer.k_norm))
            all_3D = linear.weight @ x_D + linear.bias
            q_K, k_K, v_K = (all_3D[part * WIDTH + h * wide :][:wide] for part in range(3))
            q.append(turned(rms(q_K, q_norm), context.angles_NR[n]))
            k.append(turned(rms(k_K, k_norm), context.angles_NR[n]))
            v.append(v_K)
        for n, query in enumerate(q):
            keys = [m for m in range(len(k)) if context.mask[b, 0, n, m]]
            weights = torch.softmax(torch.stack([query @ k[m] / math.sqrt(wide) for m in keys]), 0)
            out[b, n, h * wide : (h + 1) * wide] = torch.stack(
                [w * v[m] for w, m in zip(weights, keys, strict=True)]
            ).sum(0)
    return out


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_by_loops(streams: int, causal: bool) -> None:
    mixer = awake(Attention(WIDTH, HEADS, streams))
    context = make_context(((1, 2), (2, 4)), causal=causal)
    inputs = make_inputs(context)
    with torch.no_grad():
        expected = attention_by_loops(mixer, *inputs, context)
        found = torch.cat(mixer(*inputs, context), dim=1)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_attention_streams_are_separate() -> None:
    """Two streams with the same weights are one stream."""
    one, two = awake(Attention(WIDTH, HEADS, 1)), Attention(WIDTH, HEADS, 2).double()
    for name in ("qkv", "q_norm", "k_norm"):
        for stream in getattr(two, name):
            stream.load_state_dict(getattr(one, name)[0].state_dict())
    context = make_context(((2, 4),))
    inputs = make_inputs(context)
    torch.testing.assert_close(two(*inputs, context), one(*inputs, context), **CLOSE)


# --- mamba ---


def copies_of_text(context: Context, b: int, copies: str) -> tuple[list[int | None], list[int | None]]:
    """Which text token stands where before and after the video; None is padding."""
    mask = context.text_mask_BL[b].tolist()
    if copies == "prefix":
        return [n if real else None for n, real in enumerate(mask)], []
    real: list[int | None] = [n for n, is_real in enumerate(mask) if is_real]
    padding: list[int | None] = [None] * (len(mask) - len(real))
    return padding + real, real + padding


Token = tuple[str, int | None]


def sequence_by_hand(context: Context, b: int, layer: int, config: MambaConfig) -> list[Token]:
    """What stands where: ("text", token), ("text", None) for padding, ("register", frame), ("video", token)."""
    prefix, suffix = copies_of_text(context, b, config.text)
    body: list[Token] = []
    start = 0
    for f, (rows, cols) in enumerate(context.frames):
        body += [("register", f)] if config.registers else []
        body += [("video", start + int(n)) for n in spatial_path(layer, rows, cols)]
        start += rows * cols
    return [("text", n) for n in prefix] + body + [("text", n) for n in suffix]


def softplus(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(x))


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def scanned_by_hand(mixer: Mamba, projected: list[Tensor], valid: list[bool]) -> list[Tensor]:
    """Convolution, recurrence, skip and gate, one token after the other; a state for each channel."""
    config = mixer.config
    channels, groups = mixer.heads * mixer.channels, mixer.groups
    z_size, bc = channels, groups * config.state
    state = torch.zeros(channels, config.state, dtype=torch.float64)
    outputs = []
    for n in range(len(projected)):
        z, dt = projected[n][:z_size], projected[n][2 * channels + 2 * bc :]
        mixed = mixer.conv_bias_D.clone()
        for tap in range(config.conv):
            source = n - (config.conv - 1 - tap)
            if source >= 0:
                mixed += mixer.conv_weight_DK[:, tap] * projected[source][z_size : 2 * channels + 2 * bc]
        mixed = silu(mixed) if valid[n] else torch.zeros_like(mixed)
        x, B, C = mixed[:channels], mixed[channels : channels + bc], mixed[channels + bc :]
        B_GS = torch.stack([rms(B_S, mixer.b_norm.weight) for B_S in B.view(groups, -1)])
        C_GS = torch.stack([rms(C_S, mixer.c_norm.weight) for C_S in C.view(groups, -1)])
        y = torch.zeros_like(x)
        steps = softplus((dt if config.ssm == "mamba2" else mixer.step_up.weight @ dt) + mixer.step_bias)
        for d in range(channels):
            unit = d // mixer.channels if config.ssm == "mamba2" else d  # what has a step and a decay of its own
            group = d * groups // channels
            decay = torch.exp(-steps[unit] * torch.exp(mixer.log_decay[unit]))
            state[d] = decay * state[d] + steps[unit] * x[d] * B_GS[group]
            y[d] = state[d] @ C_GS[group] + mixer.skip[unit] * x[d]
        outputs.append(y * silu(z) if config.gate == "silu" else y + z)
    return outputs


def mamba_by_hand(mixer: Mamba, text_BLD: Tensor, video_BND: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    text_out = text_BLD.new_zeros(*text_BLD.shape[:2], mixer.heads * mixer.channels)
    video_out = text_BLD.new_zeros(*video_BND.shape[:2], mixer.heads * mixer.channels)
    assert context.registers_FD is not None
    for b in range(len(text_BLD)):
        order = sequence_by_hand(context, b, mixer.layer, mixer.config)
        sources = {"text": text_BLD[b], "video": video_BND[b], "register": context.registers_FD}
        projected = []
        for kind, n in order:
            stream: Any = 0 if kind == "text" or len(mixer.project) == 1 else 1
            x_D = torch.zeros_like(text_BLD[b, 0]) if n is None else sources[kind][n]
            projected.append(mixer.project[stream].weight @ x_D)
        outputs = scanned_by_hand(mixer, projected, [n is not None for _, n in order])
        for (kind, n), y in zip(order, outputs, strict=True):
            if n is not None and kind != "register":
                (text_out if kind == "text" else video_out)[b, n] += y
    down = mixer.down.weight if mixer.config.expand > 1 else torch.eye(WIDTH, dtype=torch.float64)
    return text_out @ down.T, video_out @ down.T


def make_mamba(streams: int = 1, layer: int = 3, **changes: Any) -> Mamba:
    torch.manual_seed(2)
    config = MambaConfig().but(**({"state": 8, "chunk": 5, "ssm": "mamba2"} | changes))
    return awake(Mamba(WIDTH, HEADS, layer, streams, config))


@pytest.mark.parametrize(
    ("ssm", "gate", "registers", "text", "streams", "expand"),
    [
        ("mamba1", "silu", True, "both", 1, 1),
        ("mamba1", "sum", False, "prefix", 2, 2),
        ("mamba1", "sum", True, "both", 2, 1),
        ("mamba1", "silu", False, "prefix", 1, 2),
        ("mamba2", "silu", True, "both", 2, 2),
        ("mamba2", "sum", False, "both", 1, 1),
        ("mamba2", "silu", False, "prefix", 2, 1),
        ("mamba2", "sum", True, "prefix", 1, 2),
    ],
)
def test_mamba_token_by_token(ssm: str, gate: str, registers: bool, text: str, streams: int, expand: int) -> None:
    """Every pair of settings occurs; eight sequences, chunks that do not divide them, two prompt lengths."""
    mixer = make_mamba(streams, ssm=ssm, gate=gate, registers=registers, text=text, expand=expand)
    context = make_context(((1, 2), (2, 4)), lengths=(2, 4))
    inputs = make_inputs(context)
    with torch.no_grad():
        torch.testing.assert_close(mixer(*inputs, context), mamba_by_hand(mixer, *inputs, context), **CLOSE)


@pytest.mark.parametrize("ssm", ["mamba1", "mamba2"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layer", [0, 6])
def test_mamba_groups_and_paths_token_by_token(ssm: str, groups: int, layer: int) -> None:
    mixer = make_mamba(layer=layer, ssm=ssm, groups=groups, expand=2, conv=2)
    context = make_context(((2, 3),), lengths=(1,))
    inputs = make_inputs(context)
    with torch.no_grad():
        torch.testing.assert_close(mixer(*inputs, context), mamba_by_hand(mixer, *inputs, context), **CLOSE)


MIXERS = ["attention", "mamba1 prefix", "mamba1 both", "mamba2 prefix", "mamba2 both"]


def make_mixer(name: str, streams: int) -> Attention | Mamba:
    if name == "attention":
        return awake(Attention(WIDTH, HEADS, streams))
    ssm, text = name.split()
    return make_mamba(streams, ssm=ssm, text=text)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("streams", [1, 2])
def test_what_stands_at_padding_does_not_matter(name: str, streams: int) -> None:
    """Bit by bit, at every token that is not padding."""
    mixer, context = make_mixer(name, streams), make_context(frames_at(2, 1))
    text_BLD, video_BND = make_inputs(context)
    noisy_BLD = torch.where(context.text_mask_BL[..., None], text_BLD, 100 * drawn(*text_BLD.shape, seed=8))
    before, after = mixer(text_BLD, video_BND, context), mixer(noisy_BLD, video_BND, context)
    assert torch.equal(before[1], after[1])
    assert torch.equal(before[0][context.text_mask_BL], after[0][context.text_mask_BL])
    assert (noisy_BLD != text_BLD).any()


@pytest.mark.parametrize("name", MIXERS)
def test_a_sample_of_a_batch_equals_itself_alone(name: str) -> None:
    """Prompts of different lengths; where padding has no place in time (not the prefix alone), even without padding."""
    mixer, frames = make_mixer(name, 2), frames_at(2, 1)
    together = make_context(frames)
    text_BLD, video_BND = make_inputs(together)
    text_out, video_out = mixer(text_BLD, video_BND, together)
    longest = max(LENGTHS)
    for b, length in enumerate(LENGTHS):
        kept = longest if "prefix" in name else length
        alone = make_context(frames, lengths=(length,), longest=kept)
        text, video = mixer(text_BLD[b : b + 1, :kept], video_BND[b : b + 1], alone)
        torch.testing.assert_close(video[0], video_out[b], **CLOSE)
        torch.testing.assert_close(text[0, :length], text_out[b, :length], **CLOSE)


@pytest.mark.parametrize("text", ["prefix", "both"])
def test_mamba_reads_from_left_to_right(text: str) -> None:
    """A later frame changes no earlier one; the text hears of it only through its second copy."""
    mixer, context = make_mamba(text=text), make_context(frames_at(3, 0))
    text_BLD, video_BND = make_inputs(context)
    last = context.frames[-1][0] * context.frames[-1][1]
    changed_BND = torch.cat([video_BND[:, :-last], drawn(len(video_BND), last, WIDTH, seed=11)], dim=1)
    before, after = mixer(text_BLD, video_BND, context), mixer(text_BLD, changed_BND, context)
    torch.testing.assert_close(before[1][:, :-last], after[1][:, :-last], **CLOSE)
    assert not torch.allclose(before[1][:, -last:], after[1][:, -last:])
    real = context.text_mask_BL
    assert torch.allclose(before[0][real], after[0][real], **CLOSE) == (text == "prefix")


def test_registers_are_heard() -> None:
    mixer, context = make_mamba(), make_context(frames_at(1, 0))
    assert context.registers_FD is not None
    other = Context(**(vars(context) | {"registers_FD": context.registers_FD + 1}))
    assert not torch.allclose(mixer(*make_inputs(context), context)[1], mixer(*make_inputs(context), other)[1])


def test_mamba_starts_as_its_authors_start() -> None:
    """A = -1..-S (Mamba-1) or in [-16, -1] (Mamba-2), steps in [1e-3, 1e-1], skip 1."""
    for ssm in ("mamba1", "mamba2"):
        mixer = Mamba(WIDTH, HEADS, 0, 1, MambaConfig(ssm=ssm, state=8))  # type: ignore[arg-type]
        rates, steps = mixer.log_decay.exp(), softplus(mixer.step_bias)
        assert ((steps >= 0.999e-3) & (steps <= 1.001e-1)).all()
        assert (mixer.skip == 1).all()
        if ssm == "mamba1":
            torch.testing.assert_close(rates, torch.arange(1.0, 9.0).expand(WIDTH, 8), rtol=1e-6, atol=0)
        else:
            assert ((rates >= 0.999) & (rates <= 16.001)).all()


@pytest.mark.parametrize(("ssm", "groups"), [("mamba2", 4), ("mamba1", 3)])
def test_groups_that_do_not_divide_are_refused_at_once(ssm: str, groups: int) -> None:
    with pytest.raises(ValueError, match=f"do not divide into {groups} groups of B and C"):
        make_mamba(ssm=ssm, groups=groups)


class Rates(TorchDispatchMode):
    """Keeps the rates A, the third argument, of every state-space operator that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.m4v.ssd.default, torch.ops.m4v.selective_scan.default):
            self.seen.append(args[2])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("ssm", ["mamba1", "mamba2"])
def test_decays_are_not_rounded_with_the_activations(ssm: str) -> None:
    """In bfloat16 under autocast the decays stay as they are: the state-space operator sees the float32 rates."""
    mixer = make_mamba(ssm=ssm).float()
    context = make_context(frames_at(1, 0))
    inputs = [x.float() for x in make_inputs(context)]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad(), Rates() as rates:
        mixer(*inputs, context)
    assert len(rates.seen) == 1
    torch.testing.assert_close(rates.seen[0], -mixer.log_decay.detach().exp(), rtol=1e-6, atol=0)


# --- temporal branch ---


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, tuple[int, int], tuple[int, int], int]:
    """Frames, a grid, a finer one, and a factor."""
    coarse = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    times = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    fine = coarse[0] * times[0], coarse[1] * times[1]
    return draw(st.integers(1, 3)), coarse, fine, draw(st.integers(1, 3))


@given(case=grids())
def test_pool_averages_what_unpool_repeats(case: tuple[int, tuple[int, int], tuple[int, int], int]) -> None:
    """Against interpolation by `torch.nn.functional`; pool after unpool is the identity; 1e-12."""
    frames, coarse, fine, _ = case
    x = drawn(2, frames * fine[0] * fine[1], 3)
    images = x.view(2 * frames, *fine, 3).permute(0, 3, 1, 2)
    expected = F.adaptive_avg_pool2d(images, coarse).permute(0, 2, 3, 1).reshape(2, -1, 3)
    small = pool(x, frames, fine, coarse)
    torch.testing.assert_close(small, expected, rtol=1e-12, atol=1e-12)
    back = unpool(small, frames, coarse, fine)
    images = small.view(2 * frames, *coarse, 3).permute(0, 3, 1, 2)
    repeated = F.interpolate(images, size=fine, mode="nearest-exact").permute(0, 2, 3, 1).reshape(2, -1, 3)
    assert torch.equal(back, repeated)
    torch.testing.assert_close(pool(back, frames, fine, coarse), small, rtol=1e-12, atol=1e-12)


@given(case=grids())
def test_join_is_the_inverse_of_split(case: tuple[int, tuple[int, int], tuple[int, int], int]) -> None:
    frames, grid, _, factor = case
    x = drawn(2, frames * grid[0] * grid[1] * factor**2, 3)
    pieces = split_pieces(x, frames, grid, factor)
    assert pieces.shape == (2, frames * factor**2, grid[0] * grid[1], 3)
    assert torch.equal(join_pieces(pieces, frames, grid, factor), x)
    rows = x.view(2, frames, grid[0] * factor, grid[1] * factor, 3)
    strided = [
        rows[:, f, i::factor, j::factor].flatten(1, 2)
        for f in range(frames)
        for i in range(factor)
        for j in range(factor)
    ]
    assert torch.equal(pieces, torch.stack(strided, dim=1))


def temporal_by_hand(branch: TemporalBranch, video_ND: Tensor, context: Context, detail: int) -> Tensor:
    """One sample: fold every frame or piece into one vector a head, attend, put it back."""
    down = context.stages - 1 - context.levels[-1]
    rows, cols = context.frames[-1][0] >> down, context.frames[-1][1] >> down
    folded: list[tuple[int, Tensor, Tensor, Tensor]] = []  # frame, q HX, k HX, v HX with X the folded space and K
    start, wide = 0, WIDTH // HEADS
    homes: dict[int, tuple[int, int]] = {}  # for each token of the video, the entry and the place in it that it reads
    for f, (height, width) in enumerate(context.frames):
        noisy = f >= len(context.frames) - context.noisy
        fine = min(detail, 2**down) if noisy else 1
        tall, broad = height // (rows * fine), width // (cols * fine)  # tokens that are averaged
        for i, j in itertools.product(range(fine), range(fine)):
            places = []
            for r, c in itertools.product(range(rows), range(cols)):
                top, left = (r * fine + i) * tall, (c * fine + j) * broad
                cells = [start + y * width + x for y in range(top, top + tall) for x in range(left, left + broad)]
                homes |= {n: (len(folded), len(places)) for n in cells}
                places.append(torch.stack([video_ND[n] for n in cells]).mean(0))
            angles = rotary_angles(torch.tensor([[float(f)]]), (wide,))[0]
            q, k, v = (torch.stack(places) @ branch.qkv.weight.T + branch.qkv.bias).split(WIDTH, dim=1)
            heads = [[x[:, h * wide : (h + 1) * wide] for h in range(HEADS)] for x in (q, k, v)]
            spun = [[torch.stack([turned(x_K, angles) for x_K in x]) for x in part] for part in heads[:2]]
            folded.append((f, torch.stack(spun[0]), torch.stack(spun[1]), torch.stack(heads[2])))
        start += height * width
    mixed = []
    for f, q_HSK, _, _ in folded:
        seen = [entry for entry in folded if entry[0] <= f]
        out = []
        for h in range(HEADS):
            scores = torch.stack([(q_HSK[h] * k[h]).sum() for _, _, k, _ in seen]) / math.sqrt(q_HSK[h].numel())
            out.append(sum(w * v[h] for w, (_, _, _, v) in zip(scores.softmax(0), seen, strict=True)))
        mixed.append(torch.cat(out, dim=-1))  # type: ignore[arg-type]
    return torch.stack([mixed[homes[n][0]][homes[n][1]] for n in range(len(video_ND))])


@pytest.mark.parametrize(
    ("frame", "stage", "detail"), [(4, 0, 2), (4, 0, 1), (3, 1, 2), (3, 2, 2), (0, 0, 4), (3, 0, 4)]
)
def test_temporal_branch_by_hand(frame: int, stage: int, detail: int) -> None:
    branch = awake(TemporalBranch(WIDTH, HEADS, detail))
    at = Shape(1, 8, 8).halved(stage)
    context = make_context(frames_at(frame, stage, rows=8, cols=8), stage=stage)
    assert context.frames[-1] == (at.rows, at.cols)
    _, video_BND = make_inputs(context)
    with torch.no_grad():
        expected = torch.stack([temporal_by_hand(branch, video_ND, context, detail) for video_ND in video_BND])
        torch.testing.assert_close(branch(video_BND, context), expected, **CLOSE)


def test_temporal_branch_over_a_full_sequence_by_hand() -> None:
    """All frames are noisy: each is split into pieces, and the pieces of one frame see each other."""
    branch = awake(TemporalBranch(WIDTH, HEADS))
    context = make_context(((4, 8),) * 3, noisy=3)
    _, video_BND = make_inputs(context)
    with torch.no_grad():
        expected = torch.stack([temporal_by_hand(branch, video_ND, context, 2) for video_ND in video_BND])
        torch.testing.assert_close(branch(video_BND, context), expected, **CLOSE)


@pytest.mark.parametrize("noisy", [1, 4])
def test_temporal_branch_is_causal(noisy: int) -> None:
    branch = awake(TemporalBranch(WIDTH, HEADS))
    context = make_context(((4, 8),) * 4 if noisy == 4 else frames_at(3, 0), noisy=noisy)
    _, video_BND = make_inputs(context)
    before, start = branch(video_BND, context), 0
    for rows, cols in context.frames:
        changed = video_BND.clone()
        changed[:, start : start + rows * cols] += 1 + drawn(WIDTH, seed=4)
        after = branch(changed, context)
        torch.testing.assert_close(after[:, :start], before[:, :start], **CLOSE)
        assert not torch.isclose(after[:, start:], before[:, start:]).all(dim=-1).any()  # itself and all later ones
        start += rows * cols


def test_temporal_branch_starts_as_no_change_and_can_learn() -> None:
    branch, context = TemporalBranch(WIDTH, HEADS).double(), make_context(frames_at(2, 0))
    _, video_BND = make_inputs(context)
    out = branch(video_BND, context)
    assert not out.any()
    (out * drawn(*out.shape, seed=6)).sum().backward()
    assert branch.qkv.weight.grad is not None
    assert branch.qkv.weight.grad[2 * WIDTH :].any()


# --- positions, conditions, norms ---


@given(
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stages=st.integers(1, 4),
    frame=st.integers(0, 5),
    data=st.data(),
)
def test_history_lies_at_the_centres_of_what_it_covers(
    grid: tuple[int, int], stages: int, frame: int, data: st.DataObject
) -> None:
    """Each coarse token is at the mean of the positions of the fine tokens under it, exactly."""
    stage = data.draw(st.integers(0, stages - 1))
    finest = Shape(frame + 1, grid[0] << (stages - 1), grid[1] << (stages - 1))
    units = list(temporal_pyramid(finest, frame, stage, stages))
    found = token_positions(units, torch.device("cpu")).tolist()
    last, expected = units[-1], []
    for time, unit in enumerate(units, 1):
        tall, broad = last.rows // unit.rows, last.cols // unit.cols
        for row, col in itertools.product(range(unit.rows), range(unit.cols)):
            ys, xs = range(row * tall, (row + 1) * tall), range(col * broad, (col + 1) * broad)
            expected.append([time, sum(ys) / len(ys), sum(xs) / len(xs)])
    assert found == expected


def test_the_noisy_unit_keeps_whole_numbers_at_any_stage() -> None:
    """Stages extrapolate (PyramidFlow Section 3.4); a block of frames counts its frames on from its history."""
    found = token_positions([Shape(2, 1, 1), Shape(2, 2, 2)], torch.device("cpu"))
    history, noisy = found[:2], found[2:]
    assert history.tolist() == [[1, 0.5, 0.5], [2, 0.5, 0.5]]
    assert noisy.tolist() == [[t, y, x] for t in (3, 4) for y in (0, 1) for x in (0, 1)]


def test_modulation_starts_at_zero_and_gives_n_vectors() -> None:
    vectors = Modulation(WIDTH, 6)(drawn(3, WIDTH).float())
    assert len(vectors) == 6
    assert all(v.shape == (3, 1, WIDTH) and not v.any() for v in vectors)


def test_time_and_text_are_added() -> None:
    """What time adds does not depend on the text; 1e-6 in float32."""
    embed = TimeAndText(WIDTH, 4)
    t, pooled = torch.tensor([0.1, 0.9]), drawn(2, 4).float()
    both = embed(t, pooled)
    swapped = embed(t.flip(0), pooled)
    other = embed(t, pooled.flip(0)) - embed(t.flip(0), pooled.flip(0))
    torch.testing.assert_close(both - swapped, other, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(both, swapped)


def test_stateless_norm_by_hand() -> None:
    x = drawn(2, 3, WIDTH)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(stateless_norm(x), expected, rtol=1e-12, atol=1e-12)
