"""Reference computations that the kit is tested against, written from the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from embvar_kit.moments.grouped import GroupedMoments

BOUND = 1e-6
"""Largest error of V, as a share of it, and of ``Q - M - V``, as a share of Q."""


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


def cloud(
    rng: np.random.Generator, n: int, dim: int, spread: float, n_groups: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Groups of vectors around means of length about 1, with V/Q of about ``spread**2``."""
    groups = rng.integers(0, n_groups, n)
    means = rng.normal(size=(n_groups, dim)) / np.sqrt(dim)
    noise = rng.normal(size=(n, dim)) / np.sqrt(dim)
    return (means[groups] + spread * noise).astype(np.float32), groups


def assert_right(m: GroupedMoments, x: np.ndarray, groups: np.ndarray) -> None:
    """Moments are those of the vectors of each group, by definition."""
    for group in range(m.n_groups):
        own = x[groups == group]
        assert m.count[group] == len(own)
        if not len(own):
            assert np.isnan([m.Q[group], m.M[group], m.V[group]]).all()
            assert np.isnan(m.mean[group]).all()
            continue
        Q, M, V = two_pass(own)
        assert m.Q[group] == pytest.approx(Q, rel=1e-12)
        assert m.M[group] == pytest.approx(M, rel=1e-8, abs=1e-9 * Q)
        assert m.V[group] >= 0
        if len(own) >= 2 and V >= 1e-7 * Q:
            assert m.V[group] == pytest.approx(V, rel=BOUND)
        assert abs(m.Q[group] - m.M[group] - m.V[group]) <= BOUND * Q
