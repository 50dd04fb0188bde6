"""What the paper computes from Q, M and V: regressions, decompositions, corrections.

All functions take plain arrays of one layer, with one entry (or row) for each token. The unit of
Q, M and V is the squared norm of the embedding throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats

from embvar_kit.errors import StatisticsError


class Tradeoff(NamedTuple):
    """The regression of V on M over tokens, unweighted (paper, Figs. 2 and 4).

    Attributes:
        n_tokens: number of tokens.
        cv_Q: coefficient of variation of Q: standard deviation (population form) over mean.
        slope, intercept: the line ``V = slope * M + intercept`` by ordinary least squares.
        r2: coefficient of determination of that line.
    """

    n_tokens: int
    cv_Q: float
    slope: float
    intercept: float
    r2: float


class Line(NamedTuple):
    """A regression line by ordinary least squares, with one point for each token.

    Attributes:
        slope, intercept: the line ``y = slope * x + intercept``.
        r2: coefficient of determination; NaN where y is constant.
    """

    slope: float
    intercept: float
    r2: float


class Decomposition(NamedTuple):
    """``Q(X) = M(X) + V(X)`` and ``V(X) = V_W(X) + V_B(X)`` over all embeddings (paper, Fig. 5).

    Attributes:
        Q: mean squared norm.
        M: squared norm of the overall mean.
        V: variance.
        V_W: within-token variance, the mean of V(X_t) weighted by n_t.
        V_B: between-token variance, the variance of the token means weighted by n_t.
    """

    Q: float
    M: float
    V: float
    V_W: float
    V_B: float


def unbiased(n: np.ndarray, M: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finite-sample corrections: ``M - V / (n - 1)`` and ``V * n / (n - 1)``.

    For ``n`` independent draws from a population of variance ``V``, the squared norm of their mean
    is on average ``V / n`` larger than that of the population's mean, and their variance ``V / n``
    smaller than the population's. Both corrected forms have the population's value as their
    expectation, and still add up to Q.

    Args:
        n: ``(T,)`` counts.
        M: ``(T,)`` squared norms of the means.
        V: ``(T,)`` variances, population form.

    Returns:
        ``(T,)`` unbiased M (it can be negative) and ``(T,)`` unbiased V; NaN where ``n < 2``.

    >>> M, V = unbiased(np.array([2, 1]), np.array([9.0, 9.0]), np.array([1.0, 0.0]))
    >>> M.tolist(), V.tolist()
    ([8.0, nan], [2.0, nan])
    """
    n = np.asarray(n, dtype=float)
    spare = np.where(n > 1, n - 1, np.nan)
    return M - V / spare, V * n / spare


def tradeoff(Q: np.ndarray, M: np.ndarray, V: np.ndarray) -> Tradeoff:
    """Regress V on M over tokens, as in the paper's Figs. 2 and 4.

    Args:
        Q, M, V: ``(T,)`` moments, one entry for each token.

    Raises:
        StatisticsError: if there are fewer than 3 tokens, all have the same M, or a value is NaN
            (as the unbiased forms of a single occurrence are).

    >>> M = np.array([1.0, 2.0, 3.0])
    >>> tradeoff(Q=np.full(3, 4.0), M=M, V=4.0 - M)  # constant Q: slope -1
    Tradeoff(n_tokens=3, cv_Q=0.0, slope=-1.0, intercept=4.0, r2=1.0)
    """
    line = regress(M, V, names=("M", "V"))
    return Tradeoff(len(M), cv(Q), line.slope, line.intercept, line.r2)


def regress(x: np.ndarray, y: np.ndarray, *, names: tuple[str, str] = ("x", "y")) -> Line:
    """Regress y on x over tokens, unweighted: the lines of the paper's Figs. 2, 7, 11-13, 17.

    Args:
        x, y: ``(T,)`` values, one entry for each token.
        names: names of x and y for messages.

    Raises:
        StatisticsError: if there are fewer than 3 tokens, all have the same x, or a value is not
            finite.

    >>> regress(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0]))
    Line(slope=2.0, intercept=1.0, r2=1.0)
    """
    if len(x) < 3:
        raise StatisticsError(
            f"A regression over {len(x)} tokens says nothing: lower min_count, raise max_count, or "
            "take a larger corpus."
        )
    if not np.isfinite([x, y]).all():
        raise StatisticsError(
            f"{names[0]} or {names[1]} is not finite for some token. The unbiased forms need at "
            "least two occurrences: min_count=2."
        )
    if np.ptp(x) == 0:
        raise StatisticsError(f"All tokens have the same {names[0]}: there is no line to fit.")
    line = stats.linregress(x, y)
    r2 = line.rvalue**2 if np.ptp(y) > 0 else float("nan")
    return Line(float(line.slope), float(line.intercept), float(r2))


