"""What rounding leaves of V = Q - M in the recurrence of the authors' scripts.

V of identical vectors is 0. The scripts keep the mean as a float32 array and Q and M as scalars,
whose type depends on NumPy: up to 1.26 a float32 scalar times an integer is float64, from NumPy 2
on it is float32. Both are made explicit here, so that any NumPy gives both numbers.

    python tests/benchmarks/of_rounding.py
"""

from __future__ import annotations

import numpy as np

OCCURRENCES, WIDTH = 740_000, 768
"""About the sentences of the paper's sample, each with one begin token; BERT-base's width."""


def v_over_q(scalar: type, occurrences: int) -> float:
    """``|V| / Q`` after so many occurrences of one vector, with scalars of this type."""
    x = np.random.default_rng(0).normal(size=WIDTH).astype(np.float32)
    square = scalar(np.linalg.norm(x)) ** 2
    mean, Q = x, square
    for k in range(1, occurrences):
        mean = k * mean / (k + 1) + x / (k + 1)
        Q = scalar(k) * Q / scalar(k + 1) + square / scalar(k + 1)
    return float(abs(Q - scalar(np.linalg.norm(mean)) ** 2) / Q)


if __name__ == "__main__":
    for scalar in (np.float64, np.float32):
        print(f"scalars in {scalar.__name__}: V/Q {v_over_q(scalar, OCCURRENCES):.1e}")
