"""The sampler against models whose exact velocity is known, against closed forms, and with the tiny networks.

Axes beyond the usual: the matrices of the Gaussian tests act on the N = rows x columns cells of one frame.
"""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m4v.flow import FlowConfig, Window, stage_windows
from m4v.layout import Evaluation, Shape
from m4v.sample import SamplerConfig, Step, Velocity, block_noise, count_passes, join_texts, plan, renoise, sample
from m4v.variants import VelocityModel, presets
from m4v.variants.base import Text
from tests.networks import randomize

PLAIN = FlowConfig(spatial_pyramid=False, temporal_pyramid=False)
SPATIAL = FlowConfig(temporal_pyramid=False)
NO_GUIDANCE = SamplerConfig(
    steps=2, first_frame_steps=3, guidance=1, first_frame_guidance=1, image_guidance=1, self_quality=0
)
Matrix = np.ndarray[Any, np.dtype[np.float64]]


def seeds(*values: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(value) for value in values]


def prompts(*values: float) -> Text:
    """Prompts whose pooled embedding is one number."""
    return Text(
        torch.zeros(len(values), 2, 3), torch.ones(len(values), 2, dtype=torch.bool), torch.tensor([*values])[:, None]
    )


NULL = prompts(0.0)


class Call(NamedTuple):
    units: list[Tensor]
    t_B: Tensor
    text: Text
    stage: int
    autocast: bool


class Recorder:
    """Passes calls on to a model and remembers them."""

    def __init__(self, model: Velocity) -> None:
        self.model, self.calls = model, list[Call]()

    def __call__(self, units: list[Tensor], t_B: Tensor, text: Text, *, stage: int = 0) -> Tensor:
        self.calls.append(Call(units, t_B, text, stage, torch.is_autocast_enabled("cpu")))
        out: Tensor = self.model(units, t_B, text, stage=stage)
        return out

    @property
    def passes(self) -> int:
        """Forward passes, summed over the batch."""
        return sum(len(call.t_B) for call in self.calls)


def text_velocity(units: list[Tensor], t_B: Tensor, text: Text, *, stage: int = 0) -> Tensor:
    """A velocity that is the prompt's number everywhere."""
    return text.pooled_BP.view(-1, 1, 1, 1, 1).expand_as(units[-1]).clone()


def is_image(units: list[Tensor], t_B: Tensor, text: Text, *, stage: int = 0) -> Tensor:
    """The prompt's number, plus 100 where there is no history."""
    return text_velocity(units, t_B, text) + 100 * (len(units) == 1)


def average(x: Tensor, size: int) -> Tensor:
    """Block averages by reshaping."""
    return x.unflatten(-1, (-1, size)).unflatten(-3, (-1, size)).mean((-1, -3))


# Jumps


def block_matrix(gamma: float) -> Matrix:
    """What `block_noise` does to the four cells of a block, read off unit vectors."""
    basis = torch.eye(4, dtype=torch.float64).view(4, 1, 1, 2, 2)
    return block_noise(basis, gamma).reshape(4, 4).T.numpy()


@given(st.floats(-1 / 3, -1e-3))
def test_covariance_of_the_corrective_noise(gamma: float) -> None:
    """PyramidFlow eq. 14: ones on the diagonal, gamma elsewhere (1e-12)."""
    matrix = block_matrix(gamma)
    np.testing.assert_allclose(matrix @ matrix.T, (1 - gamma) * np.eye(4) + gamma, atol=1e-12)


def test_covariance_of_the_corrective_noise_by_drawing() -> None:
    """100,000 blocks at gamma = -1/3; tolerance five standard errors."""
    white = torch.randn(100_000, 1, 1, 2, 2, generator=seeds(0)[0], dtype=torch.float64)
    blocks = block_noise(white, -1 / 3).reshape(-1, 4).numpy()
    expected = np.full((4, 4), -1 / 3) + 4 / 3 * np.eye(4)
    np.testing.assert_allclose(blocks.T @ blocks / len(blocks), expected, atol=5 * math.sqrt(2 / len(blocks)))


