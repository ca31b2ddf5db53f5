"""The kernel distance (KID): the squared maximum mean discrepancy of a cubic polynomial kernel, without bias.

Bińkowski et al. 2018, eq. 4, with k(x, y) = (x'y / D + 1)³. The estimate is unbiased for any number of samples, which
the Fréchet distance is not, and it may be negative. Frames of one video are not independent, so pairs within a video
are left out, where the original leaves out a sample's pair with itself; for one frame a video that is the same.

Sums of the kernel over pairs of videos are all that is kept: any subset of videos is then measured at no cost.

Array names: N and M samples, V and U videos, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_ROWS = 2048  # of the kernel's matrix at once


def kernel_sums(a: Sequence[npt.ArrayLike], b: Sequence[npt.ArrayLike]) -> FloatArray:
    """Sum of the kernel over all pairs of frames of each pair of videos, `(V, U)`.

    Args:
        a: features of each video, `(n_v, D)` each.
        b: features of each video, `(n_u, D)` each.
    """
    a_ND, a_starts = _stacked(a)
    b_MD, b_starts = _stacked(b)
    rows_NU = np.empty((len(a_ND), len(b)))
    for start in range(0, len(a_ND), _ROWS):
        kernel_RM = (a_ND[start : start + _ROWS] @ b_MD.T / a_ND.shape[1] + 1.0) ** 3
        rows_NU[start : start + _ROWS] = np.add.reduceat(kernel_RM, b_starts, axis=1)
    return np.add.reduceat(rows_NU, a_starts, axis=0)


def _stacked(videos: Sequence[npt.ArrayLike]) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    arrays = [np.asarray(video, np.float64) for video in videos]
    lengths = [len(array) for array in arrays]
    if not arrays or min(lengths) == 0:
        raise ValueError("there must be videos, each with a sample")
    return np.concatenate(arrays), np.cumsum([0, *lengths[:-1]])


@dataclass(frozen=True, slots=True)
class KernelSums:
    """The kernel's sums within one set and towards the reference, and the number of frames of each video."""

    within_VV: FloatArray
    across_VU: FloatArray
    reference_UU: FloatArray
    frames_V: FloatArray
    frames_U: FloatArray

    @classmethod
    def of(cls, videos: Sequence[npt.ArrayLike], reference: Sequence[npt.ArrayLike]) -> KernelSums:
        frames_V, frames_U = (np.array([len(np.asarray(v)) for v in s], np.float64) for s in (videos, reference))
        across_VU = kernel_sums(videos, reference)
        return cls(kernel_sums(videos, videos), across_VU, kernel_sums(reference, reference), frames_V, frames_U)

    def distance(self, keep_V: Mask | slice = slice(None), keep_U: Mask | slice = slice(None)) -> float:
        """The distance between the videos that are kept.

        Raises:
            ValueError: fewer than two videos are kept in a set.
        """
        within = _between_videos(self.within_VV[keep_V][:, keep_V], self.frames_V[keep_V])
        reference = _between_videos(self.reference_UU[keep_U][:, keep_U], self.frames_U[keep_U])
        across = self.across_VU[keep_V][:, keep_U].sum() / (self.frames_V[keep_V].sum() * self.frames_U[keep_U].sum())
        return float(within + reference - 2 * across)


def _between_videos(sums_VV: FloatArray, frames_V: FloatArray) -> float:
    if len(frames_V) < 2:
        raise ValueError("the kernel distance needs two videos in each set")
    return float((sums_VV.sum() - np.trace(sums_VV)) / (frames_V.sum() ** 2 - np.sum(frames_V**2)))


def kernel_distance(videos: Sequence[npt.ArrayLike], reference: Sequence[npt.ArrayLike]) -> float:
    """The unbiased kernel distance between two sets of videos, each video an array of features `(n, D)`."""
    return KernelSums.of(videos, reference).distance()
