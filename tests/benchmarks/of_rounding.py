"""What rounding leaves of V = Q - M in the recurrence of the authors' scripts.

V of identical vectors is 0. The scripts keep the mean as a float32 array, and Q and M as scalars
whose type depends on NumPy: up to 1.26 a float32 scalar times an integer is float64, from NumPy 2
on it is float32. Both are computed here with any NumPy, for a few vectors at once.

    python tests/benchmarks/of_rounding.py        # about a minute
"""

from __future__ import annotations

import argparse

import numpy as np

OCCURRENCES, WIDTH, VECTORS = 740_000, 768, 8
"""About the sentences of the paper's sample, each with one begin token; BERT-base's width."""


def v_over_q(x: np.ndarray, occurrences: int) -> dict[str, np.ndarray]:
    """``|V| / Q`` after so many occurrences of each of some vectors, for both kinds of scalars.

    Args:
        x: ``(N, d)`` float32 vectors.
        occurrences: how often each occurs.
    """
    mean = x
    square = np.array([np.linalg.norm(vector) for vector in x]) ** 2
    Q = {"float64": square.astype(np.float64), "float32": square.astype(np.float32)}
    start = {name: value.copy() for name, value in Q.items()}
    for k in range(1, occurrences):
        mean = k * mean / (k + 1) + x / (k + 1)
        for name in Q:
            Q[name] = k * Q[name] / (k + 1) + start[name] / (k + 1)
    norm = np.array([np.linalg.norm(vector) for vector in mean])
    return {
        name: np.abs(value - norm.astype(value.dtype) ** 2) / value for name, value in Q.items()
    }


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    vectors = np.random.default_rng(0).normal(size=(VECTORS, WIDTH)).astype(np.float32)
    for name, found in v_over_q(vectors, OCCURRENCES).items():
        print(f"scalars in {name}: V/Q {found.min():.1e} to {found.max():.1e}")
