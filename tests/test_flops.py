"""Counted FLOPs against closed forms written here, against fvcore, and against what the papers print."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from evalkit.errors import UserError
from evalkit.flops import stiv
from evalkit.flops.convention import Convention
from evalkit.flops.counter import ForwardCounter, build_on_meta, count_module
from evalkit.flops.fvcore_check import fvcore_forward
from evalkit.flops.lingen import closed_forms
from evalkit.flops.rows import CostModel, attended_blocks, part_of, pick, visible_pairs
from evalkit.flops.sweep import crossing_of, frames_with, parse_sweep
from evalkit.flops.table import make_row, token_table, variants
from evalkit.workload import family, plan, resolve
from m4v.backbone import BackboneConfig
from m4v.layout import Evaluation
from m4v.ops import blockwise_causal
from m4v.variants import presets

CLIP = (241, 768, 1280)
FULL_SIZE = ["m4v", "pyramidflow", "pyramidflow-sd3", "stiv-xl", "stiv-xxl", "stiv-m", "lingen-4b"]


# A count of the M4V and PyramidFlow backbone from its description, sharing no code with the network or the counter.


def chunks(tokens: int, size: int) -> list[int]:
    return [min(size, tokens - start) for start in range(0, tokens, size)]


def attention_mixer(c: BackboneConfig, n: int) -> float:
    return 6 * n * c.width**2 + 4 * n**2 * c.width


def mamba_mixer(c: BackboneConfig, n_video: int, n_text: int, n_frames: int) -> float:
    m = c.mamba
    n = n_video + n_text * (2 if m.text == "both" else 1) + (n_frames if m.registers else 0)
    inner = m.expand * c.width
    groups = m.groups or max(1, c.width // m.state)
    bc = groups * m.state
    steps = m.expand * c.heads if m.ssm == "mamba2" else math.ceil(c.width / 16)
    flops = 2.0 * n * c.width * (2 * inner + 2 * bc + steps) + 2 * m.conv * n * (inner + 2 * bc)
    if m.ssm == "mamba1":
        flops += 2 * n * steps * inner + 9 * n * inner * m.state
    else:
        heads, channels = m.expand * c.heads, c.width // c.heads
        for q in chunks(n, m.chunk):
            flops += 2 * q * q * m.state * groups + 2 * q * q * inner
            flops += 4 * q * m.state * inner + 2 * m.state * channels * heads
    return flops + (2 * n_video * inner * c.width + 2 * n_text * inner * c.width if m.expand > 1 else 0)


def temporal(c: BackboneConfig, e: Evaluation) -> float:
    down = c.stages - 1 - e.stage
    noisy, patch = e.units[-1], c.patch.spatial
    cells = (noisy.rows // patch >> down) * (noisy.cols // patch >> down)
    frames = sum(unit.frames for unit in e.units)
    pieces = frames - noisy.frames + noisy.frames * min(c.temporal_detail, 2**down) ** 2
    return 6 * pieces * cells * c.width**2 + 4 * pieces**2 * cells * c.width


def backbone_flops(c: BackboneConfig, e: Evaluation) -> float:
    tokens = [u.frames * (u.rows // c.patch.spatial) * (u.cols // c.patch.spatial) for u in e.units]
    video, text, frames = sum(tokens), c.text_tokens, sum(u.frames for u in e.units)
    n, d, latent = video + text, c.width, c.codec.channels * c.patch.spatial**2
    total = 2 * d * (video * latent + text * c.text_width)  # embeddings
    total += 2 * d * (256 + d) + 2 * d * (c.pooled_width + d)  # time and pooled text
    total += 2 * d * 2 * d + 2 * tokens[-1] * d * latent  # head
    for layer in range(c.layers):
        dual = layer < max(c.dual_slots, c.dual_blocks)
        attends = layer < c.dual_blocks or c.mixer == "attention"
        total += attention_mixer(c, n) if attends else mamba_mixer(c, video, text, frames)
        if c.temporal_branch and not attends:
            total += temporal(c, e)
        last_dual = dual and layer == c.layers - 1  # its text goes nowhere
        carried = video if last_dual else n
        total += 2 * carried * d * d + 4 * carried * d * int(c.mlp_ratio * d)  # output projection, MLP
        total += 2 * d * d * (3 if not dual else 8 if last_dual else 12)  # modulation
    return float(total)


@st.composite
def backbones(draw: st.DrawFn) -> tuple[BackboneConfig, Evaluation]:
    heads = draw(st.integers(1, 4))
    head = draw(st.sampled_from([8, 16]))
    layers = draw(st.integers(1, 4))
    stages = draw(st.integers(1, 3))
    patch = draw(st.sampled_from([1, 2]))
    config = BackboneConfig(
        width=heads * head,
        heads=heads,
        layers=layers,
        dual_slots=draw(st.integers(0, layers)),
        dual_blocks=draw(st.integers(0, layers)),
        mixer=draw(st.sampled_from(["attention", "mamba"])),
        mamba={
            "ssm": draw(st.sampled_from(["mamba1", "mamba2"])),
            "state": head,
            "groups": draw(st.sampled_from([None, 1])),
            "conv": draw(st.integers(2, 4)),
            "expand": draw(st.integers(1, 2)),
            "chunk": draw(st.sampled_from([7, 64])),
            "registers": draw(st.booleans()),
            "text": draw(st.sampled_from(["prefix", "both"])),
        },
        temporal_branch=draw(st.booleans()),
        temporal_detail=draw(st.integers(1, 2)),
        mlp_ratio=draw(st.sampled_from([2.0, 4.0])),
        causal=draw(st.booleans()),
        rotary_axes=(head // 2, head // 4, head // 4),
        stages=stages,
        temporal_pyramid=draw(st.booleans()),
        text_tokens=draw(st.integers(1, 9)),
        text_width=24,
        pooled_width=12,
        codec={"channels": draw(st.integers(1, 5))},
        patch={"spatial": patch},
    )
    unit = 8 * patch * 2 ** (stages - 1)
    frames = 1 + 8 * draw(st.integers(0, 4))
    evaluations = config.evaluations(frames, unit * draw(st.integers(1, 3)), unit * draw(st.integers(1, 3)))
    return config, draw(st.sampled_from(evaluations))


@settings(max_examples=40, deadline=None)
@given(backbones())
def test_counts_agree_with_the_closed_form(case: tuple[BackboneConfig, Evaluation]) -> None:
    config, evaluation = case
    assert ForwardCounter(config)(evaluation).total == pytest.approx(backbone_flops(config, evaluation), rel=1e-3)


@pytest.mark.parametrize("name", ["m4v", "pyramidflow", "pyramidflow-sd3"])
def test_full_size_counts_agree_with_the_closed_form(name: str) -> None:
    config = resolve(name)
    evaluation = plan(config, *CLIP)[-1]
    assert ForwardCounter(config)(evaluation).total == pytest.approx(backbone_flops(config, evaluation), rel=1e-9)


@pytest.mark.parametrize("name", sorted(presets()))
def test_one_block_of_each_kind_stands_for_all(name: str) -> None:
    config = resolve(name)
    evaluation = plan(config, *config.clip)[-1]
    assert ForwardCounter(config)(evaluation) == ForwardCounter(config, every_block=True)(evaluation)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_fvcore_agrees_on_linear_layers(name: str) -> None:
    """An independent counter; it has no rule for fused attention and for scans, so it sees less in all."""
    config = resolve(name)
    evaluation = plan(config, *config.clip)[-1]
    count, theirs = ForwardCounter(config)(evaluation), fvcore_forward(config, evaluation)
    assert count.of("aten.addmm", "aten.mm") == pytest.approx(theirs.linear, rel=1e-9)
    assert theirs.total < count.total
    assert any("attention" in name for name in theirs.missed)


@pytest.mark.parametrize(("name", "spatial"), [("stiv-xl", 32 * 32), ("stiv-m", 32 * 32)])
def test_stiv_attention_by_hand(name: str, spatial: int) -> None:
    config = resolve(name)
    evaluation = plan(config, *config.clip)[-1]
    frames, d = 10, config.model_dump()["width"]
    a_layer = 4 * frames * spatial**2 * d + 4 * spatial * frames**2 * d + 4 * frames * spatial * config.text_tokens * d
    bmm = ForwardCounter(config)(evaluation).of("aten.bmm")
    assert bmm == pytest.approx(config.model_dump()["layers"] * a_layer, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 1 << 17),
    width=st.sampled_from([64, 640, 2560]),
    expand=st.integers(1, 2),
    state=st.sampled_from([16, 128]),
)
def test_lingen_formulas_by_adding_up(tokens: int, width: int, expand: int, state: int) -> None:
    """Supplement eq. 1 to 3 from the layers of a bidirectional Mamba-2 module."""
    inner, heads, kernel = expand * width, expand * width // 64, 4
    terms = closed_forms(tokens, width, expand, state, 64, kernel)
    layers = 2 * tokens * width * (inner + inner + state + state + heads) + 2 * tokens * inner * width
    assert terms.projections == pytest.approx(layers, rel=1e-12)
    assert terms.convolution == 2 * sum(2 * kernel * inner for _ in range(1)) * (tokens + kernel - 1)
    assert terms.ssm == 2 * tokens * inner * (4 * state + 2)
    assert terms.total == terms.projections + terms.convolution + terms.ssm


def test_lingen_projections_are_counted_as_printed() -> None:
    config = resolve("lingen-4b").but(review_tokens=0)
    fields = config.model_dump()
    evaluation = plan(config, *config.clip)[-1]
    terms = closed_forms(
        config.tokens(evaluation), fields["width"], fields["expand"], fields["state"], fields["head_width"], 4
    )
    count = ForwardCounter(config)(evaluation)
    linear = count.by_module["blocks.0.mixer.project"] + count.by_module["blocks.0.mixer.out"]
    assert linear == pytest.approx(terms.projections, rel=1e-12)
    recurrent = CostModel(config, Convention(scan_cost="recurrent")).count(evaluation)
    assert recurrent.of("m4v.ssd") / fields["layers"] == pytest.approx(terms.ssm, rel=1e-12)


# What the papers print.


@pytest.mark.parametrize(
    ("variant", "tflops", "tolerance"),
    [("attention", 55.44, 0.01), ("mamba", 26.64, 0.01), ("mamba+temporal", 29.52, 0.01)],
)
def test_published_mixers(variant: str, tflops: float, tolerance: float) -> None:
    row = make_row(variant, "m4v", family("m4v")[variant], CLIP, Convention())
    assert row.cost.mixers / 1e12 == pytest.approx(tflops, rel=tolerance)
    assert row.published is not None
    assert row.published.tflops == tflops
    assert row.reproduced


@pytest.mark.parametrize(("blocks", "tflops"), [(0, 22.416), (2, 24.192), (4, 25.968)])
def test_table_6_needs_dual_mamba_to_cost_twice(blocks: int, tflops: float) -> None:
    config = family("m4v", dual_blocks=blocks)["mamba+temporal"]
    twice = make_row("mamba+temporal", "m4v", config, CLIP, Convention(dual_mamba_cost=2))
    assert twice.cost.mixers / 1e12 == pytest.approx(tflops, rel=0.025)
    assert twice.reproduced
    once = make_row("mamba+temporal", "m4v", config, CLIP, Convention())
    assert once.reproduced is False
    assert once.relative_error is not None
    assert once.relative_error < -0.1


def test_nothing_is_published_for_another_clip_or_stage() -> None:
    config = family("m4v")["mamba"]
    assert make_row("mamba", "m4v", config, (121, 768, 1280), Convention()).published is None
    assert make_row("mamba", "m4v", config, CLIP, Convention(stage="mid")).published is None
    assert make_row("mamba", "m4v-tiny", family("m4v-tiny")["mamba"], (17, 32, 32), Convention()).published is None


def test_compare_adds_each_published_row_once() -> None:
    listed = [(name, c.model_dump()["dual_blocks"]) for name, c in variants("m4v", compare=True)]
    assert listed == [
        ("attention", 8),
        ("mamba", 8),
        ("mamba+temporal", 8),
        ("mamba+temporal", 0),
        ("mamba+temporal", 2),
        ("mamba+temporal", 4),
    ]


def test_published_tokens() -> None:
    assert token_table(resolve("m4v"), CLIP) == {
        "coarse stage": 7440,
        "mid stage": 8880,
        "full stage": 15360,
        "full sequence": 119040,
    }


def test_stiv_totals_and_the_misprint() -> None:
    budgets = list(stiv.budgets())
    assert len(budgets) == 8
    misprinted = {budget.name: budget.misprint for budget in budgets if budget.misprint}
    assert set(misprinted.values()) == {("stage2", 8.43, 0.843), ("stage3", 8.43, 0.843)}
    for budget in budgets:
        if budget.misprint is None:
            assert budget.sum == pytest.approx(budget.total, abs=0.02)


def test_stiv_stages() -> None:
    """Videos with half of the tokens masked are met within 1 %, images in full within 6 %; text is left out."""
    stages = {stage.stage: stage for stage in stiv.recompute()}
    assert stages["T2V-256"].masked == pytest.approx(2.05, rel=0.01)
    assert stages["T2I-256"].unmasked == pytest.approx(1.11, rel=0.06)


# Conventions.


@pytest.fixture(scope="module")
def tiny() -> tuple[BackboneConfig, tuple[Evaluation, ...]]:
    config = family("m4v-tiny")["mamba+temporal"]
    assert isinstance(config, BackboneConfig)
    return config, plan(config, *config.clip)


def test_a_multiply_add_as_one_halves_everything(tiny: tuple[BackboneConfig, tuple[Evaluation, ...]]) -> None:
    config, evaluations = tiny
    two, one = (CostModel(config, Convention(flops_per_mac=n)).forward(evaluations[-1]) for n in (2, 1))
    assert one.total == two.total / 2
    assert one.mixers == two.mixers / 2


def test_the_clip_is_the_sum_of_its_passes(tiny: tuple[BackboneConfig, tuple[Evaluation, ...]]) -> None:
    config, evaluations = tiny
    costs = CostModel(config, Convention())
    by_hand = 2 * sum(e.steps * ForwardCounter(config)(e).total for e in evaluations)
    ticks: list[int] = []
    assert costs.clip(evaluations, lambda: ticks.append(1)).total == pytest.approx(by_hand, rel=1e-12)
    assert len(ticks) == len(evaluations)
    tripled = CostModel(config, Convention(guidance=3)).clip(evaluations, lambda: None)
    assert tripled.total == pytest.approx(1.5 * by_hand, rel=1e-12)


def test_parts_add_up_and_mixers_are_among_them(tiny: tuple[BackboneConfig, tuple[Evaluation, ...]]) -> None:
    config, evaluations = tiny
    cost = CostModel(config, Convention(output_projection="none")).forward(evaluations[-1])
    assert cost.mixers == pytest.approx(cost.parts["mixer"] + cost.parts["temporal"], rel=1e-12)
    everything = CostModel(config, Convention(output_projection="all")).forward(evaluations[-1])
    assert everything.mixers == pytest.approx(cost.mixers + cost.parts["out"], rel=1e-12)
    assert everything.total == pytest.approx(ForwardCounter(config)(evaluations[-1]).total, rel=1e-12)


@pytest.mark.parametrize("stage", ["full", "coarse", "0", "1"])
def test_the_mask_spares_what_it_hides(tiny: tuple[BackboneConfig, tuple[Evaluation, ...]], stage: str) -> None:
    """The share of visible pairs from token counts equals the mean of the mask that the network makes."""
    config, evaluations = tiny
    evaluation = pick(evaluations, stage)
    blocks = attended_blocks(config, "mixer", evaluation, None)
    ids = torch.repeat_interleave(torch.arange(len(blocks)), torch.tensor(blocks))
    assert visible_pairs(blocks) == pytest.approx(blockwise_causal(ids).double().mean().item(), rel=1e-12)
    assert sum(blocks) == config.text_tokens + config.tokens(evaluation)
    full, causal = (CostModel(config, Convention(mask=mask)).forward(evaluation) for mask in ("none", "causal"))
    n, pieces = sum(blocks), attended_blocks(config, "temporal", evaluation, None)
    cells = config.tokens(Evaluation(0, 0, (evaluation.units[0].halved(0),), 1)) if evaluation.units else 0
    joint = config.dual_blocks * 4 * n**2 * config.width * (1 - visible_pairs(blocks))
    branch = (config.layers - config.dual_blocks) * 4 * sum(pieces) ** 2 * cells * config.width
    assert full.total - causal.total == pytest.approx(joint + branch * (1 - visible_pairs(pieces)), rel=1e-9)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_visible_pairs_by_counting(blocks: list[int]) -> None:
    ids = [i for i, n in enumerate(blocks) for _ in range(n)]
    seen = sum(a >= b for a in ids for b in ids)
    assert visible_pairs(blocks) == pytest.approx(seen / len(ids) ** 2, rel=1e-12)


def test_prompt_length_is_counted(tiny: tuple[BackboneConfig, tuple[Evaluation, ...]]) -> None:
    config, evaluations = tiny
    longer = config.but(text_tokens=50)
    assert CostModel(config, Convention(text_tokens=50)).forward(evaluations[-1]).total == pytest.approx(
        backbone_flops(longer, evaluations[-1]), rel=1e-3
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask": "causl"},
        {"scope": "frame"},
        {"scan_cost": "fast"},
        {"output_projection": "x"},
        {"flops_per_mac": 3},
        {"dual_mamba_cost": 0.0},
        {"dual_mamba_cost": float("nan")},
    ],
)
def test_unknown_conventions_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        replace(Convention(), **wrong)  # type: ignore[arg-type]


def test_a_mask_where_there_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="no mask"):
        make_row("stiv-tiny", "stiv-tiny", resolve("stiv-tiny"), resolve("stiv-tiny").clip, Convention(mask="causal"))


def test_each_convention_says_so_in_words() -> None:
    said = {
        tuple(Convention(**change).sentences())
        for change in (
            {},
            {"mask": "causal"},
            {"scope": "clip"},
            {"guidance": 2},
            {"stage": "mid"},
            {"scan_cost": "recurrent"},
            {"dual_mamba_cost": 2.0},
            {"output_projection": "all"},
            {"flops_per_mac": 1},
        )
    }
    assert len(said) == 9


# Sweeps.


def test_crossing_is_where_costs_meet() -> None:
    crossing = crossing_of("m4v", CLIP, Convention())
    assert crossing is not None
    d, text = 1920, 128

    def attention(n: int) -> float:
        return 8 * (n + text) * d**2 + 4 * (n + text) ** 2 * d

    def mamba(n: int) -> float:
        return mamba_mixer(BackboneConfig(mixer="mamba"), n, text, 1)

    n = int(crossing.tokens)
    assert attention(n) > mamba(n)
    assert attention(n - 1) <= mamba(n - 1)
    assert crossing.frames is None  # one frame at 768 x 1280 has 3,840 tokens


@pytest.mark.parametrize("tokens", [1, 17, 50, 63, 64, 65, 66, 100, 793])
def test_shortest_clip_with_so_many_tokens(tokens: int) -> None:
    config = resolve("m4v")
    assert isinstance(config, BackboneConfig)
    frames = frames_with(config, (241, 64, 64), tokens)

    def last(n: int) -> int:
        return config.tokens(plan(config, n, 64, 64)[-1])

    if frames is None:
        assert last(1) >= tokens
    elif frames < 800:
        assert last(frames) >= tokens > last(frames - 8)
    else:
        assert last(frames) >= tokens


@pytest.mark.parametrize("text", ["frames", "frames=", "frames=57", "frame=1,9", "frames=1,x", "dual_blocks=1,1"])
def test_unreadable_sweeps_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_sweep(text)


# The counter on modules of one's own.


def test_attention_counts_in_full_and_containers_add_nothing() -> None:
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
        x = torch.empty(2, 10, 32)
        count = count_module(nn.Sequential(layer, layer), [x])
    one = 2 * 20 * 32 * (4 * 32 + 2 * 64) + 4 * 2 * 10**2 * 32
    assert count.total == 2 * one


def test_a_module_without_products_costs_nothing() -> None:
    count = count_module(nn.ReLU(), [torch.empty(3, device="meta")])
    assert count.total == 0
    assert count.parameters == 0


def test_counting_allocates_no_weights() -> None:
    model = build_on_meta(resolve("stiv-m"))
    assert all(p.device.type == "meta" for p in model.parameters())


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("blocks.3.mlp_out", "mlp"),
        ("blocks.3.mixer.qkv.0", "mixer"),
        ("blocks.10.out.1", "out"),
        ("embed_text", "embed"),
        ("condition.time.0", "condition"),
        ("layers.0.self_attn", "layers"),
        ("", "model"),
        ("blocks", "blocks"),
    ],
)
def test_parts(path: str, part: str) -> None:
    assert part_of(path) == part
