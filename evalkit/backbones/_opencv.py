"""OpenCV's bilinear scaling of bytes, to the bit and without OpenCV.

OpenCV does not interpolate in floating point here: shares are multiples of 1/2048, and products lose their low bits
twice on the way. The rules are those of `INTER_LINEAR` on x86; checked against `cv2.resize` of OpenCV 4.11.
"""

from __future__ import annotations

import numpy as np

from evalkit.types import Array, Frames

SHARES = np.float32(2048)


def resize(image_HWC: Frames, height: int, width: int, rows: slice, columns: slice) -> Frames:
    """The given rows and columns of `cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_LINEAR)`."""
    last_row, last_column = image_HWC.shape[0] - 1, image_HWC.shape[1] - 1
    y_h, down_h = _sample(last_row + 1, height, rows)
    x_w, right_w = _sample(last_column + 1, width, columns)
    # Beyond the border a row is mixed with itself, which may lose a step to rounding; a column is taken as it is.
    right_w = np.where((x_w < 0) | (x_w >= last_column), np.float32(0), right_w)
    (left_w1, right_w1), (up_h11, down_h11) = _weights(right_w[:, None]), _weights(down_h[:, None, None])

    def mixed_columns(y_h: Array) -> Array:
        row_h1, x_1w = y_h.clip(0, last_row)[:, None], x_w.clip(0, last_column)[None]
        left_hwC, right_hwC = image_HWC[row_h1, x_1w], image_HWC[row_h1, np.minimum(x_1w + 1, last_column)]
        mixed_hwC: Array = (left_hwC * left_w1 + right_hwC * right_w1) >> 4
        return mixed_hwC

    upper_hwC, lower_hwC = (mixed_columns(y_h) * up_h11) >> 16, (mixed_columns(y_h + 1) * down_h11) >> 16
    quarters_hwC: Array = upper_hwC + lower_hwC + 2
    return (quarters_hwC >> 2).astype(np.uint8)


def _sample(source: int, target: int, wanted: slice) -> tuple[Array, Array]:
    """For each wanted target pixel: the source pixel at or before its centre, and its distance from that, 0 to 1."""
    scale = 1 / (target / source)
    centres = (np.arange(target)[wanted] + 0.5) * scale - 0.5
    at = centres.astype(np.float32)
    before = np.floor(at)
    return before.astype(np.int64), at - before


def _weights(share: Array) -> tuple[Array, Array]:
    """Integer weights, in 1/2048, of the pixel before and of the next one; each is rounded for itself."""
    before, after = (np.rint(part * SHARES).astype(np.int32) for part in (1 - share, share))
    return before, after