@given(st.floats(0.02, 0.98))
def test_published_coefficients(start: float) -> None:
    """(1 + s) / 2 and sqrt(3) (1 - s) / 2 of PyramidFlow eq. 15 (1e-12)."""
    before, after = Window(0, 2 * start / (1 + start)), Window(start, 1)
    white = torch.randn(1, 1, 1, 4, 4, generator=seeds(0)[0], dtype=torch.float64)
    ones, zeros = torch.ones(1, 1, 1, 2, 2, dtype=torch.float64), torch.zeros(1, 1, 1, 2, 2, dtype=torch.float64)
    np.testing.assert_allclose(renoise(ones, before, after, -1 / 3, None), (1 + start) / 2, rtol=1e-12)
    corrective = math.sqrt(3) * (1 - start) / 2 * block_noise(white, -1 / 3)
    np.testing.assert_allclose(renoise(zeros, before, after, -1 / 3, white), corrective, rtol=1e-12, atol=1e-12)


# A Gaussian data model


def down(size: int, times: int) -> Matrix:
    """Block averages of a size x size frame as a matrix on its cells."""
    line = np.kron(np.eye(size >> times), np.full((1, 1 << times), 0.5**times))
    return np.kron(line, line)


def up(size: int) -> Matrix:
    """Nearest-neighbour doubling of a size x size frame as a matrix."""
    line = np.kron(np.eye(size), np.ones((2, 1)))
    return np.kron(line, line)


