"""Finds the coloured shapes of the world `shapes` in a frame, from its pixels alone.

The background is grey and smooth, the shapes are saturated: what is coloured is a shape, the rest tells the background
behind it. How much of a pixel a shape covers follows from both; area and centroid follow from that, and the form is the
one whose outline, at that place and of that area, explains the coverage best.

A frame becomes a table `(K, D)`: `SLOTS` shapes, the largest first, and the `COLUMNS`. Empty slots are zeros.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from scipy.ndimage import gaussian_filter

from evalkit.backbones.base import FeatureSpec, PerFrame, Runtime
from evalkit.types import Array, Frames
from evalkit.weights import WeightStore

COLOURS = {
    "red": (225, 45, 45),
    "green": (40, 180, 60),
    "blue": (60, 110, 245),
    "yellow": (240, 210, 50),
    "purple": (170, 70, 220),
}
FORMS = ("circle", "square", "triangle")

SLOTS = 6
# Share of the frame; number of the colour; place in frame widths and heights; squared misfit of every form, in areas.
COLUMNS = ("area", "colour", "x", "y", *FORMS)

SIDE = 64  # larger frames are shrunk: their longer side, in pixels
LEAST_SIDE = 8  # smaller frames hold no shapes
COLOURED = 45.0  # chroma, in grey levels, from which a pixel may belong to a shape (the palette has 133 to 201)
LEAST_AREA = 0.005  # share of the frame
MARGIN = 3  # pixels around a shape's coloured core that it may cover in part
OUTLIER = 12.0  # grey levels from the fitted background
BLURS = (0.0, 0.5, 1.0, 1.5)  # standard deviations, in pixels, of the pictures' sharpness
SUBPIXELS = 4  # points a pixel side at which an outline is sampled

Floats = npt.NDArray[np.float64]

_PALETTE_C3 = np.array(list(COLOURS.values()), np.float64)


def chroma(rgb: Floats) -> Floats:
    """Two opponent signals, red - green and yellow - blue: `(..., 2)`; grey has none."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.stack([red - green, (red + green) / 2 - blue], axis=-1)


_HUE_C = np.arctan2(*chroma(_PALETTE_C3).T[::-1])


def find_objects(frame_HWC: Array) -> Floats:
    """The shapes of an RGB frame `(H, W, 3)`: `(SLOTS, len(COLUMNS))`."""
    table_KD = np.zeros((SLOTS, len(COLUMNS)))
    rgb_HW3 = _shrunk(frame_HWC)
    if min(rgb_HW3.shape[:2]) < LEAST_SIDE:
        return table_KD
    coloured_HW = np.hypot(*np.moveaxis(chroma(rgb_HW3), -1, 0)) > COLOURED
    labels_HW, n = ndimage.label(coloured_HW)
    sizes = np.bincount(labels_HW.ravel(), minlength=n + 1)[1:]
    kept = [
        label for label in np.argsort(-sizes, kind="stable") + 1 if sizes[label - 1] >= LEAST_AREA * coloured_HW.size
    ]
    if kept:
        beneath_HW3 = _background(rgb_HW3, ~ndimage.binary_dilation(coloured_HW, iterations=MARGIN))
        nearest_HW = _nearest(labels_HW)
        for slot, label in enumerate(kept[:SLOTS]):
            table_KD[slot] = _describe(rgb_HW3, beneath_HW3, labels_HW == label, nearest_HW == label)
    return table_KD


def _shrunk(frame_HWC: Array) -> Floats:
    height, width = frame_HWC.shape[:2]
    if max(height, width) > SIDE:
        scale = SIDE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        frame_HWC = np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.BOX))
    return frame_HWC.astype(np.float64)


