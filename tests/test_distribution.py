"""Distances of sets of videos: closed forms, torch-fidelity as an oracle, simulation, and the command.

The published weights are not here. Inception is torch-fidelity's own class with drawn weights, in the form of its file;
I3D's place is taken by a small TorchScript archive with the published one's signature.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as tf_inception
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from typer.testing import CliRunner, Result

from evalkit.backbones.base import Runtime
from evalkit.cli import INCOMPLETE, build_app
from evalkit.decoding import Decoder, Job
from evalkit.distribution import Gaussian, Request, evaluate, frechet_distance, inception_score, kernel_distance
from evalkit.distribution.inception_score import split_frames
from evalkit.distribution.jackknife import MAX_GROUPS, Estimate, Grouped, deal, jackknife
from evalkit.distribution.kernel import KernelSums
from evalkit.distribution.measures import MEASURES, Sampled
from evalkit.distribution.networks import CLIP_LENGTH, I3D, INCEPTION, POOLED, middle, spread, to_i3d
from evalkit.distribution.rows import row
from evalkit.distribution.statistics import load, save
from evalkit.errors import UserError
from evalkit.job import Silent
from evalkit.video import probe, read
from evalkit.weights import MissingWeights
from tests.clips import moving_scene, write_clip

FloatArray = npt.NDArray[np.float64]
FRAMES = 2


def fid_of_torch_fidelity(x_ND: FloatArray, y_ND: FloatArray) -> float:
    stats = [fid_features_to_statistics(torch.from_numpy(array)) for array in (x_ND, y_ND)]
    return float(fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"])


def rotation(rng: np.random.Generator, d: int) -> FloatArray:
    return np.asarray(linalg.qr(rng.normal(size=(d, d)))[0])


# The Fréchet distance


def test_gaussians_with_commuting_covariances_have_a_closed_form() -> None:
    rng = np.random.default_rng(0)
    axes, a, b = rotation(rng, 6), rng.uniform(0, 4, 6), rng.uniform(0, 4, 6)
    m, n = rng.normal(size=(2, 6))
    one, other = (Gaussian.of_moments(mean, (axes * spread) @ axes.T) for mean, spread in ((m, a), (n, b)))
    expected = np.sum((m - n) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


def samples(seed: int, n: int, d: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


sizes = st.tuples(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 12), st.integers(1, 8))
"""A seed, two numbers of samples and a width: fewer samples than dimensions are among them."""


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_the_frechet_distance_is_a_distance(drawn: tuple[int, int, int, int]) -> None:
    seed, n, m, d = drawn
    x_ND, y_MD = samples(seed, n, d), samples(seed + 1, m, d)
    x, y = Gaussian.fit(x_ND), Gaussian.fit(y_MD)
    scale = np.sum(x.factor_RD**2) + np.sum(y.factor_RD**2) + np.sum((x.mean_D - y.mean_D) ** 2)
    distance = frechet_distance(x, y)
    assert frechet_distance(x, x) <= 1e-12 * scale
    assert distance == pytest.approx(frechet_distance(y, x), rel=1e-9, abs=1e-10 * scale)
    turn_DD = rotation(np.random.default_rng(seed), d)
    turned = frechet_distance(Gaussian.fit(x_ND @ turn_DD), Gaussian.fit(y_MD @ turn_DD))
    assert turned == pytest.approx(distance, rel=1e-9, abs=1e-9 * scale)
    shift_D = np.random.default_rng(seed + 2).normal(size=d)
    assert frechet_distance(x, Gaussian.fit(x_ND + shift_D)) == pytest.approx(
        shift_D @ shift_D, rel=1e-9, abs=1e-10 * scale
    )


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 32), (40, 400, 64), (20, 24, 64)])
def test_frechet_distance_as_torch_fidelity_and_as_style_gan_v(n: int, m: int, d: int) -> None:
    x_ND, y_MD = samples(1, n, d), samples(2, m, d)
    ours = frechet_distance(Gaussian.fit(x_ND), Gaussian.fit(y_MD))
    assert ours == pytest.approx(fid_of_torch_fidelity(x_ND, y_MD), rel=1e-6)
    if min(n, m) > d:  # a square root of a singular matrix is not to be trusted
        a_DD, b_DD = (np.cov(z, rowvar=False) for z in (x_ND, y_MD))
        root = np.trace(linalg.sqrtm(a_DD @ b_DD)).real
        means = np.sum((x_ND.mean(0) - y_MD.mean(0)) ** 2)
        assert ours == pytest.approx(means + np.trace(a_DD + b_DD) - 2 * root, rel=1e-6)


def test_a_gaussian_by_its_moments_is_the_one_that_was_fitted() -> None:
    x, y = Gaussian.fit(samples(3, 30, 12)), Gaussian.fit(samples(4, 8, 12))
    again = Gaussian.of_moments(y.mean_D, y.covariance_DD, y.n)
    assert frechet_distance(x, again) == pytest.approx(frechet_distance(x, y), rel=1e-6)
    with pytest.raises(ValueError, match="two finite samples"):
        Gaussian.fit(np.ones((1, 3)))
    with pytest.raises(ValueError, match="negative eigenvalues"):
        Gaussian.of_moments([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]])


# Intervals and extrapolation


def grouped_mean(x_N: FloatArray) -> Grouped[Any]:
    return Grouped(len(x_N), lambda g: x_N if g is None else np.delete(x_N, g))


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x_N, y_M = np.random.default_rng(5).normal(size=(2, 15))
    one = jackknife({"x": grouped_mean(x_N)}, lambda s: s["x"].mean())
    assert one.standard_error == pytest.approx(x_N.std(ddof=1) / np.sqrt(15), rel=1e-9)
    assert one.bias == pytest.approx(0.0, abs=1e-12)
    sets = {"x": grouped_mean(x_N), "y": grouped_mean(y_M)}
    apart = jackknife(sets, lambda s: s["x"].mean() - s["y"].mean())
    assert apart.standard_error == pytest.approx(np.sqrt((x_N.var(ddof=1) + y_M.var(ddof=1)) / 15), rel=1e-9)
    paired = jackknife(sets, lambda s: s["x"].mean() - s["y"].mean(), [["x", "y"]])
    assert paired.standard_error == pytest.approx((x_N - y_M).std(ddof=1) / np.sqrt(15), rel=1e-9)


def test_the_jackknife_sees_the_whole_bias_of_the_variance() -> None:
    x_N = np.random.default_rng(6).normal(size=11)
    found = jackknife({"x": grouped_mean(x_N)}, lambda s: float(np.var(s["x"])))
    assert found.bias is not None
    assert found.value - found.bias == pytest.approx(np.var(x_N, ddof=1), rel=1e-9)


def test_a_set_taken_as_given_adds_nothing_and_one_too_small_leaves_the_interval_open() -> None:
    x = grouped_mean(np.arange(9.0))
    alone = jackknife({"x": x}, lambda s: s["x"].mean())
    given_too = jackknife({"x": x, "y": Grouped(0, lambda _: np.ones(3))}, lambda s: s["x"].mean() - s["y"].mean())
    assert given_too.standard_error == alone.standard_error
    assert jackknife({"x": x, "y": Grouped(1, lambda _: np.ones(3))}, lambda s: s["x"].mean()) == Estimate(4.0)


@given(st.integers(1, 200), st.integers(0, 99))
def test_videos_are_dealt_evenly(n: int, seed: int) -> None:
    sizes = np.bincount(deal(n, seed))
    assert sizes.sum() == n
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == (min(n, MAX_GROUPS) if n > 2 else 1)


def test_the_frechet_distance_is_biased_upwards_and_the_extrapolation_is_not() -> None:
    """Two normal distributions in 10 dimensions whose distance is known; 40 draws of 40 samples each."""
    rng = np.random.default_rng(7)
    a_DD, shift_D = rng.normal(size=(10, 10)) / 3, np.full(10, 0.4)
    true = float(shift_D @ shift_D)
    estimates = []
    for draw in range(40):
        sets = {}
        for name, mean_D in (("a", 0 * shift_D), ("b", shift_D)):
            x_ND = rng.normal(size=(40, 10)) @ a_DD + mean_D
            groups_N = deal(40, draw)
            sets[name] = Grouped(MAX_GROUPS, lambda g, x=x_ND, k=groups_N: Gaussian.fit(x if g is None else x[k != g]))
        estimates.append(jackknife(sets, lambda s: frechet_distance(s["a"], s["b"])))
    plain = np.array([e.value for e in estimates])
    extrapolated = np.array([e.value - (e.bias or 0.0) for e in estimates])
    error = extrapolated.std(ddof=1) / np.sqrt(len(estimates))
    assert plain.mean() > true + 10 * error
    assert abs(extrapolated.mean() - true) < 4 * error
    assert np.mean([e.standard_error for e in estimates]) == pytest.approx(plain.std(ddof=1), rel=0.5)


# The kernel distance


def videos_of(x_ND: FloatArray) -> list[FloatArray]:
    """A frame a video."""
    return list(x_ND[:, None, :])


def kid_of_torch_fidelity(x_ND: FloatArray, y_ND: FloatArray) -> float:
    settings = {"kid_subsets": 1, "kid_subset_size": len(x_ND), "verbose": False}
    return float(
        kid_features_to_metric(torch.from_numpy(x_ND), torch.from_numpy(y_ND), **settings)[
            "kernel_inception_distance_mean"
        ]
    )


def test_kernel_distance_as_torch_fidelity() -> None:
    x_ND, y_ND = samples(8, 50, 16), samples(9, 50, 16)
    ours = kernel_distance(videos_of(x_ND), videos_of(y_ND))
    assert ours == pytest.approx(kid_of_torch_fidelity(x_ND, y_ND), rel=1e-9)


def test_kernel_distance_has_no_bias_though_the_frames_of_a_video_are_alike() -> None:
    """300 pairs of sets of one distribution: five videos of four frames, which share most of what they show."""
    rng = np.random.default_rng(10)
    ours, blind = [], []
    for _ in range(300):
        sets = [rng.normal(size=(5, 1, 8)) + 0.3 * rng.normal(size=(5, 4, 8)) for _ in range(2)]
        ours.append(kernel_distance(*(list(videos) for videos in sets)))
        blind.append(kid_of_torch_fidelity(*(videos.reshape(20, 8) for videos in sets)))
    assert abs(np.mean(ours)) < 4 * np.std(ours, ddof=1) / np.sqrt(300)
    assert np.mean(blind) > 4 * np.std(blind, ddof=1) / np.sqrt(300)


def test_kernel_sums_measure_any_subset() -> None:
    rng = np.random.default_rng(11)
    one, other = ([rng.normal(size=(rng.integers(1, 5), 6)) for _ in range(7)] for _ in range(2))
    keep_V, keep_U = np.arange(7) != 2, np.arange(7) > 3
    subset = kernel_distance([v for v, k in zip(one, keep_V, strict=True) if k], other[4:])
    assert KernelSums.of(one, other).distance(keep_V, keep_U) == pytest.approx(subset, rel=1e-9)
    with pytest.raises(ValueError, match="two videos"):
        kernel_distance(one[:1], other)


# The Inception Score


def test_inception_score_of_certain_and_of_clueless_classifiers() -> None:
    assert inception_score(np.zeros((7, 5))) == pytest.approx(1.0, rel=1e-12)
    assert inception_score(1e4 * np.eye(6)) == pytest.approx(6.0, rel=1e-9)
    assert inception_score(1e4 * np.eye(6)[[2] * 9]) == pytest.approx(1.0, rel=1e-9)
    with pytest.raises(ValueError, match="needs a frame"):
        inception_score(np.empty((0, 5)))


@pytest.mark.parametrize("parts", [1, 3, 10])
def test_inception_score_as_torch_fidelity(parts: int) -> None:
    logits_NC = 3 * np.random.default_rng(12).normal(size=(50, 20))
    split_N = np.repeat(np.arange(parts), np.diff([i * 50 // parts for i in range(parts + 1)]))
    theirs = isc_features_to_metric(torch.from_numpy(logits_NC), parts, shuffle=False)["inception_score_mean"]
    assert inception_score(logits_NC, split_N) == pytest.approx(theirs, rel=1e-9)
    sizes = np.bincount(split_frames(50, parts, seed=0))
    assert len(sizes) == parts
    assert sizes.max() - sizes.min() <= 1


# What the networks read


@given(st.integers(1, 300), st.integers(1, 40))
def test_frames_are_spread_evenly(n: int, wanted: int) -> None:
    chosen = spread(n, wanted)
    assert len(chosen) == min(n, wanted)
    assert list(chosen) == sorted(set(chosen))
    assert 0 <= chosen[0] <= n - 1 - chosen[-1] + 1 <= n


def test_i3d_reads_the_middle_of_a_clip_scaled_to_its_square() -> None:
    assert list(middle(16)) == list(range(16))
    assert list(middle(21)) == list(range(2, 18))
    with pytest.raises(ValueError, match="needs 16 frames"):
        middle(15)
    frames_THWC = np.random.default_rng(0).integers(0, 256, (16, 224, 224, 3), np.uint8)
    video_CTHW = to_i3d(frames_THWC)[0]
    assert video_CTHW.shape == (3, 16, 224, 224)
    assert torch.equal(video_CTHW[1, 3], torch.from_numpy(frames_THWC[3, ..., 1]).float() * 2 / 255 - 1)
    gray = to_i3d(np.full((16, 30, 50, 3), 51, np.uint8))
    assert torch.allclose(gray, torch.tensor(-0.6), atol=1e-6)


# The command, with drawn weights


class StandInForI3D(nn.Module):
    """The published archive's signature; colours and brightness over time instead of actions."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 4 * 4 * 4, 400)

    def forward(
        self, x_BCTHW: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        assert return_features
        assert not rescale
        assert not resize
        assert x_BCTHW.shape[1:] == [3, 16, 224, 224]
        return self.head(nn.functional.adaptive_avg_pool3d(x_BCTHW, (4, 4, 4)).flatten(1))


@functools.cache
def drawn_inception() -> nn.Module:
    cls = tf_inception.FeatureExtractorInceptionV3
    with (
        mock.patch.object(cls, "load_state_dict"),
        mock.patch.object(tf_inception, "load_state_dict_from_url"),
        torch.random.fork_rng(),
    ):
        torch.manual_seed(0)
        network: nn.Module = cls("drawn", ["2048", "logits_unbiased"], verbose=False)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)  # or activations fade, and all frames look alike
    return network


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "distribution").mkdir()
    torch.save(drawn_inception().state_dict(), folder / INCEPTION.file)
    with torch.random.fork_rng(), warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated
        torch.manual_seed(1)
        torch.jit.save(torch.jit.script(StandInForI3D()), str(folder / I3D.file))
    return folder


