"""Storage for the means of a pass: in memory, or in a file if they would not fit."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from embvar_kit.control_groups import groups
from embvar_kit.errors import ExtractionError
from embvar_kit.files import home

BYTES_PER_ELEMENT = 5
"""Bytes of a mean's element: a float32 and one extra byte (see
:class:`embvar_kit.GroupedMoments`)."""

HOST_MOMENTS = ("cpu", "mps")
"""Types of device whose moments are kept on the host; MPS is one because it has no float64."""

_SHARE = 0.75
"""Fraction of free memory that the means may use; the model's own buffers need the rest."""


def fit_into_memory(n_bytes: int) -> bool:
    """Whether this process has memory for so many bytes of means beside the model's buffers."""
    return n_bytes <= _SHARE * available()


def available() -> int:
    """Bytes that this process can still take: of the machine's free memory, what limits leave.

    Limits are those of Linux's control groups, by which SLURM and containers keep a job to the
    memory that it asked for, and that of a Dask worker. Beyond them the process would be killed.
    """
    left = [psutil.virtual_memory().available, *_left_in_groups(), *_left_to_worker()]
    return max(0, min(left))


def _left_in_groups(root: Path = Path("/")) -> Iterator[int]:
    """Bytes that the control groups of this process leave, each group and those above it.

    Cached parts of files are given up for other memory, and count as free.
    """
    for version, folder in groups("memory", root):
        if version == 2:
            names = ("memory.max", "memory.current", "inactive_file")
        else:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            limit, used = (int((folder / name).read_text()) for name in names[:2])
            stat = dict(map(str.split, (folder / "memory.stat").read_text().splitlines()))
            yield limit - used + int(stat.get(names[2], 0))


def _left_to_worker() -> Iterator[int]:
    """Bytes that Dask leaves to the worker that this process is, if it is one with a limit."""
    if "distributed" not in sys.modules:
        return
    from distributed import get_worker

    try:
        limit = get_worker().memory_manager.memory_limit
    except (ValueError, AttributeError):  # no worker runs this
        return
    if limit:
        yield int(limit) - psutil.Process().memory_info().rss


def fit_onto_device(n_bytes: int, free: int) -> bool:
    """Whether a device with ``free`` bytes of free memory has room for so many bytes of means."""
    return n_bytes <= _SHARE * free


def give_back() -> None:
    """Return freed memory to the system.

    glibc keeps freed pieces that lie between used ones, and batches of different shapes leave more
    and more of them. Other C libraries return them by themselves.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def allocate(
    shape: tuple[int, ...], *, in_file: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Allocate arrays for means: float32 values and int8 extra bytes.

    Args:
        shape: shape of both arrays, ``(..., d)``.
        in_file: map the arrays from an unnamed file in the kit's cache, which vanishes with them,
            instead of using memory; by default, only if they would not fit into memory.

    Returns:
        The float32 and the int8 array; their contents are undefined.

    Raises:
        ExtractionError: if the disk has no room for them.
    """
    size = int(np.prod(shape))
    if in_file is None:
        in_file = not fit_into_memory(size * BYTES_PER_ELEMENT)
    if not in_file:
        return np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.int8)
    folder = home() / "cache"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Reserve the space now: a full disk would later kill the process at a page write.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(1, size * BYTES_PER_ELEMENT))
            else:
                file.truncate(max(1, size * BYTES_PER_ELEMENT))
            whole = np.memmap(file, dtype=np.uint8, mode="r+")
    except OSError as error:
        free = shutil.disk_usage(folder).free if folder.is_dir() else 0
        raise ExtractionError(
            f"The means need {size * BYTES_PER_ELEMENT / 1e9:,.1f} GB, more than the free memory, "
            f"and a file of that size cannot be made in {str(folder)!r} "
            f"({error.strerror or error}; {free / 1e9:,.1f} GB free). Free memory or disk space, "
            "or choose fewer layers (layers=...), fewer sites, a higher min_count or a smaller "
            "corpus (limit=...)."
        ) from error
    floats = whole[: 4 * size].view(np.float32).reshape(shape)
    return floats, whole[4 * size : 5 * size].view(np.int8).reshape(shape)


def select(
    mean: np.ndarray, extra: np.ndarray | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Copy the means of some groups to arrays from :func:`allocate`.

    Args:
        mean, extra: ``(L, T, d)`` means and their extra bytes (or ``None``).
        rows: ``(K,)`` indices of the groups wanted, or ``(T,)`` booleans.

    Returns:
        ``(L, K, d)`` means and extra bytes.

    Raises:
        ExtractionError: if neither memory nor disk has room for them.
    """
    rows = np.arange(mean.shape[1])[rows]
    floats, extras = allocate((mean.shape[0], len(rows), mean.shape[2]))
    for at in range(len(mean)):  # layer by layer, since all of them may not fit into memory
        floats[at] = mean[at][rows]
        if extra is not None:
            extras[at] = extra[at][rows]
    return floats, None if extra is None else extras