def cv(x: np.ndarray) -> float:
    """Coefficient of variation of ``(T,)`` values: standard deviation (population form) over mean.

    >>> cv(np.array([1.0, 3.0]))
    0.5
    """
    return float(np.std(x) / np.mean(x))


def principal_axes(x: np.ndarray, n: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Principal component analysis, by singular value decomposition.

    Args:
        x: ``(N, d)`` points; ``N`` and ``d`` must be at least ``n``.
        n: number of axes.

    Returns:
        ``(d,)`` centre; ``(n, d)`` orthonormal axes by decreasing variance, each with its largest
        entry positive (so that figures do not flip); ``(n,)`` share of the variance along each
        axis.

    Raises:
        StatisticsError: if there are too few points or dimensions.

    >>> centre, axes, share = principal_axes(np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 0.0]]), n=1)
    >>> centre.tolist(), abs(axes).tolist(), share.tolist()
    ([2.0, 0.0], [[1.0, 0.0]], [1.0])
    """
    if min(x.shape) < n:
        raise StatisticsError(f"{n} principal axes need {n} points and dimensions, not {x.shape}.")
    wide = np.asarray(x, dtype=np.float64)
    centre = wide.mean(axis=0)
    _, lengths, axes = np.linalg.svd(wide - centre, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    share = lengths**2 / np.sum(lengths**2)
    return centre, (signs[:, None] * axes)[:n], share[:n]


def decompose(
    n: np.ndarray, Q: np.ndarray, V: np.ndarray, mean: np.ndarray, *, correct: bool = False
) -> Decomposition:
    """Split the mean squared norm of all embeddings (law of total variance; paper, Figs. 5, 6).

    Args:
        n: ``(T,)`` counts ``n_t``.
        Q: ``(T,)`` mean squared norms.
        V: ``(T,)`` variances, population form.
        mean: ``(T, d)`` token means.
        correct: remove what finite samples add, which needs every ``n_t >= 2``. Noise in the token
            means inflates V_B by ``sum_t (1/n_t - 1/n) (n_t/n) Var_t``, and noise in the overall
            mean inflates M by ``sum_t (n_t/n) Var_t / n``, with ``Var_t`` the unbiased variance and
            ``n`` the sum of counts; V_W is too small by the sum of the two.

    Raises:
        StatisticsError: if there is no token, or ``correct`` is set and a token occurs only once.

    >>> two = decompose(np.array([1, 1]), Q=np.array([1.0, 1.0]), V=np.zeros(2),
    ...                 mean=np.array([[1.0, 0.0], [-1.0, 0.0]]))
    >>> two._asdict()
    {'Q': 1.0, 'M': 0.0, 'V': 1.0, 'V_W': 0.0, 'V_B': 1.0}
    """
    if not len(n):
        raise StatisticsError("No token is left to decompose: lower min_count or raise max_count.")
    weight = np.asarray(n, dtype=float) / np.sum(n)
    overall = np.einsum("t,td->d", weight, mean, dtype=np.float64)
    M = float(overall @ overall)
    V_W = float(weight @ V)
    V_B = float(sum(_between(weight, mean, overall)))
    if correct:
        if np.min(n) < 2:
            raise StatisticsError(
                "The correction needs at least two occurrences of every token: min_count=2."
            )
        variance = V * n / (n - 1)
        corrected = float(weight @ variance)
        M -= corrected / np.sum(n)
        V_B -= (float(variance.sum()) - corrected) / np.sum(n)
        V_W = corrected
    return Decomposition(float(weight @ Q), M, V_W + V_B, V_W, V_B)


def _between(
    weight: np.ndarray, mean: np.ndarray, overall: np.ndarray, block: int = 4096
) -> Iterator[np.floating]:
    """The terms of ``sum_t weight_t ||mean_t - overall||^2``, summed over each block of tokens."""
    for at in range(0, len(mean), block):
        apart = mean[at : at + block] - overall
        yield weight[at : at + block] @ np.einsum("td,td->t", apart, apart)