def write_videos(folder: Path, n: int, seed: int, frames: int = 17) -> Path:
    folder.mkdir(parents=True)
    for k in range(n):
        scene = moving_scene(frames, 32, 40, seed=100 * seed + k).astype(int) - 9 * k * seed
        write_clip(folder / f"{k}.mp4", scene.clip(0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for seed, name in enumerate(("model", "real", "old")):
        write_videos(root / name, 3, seed)
    return root


@pytest.fixture(scope="module")
def request_(folders: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    return Request(
        videos=folders / "model",
        reference=folders / "real",
        baseline=folders / "old",
        out=tmp_path_factory.mktemp("run"),
        frames=FRAMES,
        weights=weights,
        trust_archives=True,
        runtime=Runtime(batch=3),
    )


@pytest.fixture(scope="module")
def record(request_: Request) -> dict[str, Any]:
    return evaluate(request_)


def frames_of(path: Path) -> npt.NDArray[np.uint8]:
    return np.concatenate([chunk.frames_THWC for chunk in read(path, probe(path))])


def by_hand(folder: Path) -> tuple[FloatArray, FloatArray]:
    """Inception's features of the chosen frames, from torch-fidelity alone."""
    frames = [frames_of(path)[[4, 12]] for path in sorted(folder.iterdir())]
    with torch.inference_mode():
        pooled, logits = drawn_inception()(torch.from_numpy(np.concatenate(frames)).permute(0, 3, 1, 2))
    return pooled.double().numpy(), logits.double().numpy()


def test_fid_and_inception_score_as_torch_fidelity_from_videos_on(record: dict[str, Any], folders: Path) -> None:
    model, real = by_hand(folders / "model"), by_hand(folders / "real")
    fid, score = (record["measures"][f"{name}/inception-2015"] for name in ("fid", "is"))
    basis_RD = linalg.svd(np.concatenate([model[0], real[0]]), full_matrices=False)[2]  # they span no more
    assert fid["value"] == pytest.approx(fid_of_torch_fidelity(model[0] @ basis_RD.T, real[0] @ basis_RD.T), rel=1e-4)
    theirs = isc_features_to_metric(torch.from_numpy(model[1]), splits=1)["inception_score_mean"]
    assert score["value"] - 1 == pytest.approx(theirs - 1, rel=1e-3)  # drawn weights are hardly sure of anything
    assert theirs > 1.0001


def test_fvd_is_that_of_the_archives_features(record: dict[str, Any], folders: Path, weights: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated
        network = torch.jit.load(str(weights / I3D.file))
    sets = []
    for name in ("model", "real"):
        clips = [to_i3d(frames_of(path)[:CLIP_LENGTH]) for path in sorted((folders / name).iterdir())]
        with torch.inference_mode():
            features = network(torch.cat(clips), rescale=False, resize=False, return_features=True)
        sets.append(Gaussian.fit(features.double().numpy()))
    assert record["measures"]["fvd/i3d-400"]["value"] == pytest.approx(frechet_distance(*sets), rel=1e-4)


def test_the_record_counts_warns_and_compares(record: dict[str, Any], request_: Request) -> None:
    assert record["schema"] == "m4v-eval/distribution/1"
    assert json.loads((request_.out / "distribution.json").read_text()) == record
    assert "vbench" not in " ".join(record["measures"])
    for protocol, found in record["measures"].items():
        low, high = found["ci95"]
        assert low < found["value"] < high
        assert found["n"]["videos"] == 3
        assert found["extrapolated"] is None
        assert found["difference"]["value"] == pytest.approx(found["value"] - found["baseline"]["value"], rel=1e-9)
        assert found["difference"]["paired"]
        small = any("bias of small sets" in note for note in found["notes"])
        assert small == (protocol in ("fid/inception-2015", "fvd/i3d-400"))
    assert record["measures"]["fid/inception-2015"]["n_samples"] == {"videos": 6, "reference": 6, "baseline": 6}
    assert record["unscored"] == []
    assert record["provenance"]["packages"]["torch-fidelity"] == metadata.version("torch-fidelity")
    assert sum("not the published file" in caveat for caveat in record["caveats"]) == 2


@contextlib.contextmanager
def no_decoding() -> Iterator[None]:
    with mock.patch.object(Decoder, "read", side_effect=AssertionError("decoded again")):
        yield


def test_a_second_run_decodes_nothing_and_says_the_same(record: dict[str, Any], request_: Request) -> None:
    with no_decoding():
        again = evaluate(request_)
    assert again["measures"] == record["measures"]


def test_a_killed_run_goes_on_where_it_was(folders: Path, weights: Path, tmp_path: Path) -> None:
    request = Request(
        folders / "model", tmp_path / "run", folders / "real", measures=("fvd",), weights=weights, trust_archives=True
    )
    seen: list[Path] = []

    read = Decoder.read

    def read_some(decoder: Decoder, job: Job) -> Any:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(job.path)
        return read(decoder, job)

    with mock.patch.object(Decoder, "read", read_some), pytest.raises(KeyboardInterrupt):
        evaluate(request)
    rest: list[Path] = []
    with mock.patch.object(Decoder, "read", lambda decoder, job: rest.append(job.path) or read(decoder, job)):
        record = evaluate(request)
    assert len(rest) == 6 - 3
    assert not set(rest) & set(seen)
    assert record["measures"]["fvd/i3d-400"]["n"] == {"videos": 3, "reference": 3}


def test_results_do_not_depend_on_the_batch(request_: Request, record: dict[str, Any], tmp_path: Path) -> None:
    other = replace(request_, out=tmp_path, measures=("is",), baseline=None, runtime=Runtime(batch=1))
    found = evaluate(other)["measures"]["is/inception-2015"]
    assert found["value"] == pytest.approx(record["measures"]["is/inception-2015"]["value"], rel=1e-4)


def test_statistics_stand_in_for_the_reference(request_: Request, record: dict[str, Any], tmp_path: Path) -> None:
    file, plain = tmp_path / "real.npz", tmp_path / "plain.npz"
    whole = record["measures"]
    with no_decoding():
        evaluate(replace(request_, measures=("fid", "fvd"), baseline=None, save_statistics=file))
        stored = replace(request_, reference=file, measures=("fid", "fvd"), baseline=None)
        again = evaluate(stored)["measures"]
        for protocol, found in again.items():
            assert found["value"] == pytest.approx(whole[protocol]["value"], rel=1e-6)
            assert found["standard_error"] < whole[protocol]["standard_error"]
        assert again["fid/inception-2015"]["n_samples"] == {"videos": 6, "reference": 6}
        with pytest.raises(UserError, match="made with"):
            evaluate(replace(stored, frames=3))
        fvd = load(file, ["fvd"]).gaussians["fvd"]
        np.savez(plain, mu=fvd.mean_D, sigma=fvd.covariance_DD)
        unknown = evaluate(replace(stored, reference=plain, measures=("is", "fvd")))
        with pytest.raises(UserError, match="one by one"):
            evaluate(replace(stored, reference=plain, measures=("kid",)))
    assert unknown["measures"]["fvd/i3d-400"]["value"] == pytest.approx(whole["fvd/i3d-400"]["value"], rel=1e-6)
    assert any("does not say how" in caveat for caveat in unknown["caveats"])


@pytest.mark.parametrize("content", [b"", b"no archive", {"x": np.ones(3)}, {"mu": np.ones(7), "sigma": np.eye(7)}])
def test_other_files_hold_no_statistics(content: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    if isinstance(content, dict):
        buffer = io.BytesIO()
        np.savez(buffer, **content)
        content = buffer.getvalue()
    file.write_bytes(content)
    with pytest.raises(UserError, match="holds no statistics"):
        load(file, ["fid", "fvd"])


def test_statistics_of_a_measure_that_is_not_held(tmp_path: Path, folders: Path, weights: Path) -> None:
    save(tmp_path / "fvd.npz", {"fvd": Gaussian.fit(samples(0, 5, 400))}, {"measures": {}})
    request = Request(folders / "model", tmp_path / "run", tmp_path / "fvd.npz", measures=("fid",), weights=weights)
    with pytest.raises(UserError, match="holds no statistics of a reference: fid is not in it"):
        evaluate(request)


def cli(*args: object) -> Result:
    return CliRunner().invoke(build_app(), ["distribution", *map(str, args)])


def test_the_command_lists_what_it_left_out(folders: Path, weights: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(folders / "model", videos)
    write_clip(videos / "short.mp4", moving_scene(5, 32, 40))
    (videos / "broken.mp4").write_bytes((videos / "0.mp4").read_bytes()[:900])
    shutil.copy(folders / "real" / "1.mp4", videos / "stolen.mp4")
    args = ("--videos", videos, "--reference", folders / "real", "--measures", "fvd", "--weights", weights)
    done = cli(*args, "--trust-weights", "--out", tmp_path / "run", "--json", tmp_path / "r.json", "--device", "cpu")
    assert done.exit_code == INCOMPLETE, done.output
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["measures"]["fvd/i3d-400"]["n"] == {"videos": 4, "reference": 3}
    reasons = {v["file"]: v["reason"] for v in record["unscored"]}
    assert set(reasons) == {"short.mp4", "broken.mp4"}
    assert reasons["short.mp4"] == "needs at least 16 frames, the clip has 5"
    words = " ".join(done.output.split())
    for text in ("fvd/i3d-400", "not VBench", "short.mp4", "broken.mp4", "1 video in both --videos and --reference"):
        assert text in words


def test_one_video_is_no_set(folders: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(folders / "model" / "0.mp4", tmp_path / "one")
    request = Request(
        tmp_path / "one", tmp_path / "run", folders / "real", measures=("fvd", "is"), frames=1, weights=weights,
        trust_archives=True,
    )  # fmt: skip
    measures = evaluate(request)["measures"]
    assert "needs 2 videos in --videos, and 1 could be measured" in measures["fvd/i3d-400"]["unscored"]
    assert measures["is/inception-2015"]["value"] == pytest.approx(1.0, rel=1e-6)
    assert measures["is/inception-2015"]["ci95"] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"measures": ("fvb",)}, "Did you mean fvd"),
        ({"measures": ()}, "No measure is asked for"),
        ({"reference": None}, "there is none"),
        ({"videos": "nowhere"}, "does not exist"),
        ({"videos": "empty"}, "holds no videos"),
        ({"reference": "real/../model"}, "are the same folder"),
        ({"save_statistics": Path("x.npz"), "measures": ("kid",)}, "nothing to save"),
    ],
)
def test_bad_input_is_refused_before_anything_is_computed(
    change: dict[str, Any], says: str, request_: Request, folders: Path, tmp_path: Path
) -> None:
    (folders / "empty").mkdir(exist_ok=True)
    change = {key: folders / value if isinstance(value, str) else value for key, value in change.items()}
    with pytest.raises(UserError, match=says):
        evaluate(replace(request_, out=tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


def test_missing_and_wrong_weights_are_named(request_: Request, weights: Path, tmp_path: Path) -> None:
    request = replace(request_, out=tmp_path / "run", weights=tmp_path / "weights")
    with pytest.raises(MissingWeights, match=r"i3d_torchscript\.pt.*weights pull inception-2015 i3d-400") as missing:
        evaluate(request)
    assert "lite" not in str(missing.value)
    (tmp_path / "weights" / "distribution").mkdir(parents=True)
    for checkpoint in (INCEPTION, I3D):
        torch.save({"x": torch.ones(2)}, tmp_path / "weights" / checkpoint.file)
        wrong = replace(request, measures=("fid",) if checkpoint == INCEPTION else ("fvd",))
        with pytest.raises(UserError, match=f"is not the {checkpoint.key} checkpoint"):
            evaluate(wrong)
        with pytest.raises(UserError, match="has sha256"):  # an archive can run code: unknown ones are not opened
            evaluate(replace(wrong, trust_archives=False))


def test_what_to_install_is_said(request_: Request, tmp_path: Path) -> None:
    absent = {"torch_fidelity.feature_extractor_inceptionv3": None}
    with (
        mock.patch.dict("sys.modules", absent),
        pytest.raises(UserError, match=r"pip install 'm4v-eval\[distribution\]'"),
    ):
        evaluate(replace(request_, out=tmp_path))


def test_large_sets_are_extrapolated() -> None:
    rng = np.random.default_rng(13)
    measure = replace(MEASURES["fvd"], width=3)
    sets = {
        role: Sampled.of({str(k): rng.normal(size=(1, 3)) for k in range(n)}, 0)
        for role, n in (("videos", 30), ("reference", 40))
    }
    found = row(measure, sets, 1, 0, Silent())
    assert 0 <= abs(found["extrapolated"]) < found["value"]
    few = {**sets, "videos": Sampled.of({str(k): rng.normal(size=(1, 3)) for k in range(5)}, 0)}
    assert row(measure, few, 1, 0, Silent())["extrapolated"] is None


def test_sets_of_different_sizes_are_not_compared_in_silence() -> None:
    rng = np.random.default_rng(14)
    sizes = {"videos": 6, "reference": 8, "baseline": 5}
    sets = {role: Sampled.of({str(k): rng.normal(size=(1, POOLED)) for k in range(n)}, 0) for role, n in sizes.items()}
    for name, warned in (("fid", True), ("kid", False)):
        found = row(MEASURES[name], sets, 1, 0, Silent())
        assert any("differ in number" in note for note in found["notes"]) == warned
        assert not found["difference"]["paired"]
        assert (found["ci95"][0] >= 0) or name == "kid"


def test_splits_need_frames() -> None:
    logits = {str(k): np.random.default_rng(k).normal(size=(2, POOLED + 5)) for k in range(4)}
    measure = MEASURES["is"]
    assert row(measure, {"videos": Sampled.of(logits, 0)}, 4, 0, Silent())["value"] > 1
    assert "--splits" in row(measure, {"videos": Sampled.of(logits, 0)}, 9, 0, Silent())["unscored"]
