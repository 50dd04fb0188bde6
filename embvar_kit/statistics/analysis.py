"""What the paper computes from Q, M and V: regressions, decompositions, corrections.

All functions take plain arrays of one layer, with one entry (or row) for each token. The unit of
Q, M and V is the squared norm of the embedding throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from embvar_kit.errors import NoLineError, StatisticsError
from embvar_kit.wording import number_of

ROUNDING = 2.0**-20
"""Values whose range is below this share of their size are one value: embeddings are float32, and
eight units in the last place of a float32 number are rounding, not a difference between tokens."""

_ALL_PAIRS = 500  # tokens up to which the slopes of all pairs are formed at once


class Tradeoff(NamedTuple):
    """The regression of V on M over tokens (paper, Figs. 2 and 4), and what it rests on.

    As ``V = Q - M``, Q and M alone determine the line: with ``r`` and ``rho`` below,
    ``slope = -1 + rho * r`` and ``r2 = 1 - r**2 (1 - rho**2) / (1 - 2 rho r + r**2)``. Slope -1
    is what unrelated Q and M give, and a high R² says there that Q varies little beside M.

    Attributes:
        n_tokens: number of tokens.
        cv_Q: coefficient of variation of Q: standard deviation (population form) over mean; 0
            where Q is constant up to :data:`ROUNDING`, as at the site ``unit``.
        slope, intercept: the line ``V = slope * M + intercept`` by least squares.
        r2: coefficient of determination of that line; NaN where V is constant.
        sd_Q, sd_M: standard deviations over tokens (population form), in squared norm of the
            embedding; that of a constant Q is 0, as in ``cv_Q``.
        r: ``sd_Q / sd_M``.
        rho: Pearson's correlation of Q and M; NaN where Q is constant.
        theil_sen: slope of V on M by :func:`theil_sen`; ``None`` unless asked for.
        spearman: rank correlation of M and V, NaN where V is constant; ``None`` unless asked for.
    """

    n_tokens: int
    cv_Q: float
    slope: float
    intercept: float
    r2: float
    sd_Q: float
    sd_M: float
    r: float
    rho: float
    theil_sen: float | None = None
    spearman: float | None = None


class Line(NamedTuple):
    """A regression line by least squares, with one point for each token.

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


def tradeoff(
    Q: np.ndarray,
    M: np.ndarray,
    V: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    robust: bool = False,
) -> Tradeoff:
    """Regress V on M over tokens, as in the paper's Figs. 2 and 4.

    Args:
        Q, M, V: ``(T,)`` moments, one entry for each token.
        weights: ``(T,)`` weights of the tokens, for example ``n_t``; by default all count alike, as
            in the paper. Means, standard deviations and correlation of Q and M are weighted, too.
        robust: also give the Theil-Sen slope and Spearman's correlation, which no few tokens
            decide. They take the tokens without weights.

    Raises:
        StatisticsError: if there are fewer than 3 tokens, all have the same M up to rounding, a
            value is NaN (as the unbiased forms of a single occurrence are), or weights are not
            positive.

    >>> M = np.array([1.0, 2.0, 3.0, 6.0])
    >>> fit = tradeoff(Q=np.full(4, 8.0), M=M, V=8.0 - M, robust=True)  # constant Q: slope -1
    >>> fit.slope, fit.intercept, fit.r2, fit.r, fit.theil_sen, fit.spearman
    (-1.0, 8.0, 1.0, 0.0, -1.0, -1.0)
    """
    Q, M, V = (np.asarray(x, dtype=float) for x in (Q, M, V))
    if Q.shape != M.shape or not np.isfinite(Q).all():
        raise StatisticsError("Q must be finite, with one value for each token, as M and V are.")
    # Rounding enters M and V in proportion to Q: an unbiased M, or the V of tokens that have one
    # embedding each, can itself be as good as zero.
    scales = {"scale": float(Q.max(initial=0)), "scale_y": float(np.median(Q)) if len(Q) else 0.0}
    line = regress(M, V, weights=weights, names=("M", "V"), **scales)
    (var_Q, cov_QM), (_, var_M) = np.cov(Q, M, ddof=0, aweights=weights)
    sd_Q, sd_M = math.sqrt(var_Q), math.sqrt(var_M)
    if is_constant(Q):
        sd_Q, rho = 0.0, math.nan  # what is left is the rounding of equal numbers
    else:
        rho = float(np.clip(cov_QM / (sd_Q * sd_M), -1, 1))
    mean_Q = float(np.average(Q, weights=weights))
    fit = Tradeoff(len(M), sd_Q / mean_Q, *line, sd_Q, sd_M, sd_Q / sd_M, rho)
    if not robust:
        return fit
    from scipy import stats  # takes half a second to import

    ranks = math.nan if math.isnan(line.r2) else float(stats.spearmanr(M, V).statistic)
    return fit._replace(theil_sen=theil_sen(M, V), spearman=ranks)


