"""The d x d covariance of one set of vectors, in one pass.

Beside the groups of :mod:`embvar_kit.moments.grouped`, which keep a mean each, one matrix for all
vectors together is affordable: measures of isotropy and information follow from it. Deviations are
taken from the running mean before they are multiplied, as there (the pairwise update of Chan, Golub
and LeVeque, 1983), and products and sums are float64.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embvar_kit.errors import MomentsError


class CovarianceMoments:
    """Streaming count, mean and covariance of one set of vectors.

    Args:
        dim: length of the vectors, ``d``.

    Attributes:
        count: number of vectors seen.
        mean: ``(d,)`` float64 mean; 0 before the first.

    Raises:
        MomentsError: if ``dim`` is not positive.

    >>> m = CovarianceMoments(2)
    >>> m.update(np.array([[0.0, 1.0], [2.0, 1.0]], dtype=np.float32))
    >>> m.count, m.mean.tolist(), m.covariance.tolist()
    (2, [1.0, 1.0], [[1.0, 0.0], [0.0, 0.0]])
    """

    STATE = ("covariance_count", "covariance_mean", "covariance_scatter")
    """Names of the arrays in a :meth:`state`."""

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise MomentsError(f"CovarianceMoments needs dim >= 1, got {dim}.")
        self.count = 0
        self.mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))  # sum of (x - mean)(x - mean)'

    @property
    def dim(self) -> int:
        """Length of the vectors, ``d``."""
        return len(self.mean)

    @property
    def covariance(self) -> np.ndarray:
        """``(d, d)`` covariance (population form, divided by :attr:`count`); NaN before the first.

        Its trace is V of all vectors.
        """
        return self._scatter / self.count if self.count else np.full_like(self._scatter, np.nan)

    def update(self, x: np.ndarray) -> None:
        """Take in a batch.

        Args:
            x: ``(N, d)`` vectors.

        Raises:
            MomentsError: if they have another length.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise MomentsError(
                f"Expected vectors of shape (N, {self.dim}), got an array of shape {x.shape}."
            )
        if not len(x):
            return
        import torch  # takes seconds, which those who only read a covariance need not wait

        if not self.count:
            self.mean += x.mean(axis=0, dtype=np.float64)
        apart = x - self.mean
        shift = apart.sum(axis=0)
        self.count += len(x)
        # PyTorch's product, not NumPy's: it is the one whose threads a pass sets, and their number
        # decides the last bits. Dask gives its workers another number of NumPy's than a client has.
        rows = torch.from_numpy(apart)
        product = torch.mm(rows.T, rows)
        self._scatter += ((product + product.T) / 2).numpy()  # symmetric to the last bit
        self._scatter -= np.outer(shift, shift) / self.count
        self.mean += shift / self.count

    def merge(self, other: CovarianceMoments) -> None:
        """Take in the moments of other vectors.

        Raises:
            MomentsError: if their length differs.
        """
        if other.dim != self.dim:
            raise MomentsError(
                f"Cannot merge moments in {other.dim} dimensions into {self.dim} dimensions."
            )
        if not other.count:
            return
        apart = other.mean - self.mean
        before, self.count = self.count, self.count + other.count
        self._scatter += other._scatter
        self._scatter += np.outer(apart, apart) * (before * other.count / self.count)
        self.mean += apart * (other.count / self.count)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that determine all, by the names in :data:`STATE`."""
        arrays = (np.array([self.count]), self.mean, self._scatter)
        return dict(zip(self.STATE, arrays, strict=True))

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Set the moments, to the bit, to a :meth:`state`."""
        count, mean, scatter = (state[name] for name in self.STATE)
        self.count = int(count[0])
        self.mean[:] = mean
        self._scatter[:] = scatter

    @classmethod
    def of(cls, count: int, mean: np.ndarray, covariance: np.ndarray) -> CovarianceMoments:
        """The moments of ``count`` vectors of this ``(d,)`` mean and ``(d, d)`` covariance."""
        own = cls(len(mean))
        own.count = int(count)
        own.mean[:] = mean
        own._scatter += covariance * own.count
        return own