class GaussianFlow:
    """The exact velocity of PyramidFlow's path for data N(mean, covariance) on a size x size frame.

    On the path x = A x1 + b n with A and b linear in t'; the velocity is E[A' x1 + b' n | x], affine in x because all
    is jointly Gaussian.
    """

    def __init__(self, size: int, windows: tuple[Window, ...], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        n = size * size
        factor = np.eye(n) * 0.6 + rng.normal(size=(n, n)) / n**0.5
        self.size, self.windows = size, windows
        self.mean, self.covariance = rng.normal(size=n), factor @ factor.T

    def path(self, level: int, share: float) -> tuple[Matrix, float, Matrix, float]:
        """A, b and their derivatives."""
        s, e = self.windows[level]
        end = e * down(self.size, level)
        blurred = up(self.size >> (level + 1)) @ down(self.size, level + 1) if s else np.zeros_like(end)
        start = s * blurred
        return (1 - share) * start + share * end, (1 - share) * (1 - s) + share * (1 - e), end - start, s - e

    def law(self, level: int, share: float) -> tuple[Matrix, Matrix]:
        """Mean and covariance of x."""
        a, b, _, _ = self.path(level, share)
        return a @ self.mean, a @ self.covariance @ a.T + b**2 * np.eye(len(a))

    def __call__(self, units: list[Tensor], t_B: Tensor, text: Text, *, stage: int = 0) -> Tensor:
        s, e = self.windows[stage]
        share = (float(t_B[0]) - s) / (e - s)
        a, b, da, db = self.path(stage, share)
        mean, covariance = self.law(stage, share)
        gain = np.linalg.solve(covariance, a @ self.covariance @ da.T + b * db * np.eye(len(a))).T
        x = units[-1].double().flatten(3).numpy()
        return torch.tensor(da @ self.mean + (x - mean) @ gain.T, dtype=torch.float32).view_as(units[-1])


@given(st.integers(2, 3), st.floats(-1 / 3, -1e-2), st.integers(0, 100))
def test_the_marginals_agree_at_a_jump(stages: int, gamma: float, seed: int) -> None:
    """End of a level, doubled and renoised, has mean and covariance of the next start (float64, 1e-12)."""
    windows = stage_windows(stages, gamma)
    model = GaussianFlow(8, windows, seed)
    for level in range(stages - 1):
        size = 8 >> (level + 1)
        jump = [renoise_matrix(size, windows[level + 1], windows[level], gamma, noise=on) for on in (False, True)]
        mean, covariance = model.law(level + 1, 1)
        expected_mean, expected_covariance = model.law(level, 0)
        np.testing.assert_allclose(jump[0] @ mean, expected_mean, atol=1e-12)
        jumped = jump[0] @ covariance @ jump[0].T + jump[1] @ jump[1].T
        np.testing.assert_allclose(jumped, expected_covariance, atol=1e-12)


def renoise_matrix(size: int, before: Window, after: Window, gamma: float, *, noise: bool) -> Matrix:
    """`renoise` as a matrix on the latents, or on the noise."""
    n = 4 * size * size if noise else size * size
    side = 2 * size if noise else size
    basis = torch.eye(n, dtype=torch.float64).view(n, 1, 1, side, side)
    if noise:
        low = torch.zeros(n, 1, 1, size, size, dtype=torch.float64)
        return renoise(low, before, after, gamma, basis).flatten(1).T.numpy()
    return renoise(basis, before, after, gamma, None).flatten(1).T.numpy()


@pytest.mark.parametrize(("stages", "gamma"), [(1, -1 / 3), (2, -1 / 3), (3, -1 / 3), (2, -0.1)])
def test_gaussian_data_is_reproduced(stages: int, gamma: float) -> None:
    """Mean and covariance of 20,000 frames of 4 x 4 after 100 steps a level.

    Tolerance: five standard errors (sqrt(C_ii / n); sqrt((C_ii C_jj + C_ij^2) / n)) plus 2 % of the largest variance
    for the Euler steps, whose error here falls with 1/steps.
    """
    flow = FlowConfig(stages=stages, gamma=gamma, temporal_pyramid=False)
    model = GaussianFlow(4, flow.windows)
    n = 20_000
    sampler = NO_GUIDANCE.but(first_frame_steps=100)
    frames = sample(model, NULL, NULL, Shape(1, 4, 4), n, flow, sampler, generators=seeds(1))
    x = frames.double().reshape(n, 16).numpy()
    target, largest = model.covariance, model.covariance.max()
    variances = np.diag(target)
    mean_error = 5 * np.sqrt(variances / n) + 0.02 * np.abs(model.mean).max()
    assert (np.abs(x.mean(0) - model.mean) < mean_error).all()
    covariance_error = 5 * np.sqrt((np.outer(variances, variances) + target**2) / n) + 0.02 * largest
    assert (np.abs(np.cov(x.T) - target) < covariance_error).all()


def test_without_corrective_noise_the_covariance_is_wrong() -> None:
    """The ablation of PyramidFlow's Appendix C.2 is seen by the same measure: cells of a block stay correlated."""
    flow = FlowConfig(stages=2, temporal_pyramid=False)
    model = GaussianFlow(4, flow.windows)
    sampler = NO_GUIDANCE.but(first_frame_steps=50, corrective_noise=False)
    frames = sample(model, NULL, NULL, Shape(1, 4, 4), 5_000, flow, sampler, generators=seeds(1))
    x = frames.double().reshape(5_000, 16).numpy()
    assert np.abs(np.cov(x.T) - model.covariance).max() > 0.2 * model.covariance.max()


# One possible clip


class Drift:
    """Data of one clip: a fixed first frame, each further one larger by 1 everywhere.

    Autoregressive: frame i is the newest condition plus 1. The path is a straight line, so that Euler steps are exact.
    """

    def __init__(self, first: Tensor, windows: tuple[Window, ...]) -> None:
        self.first, self.windows = first, windows

    def __call__(self, units: list[Tensor], t_B: Tensor, text: Text, *, stage: int = 0) -> Tensor:
        x, (s, e) = units[-1], self.windows[stage]
        for age, unit in enumerate(units[-2::-1]):
            expected = average(self.first, self.first.shape[-1] // unit.shape[-1]) + len(units) - 2 - age
            torch.testing.assert_close(unit, expected, rtol=0, atol=1e-4)
        sharp = units[-2] + 1 if len(units) > 1 else average(self.first, 1 << stage)
        blurred = average(sharp, 2).repeat_interleave(2, -1).repeat_interleave(2, -2) if s else torch.zeros_like(x)
        share = (float(t_B[0]) - s) / (e - s)
        a, b = (1 - share) * s * blurred + share * e * sharp, (1 - share) * (1 - s) + share * (1 - e)
        return e * sharp - s * blurred + (s - e) * (x - a) / b


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("image", [True, False])
def test_one_possible_clip(stages: int, spatial: bool, image: bool) -> None:
    """Frame by frame from pooled clean history, from noise or from an image; atol 1e-4 after 5 frames in float32."""
    flow = FlowConfig(stages=stages, spatial_pyramid=spatial)
    first = torch.randn(1, 2, 1, 8, 8, generator=seeds(3)[0])
    model = Drift(first, flow.windows)
    given_image = first if image else None
    x = sample(model, NULL, NULL, Shape(5, 8, 8), 2, flow, NO_GUIDANCE, generators=seeds(0), image=given_image)
    expected = torch.cat([first + i for i in range(5)], dim=2)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-4)
    assert not image or torch.equal(x[:, :, :1], first)


# Guidance


def shift(text: float, latent: Shape, flow: FlowConfig, sampler: SamplerConfig, **options: Any) -> Tensor:
    """What the prompt's number adds to each latent frame, for the model whose velocity it is."""
    out = [
        sample(text_velocity, prompts(value), NULL, latent, 1, flow, sampler, generators=seeds(0), **options)
        for value in (text, 0.0)
    ]
    return (out[0] - out[1])[0, 0].mean((1, 2))


@pytest.mark.parametrize("image", [True, False])
def test_scales_of_first_frame_video_and_image(image: bool) -> None:
    """A constant velocity p adds scale * p to a frame; float32 sums of 10 steps, 1e-4."""
    flow = FlowConfig(spatial_pyramid=False)
    sampler = SamplerConfig(steps=2, first_frame_steps=3, guidance=5, first_frame_guidance=7, image_guidance=4)
    options = {"image": torch.zeros(1, 1, 1, 4, 4)} if image else {}
    added = shift(2.0, Shape(3, 4, 4), flow, sampler, **options)
    torch.testing.assert_close(added, torch.tensor([0.0, 8, 8] if image else [14.0, 10, 10]), rtol=1e-4, atol=1e-4)


def test_scales_of_the_full_sequence() -> None:
    """All frames of a clip at the video's scale, an image at the first frame's."""
    sampler = SamplerConfig(first_frame_steps=3, guidance=5, first_frame_guidance=7)
    clip = shift(1.0, Shape(3, 4, 4), PLAIN, sampler)
    torch.testing.assert_close(clip, torch.full((3,), 5.0), rtol=1e-4, atol=1e-4)
    still = shift(1.0, Shape(1, 4, 4), PLAIN, sampler)
    torch.testing.assert_close(still, torch.full((1,), 7.0), rtol=1e-4, atol=1e-4)


def test_renormalised_guidance_moves_by_the_conditional_norm() -> None:
    """Scale 5 renormalised moves as far as scale 1 (1e-4)."""
    sampler = SamplerConfig(first_frame_steps=3, guidance=5, renormalise=True)
    torch.testing.assert_close(shift(2.0, Shape(2, 4, 4), PLAIN, sampler), torch.full((2,), 2.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_self_quality_acts_late_and_at_fine_levels(scale: float) -> None:
    """From the 8th latent frame on, at all levels but the coarsest; counted in passes and seen in the calls."""
    flow, latent = FlowConfig(), Shape(9, 4, 4)
    sampler = NO_GUIDANCE.but(guidance=scale, self_quality=0.25)
    model = Recorder(is_image)
    reports: list[Step] = []
    sample(model, prompts(1.0), NULL, latent, 1, flow, sampler, generators=seeds(0), progress=reports.append)
    pair = 1 if scale == 1 else 2
    expected = 3 * 3 + 8 * 3 * 2 * pair + 2 * 2 * 2 * pair  # first frame, eight frames, two levels of two frames more
    assert model.passes == expected == count_passes(latent, flow, sampler) == sum(step.passes for step in reports)
    assert {step.frame for step in reports if step.passes == 2 * pair} == {7, 8}
    assert {step.stage for step in reports if step.passes == 2 * pair} == {0, 1}


def test_self_quality_is_the_step_towards_an_image() -> None:
    """Without history the model adds 100: at weight 0.25 frames 8 and 9 gain 25, the others nothing (1e-3)."""
    flow, latent = FlowConfig(spatial_pyramid=False), Shape(9, 4, 4)
    out = [
        sample(is_image, prompts(1.0), NULL, latent, 1, flow, NO_GUIDANCE.but(self_quality=w), generators=seeds(0))
        for w in (0.25, 0.0)
    ]
    gained = (out[0] - out[1])[0, 0].mean((1, 2))
    torch.testing.assert_close(gained, torch.tensor([0.0] * 7 + [25.0] * 2), rtol=1e-3, atol=1e-3)


# Frame replacement


def misled(units: list[Tensor], t_B: Tensor, text: Text, *, stage: int = 0) -> Tensor:
    """The prompt's number, but nonsense on the first frame, on which it was never trained."""
    v = text_velocity(units, t_B, text)
    v[:, :, 0] = 1e6
    return v


@pytest.mark.parametrize("flow", [PLAIN, SPATIAL])
@pytest.mark.parametrize("joint", [True, False])
def test_frame_replacement_sees_the_clean_image(flow: FlowConfig, joint: bool) -> None:
    """The conditional pass sees the image, JIT-CFG's null pass its own path towards it; the clip begins with it.

    On the path, frames at times t1 < t2 of one level lie on a line with the given end (checked at full resolution).
    """
    flow = flow.but(frame_replacement=True)
    image = torch.randn(1, 2, 1, 8, 8, generator=seeds(4)[0])
    sampler = SamplerConfig(first_frame_steps=4, joint=joint, renormalise=True)
    model = Recorder(misled)
    x = sample(model, prompts(1.0), NULL, Shape(3, 8, 8), 2, flow, sampler, generators=seeds(0), image=image)
    assert torch.equal(x[:, :, :1], image)
    assert x.abs().max() < 50
    for call in model.calls:
        (unit,) = call.units
        torch.testing.assert_close(unit[:1, :, :1], average(image, 1 << call.stage), rtol=1e-5, atol=1e-5)
        assert torch.equal(unit[0, :, 1:], unit[1, :, 1:])
        assert torch.equal(unit[0, :, 0], unit[1, :, 0]) != joint
    if joint:
        finest = [call.units[0][1:, :, :1] for call in model.calls if call.stage == 0]
        velocity = (finest[1] - finest[0]) * 4
        for step, frame in enumerate(finest):
            torch.testing.assert_close(frame + (1 - step / 4) * velocity, image, rtol=1e-4, atol=1e-4)


# Batches, seeds, text


class Plan(NamedTuple):
    name: str
    flow: FlowConfig
    latent: Shape
    image: bool = False

    def label(self) -> str:
        way = "frame by frame" if self.flow.temporal_pyramid else "all at once"
        return f"{self.name}, {way}{', from an image' if self.image else ''}"


TINY = [
    Plan("pyramidflow-tiny", FlowConfig(stages=2), Shape(3, 4, 4)),
    Plan("pyramidflow-tiny", FlowConfig(stages=2), Shape(3, 4, 4), image=True),
    Plan("m4v-tiny", FlowConfig(stages=2), Shape(3, 4, 4)),
    Plan("m4v-tiny", FlowConfig(stages=2, temporal_pyramid=False), Shape(3, 4, 4)),
    Plan("stiv-tiny", PLAIN.but(frame_replacement=True), Shape(4, 4, 4)),
    Plan("stiv-tiny", PLAIN.but(frame_replacement=True), Shape(4, 4, 4), image=True),
]
FEW = SamplerConfig(steps=2, first_frame_steps=3, self_quality=0.5, self_quality_from=3)


def tiny(name: str) -> VelocityModel:
    model = presets()[name].build()
    randomize(model, 0)
    return model


def in_double(model: VelocityModel) -> Velocity:
    """The network in float64 throughout: random weights magnify rounding that depends on the size of the batch."""
    model = model.double()

    def velocity(units: list[Tensor], t_B: Tensor, text: Text, *, stage: int = 0) -> Tensor:
        precise = Text(text.tokens_BLE.double(), text.mask_BL, text.pooled_BP.double())
        out: Tensor = model([unit.double() for unit in units], t_B.double(), precise, stage=stage)
        return out

    return velocity


def tiny_text(model: VelocityModel, batch: int, tokens: int, seed: int) -> Text:
    """Random prompts of different lengths."""
    generator = seeds(seed)[0]
    config = model.config
    mask_BL = torch.arange(tokens) <= torch.arange(batch)[:, None] % tokens
    return Text(
        torch.randn(batch, tokens, config.text_width, generator=generator),
        mask_BL,
        torch.randn(batch, config.pooled_width, generator=generator),
    )


def run_tiny(plan: Plan, model: Velocity, text: Text, chosen: list[int], **options: Any) -> Tensor:
    """Latents of the chosen prompts, each with its own seed and image."""
    some = Text(*(part[chosen] for part in text))
    tokens = torch.randn(1, 3, text.tokens_BLE.shape[2], generator=seeds(9)[0])
    null = Text(tokens, torch.tensor([[True, False, False]]), torch.zeros(1, text.pooled_BP.shape[1]))
    images = torch.randn(len(text.mask_BL), 64, 1, *plan.latent[1:], generator=seeds(5)[0])
    image = images[chosen] if plan.image else None
    options = {"sampler": FEW.but(steps=1, first_frame_steps=2)} | options
    return sample(model, some, null, plan.latent, 64, plan.flow, generators=seeds(*chosen), image=image, **options)


@pytest.mark.parametrize("plan", TINY, ids=Plan.label)
def test_tiny_networks(plan: Plan) -> None:
    """Shapes; a sample alone equals the sample in a batch, and one batch for both passes equals two (1e-5)."""
    network = tiny(plan.name)
    text, model = tiny_text(network, 3, 5, 8), in_double(network)
    together = run_tiny(plan, model, text, [0, 1, 2])
    assert together.shape == (3, 64, *plan.latent)
    assert together.dtype == torch.float32
    assert together.isfinite().all()
    scale = float(together.std())
    torch.testing.assert_close(run_tiny(plan, model, text, [2, 0]), together[[2, 0]], rtol=1e-5, atol=1e-5 * scale)
    alone = run_tiny(plan, model, text, [1], batched=False)
    torch.testing.assert_close(alone, together[[1]], rtol=1e-5, atol=1e-5 * scale)
    assert (together[0] - together[1]).abs().max() > 0.1


@pytest.mark.parametrize("plan", TINY[:3:2], ids=Plan.label)
def test_the_prompt_and_the_seed_matter(plan: Plan) -> None:
    model = tiny(plan.name)
    text = tiny_text(model, 2, 5, 8)
    first, again = run_tiny(plan, model, text, [0]), run_tiny(plan, model, text, [0])
    assert torch.equal(first, again)
    other_text = text._replace(tokens_BLE=text.tokens_BLE.flip(0), pooled_BP=text.pooled_BP.flip(0))
    assert (run_tiny(plan, model, other_text, [0]) - first).abs().max() > 1e-3


def test_bfloat16_runs_under_autocast() -> None:
    """Same latents within 10 % of their spread, not the same bits, returned in float32."""
    model = tiny("pyramidflow-tiny")
    text = tiny_text(model, 1, 5, 8)
    recorder = Recorder(model)
    options = {"generators": seeds(0), "flow": FlowConfig(stages=2), "channels": 64, "latent": Shape(2, 4, 4)}
    low = sample(recorder, text, text, sampler=NO_GUIDANCE.but(precision="bfloat16"), **options)
    assert low.dtype == torch.float32
    assert all(call.autocast for call in recorder.calls)
    full = sample(recorder.model, text, text, sampler=NO_GUIDANCE, **(options | {"generators": seeds(0)}))
    assert 0 < float((low - full).abs().max()) < 0.1 * float(full.std())


@pytest.mark.parametrize("name", ["pyramidflow-tiny", "m4v-tiny"])
@pytest.mark.parametrize("temporal", [True, False])
def test_the_sampler_makes_the_counted_passes(name: str, temporal: bool) -> None:
    """Frames, levels, units and steps are those of the model's `evaluations`, by which costs are counted."""
    config = presets()[name].but(temporal_pyramid=temporal)
    evaluations = config.evaluations(17, 32, 32)
    sampler = SamplerConfig(steps=config.frame_steps, first_frame_steps=config.first_frame_steps)
    flow = FlowConfig(stages=config.stages, temporal_pyramid=temporal)
    reports, model = list[Step](), Recorder(text_velocity)
    sample(model, prompts(1.0), NULL, Shape(3, 4, 4), 1, flow, sampler, generators=seeds(0), progress=reports.append)
    seen = [
        (step.frame, call.stage, tuple(Shape(*unit.shape[2:]) for unit in call.units))
        for step, call in zip(reports, model.calls, strict=True)
    ]
    assert [Evaluation(*key, len(list(run))) for key, run in groupby(seen)] == list(evaluations)


def test_time_is_global_and_rises_within_a_level() -> None:
    """Euler times s + j (e - s) / n of the published windows; the last one is a step before the end."""
    model = Recorder(text_velocity)
    sample(model, prompts(1.0), NULL, Shape(1, 4, 4), 1, SPATIAL, FEW, generators=seeds(0))
    times = [float(call.t_B[0]) for call in model.calls]
    assert times == pytest.approx([0, 1 / 9, 2 / 9, 9 / 45, 16 / 45, 23 / 45, 1 / 2, 4 / 6, 5 / 6], abs=1e-6)


def test_progress_counts_to_the_total() -> None:
    reports: list[Step] = []
    sample(
        text_velocity,
        prompts(1.0),
        NULL,
        Shape(2, 4, 4),
        1,
        FlowConfig(),
        FEW,
        generators=seeds(0),
        progress=reports.append,
    )
    assert [step.done for step in reports] == list(range(1, 16))
    assert {step.total for step in reports} == {15}
    assert all(earlier.frame <= later.frame for earlier, later in pairwise(reports))


def test_joined_texts_are_padded_and_masked() -> None:
    long, short = prompts(1.0, 2.0), prompts(3.0)
    short = Text(short.tokens_BLE[:, :1], short.mask_BL[:, :1], short.pooled_BP)
    both = join_texts(long, short)
    assert both.tokens_BLE.shape == (3, 2, 3)
    assert both.mask_BL.tolist() == [[True, True], [True, True], [True, False]]
    assert both.pooled_BP.flatten().tolist() == [1, 2, 3]


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generators": seeds(0, 1)}, "2 generators"),
        ({"generators": []}, "0 generators"),
        ({"null": prompts(0.0, 0.0)}, "2 null prompts"),
        ({"image": torch.zeros(1, 1, 4, 4)}, "image of shape"),
        ({"image": torch.zeros(1, 1, 1, 4, 4), "flow": SPATIAL}, "frame replacement"),
        ({"image": torch.zeros(1, 1, 1, 4, 4), "latent": Shape(1, 4, 4)}, "nothing to make"),
        ({"latent": Shape(2, 6, 4)}, "6 latent rows"),
        ({"latent": Shape(0, 4, 4)}, "no latent frames"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "text": prompts(1.0),
        "null": NULL,
        "latent": Shape(2, 4, 4),
        "channels": 1,
        "flow": FlowConfig(),
        "sampler": FEW,
        "generators": seeds(0),
    }
    with pytest.raises(ValueError, match=message):
        sample(text_velocity, **(arguments | changes))


def test_self_quality_never_acts_at_the_coarsest_of_several_levels() -> None:
    sampler = SamplerConfig(self_quality=1, self_quality_from=1, self_quality_stages=9)
    for stages, finest in [(1, 1), (2, 1), (3, 2)]:
        (_, block) = plan(Shape(2, 4, 4), FlowConfig(stages=stages), sampler)
        assert block.self_quality == finest
