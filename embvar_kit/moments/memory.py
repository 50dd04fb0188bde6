"""Where the means of a pass are kept: in memory, or in a file where they would not fit."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from contextlib import suppress

import numpy as np
import psutil

from embvar_kit.errors import ExtractionError
from embvar_kit.files import home

BYTES_PER_ELEMENT = 5
"""Of a mean: a float32 and one extra byte (see :class:`embvar_kit.GroupedMoments`)."""

HOST_MOMENTS = ("cpu", "mps")
"""Kinds of device whose moments are kept on the host: MPS has no float64."""

_SHARE = 0.75  # of the free memory that means may take: the model's own buffers need some, too


def fit_into_memory(n_bytes: int) -> bool:
    """Whether the machine has room for so many bytes of means beside the model's work."""
    return n_bytes <= _SHARE * psutil.virtual_memory().available


def fit_onto_device(n_bytes: int, free: int) -> bool:
    """The same for a device of which ``free`` bytes are free."""
    return n_bytes <= _SHARE * free


def give_back() -> None:
    """Hand memory that is free, in pieces between pieces in use, back to the system.

    glibc keeps it, and tensors of a different shape in every batch leave more and more of it.
    Other C libraries see to it themselves.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def allocate(
    shape: tuple[int, ...], *, in_file: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Arrays for means: float32 and, for the extra bytes, int8.

    Args:
        shape: of both, ``(..., d)``.
        in_file: map them from a file without a name in the kit's cache, which is gone with the
            arrays, instead of taking memory; by default, if they would not fit into it.

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
            # Reserved now: a page that finds the disk full later on would end the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(1, size * BYTES_PER_ELEMENT))
            else:
                file.truncate(max(1, size * BYTES_PER_ELEMENT))
            whole = np.memmap(file, dtype=np.uint8, mode="r+")
    except OSError as error:
        free = shutil.disk_usage(folder).free if folder.is_dir() else 0
        raise ExtractionError(
            f"The means need {size * BYTES_PER_ELEMENT / 1e9:,.1f} GB, more than the memory that "
            f"is free, and no file of that size can be had in {str(folder)!r} "
            f"({error.strerror or error}; {free / 1e9:,.1f} GB free): free some of either, or take "
            "fewer layers (layers=...), fewer sites, a higher min_count or a smaller corpus "
            "(limit=...)."
        ) from error
    floats = whole[: 4 * size].view(np.float32).reshape(shape)
    return floats, whole[4 * size : 5 * size].view(np.int8).reshape(shape)


def select(
    mean: np.ndarray, extra: np.ndarray | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Means of some groups: of ``(L, T, d)`` those at ``rows``, with room from :func:`allocate`.

    Raises:
        ExtractionError: if neither memory nor disk has room for them.
    """
    rows = np.arange(mean.shape[1])[rows]
    floats, extras = allocate((mean.shape[0], len(rows), mean.shape[2]))
    for at in range(len(mean)):  # one layer at a time: all of them may be more than the memory
        floats[at] = mean[at][rows]
        if extra is not None:
            extras[at] = extra[at][rows]
    return floats, None if extra is None else extras
