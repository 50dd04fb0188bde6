"""Reference computations that the kit is tested against, written from the definitions."""

from __future__ import annotations

import numpy as np


class SequentialLoop:
    """The paper's recurrence, one occurrence at a time, in the given precision.

    ``mu <- (k mu + x) / (k + 1)``, ``Q <- (k Q + ||x||^2) / (k + 1)``; then ``M = ||mu||^2`` and
    ``V = Q - M``.
    """

    def __init__(self, dtype: type = np.float32) -> None:
        self.dtype = dtype
        self.count: dict[int, int] = {}
        self.mean: dict[int, np.ndarray] = {}
        self.Q: dict[int, np.floating] = {}

    def update(self, x: np.ndarray, groups: np.ndarray) -> None:
        for vector, group in zip(x.astype(self.dtype), groups.tolist(), strict=True):
            k = self.count.get(group, 0)
            if k == 0:
                self.mean[group] = vector.copy()
                self.Q[group] = np.sum(vector**2)
            else:
                self.mean[group] = (self.mean[group] * k + vector) / (k + 1)
                self.Q[group] = (self.Q[group] * k + np.sum(vector**2)) / (k + 1)
            self.count[group] = k + 1

    def M(self, group: int) -> float:
        return float(np.sum(self.mean[group] ** 2))

    def V(self, group: int) -> float:
        return float(self.Q[group]) - self.M(group)


def two_pass(x: np.ndarray) -> tuple[float, float, float]:
    """Q, M and V of one set of vectors ``(n, d)`` by definition, in float64, mean first."""
    x = x.astype(np.float64)
    mean = x.mean(axis=0)
    Q = (x**2).sum(axis=1).mean()
    M = (mean**2).sum()
    V = ((x - mean) ** 2).sum(axis=1).mean()
    return float(Q), float(M), float(V)
