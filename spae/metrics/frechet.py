"""The Frechet distance of two sets of feature vectors, whatever network they are of.

Dowson and Landau, 1982; for images Heusel et al., arXiv 1706.08500: the squared 2-Wasserstein distance of two
Gaussians, ||m_1 - m_2||^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)).
"""

import numpy as np
from jaxtyping import Float

from spae.errors import InputError


class Moments:
    """Mean and covariance of vectors that come in batches, in float64; the vectors are not kept.

    Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.

    Attributes:
        count: vectors so far.
        mean: float64 (d,).
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = np.zeros(width)
        self._scatter_dd = np.zeros((width, width))  # sum of (x - mean) (x - mean)^T
        self._root_dd: np.ndarray | None = None

    def add(self, x_nd: Float[np.ndarray, "n d"]) -> None:
        """
        Raises:
            InputError: not rows of this width, or a number that is not finite.
        """
        x_nd = np.asarray(x_nd, np.float64)
        if x_nd.ndim != 2 or x_nd.shape[1] != len(self.mean) or not np.isfinite(x_nd).all():
            raise InputError(f"wanted finite vectors (n, {len(self.mean)}), got shape {x_nd.shape}")
        if len(x_nd) == 0:
            return
        count = self.count + len(x_nd)
        mean_d = x_nd.mean(axis=0)
        centred_nd = x_nd - mean_d
        step_d = mean_d - self.mean
        self._scatter_dd += centred_nd.T @ centred_nd
        self._scatter_dd += np.outer(step_d, step_d) * (self.count * len(x_nd) / count)
        self.mean += step_d * (len(x_nd) / count)
        self.count = count
        self._root_dd = None

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """With n - 1 in the denominator, as `numpy.cov` and the FID implementations have it.

        Raises:
            InputError: fewer than two vectors.
        """
        if self.count < 2:
            raise InputError(f"wanted at least two vectors for a covariance, got {self.count}")
        return self._scatter_dd / (self.count - 1)

    @property
    def root(self) -> Float[np.ndarray, "d d"]:
        """The symmetric square root of the covariance; computed once, as one set is compared with many."""
        if self._root_dd is None:
            values_d, vectors_dd = np.linalg.eigh(self.covariance)
            self._root_dd = (vectors_dd * np.sqrt(values_d.clip(0))) @ vectors_dd.T
        return self._root_dd


def frechet_distance(first: Moments, second: Moments) -> float:
    """The distance (a squared one, as usual); 0 if both are alike.

    The sample covariances make it too large by about a constant over n: compare sets of the same size only, and
    below a few times d images take it as a rough figure.

    Raises:
        InputError: vectors of different width, or fewer than two.
    """
    if first.mean.shape != second.mean.shape:
        raise InputError(
            f"wanted vectors of one width, got {first.mean.shape[0]} and {second.mean.shape[0]}: of one network"
        )
    # (C_1 C_2)^(1/2) has the trace of (C_1^(1/2) C_2 C_1^(1/2))^(1/2), which is symmetric: eigenvalues of symmetric
    # matrices need no complex numbers and no repair where a covariance is singular.
    product_d = np.linalg.eigvalsh(first.root @ second.covariance @ first.root).clip(0)
    step_d = first.mean - second.mean
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return float(max(step_d @ step_d + traces - 2 * np.sqrt(product_d).sum(), 0.0))
