"""What a statistic over tokens is worth: intervals, reliability, a slope free of the noise in M.

The embeddings of one document are alike, so documents are the independent units, and not
occurrences, sentences or tokens. All functions here rest on that: :func:`jackknife` and
:func:`interval` take a statistic computed without each of ``K`` folds of whole documents, and
:func:`reliability` and :func:`slope_iv` take moments of two halves that share no document.
:mod:`embvar_kit.moments.folds` makes both from one pass.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit  # in scipy.stats, which takes half a second to import, t.ppf

from embvar_kit.errors import StatisticsError
from embvar_kit.statistics.analysis import is_constant


class Interval(NamedTuple):
    """A confidence interval; numbers or arrays, as the estimate is.

    Attributes:
        low, high: its ends.
        se: the jackknife's standard error.
        bias: the jackknife's estimate of the estimate's bias. The interval is not shifted by it.
    """

    low: np.ndarray
    high: np.ndarray
    se: np.ndarray
    bias: np.ndarray


class Reliability(NamedTuple):
    """How far a measure of tokens, such as M, is a property of tokens and not of the documents.

    Attributes:
        half: correlation over tokens of the measure in two halves of the documents: the share of
            its variance over tokens, in one half, that another half would find again.
        whole: the same share for twice the documents, by the formula of Spearman and Brown,
            ``2 half / (1 + half)``; NaN where ``half`` is not positive.
    """

    half: float
    whole: float


def jackknife(replicates: np.ndarray, axis: int = 0) -> np.ndarray:
    """Delete-one-fold jackknife standard error: ``se² = (K - 1)/K Σ_k (θ_k - mean θ)²``.

    Source: Efron and Stein (1981) for its bias, which is upward; Kott (2001) for folds.

    Args:
        replicates: the statistic without each fold, with ``K`` along ``axis``.
        axis: the axis of the folds.

    Returns:
        The standard error, without that axis. It is NaN where a replicate is: a statistic that
        does not exist without some fold rests on that fold alone.

    Raises:
        StatisticsError: if there are fewer than 2 folds.

    >>> x = np.array([1.0, 2.0, 6.0])  # the mean: its standard error is sd / sqrt(K)
    >>> without_each = (x.sum() - x) / 2
    >>> bool(np.isclose(jackknife(without_each), x.std(ddof=1) / np.sqrt(3)))
    True
    """
    replicates = np.asarray(replicates, dtype=float)
    n_folds = _n_folds(replicates, axis)
    return np.std(replicates, axis=axis) * math.sqrt(n_folds - 1)


def interval(
    estimate: np.ndarray, replicates: np.ndarray, level: float = 0.95, axis: int = 0
) -> Interval:
    """A confidence interval by the delete-one-fold jackknife and Student's t, K - 1 degrees.

    Args:
        estimate: the statistic over all folds.
        replicates: the statistic without each fold, with ``K`` along ``axis``; apart from that
            axis, of the shape of ``estimate``.
        level: probability that the interval covers what the estimate is on average.
        axis: the axis of the folds.

    Returns:
        The interval ``estimate ± t se``, with the standard error and ``bias = (K - 1)(mean θ_k -
        θ)``; all NaN where a replicate is NaN.

    Raises:
        StatisticsError: if there are fewer than 2 folds, the shapes do not fit, or ``level`` is
            not between 0 and 1.

    >>> low, high, se, bias = interval(3.0, np.array([4.0, 3.5, 1.5]))
    >>> round(float(low), 2), round(float(high), 2)
    (-3.57, 9.57)
    """
    if not 0 < level < 1:
        raise StatisticsError(f"The level of an interval lies between 0 and 1, not at {level}.")
    estimate, replicates = np.asarray(estimate, dtype=float), np.asarray(replicates, dtype=float)
    n_folds = _n_folds(replicates, axis)
    mean = replicates.mean(axis=axis)
    if mean.shape != estimate.shape:
        raise StatisticsError(
            f"Replicates of shape {replicates.shape}, with the folds along axis {axis}, do not fit "
            f"an estimate of shape {estimate.shape}."
        )
    se = jackknife(replicates, axis)
    reach = stdtrit(n_folds - 1, (1 + level) / 2) * se
    return Interval(estimate - reach, estimate + reach, se, (n_folds - 1) * (mean - estimate))


def _n_folds(replicates: np.ndarray, axis: int) -> int:
    n_folds = replicates.shape[axis] if replicates.ndim else 0
    if n_folds < 2:
        raise StatisticsError(f"A jackknife needs at least 2 folds, and here are {n_folds}.")
    return n_folds


def reliability(M_A: np.ndarray, M_B: np.ndarray) -> Reliability:
    """Reliability of M over tokens, from two halves of the documents.

    Give M without bias: the measured one is larger by ``V/n`` in both halves, and by more where
    the occurrences of one document are alike, so that frequency or bursts alone would correlate it.
    ``half_M`` of :class:`embvar_kit.moments.folds.FoldMoments` has neither bias.

    The formula for the whole holds for halves with equal noise, if a half's noise is halved in
    variance by doubling the documents. The part of it that is quadratic in the noise falls faster,
    so it errs to the low side.

    Args:
        M_A, M_B: ``(T,)`` M of each token in one half and in the other (or any other measure).

    Returns:
        The reliabilities of half and whole; NaN where M does not vary in one half.

    Raises:
        StatisticsError: as :func:`slope_iv`.

    >>> reliability(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
    Reliability(half=0.5, whole=0.6666666666666666)
    """
    columns = _of_halves(M_A, M_B)
    if any(map(is_constant, columns)):
        return Reliability(math.nan, math.nan)
    half = float(np.corrcoef(columns)[0, 1])
    return Reliability(half, 2 * half / (1 + half) if half > 0 else math.nan)


def slope_iv(
    V_A: np.ndarray, M_A: np.ndarray, M_B: np.ndarray, V_B: np.ndarray | None = None
) -> float:
    """The slope of V on M that is free of the noise in M, by instrumental variables.

    Noise in M bends the line of least squares: towards 0 where it enters Q alike and leaves V as it
    is, towards -1 where a token's embeddings have one norm, so that it enters V with the opposite
    sign. The other half's M, the instrument, has none of this noise (Fuller 1987):
    ``cov(V_A, M_B) / cov(M_A, M_B)`` tends to the slope of the population's V on its M as the
    number of tokens grows. What both halves share is not removed: give M and V without bias, as for
    :func:`reliability`.

    Args:
        V_A, M_A: ``(T,)`` V and M without bias, of each token in one half of the documents.
        M_B: ``(T,)`` M in the other half.
        V_B: ``(T,)`` V there: with it, the two directions are averaged, ``(cov(V_A, M_B) +
            cov(V_B, M_A)) / (2 cov(M_A, M_B))``.

    Returns:
        The slope; NaN where M does not vary in one half, or ``cov(M_A, M_B)`` is not positive:
        then the halves do not agree on which tokens have a large M, and there is nothing to regress
        on.

    Raises:
        StatisticsError: if the arrays differ in length, there are fewer than 3 tokens, or a value
            is not finite.

    >>> M = np.array([1.0, 2.0, 4.0])
    >>> slope_iv(9 - 2 * M, M, M + [0.5, -1, 0.5])
    -2.0
    """
    columns = _of_halves(V_A, M_A, M_B, *(() if V_B is None else (V_B,)))
    covariance = np.cov(columns)
    shared = covariance[1, 2]
    if shared <= 0 or is_constant(columns[1]) or is_constant(columns[2]):
        return math.nan
    across = covariance[0, 2] if V_B is None else (covariance[0, 2] + covariance[3, 1]) / 2
    return float(across / shared)


def _of_halves(*columns: np.ndarray) -> np.ndarray:
    """``(C, T)`` checked values of each token in a half.

    Raises:
        StatisticsError: see :func:`slope_iv`.
    """
    columns = [np.asarray(x, dtype=float) for x in columns]
    if len({x.shape for x in columns}) > 1 or columns[0].ndim != 1 or len(columns[0]) < 3:
        raise StatisticsError(
            "The two halves need one value for each of the same tokens, at least 3, not shapes "
            f"{', '.join(str(x.shape) for x in columns)}."
        )
    if not np.isfinite(columns).all():
        raise StatisticsError(
            "A value is not finite for some token. A token needs occurrences in both halves, for "
            "forms without bias in two folds of each: leave out those with fewer."
        )
    return np.stack(columns)
