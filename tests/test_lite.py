"""The quantities behind the lite profile, against closed forms, planted truths and colour names that others defined."""

from __future__ import annotations

import doctest
import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ImageColor

from evalkit.lite import _lexicon
from evalkit.lite._detail import detail_and_noise
from evalkit.lite._lexicon import COLOURS, MOTIONS, cues
from evalkit.lite._motion import displaced, shifts, spectrum
from evalkit.lite._pixels import colour_histogram, unit
from evalkit.lite.aesthetic_quality import colourfulness, composition, tonal_range
from evalkit.lite.imaging_quality import clipped_share
from evalkit.lite.motion_smoothness import HEIGHT, WIDTH, change, prediction_error
from evalkit.lite.overall_consistency import COLUMNS, agreements, colour_shares
from evalkit.metrics import registry
from evalkit.prompts import load_suite
from evalkit.types import Clip, Frames, VideoInfo
from tests.degradations import PHOTOS, clip, prompt_for, score_frames, shuffle

LITE = registry("lite")


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth periodic noise with a contrast of about 40 grey levels, float32."""
    white = np.random.default_rng(seed).standard_normal((height, width))
    smooth = scipy.ndimage.gaussian_filter(white, 2, mode="wrap")
    return np.asarray(128 + 40 * smooth / smooth.std(), dtype=np.float32)


def pan(name: str, step: int, n_frames: int = 12) -> Frames:
    """The camera pans right (`step` > 0) or left over one still of a photograph, `step` pixels a frame."""
    still_HWC = clip(name)[0]
    width = still_HWC.shape[1] - abs(step) * (n_frames - 1)
    offsets = [t * abs(step) for t in range(n_frames)][:: 1 if step >= 0 else -1]
    return np.stack([still_HWC[:, x : x + width] for x in offsets])


def test_the_lite_profile_does_not_import_torch() -> None:
    code = "import sys; from evalkit.metrics import registry; registry('lite'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Detail and noise


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0, 25.0])
def test_the_noise_estimate_finds_white_noise_on_a_flat_frame(sigma: float) -> None:
    noisy = 128 + sigma * np.random.default_rng(1).standard_normal((240, 320))
    detail, noise = detail_and_noise(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    assert noise == pytest.approx(sigma, rel=0.1)  # a low quantile over blocks reads a little low
    assert detail < 0.35 * sigma, "noise is not taken for detail"


def test_straight_edges_are_detail_and_not_noise() -> None:
    stripes = np.tile(np.repeat([[40, 200]], 8, axis=1), (128, 8)).astype(np.uint8)
    detail, noise = detail_and_noise(stripes)
    assert noise == 0
    # Each 16 pixels hold two edges, each two Laplacians of 160 in a row of 16: mean 40, as a standard deviation.
    assert detail == pytest.approx(40 * np.sqrt(np.pi / 2) / np.sqrt(20), rel=0.05)


@pytest.mark.parametrize("name", ["imaging_quality", "aesthetic_quality"])
def test_order_does_not_matter_to_quality(name: str) -> None:
    metric = LITE[f"lite/{name}"]
    ordered = score_frames(metric, clip("cat")).value
    assert score_frames(metric, shuffle(clip("cat"), 1.0)).value == pytest.approx(ordered, abs=1e-12)


def test_a_crushed_half_lowers_imaging_quality() -> None:
    frames_THWC = clip("motorcycle").copy()
    frames_THWC[:, 60:] = 0
    assert clipped_share(frames_THWC)[:, 0] == pytest.approx(0.5)
    metric = LITE["lite/imaging_quality"]
    whole, crushed = (score_frames(metric, f).value for f in (clip("motorcycle"), frames_THWC))
    assert whole is not None
    assert crushed is not None
    assert crushed < whole


# Appeal


def test_colourfulness_of_a_flat_colour_is_its_cast() -> None:
    red = np.zeros((8, 8, 3), dtype=np.float32)
    red[..., 0] = 255
    measure = 0.3 * np.hypot(255, 127.5)  # no spread: rg = 255, yb = 127.5
    assert colourfulness(red) == pytest.approx(measure / (measure + 45), rel=1e-6)
    assert colourfulness(np.full((8, 8, 3), 77, dtype=np.float32)) == 0


def test_tonal_range_is_that_of_the_middle_98_percent() -> None:
    ramp = np.repeat(np.linspace(0, 255, 1001, dtype=np.float32)[:, None, None], 3, axis=2)
    assert tonal_range(ramp) == pytest.approx(0.98, abs=1e-6)


def test_composition_prefers_a_subject_on_a_third_to_one_in_the_corner() -> None:
    def spot(y: int, x: int) -> np.ndarray:
        image = np.zeros((24, 32, 3), dtype=np.float32)
        image[y : y + 2, x : x + 2] = 255
        return image

    assert composition(spot(7, 10)) > 1.5 * composition(spot(0, 0))
    assert composition(np.zeros((24, 32, 3), dtype=np.float32)) == 0


# Histograms


@settings(deadline=None)
@given(arrays(np.uint8, (6, 5, 3)))
def test_a_colour_histogram_is_a_unit_vector(image: np.ndarray) -> None:
    histogram = colour_histogram(image.astype(np.float32), np.ones((6, 5), dtype=np.float32))
    assert (histogram >= 0).all()
    assert float(histogram @ histogram) == pytest.approx(1, abs=1e-5)


def test_flat_vectors_resemble_each_other() -> None:
    flat = unit(np.zeros(4), 2.0)
    assert float(flat @ flat) == 1
    assert float(flat @ unit(np.array([3.0, 0, 0, 0]), 4.0)) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("name", ["subject_consistency", "background_consistency"])
def test_a_frozen_clip_is_consistent_and_one_that_cuts_elsewhere_is_not(name: str) -> None:
    still_THWC = np.repeat(clip("coffee")[:1], 8, axis=0)
    cut_THWC = np.concatenate([still_THWC[:4], np.repeat(clip("rocket")[:1], 4, axis=0)])
    metric = LITE[f"lite/{name}"]
    assert score_frames(metric, still_THWC).value == pytest.approx(1, abs=1e-6)
    cut = score_frames(metric, cut_THWC).value
    assert cut is not None
    assert cut < 0.8


# Motion


@settings(max_examples=50, deadline=None)
@given(dy=st.integers(-16, 16), dx=st.integers(-20, 20))
def test_phase_correlation_finds_whole_shifts(dy: int, dx: int) -> None:
    first = texture(HEIGHT, WIDTH)
    ((found_y, found_x),) = shifts(spectrum(first), spectrum(np.roll(first, (dy, dx), (0, 1))), WIDTH)
    assert (found_y, found_x) == pytest.approx((dy, dx), abs=0.25)  # the taper and new content at the border


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
def test_phase_correlation_finds_half_and_quarter_pixels(fraction: float) -> None:
    first = texture(HEIGHT, WIDTH)
    moved = np.fft.ifft2(scipy.ndimage.fourier_shift(np.fft.fft2(first), (0, 3 + fraction))).real.astype(np.float32)
    ((found_y, found_x),) = shifts(spectrum(first), spectrum(moved), WIDTH)
    assert (found_y, found_x) == pytest.approx((0, 3 + fraction), abs=0.2)


@settings(deadline=None)
@given(dy=st.floats(-5, 5), dx=st.floats(-5, 5))
def test_sampling_between_the_pixels_of_a_ramp_is_exact(dy: float, dx: float) -> None:
    y, x = np.mgrid[0:20, 0:24].astype(np.float32)
    inner = (slice(6, -6), slice(6, -6))
    np.testing.assert_allclose(displaced(2 * y + 3 * x, dy, dx)[inner], (2 * (y + dy) + 3 * (x + dx))[inner], atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seeds=st.tuples(*[st.integers(0, 2**16)] * 3))
def test_the_prediction_is_never_worse_than_the_neighbours(seeds: tuple[int, int, int]) -> None:
    before, middle, after = (texture(HEIGHT, WIDTH, seed) for seed in seeds)
    assert prediction_error(before, middle, after, [(0.0, 0.0)]) <= change(before, middle, after) + 1e-4


def test_steady_motion_is_predicted_and_a_stumble_is_not() -> None:
    steady = pan("astronaut", 2)
    stumbling = steady[[0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10]]
    metric = LITE["lite/motion_smoothness"]
    smooth, jerky = (score_frames(metric, frames).value for frames in (steady, stumbling))
    assert smooth is not None
    assert jerky is not None
    assert smooth > 0.75
    assert jerky < smooth - 0.2


# The lexicon


def test_the_lexicons_examples_hold() -> None:
    assert doctest.testmod(_lexicon).failed == 0
    assert doctest.testmod(_lexicon).attempted == 3


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A RED apron and reddish hair", ("red",)),
        ("hundreds of bored, covered, tired people", ()),
        ("greenhouse in Yellowstone, blackberries, whitewater", ()),
        ("the White House and Red Square", ()),
        ("a light blue dress and dark green eyes", ("blue", "green")),
        ("golden-brown pastries", ("golden", "brown")),
        ("dark hair", ("shade",)),
        ("a dark room", ("dark",)),
        ("against the dark studio background", ("dark",)),
        ("soft light, a light meal", ()),
        ("under the bright midday sun", ("light",)),
        ("bright eyes", ()),
        ("a dog is still sleeping", ()),
        ("a dog sits perfectly still", ("still",)),
        ("still life with fruit", ("still",)),
        ("super slow motion", ("slow",)),
        ("a horse gallops", ("fast",)),
        ("horses galloping", ("fast",)),
        ("the breakfast of a steadfast man", ()),
        ("pots and pans", ()),
        ("the camera pans left", ("pan_left",)),
        ("The camera slowly pans to the right", ("pan_right",)),
        ("the camera tilts up", ("tilt_up",)),
        ("without red, no green, not moving, isn’t blue", ()),
        ("black and white footage", ("monochrome",)),
        ("black and white fur", ("black", "white")),
        ("turquoise, teal and cyan", ("cyan",)),
        ("", ()),
    ],
)
def test_cues_of_a_prompt(prompt: str, expected: tuple[str, ...]) -> None:
    assert set(cues(prompt)) == set(expected)


def test_every_cue_has_a_verdict() -> None:
    verdicts = agreements(dict.fromkeys(COLUMNS, 0.1))
    assert set(verdicts) == {*_lexicon._PATTERNS} - {"ignored"}
    assert set(COLOURS) | set(MOTIONS) <= set(verdicts)
    assert all(0 <= value <= 1 for value in verdicts.values())


def test_most_prompts_of_the_shipped_suite_name_something() -> None:
    prompts = load_suite("custom50").prompts
    assert sum(bool(cues(prompt.text)) for prompt in prompts) >= 40


# What the pixels confirm


@pytest.mark.parametrize(
    ("name", "css"),
    [
        ("red", "red crimson firebrick darkred"),
        ("orange", "orange darkorange"),
        ("golden", "gold goldenrod"),
        ("yellow", "yellow gold khaki"),
        ("green", "green lime forestgreen seagreen olivedrab"),
        ("cyan", "cyan turquoise teal"),
        ("blue", "blue navy royalblue steelblue deepskyblue"),
        ("purple", "purple indigo rebeccapurple orchid"),
        ("pink", "pink hotpink lightpink"),
        ("brown", "saddlebrown sienna"),
        ("black", "black"),
        ("white", "white snow ivory"),
        ("gray", "gray silver dimgray"),
    ],
)
def test_colours_go_by_the_names_that_css_gives_them(name: str, css: str) -> None:
    for colour in css.split():
        red, green, blue = ImageColor.getrgb(colour)[:3]
        frames_THWC = np.broadcast_to(np.array([red, green, blue], dtype=np.uint8), (1, 16, 16, 3)).copy()
        verdict = score_frames(LITE["lite/overall_consistency"], frames_THWC, f"something {name}")
        assert verdict.value == pytest.approx(1 / 1.02, abs=1e-9), f"{colour} is not called {name}"


def test_shares_are_of_the_whole_picture() -> None:
    hsv = np.zeros((10, 10, 3), dtype=np.uint8)  # black
    hsv[:3] = (0, 255, 255)  # red
    shares = dict(zip(COLOURS, colour_shares(hsv), strict=True))
    assert shares["red"] == shares["vivid"] == pytest.approx(0.3)
    assert shares["black"] == shares["shade"] == pytest.approx(0.7)
    assert sum(shares.values()) == pytest.approx(2)


def overall(frames_THWC: Frames, prompt: str) -> float:
    value = score_frames(LITE["lite/overall_consistency"], frames_THWC, prompt).value
    assert value is not None
    return value


def test_the_direction_of_a_pan_is_seen() -> None:
    assert overall(pan("astronaut", 3), "the camera pans right") > 0.5
    assert overall(pan("astronaut", 3), "the camera pans left") < 0.05
    assert overall(pan("astronaut", -3), "the camera pans left") > 0.5


def test_still_and_fast_are_told_apart() -> None:
    still_THWC = np.repeat(clip("coffee")[:1], 8, axis=0)
    assert overall(still_THWC, "a cup, motionless") == 1
    assert overall(still_THWC, "a cup, racing") == 0
    assert overall(pan("coffee", 6), "racing") > overall(pan("coffee", 1), "racing") > 0.1


def test_night_and_day_are_told_apart() -> None:
    assert overall(clip("rocket"), "at night") > 0.8 > 0.2 > overall(clip("rocket"), "in the bright sun")
    assert overall(clip("astronaut"), "a sunlit room") > overall(clip("rocket"), "a sunlit room") + 0.5


def test_a_prompt_without_cues_leaves_the_clip_unscored() -> None:
    verdict = score_frames(LITE["lite/overall_consistency"], clip("cat"), "A fantasy landscape")
    assert verdict.unscored is not None
    assert "names no colour, light or motion" in verdict.unscored


def test_one_frame_cannot_confirm_motion() -> None:
    metric = LITE["lite/overall_consistency"]
    assert score_frames(metric, clip("cat")[:1], "it gallops").unscored
    alone = score_frames(metric, clip("cat")[:1], "brown")
    assert score_frames(metric, clip("cat")[:1], "a brown thing gallops") == alone


def test_the_frame_rate_decides_how_fast_a_motion_is() -> None:
    metric = LITE["lite/overall_consistency"]
    (feature,) = metric.features
    rows = np.zeros((3, len(COLUMNS)))
    rows[1:, COLUMNS.index("change")] = 0.25
    clips = {fps: Clip(VideoInfo(64, 48, 3, fps, "none", "rgb24"), "racing") for fps in (8.0, 24.0)}
    values = {fps: metric.score(clip, {feature.name: rows}).value for fps, clip in clips.items()}
    assert values == {8.0: pytest.approx(2 / (2 + 2)), 24.0: pytest.approx(6 / (6 + 2))}


def test_the_prompts_of_the_planted_clips_name_three_cues_each() -> None:
    for name in PHOTOS:
        assert [len(cues(prompt_for(name, strength))) for strength in (0, 0.34, 0.67, 1)] == [3] * 4
