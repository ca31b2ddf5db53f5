"""The Fréchet distance between two sets of features, each taken for a Gaussian.

|m_a - m_b|² + tr S_a + tr S_b - 2 tr (S_a S_b)^½   (Dowson and Landau 1982; Heusel et al. 2017 for the FID)

With S = F'F, the eigenvalues of S_a S_b are the squared singular values of F_a F_b'. No square root of a product of
nearly singular matrices is ever taken, so the result is real, and exact for fewer samples than dimensions.

Array names: N samples, D feature width, R = min(N, D).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean and covariance of `n` samples; the covariance as a factor F with S = F'F."""

    mean_D: FloatArray
    factor_RD: FloatArray
    n: int | None

    @classmethod
    def fit(cls, x_ND: npt.ArrayLike) -> Gaussian:
        """Mean and covariance (over n - 1) of the samples.

        Raises:
            ValueError: fewer than two samples, or one that is not finite.
        """
        samples_ND = np.asarray(x_ND, np.float64)
        n, width = samples_ND.shape
        if n < 2 or not np.isfinite(samples_ND).all():
            raise ValueError("a covariance needs two finite samples")
        mean_D = samples_ND.mean(axis=0)
        factor_ND = (samples_ND - mean_D) / np.sqrt(n - 1)
        return cls(mean_D, factor_ND if n <= width else linalg.qr(factor_ND, mode="r")[0][:width], n)

    @classmethod
    def of_moments(cls, mean_D: npt.ArrayLike, covariance_DD: npt.ArrayLike, n: int | None = None) -> Gaussian:
        """From a mean and a covariance; eigenvalues below zero, which rounding leaves, count as zero.

        Raises:
            ValueError: shapes do not fit, or the matrix is not a covariance.
        """
        mean, covariance = np.asarray(mean_D, np.float64), np.asarray(covariance_DD, np.float64)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError("the mean is a vector, and the covariance a square matrix of its width")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError("a number is not finite")
        if not np.allclose(covariance, covariance.T, rtol=1e-6, atol=1e-8 * np.abs(covariance).max()):
            raise ValueError("the covariance is not symmetric")
        values_D, vectors_DD = np.linalg.eigh((covariance + covariance.T) / 2)
        if values_D[0] < -1e-6 * max(values_D[-1], np.finfo(np.float64).tiny):
            raise ValueError("the covariance has negative eigenvalues")
        return cls(mean, np.sqrt(np.clip(values_D, 0.0, None))[:, None] * vectors_DD.T, n)

    @property
    def covariance_DD(self) -> FloatArray:
        return self.factor_RD.T @ self.factor_RD


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The squared 2-Wasserstein distance of the Gaussians; 0 where rounding would make it negative."""
    overlap = np.linalg.svd(a.factor_RD @ b.factor_RD.T, compute_uv=False).sum()
    spread = np.sum(a.factor_RD**2) + np.sum(b.factor_RD**2)
    return max(0.0, float(np.sum((a.mean_D - b.mean_D) ** 2) + spread - 2 * overlap))