def regress(
    x: np.ndarray,
    y: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    scale: float | None = None,
    scale_y: float | None = None,
    names: tuple[str, str] = ("x", "y"),
) -> Line:
    """Regress y on x over tokens by least squares: the lines of Figs. 2, 7, 11-13, 17.

    Args:
        x, y: ``(T,)`` values, one entry for each token.
        weights: ``(T,)`` weights; by default all tokens count alike, as in the paper.
        scale: size of the numbers that x was computed from, which its rounding is proportional to;
            by default the largest ``|x|``.
        scale_y: the same of y.
        names: names of x and y for messages.

    Returns:
        The line. A y that is constant up to rounding has slope 0, and NaN for R², which is
        undefined.

    Raises:
        StatisticsError: if there are fewer than 3 tokens, all have the same x up to
            :data:`ROUNDING`, a value is not finite, or weights are not positive.

    >>> regress(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0]))
    Line(slope=2.0, intercept=1.0, r2=1.0)
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise StatisticsError(
            f"{names[0]} and {names[1]} need one value for each token, not shapes {x.shape} and "
            f"{y.shape}."
        )
    if weights is not None:
        weights = np.asarray(weights, dtype=float)
        if weights.shape != x.shape or not (np.isfinite(weights) & (weights > 0)).all():
            raise StatisticsError("Weights must be positive and finite, one for each token.")
    if len(x) < 3:
        raise NoLineError(
            f"A regression over {number_of(len(x), 'token')} says nothing: lower min_count, raise "
            "max_count, or take a larger corpus."
        )
    if not np.isfinite([x, y]).all():
        raise StatisticsError(
            f"{names[0]} or {names[1]} is not finite for some token. The unbiased forms need at "
            "least two occurrences: min_count=2."
        )
    if is_constant(x, scale):
        raise NoLineError(
            f"All tokens have the same {names[0]} up to rounding: there is no line to fit. Choose "
            "another layer, site or range of tokens."
        )
    (var_x, cov_xy), (_, var_y) = np.cov(x, y, ddof=0, aweights=weights)
    flat = is_constant(y, scale_y)
    slope = 0.0 if flat else cov_xy / var_x
    intercept = np.average(y, weights=weights) - slope * np.average(x, weights=weights)
    r2 = math.nan if flat else min(1.0, float(cov_xy / var_x * cov_xy / var_y))
    return Line(float(slope), float(intercept), r2)


def slopes_on_frequency(table: Mapping[str, ArrayLike], *, log: bool = False) -> dict[str, float]:
    """Slopes of Q, M and V on log10 n_t over tokens, as the paper's Fig. 7 draws them.

    Those of its Fig. 17 are of log10(1 + x), which depend on the unit of the embeddings; they come
    from :func:`embvar_kit.figures.frequency_slopes`. Those of all layers, with intervals, come from
    :meth:`embvar_kit.TokenStatistics.frequency_slopes`.

    Args:
        table: ``n, Q, M, V``, as :meth:`embvar_kit.TokenStatistics.table` gives them.
        log: of the logarithms of Q, M and V, which have no unit. Each slope is over the tokens that
            have its logarithm: an unbiased M may be 0 or less, and a V of 1e-6 of Q is rounding.

    Returns:
        ``{"Q": slope, "M": slope, "V": slope}``. With ``log``, one is NaN where fewer than three
        tokens have its logarithm, as that of V may be in the embedding layer of a decoder.

    Raises:
        StatisticsError: as :func:`regress`.

    >>> table = {"n": [1, 10, 100], "Q": [4, 4, 4], "M": [3, 2, 1], "V": [1, 2, 3]}
    >>> {name: round(slope, 6) for name, slope in slopes_on_frequency(table).items()}
    {'Q': 0.0, 'M': -1.0, 'V': 1.0}
    """
    log_n = np.log10(np.asarray(table["n"], dtype=float))
    Q = np.asarray(table["Q"], dtype=float)
    slopes = {}
    for name in "QMV":
        x = np.asarray(table[name], dtype=float)
        kept = x > (1e-6 * Q if name == "V" else 0) if log else np.full(len(x), True)
        if log and kept.sum() < 3 <= len(kept):
            slopes[name] = math.nan
            continue
        size = float(np.median(Q[kept])) if kept.any() else 0.0
        x = x[kept]
        if log and len(x):
            size, x = size / float(np.median(x)) / math.log(10), np.log10(x)
        slopes[name] = float(regress(log_n[kept], x, scale_y=size, names=("log10 n_t", name)).slope)
    return slopes


def is_constant(x: np.ndarray, scale: float | None = None) -> bool:
    """Whether ``(T,)`` values differ by no more than rounding: :data:`ROUNDING` times ``scale``.

    Args:
        x: ``(T,)`` finite values, at least one.
        scale: what their rounding is proportional to; by default the largest ``|x|``.

    >>> is_constant(np.array([1.0, 1 + 1e-7])), is_constant(np.array([1.0, 1.001]))
    (True, False)
    """
    return bool(np.ptp(x) <= ROUNDING * (np.abs(x).max() if scale is None else scale))


def theil_sen(x: np.ndarray, y: np.ndarray) -> float:
    """The Theil-Sen slope of y on x: the median of the slopes of all pairs of tokens.

    Fewer than 29 % of the tokens, however far off, cannot carry it away. With more than 500 tokens
    the pairs are not formed: the median is the slope ``b`` at which Kendall's correlation of ``x``
    and ``y - b x`` changes its sign (Sen 1968). That takes memory in proportion to T, and on one
    core some 0.03 s for 6,000 tokens and 0.08 s for 20,000.

    Args:
        x, y: ``(T,)`` values as in :func:`regress`; pairs with the same x do not count.

    Raises:
        StatisticsError: as :func:`regress`.

    >>> theil_sen(np.arange(5.0), np.array([0.0, 2.0, 4.0, 6.0, -90.0]))
    2.0
    """
    from scipy import optimize, stats  # take half a second to import

    regress(x, y)  # refuses what has no slope
    if len(x) <= _ALL_PAIRS:
        return float(stats.theilslopes(y, x).slope)

    def turned(slope: float) -> float:
        # NaN where all residuals are the same: it is the slope of every pair.
        left = stats.kendalltau(x, y - slope * x, method="asymptotic").statistic
        return 0.0 if math.isnan(left) else left

    # Of the middle half of the tokens, so that no few of them decide how exact the slope is.
    spread_x, spread_y = (stats.iqr(z) or np.std(z) for z in (x, y))
    reach = scale = float(spread_y / spread_x)
    if reach == 0:
        return 0.0
    while turned(-reach) < 0 or turned(reach) > 0:
        reach *= 2
    return float(optimize.brentq(turned, -reach, reach, xtol=1e-9 * scale))


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
    if correct and np.min(n) < 2:
        raise StatisticsError(
            "The correction needs at least two occurrences of every token: min_count=2."
        )
    weight = np.asarray(n, dtype=float) / np.sum(n)
    overall = np.einsum("t,td->d", weight, mean, dtype=np.float64)
    V_B = float(sum(_between(weight, mean, overall)))
    return parts_of(n, V, float(weight @ Q), float(overall @ overall), V_B, correct=correct)


def parts_of(
    n: np.ndarray,
    V: np.ndarray,
    Q_X: float | np.ndarray,
    M_X: float | np.ndarray,
    V_B: float | np.ndarray,
    *,
    correct: bool,
) -> Decomposition:
    """The decomposition whose Q, M and V_B over all embeddings are known, of one union or several.

    Args:
        n, V, correct: as in :func:`decompose`, ``(T,)`` or ``(K, T)``. A token that occurs once
            tells no variance, one that does not occur is not there, and without a token all parts
            are NaN.
        Q_X, M_X, V_B: over the union of the tokens' embeddings, in squared norm; ``(K,)`` if there
            are several.
    """
    n = np.asarray(n, dtype=float)
    V = np.where(n > 0, V, 0)
    total = np.where(n.sum(axis=-1) > 0, n.sum(axis=-1), np.nan)
    V_W = np.einsum("...t,...t->...", n, V) / total
    if correct:
        variance = np.divide(V * n, n - 1, out=np.zeros(n.shape), where=n > 1)
        V_W = np.einsum("...t,...t->...", n, variance) / total
        M_X = M_X - V_W / total
        V_B = V_B - (variance.sum(axis=-1) - V_W) / total
    parts = np.array(np.broadcast_arrays(Q_X + 0 * total, M_X + 0 * total, V_W + V_B, V_W, V_B))
    return Decomposition(*(parts if n.ndim > 1 else map(float, parts)))


def _between(
    weight: np.ndarray, mean: np.ndarray, overall: np.ndarray, block: int = 4096
) -> Iterator[np.floating]:
    """The terms of ``sum_t weight_t ||mean_t - overall||^2``, summed over each block of tokens."""
    for at in range(0, len(mean), block):
        apart = mean[at : at + block] - overall
        yield weight[at : at + block] @ np.einsum("td,td->t", apart, apart)
