"""Compiled loops under :mod:`embvar_kit.moments`: each row of embeddings is read where it lies.

All arithmetic is float64. ``reassoc`` and ``contract`` let the compiler sum a row in several lanes;
NaN and infinity keep their meaning, since refusing them relies on it. At 384 features the cost is
memory traffic: each row and each mean is therefore read once.
"""

from __future__ import annotations

import math

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
_jit_parallel = numba.njit(cache=True, nogil=True, parallel=True, fastmath={"reassoc", "contract"})
_inline = numba.njit(inline="always", fastmath={"reassoc", "contract"})


@_inline
def _binade(value):
    """Bits of the largest power of two that does not exceed the float32 ``|value|``."""
    return np.int32(np.float32(value).view(np.int32) & np.int32(0x7F800000))


@_jit
def _widen(mean, extra, out):
    """``out`` = the float64 vector that a float32 mean and its extra bytes stand for."""
    for j in range(mean.shape[0]):
        unit = np.float64(_binade(mean[j]).view(np.float32)) * 2.0**-31
        out[j] = mean[j] + extra[j] * unit


@_jit
def _narrow(value, mean, extra):
    """Store a float64 vector as a float32 mean and its extra bytes.

    The byte counts units of 2**-31 of the mean's binade: 128 of them are half a float32 step.
    """
    for j in range(value.shape[0]):
        near = np.float32(value[j])
        mean[j] = near
        per_unit = np.float64(np.int32(0x7F000000 - _binade(near)).view(np.float32)) * 2.0**31
        units = np.rint((value[j] - near) * per_unit)
        extra[j] = np.int8(min(127.0, max(-127.0, units)))


@_jit_parallel
def update(x, rows, starts, groups, count, mean, extra, squares, deviations, n_parts):
    """Take the rows of each segment into the moments of its group; returns how many it refused.

    With ``c`` the group's mean so far (or its first row), ``k`` rows and ``n`` seen before:
    ``D = sum(x - c)``, ``T = sum ||x - c||^2``; the mean moves by ``D / (n + k)`` and the squared
    deviations grow by ``T - ||D||^2 / (n + k)``. That difference is at least ``T`` times
    ``max(n, 1) / (n + k)``, so it neither turns negative nor cancels to noise. A segment with a
    value that is not finite is refused: its group stays as it was.
    """
    n_segments = groups.shape[0]
    dim = x.shape[1]
    refused = 0
    for part in numba.prange(n_parts):
        # Cut the segments where the rows are halved, thirded ...: equal work for each thread.
        first = np.searchsorted(starts[:n_segments], rows.shape[0] * part // n_parts)
        last = np.searchsorted(starts[:n_segments], rows.shape[0] * (part + 1) // n_parts)
        centre = np.empty(dim)
        shift = np.empty(dim)
        for segment in range(first, last):
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
def merge(count, mean, extra, deviations, other_count, other_mean, other_extra, other_deviations):
    """Pairwise update of means and squared deviations; counts are left to the caller."""
    dim = mean.shape[1]
    ours = np.empty(dim)
    theirs = np.empty(dim)
    for group in range(mean.shape[0]):
        n, k = count[group], other_count[group]
        if k == 0:
            continue
        if n == 0:
            mean[group] = other_mean[group]
            extra[group] = other_extra[group]
            deviations[group] = other_deviations[group]
            continue
        _widen(mean[group], extra[group], ours)
        _widen(other_mean[group], other_extra[group], theirs)
        apart = 0.0
        for j in range(dim):
            gap = theirs[j] - ours[j]
            apart += gap * gap
            ours[j] += gap * k / (n + k)
        _narrow(ours, mean[group], extra[group])
        deviations[group] += other_deviations[group] + apart * n / (n + k) * k


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


n_threads = numba.get_num_threads