def _background(rgb_HW3: Floats, bare_HW: Array) -> Floats:
    """The smooth background, fitted where it is bare: a plane and one wave a picture each way, `(H, W, 3)`."""
    height, width = bare_HW.shape
    y_HW, x_HW = np.mgrid[:height, :width]
    turn_x, turn_y = math.tau * (x_HW + 0.5) / width, math.tau * (y_HW + 0.5) / height
    waves = [np.cos(turn_x), np.sin(turn_x), np.cos(turn_y), np.sin(turn_y)]
    basis_HWN = np.stack([np.ones((height, width)), x_HW / width, y_HW / height, *waves], axis=-1)
    fitted_HW3 = np.zeros_like(rgb_HW3)
    for _ in range(2):
        if bare_HW.sum() < 2 * basis_HWN.shape[-1]:
            return np.broadcast_to(np.median(rgb_HW3.min(axis=-1)), rgb_HW3.shape)  # grey, as dark as it can be
        fit_N3, *_ = np.linalg.lstsq(basis_HWN[bare_HW], rgb_HW3[bare_HW], rcond=None)
        fitted_HW3 = basis_HWN @ fit_N3
        bare_HW = bare_HW & (np.abs(rgb_HW3 - fitted_HW3).max(axis=-1) < OUTLIER)
    return fitted_HW3


def _nearest(labels_HW: Array) -> Array:
    """The label of the nearest coloured pixel, everywhere."""
    rows_HW, cols_HW = ndimage.distance_transform_edt(labels_HW == 0, return_distances=False, return_indices=True)
    return np.asarray(labels_HW[rows_HW, cols_HW])


def _describe(rgb_HW3: Floats, beneath_HW3: Floats, core_HW: Array, own_HW: Array) -> Floats:
    """One row of the table; `own_HW` are the pixels nearer to this shape than to any other."""
    colour = _nearest_colour(chroma(rgb_HW3[core_HW]).sum(axis=0))
    around_HW = ndimage.binary_dilation(core_HW, iterations=MARGIN) & own_HW
    full_HW3 = _PALETTE_C3[colour] - beneath_HW3
    cover_HW = ((rgb_HW3 - beneath_HW3) * full_HW3).sum(axis=-1) / np.maximum((full_HW3**2).sum(axis=-1), 1)
    cover_HW = np.where(around_HW, cover_HW.clip(0, 1), 0)
    area = max(cover_HW.sum(), 1e-9)
    height, width = cover_HW.shape
    y = (cover_HW.sum(axis=1) @ (np.arange(height) + 0.5)) / area
    x = (cover_HW.sum(axis=0) @ (np.arange(width) + 0.5)) / area
    misfits = [_misfit(cover_HW, outline(form, x, y, area, height, width)) / area for form in FORMS]
    return np.array([area / cover_HW.size, colour, x / width, y / height, *misfits])


def _misfit(cover_HW: Floats, outline_HW: Floats) -> float:
    """Squared difference to an outline as sharp as the picture: blur must not make discs of squares."""
    return float(min(((cover_HW - gaussian_filter(outline_HW, blur)) ** 2).sum() for blur in BLURS))


def _nearest_colour(chroma_2: Floats) -> int:
    turn_C = np.arctan2(chroma_2[1], chroma_2[0]) - _HUE_C
    return int(np.abs((turn_C + np.pi) % (2 * np.pi) - np.pi).argmin())


def outline(form: str, x: float, y: float, area: float, height: int, width: int) -> Floats:
    """Coverage `(H, W)` by a form of an area (in pixels) with its centroid at a point, sampled on a grid of points."""
    points_Y = (np.arange(height * SUBPIXELS) + 0.5) / SUBPIXELS - y
    points_X = (np.arange(width * SUBPIXELS) + 0.5) / SUBPIXELS - x
    dy, dx = points_Y[:, None], points_X[None]
    if form == "circle":
        inside = dx**2 + dy**2 < area / np.pi
    elif form == "square":
        inside = np.maximum(np.abs(dx), np.abs(dy)) < math.sqrt(area) / 2
    else:  # equilateral, point up: the centroid lies a third of the height above the base
        tall = math.sqrt(area * math.sqrt(3))
        inside = (dy < tall / 3) & (np.abs(dx) * math.sqrt(3) < dy + 2 * tall / 3)
    return np.asarray(inside.reshape(height, SUBPIXELS, width, SUBPIXELS).mean(axis=(1, 3)))


def find_in_frames(frames_BHWC: Frames) -> Array:
    """The shapes of every frame: `(B, SLOTS, len(COLUMNS))`."""
    return np.stack([find_objects(frame_HWC) for frame_HWC in frames_BHWC])


def _load(store: WeightStore, runtime: Runtime) -> PerFrame:
    return PerFrame(find_in_frames, batch=1)


FEATURE = FeatureSpec("truth/objects", version=1, load=_load)
