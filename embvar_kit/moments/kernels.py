"""Compiled loops for :mod:`embvar_kit.moments.grouped`, which read each row without a copy.

All arithmetic is float64. ``reassoc`` and ``contract`` let the compiler sum a row in several SIMD
lanes; NaN and infinity keep their meaning, because refusing them relies on it. With hundreds of
features the cost is memory traffic, so each row and each mean is read only once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from embvar_kit import threads

STEP = 21
"""An extra byte counts steps of ``2**STEP`` in the float64 bits of a mean, positive ones away from
zero. 256 of these steps make one step of float32."""

_jit = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
_jit_parallel = numba.njit(cache=True, nogil=True, parallel=True, fastmath={"reassoc", "contract"})
_inline = numba.njit(inline="always", fastmath={"reassoc", "contract"})


@intrinsic
def _fetch(typing, array, at):
    """Prefetch the cache line of ``array[at]``, of a one-dimensional array."""

    def emit(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        # Arguments: 0 for reading, 3 for keeping it in all caches, 1 for data (not code).
        builder.call(prefetch, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return numba.types.void(array, at), emit


@_inline
def _fetch_all(row):
    """Prefetch a whole row; cache lines have 64 bytes or more."""
    for j in range(0, row.shape[0], 64 // row.itemsize):
        _fetch(row, j)


@_jit
def _widen(mean, extra, out):
    """Write to ``out`` the float64 vector that a float32 mean and its extra bytes represent."""
    for j in range(mean.shape[0]):
        bits = np.float64(mean[j]).view(np.int64) + (np.int64(extra[j]) << STEP)
        out[j] = np.int64(bits).view(np.float64)


@_jit
def _narrow(value, mean, extra):
    """Store a float64 vector as the nearest float32 mean with extra bytes."""
    half = np.int64(1 << (STEP - 1))
    for j in range(value.shape[0]):
        wide = np.float64(value[j])
        near = np.float32(wide)
        mean[j] = near
        steps = (wide.view(np.int64) + half - np.float64(near).view(np.int64)) >> STEP
        # Clipping matters only at half a float32 step, and where float32 is subnormal.
        extra[j] = np.int8(min(127, max(-128, steps)))


@_jit_parallel
def update(x, rows, starts, groups, count, mean, extra, squares, deviations, n_parts):
    """Take the rows of each segment into the moments of its group.

    Let ``c`` be the group's mean so far (or its first row), ``k`` the number of its rows and ``n``
    the number seen before. With ``D = sum(x - c)`` and ``T = sum ||x - c||^2``, the mean moves by
    ``D / (n + k)`` and the squared deviations grow by ``T - ||D||^2 / (n + k)``. That difference
    is at least ``T max(n, 1) / (n + k)``, so it neither turns negative nor loses its digits.

    Returns:
        The number of segments refused because a value is not finite; their groups do not change.
    """
    n_segments = groups.shape[0]
    dim = x.shape[1]
    refused = 0
    for part in numba.prange(n_parts):
        # Each thread gets the segments of an equal share of the rows.
        first = np.searchsorted(starts[:n_segments], rows.shape[0] * part // n_parts)
        last = np.searchsorted(starts[:n_segments], rows.shape[0] * (part + 1) // n_parts)
        centre = np.empty(dim)
        shift = np.empty(dim)
        for segment in range(first, last):
            # Segments lie anywhere in memory: prefetch the one after the next.
            if segment + 2 < last:
                coming = groups[segment + 2]
                _fetch_all(mean[coming])
                _fetch_all(extra[coming])
                _fetch_all(x[rows[starts[segment + 2]]])
            group = groups[segment]
            n = count[group]
            start, stop = starts[segment], starts[segment + 1]
            row = x[rows[start]]
            if n == 0:
                for j in range(dim):
                    centre[j] = row[j]
            else:
                _widen(mean[group], extra[group], centre)
            spread = 0.0
            norms = 0.0
            for j in range(dim):
                value = np.float64(row[j])
                deviation = value - centre[j]
                shift[j] = deviation
                spread += deviation * deviation
                norms += value * value
            moved = spread
            if stop > start + 1:
                for i in range(start + 1, stop):
                    row = x[rows[i]]
                    for j in range(dim):
                        value = np.float64(row[j])
                        deviation = value - centre[j]
                        shift[j] += deviation
                        spread += deviation * deviation
                        norms += value * value
                moved = 0.0
                for j in range(dim):
                    moved += shift[j] * shift[j]
            if not math.isfinite(norms):
                refused += 1
                continue
            inverse = 1.0 / (n + stop - start)
            for j in range(dim):
                centre[j] += shift[j] * inverse
            _narrow(centre, mean[group], extra[group])
            count[group] = n + stop - start
            squares[group] += norms
            deviations[group] += max(0.0, spread - moved * inverse)
    return refused


@_jit
def merge(
    groups, count, mean, extra, deviations, other_count, other_mean, other_extra, other_deviations
):
    """Pairwise update of means and squared deviations; the caller adds the counts.

    ``groups[i]`` is the group that the i-th group of the other moments is added to.
    """
    dim = mean.shape[1]
    ours = np.empty(dim)
    theirs = np.empty(dim)
    for i in range(groups.shape[0]):
        group = groups[i]
        n, k = count[group], other_count[i]
        if k == 0:
            continue
        if n == 0:
            mean[group] = other_mean[i]
            extra[group] = other_extra[i]
            deviations[group] = other_deviations[i]
            continue
        _widen(mean[group], extra[group], ours)
        _widen(other_mean[i], other_extra[i], theirs)
        apart = 0.0
        for j in range(dim):
            gap = theirs[j] - ours[j]
            apart += gap * gap
            ours[j] += gap * k / (n + k)
        _narrow(ours, mean[group], extra[group])
        deviations[group] += other_deviations[i] + apart * n / (n + k) * k


@_jit
def squared_norms_of_means(mean, extra):
    """``(G,)`` squared norm of each mean."""
    out = np.empty(mean.shape[0])
    wide = np.empty(mean.shape[1])
    for group in range(mean.shape[0]):
        if math.isnan(mean[group, 0]):
            out[group] = np.nan
            continue
        _widen(mean[group], extra[group], wide)
        total = 0.0
        for j in range(wide.shape[0]):
            total += wide[j] * wide[j]
        out[group] = total
    return out


@contextmanager
def sharing_out() -> Iterator[int]:
    """Share kernels out among no more threads than a quota grants.

    While the context lasts, Numba wakes no others. It would wake all that it has, and they stand in
    the way of each other and of PyTorch's, though only some are given work.

    Yields:
        Their number: Numba's, or what a quota grants if that is less.
    """
    _start_threads()
    before = numba.get_num_threads()
    number = min(before, threads.granted() or before)
    numba.set_num_threads(number)
    try:
        yield number
    finally:
        numba.set_num_threads(before)


@cache
def _start_threads() -> None:
    """Start Numba's threads, and leave PyTorch's as they were.

    GNU's OpenMP serves both, and as Numba starts it sets OpenMP's number of threads to its own: all
    cores that are seen, whatever a quota or the user gave PyTorch.
    """
    if "torch" not in sys.modules:
        numba.get_num_threads()
        return
    import torch  # waits where another thread has begun to import it

    given = torch.get_num_threads()
    numba.get_num_threads()
    torch.set_num_threads(given)
    threads.forbid_nested_teams()
