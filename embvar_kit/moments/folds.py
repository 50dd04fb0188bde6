"""Moments of groups with one fold of the documents taken out, and of two halves of the folds.

Documents are dealt into ``K`` folds, and each fold's part of a group is kept as an *entry*: its
count, mean, sum of squared norms and sum of squared deviations, as in
:class:`embvar_kit.moments.grouped.GroupedMoments`. A fold is taken out by merging the entries of
the others, not by subtracting its own: what is before an entry and what is behind it are each
merged once along the entries (pairwise update of Chan, Golub and LeVeque, 1983). Sums of positive
terms are all that is formed, so V neither turns negative nor loses its digits, even where one fold
has nearly all of the spread. M and V of a half are differences, and either may be negative where a
token has few pairs of folds: so it is with estimates that have no bias.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numba
import numpy as np

from embvar_kit.errors import MomentsError
from embvar_kit.moments import kernels
from embvar_kit.moments.kernels import _jit, _jit_parallel, _widen


class FoldMoments(NamedTuple):
    """Moments of ``G`` groups without each of ``K`` folds, and in two halves of the folds.

    Q, M and V are squared norms of the embedding; V has the population form. They are NaN where
    ``n`` is 0.

    Attributes:
        n: ``(K, G)`` int64, occurrences outside fold k; of all folds where fold k has none.
        Q, M, V: ``(K, G)`` moments of these occurrences.
        half_n: ``(2, G)`` int64, occurrences in the folds of each half.
        half_M: ``(2, G)`` the mean dot product of two occurrences in different folds of a half.
            Where documents are independent draws, it estimates M without bias, however alike the
            occurrences of one document are; NaN where fewer than two folds have any.
        half_V: ``(2, G)`` Q of the half less ``half_M``.
        own_n, own_M, own_V: ``(K, G)`` the same of the half that fold k is in, without fold k: what
            takes the place of that half in a jackknife.
    """

    n: np.ndarray
    Q: np.ndarray
    M: np.ndarray
    V: np.ndarray
    half_n: np.ndarray
    half_M: np.ndarray
    half_V: np.ndarray
    own_n: np.ndarray
    own_M: np.ndarray
    own_V: np.ndarray


class Pooled(NamedTuple):
    """The union of many groups in each of ``K`` folds: the entries of a single group.

    Attributes:
        count: ``(K,)`` int64, occurrences.
        mean: ``(K, d)`` float64; zeros where ``count`` is 0.
        squares: ``(K,)`` sums of squared norms.
        deviations: ``(K,)`` sums of squared deviations from the mean.
    """

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    deviations: np.ndarray


def without_each_fold(
    starts: np.ndarray,
    fold: np.ndarray,
    count: np.ndarray,
    mean: np.ndarray,
    extra: np.ndarray,
    squares: np.ndarray,
    deviations: np.ndarray,
    n_folds: int,
    half: np.ndarray,
) -> FoldMoments:
    """Take each fold out of many groups.

    Args:
        starts: ``(G + 1,)`` where the entries of each group start, and ``E``; the entries of a
            group are sorted by fold. Several of one fold are merged.
        fold: ``(E,)`` fold of each entry, ``0 <= fold < K``.
        count: ``(E,)`` occurrences; entries with 0 are passed over.
        mean: ``(E, d)`` float32 means.
        extra: ``(E, d)`` int8, their extra bytes (see :class:`GroupedMoments`).
        squares: ``(E,)`` sums of squared norms.
        deviations: ``(E,)`` sums of squared deviations from the mean.
        n_folds: ``K``.
        half: ``(K,)`` bool, the half that each fold is in: row 0 of a ``(2, G)`` result is over
            the folds where it is false, row 1 over the others.

    Raises:
        MomentsError: if shapes do not fit, or entries are out of order or range.

    >>> part = without_each_fold(                    # one group: 1 and 3 in fold 0, 8 in fold 1
    ...     starts=np.array([0, 2]), fold=np.array([0, 1]), count=np.array([2, 1]),
    ...     mean=np.array([[2], [8]], dtype=np.float32), extra=np.zeros((2, 1), dtype=np.int8),
    ...     squares=np.array([10.0, 64.0]), deviations=np.array([2.0, 0.0]),
    ...     n_folds=3, half=np.array([False, False, True]))
    >>> part.n[:, 0].tolist(), part.M[:, 0].tolist(), part.V[:2, 0].tolist()
    ([1, 2, 3], [64.0, 4.0, 16.0], [0.0, 1.0])
    >>> part.half_M[0].tolist()                      # (1 * 8 + 3 * 8) / 2
    [16.0]
    """
    _check_entries(starts, fold, (count, squares, deviations), mean, extra, n_folds)
    if half.shape != (n_folds,) or half.dtype != bool:
        raise MomentsError(f"half must be bool, with one value for each of {n_folds} folds.")
    n_groups = len(starts) - 1

    def undefined(*rows: int) -> np.ndarray:
        return np.full((*rows, n_groups), np.nan)

    def nothing(rows: int) -> np.ndarray:
        return np.zeros((rows, n_groups), dtype=np.int64)

    out = FoldMoments(
        nothing(n_folds),
        *(undefined(n_folds) for _ in "QMV"),
        nothing(2),
        *(undefined(2) for _ in "MV"),
        nothing(n_folds),
        *(undefined(n_folds) for _ in "MV"),
    )
    arrays = _as_compiled(starts, fold, count, mean, extra, squares, deviations)
    with kernels.sharing_out() as n_threads:
        n_parts = max(1, min(n_threads, n_groups))
        _all_groups(*arrays, half.astype(np.int64), *out, n_parts)
    return out


def pool(
    groups: np.ndarray,
    starts: np.ndarray,
    fold: np.ndarray,
    count: np.ndarray,
    mean: np.ndarray,
    extra: np.ndarray,
    squares: np.ndarray,
    deviations: np.ndarray,
    n_folds: int,
) -> Pooled:
    """The union of some groups, fold by fold.

    With :func:`leave_one_out` it gives Q(X), M(X) and V(X) without each fold, which decompositions
    and mean cosines need.

    Args:
        groups: ``(G',)`` distinct groups to take the union of.
        starts, fold, count, mean, extra, squares, deviations, n_folds: entries as in
            :func:`without_each_fold`.

    Raises:
        MomentsError: if shapes do not fit, or entries or groups are out of order or range.
    """
    _check_entries(starts, fold, (count, squares, deviations), mean, extra, n_folds)
    groups = np.asarray(groups, dtype=np.int64)
    n_groups = len(starts) - 1
    if len(np.unique(groups)) != len(groups):
        raise MomentsError("A union takes each group once.")
    if len(groups) and not 0 <= groups.min() <= groups.max() < n_groups:
        raise MomentsError(f"A group is outside 0..{n_groups - 1}.")
    out = Pooled(
        np.zeros(n_folds, dtype=np.int64),
        np.zeros((n_folds, mean.shape[1])),
        np.zeros(n_folds),
        np.zeros(n_folds),
    )
    _pool(groups, *_as_compiled(starts, fold, count, mean, extra, squares, deviations), *out)
    return out


def together(pools: Iterable[Pooled]) -> Pooled:
    """The union of one or more unions of different groups, fold by fold.

    >>> zero = np.zeros(2)
    >>> one = Pooled(np.array([1, 0]), np.array([[2.0], [0.0]]), np.array([4.0, 0.0]), zero)
    >>> two = Pooled(np.array([3, 1]), np.array([[6.0], [1.0]]), np.array([108.0, 1.0]), zero)
    >>> n, mean, squares, deviations = together([one, two])
    >>> n.tolist(), mean.tolist(), deviations.tolist()
    ([4, 1], [[5.0], [1.0]], [12.0, 0.0])
    """
    first, *others = pools
    n, mean, squares, deviations = first
    for other in others:
        gap = other.mean - mean
        whole = n + other.count
        share = np.divide(other.count, whole, out=np.zeros(len(whole)), where=whole > 0)
        mean = mean + gap * share[:, None]
        deviations = deviations + other.deviations + (gap * gap).sum(axis=1) * n * share
        n, squares = whole, squares + other.squares
    return Pooled(n, mean, squares, deviations)


def leave_one_out(
    count: np.ndarray, mean: np.ndarray, squares: np.ndarray, deviations: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The moments of one group without each of its entries.

    Args:
        count: ``(f,)`` occurrences; 0 is allowed, and leaves the whole.
        mean: ``(f, d)`` float64 means.
        squares: ``(f,)`` sums of squared norms.
        deviations: ``(f,)`` sums of squared deviations from the mean.

    Returns:
        ``(f,)`` n, Q, M and V (population form) of the other entries; NaN where n is 0.

    >>> n, Q, M, V = leave_one_out(np.array([1, 1, 1]), np.array([[0.0], [2.0], [4.0]]),
    ...                            np.array([0.0, 4.0, 16.0]), np.zeros(3))
    >>> M.tolist(), V.tolist()
    ([9.0, 4.0, 1.0], [1.0, 4.0, 1.0])
    """
    counts = np.ascontiguousarray(count, dtype=np.int64)
    return _leave_one_out(
        counts, *(np.ascontiguousarray(x, dtype=np.float64) for x in (mean, squares, deviations))
    )


def _check_entries(
    starts: np.ndarray,
    fold: np.ndarray,
    sums: tuple[np.ndarray, ...],
    mean: np.ndarray,
    extra: np.ndarray,
    n_folds: int,
) -> None:
    """Refuse entries that the compiled loops could not read safely.

    Raises:
        MomentsError: naming what does not fit.
    """
    n_entries = len(fold)
    if mean.ndim != 2 or mean.shape != extra.shape or len(mean) != n_entries:
        raise MomentsError(
            f"{n_entries} entries need means and extra bytes of shape ({n_entries}, d), not "
            f"{mean.shape} and {extra.shape}."
        )
    if mean.dtype != np.float32 or extra.dtype != np.int8:
        raise MomentsError(
            f"Means must be float32 and extra bytes int8, not {mean.dtype} and {extra.dtype}."
        )
    if any(x.shape != (n_entries,) for x in sums):
        raise MomentsError(f"Counts and sums must have one value for each of {n_entries} entries.")
    if not len(starts) or starts[0] != 0 or starts[-1] != n_entries or (np.diff(starts) < 0).any():
        raise MomentsError(f"The groups' starts do not cover the {n_entries} entries in order.")
    if not n_entries:
        return
    if not 0 <= fold.min() <= fold.max() < n_folds:
        raise MomentsError(f"A fold is outside 0..{n_folds - 1}.")
    in_order = np.diff(fold) >= 0
    in_order[starts[(starts > 0) & (starts < n_entries)] - 1] = True  # a new group begins behind
    if not in_order.all():
        raise MomentsError("The entries of a group must be sorted by fold.")


def _as_compiled(starts, fold, count, mean, extra, squares, deviations) -> tuple[np.ndarray, ...]:
    """The entries as the compiled loops take them: whole numbers int64, sums float64."""
    whole = [np.ascontiguousarray(x, dtype=np.int64) for x in (starts, fold, count)]
    sums = [np.ascontiguousarray(x, dtype=np.float64) for x in (squares, deviations)]
    return *whole, np.ascontiguousarray(mean), np.ascontiguousarray(extra), *sums


@_jit
def _combine(n, mean, deviations, k, other, other_deviations):
    """Merge another part into ``mean``, in place; returns the squared deviations of both."""
    if k == 0:
        return deviations
    if n == 0:
        mean[:] = other
        return other_deviations
    share = k / (n + k)
    apart = 0.0
    for j in range(mean.shape[0]):
        gap = other[j] - mean[j]
        apart += gap * gap
        mean[j] += gap * share
    return deviations + other_deviations + apart * n * share


@_jit
def _dot(a, b):
    total = 0.0
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


@_jit
def _across(n, mean, in_pairs, in_product):
    """The mean dot product of two occurrences in different folds.

    Args:
        n, mean: of all occurrences.
        in_pairs, in_product: the ordered pairs of occurrences within one fold, and the sum of
            their dot products.
    """
    all_pairs = float(n) ** 2
    return (all_pairs * _dot(mean, mean) - in_product) / (all_pairs - in_pairs)


@_jit
def _without_each(f, count, mean, squares, deviations, whole, running, others, n, norms, spread):
    """Merge all of the first ``f`` entries, and all but each of them.

    Writes the mean of all to ``whole`` ``(d,)``, and for all but each entry the mean to ``others``
    ``(f, d)``, the counts to ``n``, the sums of squared norms to ``norms``, and those of squared
    deviations to ``spread``; returns the three of all entries. ``running`` is scratch space.
    """
    all_n, all_norms, all_spread = 0, 0.0, 0.0
    for i in range(f):
        # Until the way back, the results hold what comes before entry i.
        n[i], norms[i], spread[i] = all_n, all_norms, all_spread
        if all_n:
            others[i] = whole
        all_spread = _combine(all_n, whole, all_spread, count[i], mean[i], deviations[i])
        all_n += count[i]
        all_norms += squares[i]
    behind_n, behind_norms, behind_spread = 0, 0.0, 0.0
    for i in range(f - 1, -1, -1):
        spread[i] = _combine(n[i], others[i], spread[i], behind_n, running, behind_spread)
        n[i] += behind_n
        norms[i] += behind_norms
        behind_spread = _combine(behind_n, running, behind_spread, count[i], mean[i], deviations[i])
        behind_n += count[i]
        behind_norms += squares[i]
    return all_n, all_norms, all_spread


@_jit
def _leave_one_out(count, mean, squares, deviations):
    """The compiled part of :func:`leave_one_out`."""
    f, dim = mean.shape
    n = np.zeros(f, dtype=np.int64)
    Q, M, V = np.empty(f), np.empty(f), np.empty(f)
    whole, running, others = np.empty(dim), np.empty(dim), np.empty((f, dim))
    _without_each(f, count, mean, squares, deviations, whole, running, others, n, Q, V)
    for i in range(f):
        M[i] = _dot(others[i], others[i]) if n[i] else np.nan
        Q[i] = Q[i] / n[i] if n[i] else np.nan
        V[i] = V[i] / n[i] if n[i] else np.nan
    return n, Q, M, V


@_jit_parallel
def _all_groups(
    starts,
    fold,
    count,
    mean,
    extra,
    squares,
    deviations,
    half,
    n,
    Q,
    M,
    V,
    half_n,
    half_M,
    half_V,
    own_n,
    own_M,
    own_V,
    n_parts,
):
    """The results of :func:`without_each_fold`, which holds them NaN, and counts 0, until here.

    A fold is taken out of its own half first, and what is left is merged with the other half.
    """
    n_folds, n_groups = n.shape
    dim = mean.shape[1]
    for part in numba.prange(n_parts):
        # Each thread gets the groups of an equal share of the entries.
        first = np.searchsorted(starts[:n_groups], fold.shape[0] * part // n_parts)
        last = np.searchsorted(starts[:n_groups], fold.shape[0] * (part + 1) // n_parts)
        # The entries of one group in each half, one for each fold that has any of it.
        f = np.empty(2, dtype=np.int64)
        at, part_n = np.empty((2, n_folds), dtype=np.int64), np.empty((2, n_folds), dtype=np.int64)
        part_mean = np.empty((2, n_folds, dim))
        part_norms, part_spread = np.empty((2, n_folds)), np.empty((2, n_folds))
        # All entries of each half, and all but each of them.
        all_n = np.empty(2, dtype=np.int64)
        all_mean, all_norms, all_spread = np.empty((2, dim)), np.empty(2), np.empty(2)
        rest_n = np.empty((2, n_folds), dtype=np.int64)
        rest_mean = np.empty((2, n_folds, dim))
        rest_norms, rest_spread = np.empty((2, n_folds)), np.empty((2, n_folds))
        # Pairs of occurrences in one fold, and the sum of their dot products.
        pairs, product = np.empty((2, n_folds)), np.empty((2, n_folds))
        in_pairs, in_product = np.empty(2), np.empty(2)
        wide = np.empty(dim)
        for group in range(first, last):
            f[:] = 0
            for entry in range(starts[group], starts[group + 1]):
                if count[entry] == 0:
                    continue
                h = half[fold[entry]]
                if f[h] == 0 or at[h, f[h] - 1] != fold[entry]:
                    i = f[h]
                    at[h, i] = fold[entry]
                    part_n[h, i], part_norms[h, i], part_spread[h, i] = 0, 0.0, 0.0
                    f[h] += 1
                i = f[h] - 1
                _widen(mean[entry], extra[entry], wide)
                part_spread[h, i] = _combine(
                    part_n[h, i],
                    part_mean[h, i],
                    part_spread[h, i],
                    count[entry],
                    wide,
                    deviations[entry],
                )
                part_n[h, i] += count[entry]
                part_norms[h, i] += squares[entry]
            for h in range(2):
                all_n[h], all_norms[h], all_spread[h] = _without_each(
                    f[h],
                    part_n[h],
                    part_mean[h],
                    part_norms[h],
                    part_spread[h],
                    all_mean[h],
                    wide,
                    rest_mean[h],
                    rest_n[h],
                    rest_norms[h],
                    rest_spread[h],
                )
                half_n[h, group] = all_n[h]
                in_pairs[h], in_product[h] = 0.0, 0.0
                for i in range(f[h]):
                    pairs[h, i] = float(part_n[h, i]) ** 2
                    product[h, i] = pairs[h, i] * _dot(part_mean[h, i], part_mean[h, i])
                    in_pairs[h] += pairs[h, i]
                    in_product[h] += product[h, i]
                if f[h] >= 2:
                    half_M[h, group] = _across(all_n[h], all_mean[h], in_pairs[h], in_product[h])
                    half_V[h, group] = all_norms[h] / all_n[h] - half_M[h, group]
            # What holds for a fold that has none of the group.
            for k in range(n_folds):
                own_n[k, group] = half_n[half[k], group]
                own_M[k, group] = half_M[half[k], group]
                own_V[k, group] = half_V[half[k], group]
            for h in range(2):
                other = 1 - h
                for i in range(f[h]):
                    k = at[h, i]
                    left = rest_n[h, i]
                    own_n[k, group] = left
                    own_M[k, group], own_V[k, group] = np.nan, np.nan
                    if f[h] >= 3:
                        own_M[k, group] = _across(
                            left,
                            rest_mean[h, i],
                            in_pairs[h] - pairs[h, i],
                            in_product[h] - product[h, i],
                        )
                        own_V[k, group] = rest_norms[h, i] / left - own_M[k, group]
                    spread = _combine(
                        left,
                        rest_mean[h, i],
                        rest_spread[h, i],
                        all_n[other],
                        all_mean[other],
                        all_spread[other],
                    )
                    n[k, group] = left + all_n[other]
                    if n[k, group]:
                        Q[k, group] = (rest_norms[h, i] + all_norms[other]) / n[k, group]
                        M[k, group] = _dot(rest_mean[h, i], rest_mean[h, i])
                        V[k, group] = spread / n[k, group]
            # The whole, merged last: it takes the place of a half's mean.
            spread = _combine(
                all_n[0], all_mean[0], all_spread[0], all_n[1], all_mean[1], all_spread[1]
            )
            total = all_n[0] + all_n[1]
            norm = _dot(all_mean[0], all_mean[0])
            for k in range(n_folds):
                if total and own_n[k, group] == half_n[half[k], group]:
                    n[k, group] = total
                    Q[k, group] = (all_norms[0] + all_norms[1]) / total
                    M[k, group] = norm
                    V[k, group] = spread / total


@_jit
def _pool(
    groups,
    starts,
    fold,
    count,
    mean,
    extra,
    squares,
    deviations,
    all_count,
    all_mean,
    all_squares,
    all_deviations,
):
    """The results of :func:`pool`, which holds them 0 until here."""
    wide = np.empty(mean.shape[1])
    for group in groups:
        for entry in range(starts[group], starts[group + 1]):
            if count[entry] == 0:
                continue
            k = fold[entry]
            _widen(mean[entry], extra[entry], wide)
            all_deviations[k] = _combine(
                all_count[k], all_mean[k], all_deviations[k], count[entry], wide, deviations[entry]
            )
            all_count[k] += count[entry]
            all_squares[k] += squares[entry]
